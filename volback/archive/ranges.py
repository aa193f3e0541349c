"""Ranges: which bytes of which data object hold the wanted frames, and which part of a frame is wanted.

Neighbouring frames are joined into one range of up to 16 MiB, so that a whole backup is read in few requests
and one file in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from volback.catalog.model import Frame, Unit

RANGE_BYTES = 16 * 1024 * 1024


class Slice(NamedTuple):
    """Bytes `start` to `stop` of a frame's raw bytes, after `before` (bytes that come from no frame)."""

    frame: Frame
    start: int
    stop: int
    before: bytes = b""


def whole(frames: Iterable[Frame]) -> Iterator[Slice]:
    """Every frame, whole."""
    return (Slice(frame, 0, frame.raw_bytes) for frame in frames)


def part(unit: Unit, start: int, stop: int, *, before: bytes = b"") -> Iterator[Slice]:
    """The slices that hold bytes `start` to `stop` of a unit's raw bytes."""
    at = 0
    for frame in unit.frames:
        first, last = max(start - at, 0), min(stop - at, frame.raw_bytes)
        if first < last:
            yield Slice(frame, first, last, before)
            before = b""
        at += frame.raw_bytes


def unit_bytes(unit: Unit) -> int:
    """Raw size of a unit."""
    return sum(frame.raw_bytes for frame in unit.frames)


def fetch(
    slices: Iterable[Slice], open_range: Callable[[str, int, int], Iterator[bytes]]
) -> Iterator[tuple[Slice, bytes | memoryview]]:
    """Yield each slice with its frame's stored bytes, in order.

    `open_range(backup id, offset, length)` reads a data object; what it lacks arrives short, and `unseal` says so.
    """
    for run in _runs(_merged(slices)):
        first, last = run[0].frame, run[-1].frame
        stored = _joined(open_range(first.backup, first.offset, last.offset + last.stored_bytes - first.offset))
        for item in run:
            start = item.frame.offset - first.offset
            yield item, stored[start : start + item.frame.stored_bytes]


def _merged(slices: Iterable[Slice]) -> Iterator[Slice]:
    """Parts of one frame that follow on one another, as one: so a frame of a thousand wanted files is opened once."""
    last: Slice | None = None
    for item in slices:
        if last is not None and not item.before and item.start == last.stop and item.frame == last.frame:
            last = last._replace(stop=item.stop)
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def _runs(slices: Iterable[Slice]) -> Iterator[list[Slice]]:
    run: list[Slice] = []
    size = 0
    for item in slices:
        frame = item.frame
        adjacent = run and _follows(run[-1].frame, frame)
        if run and (not adjacent or size + frame.stored_bytes > RANGE_BYTES):
            yield run
            run, size = [], 0
        run.append(item)
        size += frame.stored_bytes
    if run:
        yield run


def _follows(frame: Frame, after: Frame) -> bool:
    return frame.backup == after.backup and after.offset in (frame.offset + frame.stored_bytes, frame.offset)


def _joined(buffers: Iterator[bytes]) -> memoryview:
    parts = list(buffers)
    return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
