"""Verify data: whether every byte of a backup is what was written, and what its index announces."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

from volback.archive import ranges
from volback.archive.announced import Announced, expected_of
from volback.archive.seal import in_order
from volback.archive.segments import Segment
from volback.catalog.index import begin_of, check_units
from volback.catalog.keys import BackupKey
from volback.catalog.units import Frame, Member, Piece, Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import IntegrityError, VolbackError
from volback.operations.open_backup import OpenBackup
from volback.operations.seen import Lost, Seen, records_of
from volback.state.damaged import WHOLE


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged object of a backup, and the files that are lost with it."""

    backup: str
    object: str
    message: str
    paths: list[str]
    error: VolbackError | None = None
    """Why it cannot be read, where it is not damaged: the store did not return it."""


def read_all(ctx: Context, repository: Repository, backup: OpenBackup, seen: Seen) -> list[Damage]:
    """Read every extent once; the data object's own digest finds damage outside of them.

    What the index shares with a backup that was read before has been read with that one, and so has what a new line
    uses again: the same bytes, in which it announces the same members. What is damaged is remembered.
    """
    manifest, parts = backup.manifest, Parts(backup, seen)
    ctx.progress.start(f"verify {backup.name}", total_bytes=None, total_files=None)
    index, own = _IndexCheck(backup), _DataObject(backup)
    for part, item, stored, raw in _checked(backup, parts):
        ctx.progress.advance(raw_bytes=item.stop - item.start)
        own.add(item.piece.frame, stored)
        frame = item.piece.frame
        if index.compare(part, raw) or (raw is not None and part.is_data):
            seen.note(_object_of(backup, frame), frame, part.records)
        if raw is None:
            part.lost.append(Lost((frame.backup, frame.offset), backup.data_key(frame.backup), part.paths()))
    bad, frames = parts.bad(), parts.frames()
    damaged = [Damage(backup.name, key, f"{key} is damaged", list(dict.fromkeys(paths))) for key, paths in bad.items()]
    if seen.subset is None and manifest.data_key not in bad and not own.is_as_written():
        damaged.append(Damage(backup.name, manifest.data_key, f"{manifest.data_key} is not what was written", []))
        frames.add((manifest.id, WHOLE))
    is_intact = not damaged and seen.subset is None
    repository.note_damaged(manifest, frames, read={manifest.id} if is_intact else ())
    return damaged + index.damage(parts.faults())


def _object_of(backup: OpenBackup, frame: Frame) -> BackupKey:
    return BackupKey(backup.key.host, backup.key.volume, frame.backup)


class Parts:
    """Every piece of a backup that is wanted and was not read before, whole, in stream order."""

    def __init__(self, backup: OpenBackup, seen: Seen) -> None:
        self._backup = backup
        self._seen = seen
        self._lost: list[list[Lost]] = []
        self._stream = hashlib.sha256()
        self._faults: list[str] = []
        self._last_kind = ""
        self._units = 0

    def __iter__(self) -> Iterator[tuple[_Part, ranges.Slice]]:
        for segment in self._backup.segments:
            lost, is_seen = self._seen.lost(segment, self._backup.key)
            self._lost.append(lost)
            if is_seen:
                for line in segment.lines():
                    begin = begin_of(line, room=segment.room)
                    for id_ in {frame.backup for frame in begin.frames}:
                        self._backup.data_key(id_)
                    self._note(segment, begin.kind, begin.digest)
                continue
            for unit in self._backup.units_of(segment):
                self._note(segment, unit.kind, unit.digest)
                yield from self._parts_of(unit, lost)

    def _parts_of(self, unit: Unit, lost: list[Lost]) -> list[tuple[_Part, ranges.Slice]]:
        """What of a unit is read."""
        wanted = [self._is_wanted(piece.frame) for piece in unit.pieces]
        is_whole, skipped = all(wanted), 0
        records = records_of(unit) if self._seen.is_remembering and unit.members else repeat(b"")
        parts: list[tuple[_Part, ranges.Slice]] = []
        for start, item, is_wanted, record in zip(unit.starts(), ranges.whole(unit.pieces), wanted, records):  # noqa: B905
            if is_wanted and not self._is_read(item.piece, record):
                parts.append((_Part(unit, start, start + item.stop, lost, is_whole, record, skipped), item))
                skipped = 0
            elif is_wanted:
                skipped += item.stop
        if parts and skipped:
            last, item = parts[-1]
            parts[-1] = last._replace(skipped_after=skipped), item
        return parts

    def _is_read(self, piece: Piece, records: bytes) -> bool:
        self._backup.data_key(piece.frame.backup)
        return self._seen.holds(_object_of(self._backup, piece.frame), piece.frame, records)

    def _is_wanted(self, frame: Frame) -> bool:
        subset = self._seen.subset
        return subset is None or subset.holds(self._backup.data_key(frame.backup), frame.offset)

    def _note(self, segment: Segment, kind: str, digest: bytes) -> None:
        check_units(self._units, segment.room)
        self._units += 1
        self._stream.update(digest)
        if self._last_kind == "end":
            self._faults.append("it goes on after the end of the archive")
        self._last_kind = kind

    def bad(self) -> dict[str, list[str]]:
        """The data objects that are damaged, and the paths that are lost with each."""
        found: dict[str, list[str]] = {}
        for lost in self._lost:
            for item in lost:
                found.setdefault(item.key, []).extend(item.paths)
        return found

    def frames(self) -> set[tuple[str, int]]:
        """The damaged frames."""
        return {item.frame for lost in self._lost for item in lost}

    def faults(self) -> list[str]:
        """What is wrong with the index as a whole."""
        faults = list(dict.fromkeys(self._faults))
        if self._last_kind != "end":
            faults.append("it has no end of the archive")
        if self._stream.hexdigest() != self._backup.manifest.digest:
            faults.append("it is not the index of this backup")
        return faults


