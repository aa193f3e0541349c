"""Parent: what an earlier backup has already, so that it need not be stored, or even read, again.

Pure lookups over that backup's index. A planned unit whose scan is the parent's is used unchanged: its line is found by
its fingerprint, and nothing of it is decoded. A unit that has to be read is looked up where the parent has the same
paths; what is not found there is looked up among all units that were not used, so that what was renamed is found too.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from volback.archive.plan import Plan, PlannedUnit
from volback.archive.segments import Segment
from volback.catalog.index import LineBegin, begin_of, check_units, decode_unit, first_path_of
from volback.catalog.model import Frame
from volback.errors import FormatError

log = logging.getLogger(__name__)

_PATH_BYTES = 4096
"""So much of a path is kept to find what lies near another one."""
WIDE_EXTENTS_MAX = 1_000_000
"""So many extents are looked up by digest alone; each takes about 200 bytes."""


class Place(NamedTuple):
    """Where an extent is stored: in a frame, from `start` of its raw bytes on."""

    frame: Frame
    start: int


KnownExtent = Callable[[bytes], Place | None]
"""The place of the extent with this SHA-256 (binary), if there is one; called from several threads at once."""


def no_extent(_digest: bytes) -> Place | None:
    """No extent is known."""
    return None


@dataclass(frozen=True, slots=True)
class Reused:
    """A unit of the parent that may be used unchanged: line `number` of one of its segments."""

    segment: Segment
    number: int
    begin: LineBegin

    @property
    def raw_bytes(self) -> int:
        """Size of the unit."""
        return self.begin.raw_bytes


def begins_of(segments: Iterable[Segment], holders: Collection[str] | None = None) -> Iterator[Reused]:
    """Yield the units of an index, of which only the beginnings of their lines are decoded.

    `holders` are the ids of the backups whose data the index may name; None: any.

    Raises FormatError where the index is damaged.
    """
    units = 0
    for segment in segments:
        for number, line in enumerate(segment.lines()):
            check_units(units, segment.room)
            units += 1
            begin = begin_of(line, room=segment.room)
            _check_holders(begin.frames, holders)
            yield Reused(segment, number, begin)


class Parent:
    """The parent of a full backup: there is none."""

    def is_read(self, unit: PlannedUnit) -> bool:
        """Whether this unit of the plan is read."""
        return True

    def reused(self, number: int) -> Reused | None:
        """What is used instead of this unit of the plan, which is then not read."""
        return None

    def known(self, number: int) -> KnownExtent:
        """The lookup for the extents of this unit of the plan."""
        return no_extent

    def same_line(self, line: bytes) -> tuple[Segment, int] | None:
        """Where the index has this very line, without its newline: of a unit that was read and had not changed."""
        return None


class _Line(NamedTuple):
    segment: Segment
    number: int
    path: bytes


class EarlierBackup(Parent):
    """An earlier backup of the same storage, compared with a plan."""

    def __init__(
        self,
        units: Iterable[Reused],
        plan: Plan,
        is_settled: Callable[[int], bool],
        *,
        reread: bool,
        is_damaged: Callable[[Frame], bool] = lambda _: False,
    ) -> None:
        """`units` are those of its index (`begins_of`).

        `is_settled` says of a unit's newest time whether a later change would have changed the scan.

        Nothing is taken from damaged frames.

        Raises FormatError where the index is damaged.
        """
        self._plan = plan
        self._is_damaged = is_damaged
        self._reused: dict[int, Reused] = {}
        self._lines: list[_Line] = []
        self._wide: dict[bytes, Place] | None = None
        self._lock = threading.Lock()
        wanted = {} if reread else {plan.scan_of(unit)[0]: number for number, unit in enumerate(plan.units)}
        wanted.pop("", None)
        self._hashes: dict[int, tuple[Segment, int]] = {}
        self._end: _Line | None = None
        for unit in units:
            begin = unit.begin
            is_usable = begin.scan and is_settled(begin.newest_ns) and not any(map(is_damaged, begin.frames))
            planned = wanted.pop(begin.scan, None) if is_usable else None
            if planned is not None:
                self._reused[planned] = unit
            else:
                self._add_line(unit.segment, unit.number)
        self._lines.sort(key=_path)
        self._starts = {plan.units[number].start for number in self._reused}

    def _add_line(self, segment: Segment, number: int) -> None:
        """Add a unit that is not used unchanged, to be looked up."""
        line = segment.line(number)
        self._hashes[hash(line)] = (segment, number)
        if (path := first_path_of(line)) is not None:
            self._lines.append(_Line(segment, number, path[:_PATH_BYTES].replace(b"/", b"\0")))
        else:
            self._end = _Line(segment, number, b"")

    def is_read(self, unit: PlannedUnit) -> bool:
        """Whether this unit of the plan is read."""
        return unit.start not in self._starts

    def reused(self, number: int) -> Reused | None:
        """What is used instead of this unit of the plan, which is then not read."""
        return self._reused.get(number)

    def same_line(self, line: bytes) -> tuple[Segment, int] | None:
        """Where the index has this very line, without its newline: of a unit that was read and had not changed."""
        found = self._hashes.get(hash(line))
        return found if found and found[0].line(found[1]) == line else None

    def known(self, number: int) -> KnownExtent:
        """The lookup for the extents of this unit of the plan; for the number after the last unit, of the end."""
        near: dict[bytes, Place] = {}
        for line in self._near(number):
            near.update(self._places(line))

        def known(digest: bytes) -> Place | None:
            return near.get(digest) or self._everywhere().get(digest)

        return known

    def _near(self, number: int) -> list[_Line]:
        """The parent's units that can hold the unit's paths, as far as they are not used unchanged."""
        if number >= len(self._plan.units):
            return [self._end] if self._end else []
        unit = self._plan.units[number]
        first, last = self._plan.key(unit.start), self._plan.key(unit.stop - 1)
        at = max(bisect_right(self._lines, first, key=_path) - 1, 0)
        return self._lines[at : bisect_right(self._lines, last, key=_path)]

    def _everywhere(self) -> dict[bytes, Place]:
        with self._lock:
            if self._wide is None:
                self._wide = {}
                for line in self._lines:
                    if len(self._wide) > WIDE_EXTENTS_MAX:
                        break
                    self._wide.update(self._places(line))
            return self._wide

    def _places(self, line: _Line) -> Iterator[tuple[bytes, Place]]:
        """Digest and place of each extent of a unit."""
        try:
            unit = decode_unit(line.segment.line(line.number), room=line.segment.room)
        except FormatError as exc:
            log.info("nothing of a unit of backup %s is used again: %s", line.segment.backup, exc.message)
            return
        for piece in unit.pieces:
            if self._is_damaged(piece.frame):
                continue
            for start, _, digest in piece.extents():
                yield digest, Place(piece.frame, start)


def _check_holders(frames: Collection[Frame], holders: Collection[str] | None) -> None:
    if holders is None:
        return
    for frame in frames:
        if frame.backup not in holders:
            raise FormatError(f"its index names data of backup {frame.backup}, which its manifest does not")


def _path(line: _Line) -> bytes:
    return line.path
