"""Ranges: which bytes of which data object hold the wanted frames, and which part of a frame is wanted.

Neighbouring frames are joined into one range of up to 16 MiB, so that a whole backup is read in few requests
and one file in one. The next ranges are read in threads while one is used, which hides the latency of a remote store.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from volback.ahead import read_ahead
from volback.catalog.model import Frame, Unit

RANGE_BYTES = 16 * 1024 * 1024
"""With four ranges read at once, 4 x 16 MiB are held at most, and the one in use."""


_RAW_MAX_BYTES = 64 * 1024 * 1024
"""Of the frames of one range: the members of what is read ahead are held until it has been compared with them."""
_FRAMES_MAX = 4096
"""In one range: a frame can be stored in a few bytes, and hold few."""


class Slice(NamedTuple):
    """Bytes `start` to `stop` of a frame's raw bytes, after `before` (bytes that do not come from a frame)."""

    frame: Frame
    start: int
    stop: int
    before: bytes = b""


OpenRange = Callable[[str, int, int], Iterator[bytes]]


def whole(frames: Iterable[Frame]) -> Iterator[Slice]:
    """Every frame, whole."""
    return (Slice(frame, 0, frame.raw_bytes) for frame in frames)


def part(
    unit: Unit, start: int, stop: int, *, before: bytes = b"", starts: Sequence[int] | None = None
) -> Iterator[Slice]:
    """The slices that hold bytes `start` to `stop` of a unit's raw bytes.

    Who asks for many parts of a unit gives the `starts` of its frames: the first one is then found by bisection.
    """
    known = list(unit.starts()) if starts is None else starts
    for number in range(max(bisect_right(known, start) - 1, 0), len(known)):
        frame, at = unit.frames[number], known[number]
        if at >= stop:
            return
        first, last = max(start - at, 0), min(stop - at, frame.raw_bytes)
        if first < last:
            yield Slice(frame, first, last, before)
            before = b""


def fetch(
    slices: Iterable[Slice], open_range: OpenRange, *, ahead: int = 1
) -> Generator[tuple[Slice, bytes | memoryview], None, None]:
    """Yield each slice with its frame's stored bytes, in order; the caller's own thread iterates `slices`.

    `open_range(backup id, offset, length)` reads a data object, in up to `ahead` threads at once (1: in the caller's);
    missing bytes make the result shorter, and `unseal` reports it. The first error in stream order is raised. If
    closed early, it ends the reads in progress, and leaves no thread.
    """

    def read(run: list[Slice], stop: threading.Event) -> tuple[list[Slice], memoryview]:
        first, last = run[0].frame, run[-1].frame
        length = last.offset + last.stored_bytes - first.offset
        return run, _joined(open_range(first.backup, first.offset, length), stop)

    with closing(read_ahead(read, _runs(_merged(slices)), ahead=ahead)) as runs:
        for run, stored in runs:
            for item in run:
                start = item.frame.offset - run[0].frame.offset
                yield item, stored[start : start + item.frame.stored_bytes]


def read_pieces(
    open_piece: Callable[[int, int], Iterator[bytes]], length: int, *, ahead: int = 1
) -> Generator[memoryview, None, None]:
    """Yield the first `length` bytes of one object in order, in pieces of 16 MiB, as `fetch` yields ranges.

    `open_piece(start, length)` reads the object; it ends where a piece is shorter.
    """

    def read(start: int, stop: threading.Event) -> memoryview:
        return _joined(open_piece(start, min(RANGE_BYTES, length - start)), stop)

    with closing(read_ahead(read, range(0, length, RANGE_BYTES), ahead=ahead)) as pieces:
        for start, piece in zip(range(0, length, RANGE_BYTES), pieces, strict=True):
            yield piece
            if piece.nbytes < min(RANGE_BYTES, length - start):
                return


def _merged(slices: Iterable[Slice]) -> Iterator[Slice]:
    """Joins consecutive parts of one frame: so a frame of a thousand wanted files is opened once."""
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
    size = raw = 0
    for item in slices:
        frame = item.frame
        is_full = size + frame.stored_bytes > RANGE_BYTES or raw + frame.raw_bytes > _RAW_MAX_BYTES
        if run and (is_full or len(run) >= _FRAMES_MAX or not _follows(run[-1].frame, frame)):
            yield run
            run, size, raw = [], 0, 0
        run.append(item)
        size += frame.stored_bytes
        raw += frame.raw_bytes
    if run:
        yield run


def _follows(frame: Frame, after: Frame) -> bool:
    return frame.backup == after.backup and after.offset in (frame.offset + frame.stored_bytes, frame.offset)


def _joined(buffers: Iterator[bytes], stop: threading.Event) -> memoryview:
    """All buffers, or fewer once `stop` is set; a generator is closed here, in the thread that runs it."""
    parts = []
    try:
        for part in buffers:
            parts.append(part)
            if stop.is_set():
                break
    finally:
        if isinstance(buffers, Generator):
            buffers.close()
    return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