class _DataObject:
    """Compares the backup's own data object, byte by byte, with what its manifest says.

    The stored bytes are those that are read for the extents, in order; only where an increment's frames come in another
    order is the object read once more.
    """

    def __init__(self, backup: OpenBackup) -> None:
        self._backup = backup
        self._digest = hashlib.sha256()
        self._at = 0
        self._is_in_order = True

    def add(self, frame: Frame, stored: bytes | memoryview | None) -> None:
        """Add a frame's stored bytes; None where they were read before, or are damaged."""
        if stored is None or frame.backup != self._backup.manifest.id:
            return
        self._is_in_order &= frame.offset == self._at
        self._at += len(stored)
        self._digest.update(stored)

    def is_as_written(self) -> bool:
        """Whether it is."""
        expected = self._backup.manifest.data
        if not self._is_in_order or self._at != expected.size_bytes:
            self._digest, self._at = hashlib.sha256(), 0
            for buffer in self._backup.open_range(self._backup.manifest.id, 0, expected.size_bytes + 1):
                self._digest.update(buffer)
                self._at += len(buffer)
        return self._at == expected.size_bytes and self._digest.hexdigest() == expected.sha256


class _IndexCheck:
    """Compares the members that the index announces with those in the data; a unit with a damaged piece is left out."""

    def __init__(self, backup: OpenBackup) -> None:
        self._backup = backup
        self._announced: Announced | None = None
        self._faults: dict[str, None] = {}
        self._paths: dict[str, None] = {}

    def compare(self, part: _Part, raw: memoryview | None) -> bool:
        """Compare the next piece; None is one that is damaged. Units that are not read whole are left out.

        Returns whether the piece is what the line announces, from the beginning of a header or of data to its end.
        """
        if part.start == part.skipped_before:
            self._announced = Announced(f"backup {self._backup.name}")
            self._announced.announce(expected_of(part.unit))
        announced = self._announced
        if not part.is_whole or raw is None or (announced is not None and not announced.skip(part.skipped_before)):
            announced = self._announced = None
        if announced is None or raw is None:
            return False
        try:
            announced.feed(raw)
            is_in_header = announced.is_in_header
            if not announced.skip(part.skipped_after):
                self._announced = None
            elif part.stop + part.skipped_after == part.unit.raw_bytes:
                announced.end()
        except IntegrityError as exc:
            self._announced = None
            self._faults[exc.message] = None
            self._paths |= dict.fromkeys(part.paths())
            return False
        return not is_in_header

    def damage(self, faults: list[str]) -> list[Damage]:
        """What was found, and these faults of the whole index: at most one damage, of the index."""
        found = [*self._faults, *faults]
        if not found:
            return []
        key, fault = self._backup.manifest.index_key, found[0]
        return [Damage(self._backup.name, key, f"{key} does not announce what the data holds: {fault}", [*self._paths])]


class _Part(NamedTuple):
    """One piece's place in its unit."""

    unit: Unit
    start: int
    stop: int
    lost: list[Lost]
    """Of its segment."""
    is_whole: bool
    """Whether every piece of its unit is read, or was before."""
    records: bytes
    """What is remembered of it."""
    skipped_before: int
    """Bytes of the pieces before it, after the last one that is read, that were read before."""
    skipped_after: int = 0
    """The same of pieces after it, if none of the unit is read any more."""

    @property
    def is_data(self) -> bool:
        """Whether no member begins in the piece: there is no header to compare."""
        begins = (bisect_left(self.unit.members, at, key=_offset) for at in (self.start, self.stop))
        return next(begins) == next(begins)

    def paths(self) -> list[str]:
        """Paths of the unit's members that have bytes in the piece."""
        members = self.unit.members
        first = bisect_right(members, self.start, key=_offset) - 1
        last = bisect_left(members, self.stop, key=_offset)
        return [member.path.decode(errors="backslashreplace") or "." for member in members[max(first, 0) : last]]


_Checked = tuple[ranges.Slice, bytes | memoryview | None, memoryview | None]


def _checked(backup: OpenBackup, parts_of: Parts) -> Iterator[tuple[_Part, *_Checked]]:
    """Every piece in order, with its place in its unit, the stored bytes of its frame where they were read for it, and
    its raw bytes (None where it is damaged)."""
    parts: deque[_Part] = deque()

    def slices() -> Iterator[ranges.Slice]:
        for part, item in parts_of:
            parts.append(part)
            yield item

    def check(fetched: ranges.Fetched) -> _Checked:
        stored = fetched.frame.stored if fetched.is_first else None
        try:
            return fetched.slice, stored, backup.open_slice(fetched)
        except IntegrityError:
            return fetched.slice, stored, None

    with closing(in_order(check, backup.fetch(slices()))) as checked:
        for item, stored, raw in checked:
            yield parts.popleft(), item, stored, raw


def _offset(member: Member) -> int:
    return member.offset
