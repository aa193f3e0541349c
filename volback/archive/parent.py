"""Parent: what an earlier backup has already, so that it need not be stored, or even read, again.

Pure lookups over that backup's index. A planned unit whose scan is the parent's is used unchanged: its line is found by
its fingerprint, and nothing of it is decoded. A unit that has to be read is looked up where the parent has the same
paths; what is not found there is looked up among all units that were not used, so that what was renamed is found too,
and among unchanged large files, of which it may be a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from volback.archive.lookup import KnownExtent, Line, StoredExtents, no_extent, sort_key
from volback.archive.plan import Plan, PlannedUnit
from volback.archive.segments import AFTER_BYTES, Segment
from volback.catalog.index import LineBegin, begin_of, check_units
from volback.catalog.units import Frame, Unit
from volback.errors import FormatError


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


def units_with(lines: Iterable[Reused], is_wanted: Callable[[Frame], bool]) -> Iterator[Unit]:
    """Decode the units that have something in a frame that is wanted, and no other."""
    for line in lines:
        if any(map(is_wanted, line.begin.frames)):
            yield line.segment.unit(line.number)


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

    def former(self, path: bytes) -> Segment | None:
        """Where the index has the former line of a large file that was read and has changed."""
        return None


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
        self._reused: dict[int, Reused] = {}
        wanted = {} if reread else {plan.scan_of(unit)[0]: number for number, unit in enumerate(plan.units)}
        wanted.pop("", None)
        self._hashes: dict[int, tuple[Segment, int]] = {}
        self._end: Line | None = None
        self._files: dict[bytes, Segment] = {}
        """Those whose lines are long, by what their paths are sorted by."""
        lines: list[Line] = []
        unchanged_files: list[Line] = []
        for unit in units:
            begin = unit.begin
            is_usable = begin.scan and is_settled(begin.newest_ns) and not any(map(is_damaged, begin.frames))
            planned = wanted.pop(begin.scan, None) if is_usable else None
            if planned is not None:
                self._reused[planned] = unit
                if begin.kind == "file":
                    unchanged_files.append(Line(unit.segment, unit.number, b""))
            else:
                lines += self._looked_up(unit)
        self._stored = StoredExtents(lines, is_damaged, unchanged_files)
        self._starts = {plan.units[number].start for number in self._reused}

    def _looked_up(self, unit: Reused) -> Iterator[Line]:
        """A unit that is not used unchanged, to be looked up."""
        line = Line.of(unit.segment, unit.number)
        self._hashes[hash(unit.segment.line(unit.number))] = (unit.segment, unit.number)
        if unit.begin.kind == "file" and len(unit.segment.line(unit.number)) >= AFTER_BYTES:
            self._files[line.path] = unit.segment
        if unit.begin.kind == "end":
            self._end = line
        else:
            yield line

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

    def former(self, path: bytes) -> Segment | None:
        """Where the index has the former line of a large file that was read and has changed."""
        return self._files.get(sort_key(path))

    def known(self, number: int) -> KnownExtent:
        """The lookup for the extents of this unit of the plan; for the number after the last unit, of the end."""
        return self._stored.known(self._near(number))

    def _near(self, number: int) -> list[Line]:
        """The parent's units that can hold the unit's paths, as far as they are not used unchanged."""
        if number >= len(self._plan.units):
            return [self._end] if self._end else []
        unit = self._plan.units[number]
        return self._stored.near(self._plan.key(unit.start), self._plan.key(unit.stop - 1))


def _check_holders(frames: Collection[Frame], holders: Collection[str] | None) -> None:
    if holders is None:
        return
    for frame in frames:
        if frame.backup not in holders:
            raise FormatError(f"its index names data of backup {frame.backup}, which its manifest does not")
