"""Verify data: whether every byte of a backup is what was written, and what its index announces."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from volback.archive import ranges
from volback.archive.announced import Announced, expected_of
from volback.archive.seal import in_order
from volback.archive.segments import Segment
from volback.catalog.index import begin_of, check_units
from volback.catalog.keys import BackupKey
from volback.catalog.model import Frame, Member, Piece, Unit
from volback.context import Context, Repository
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.policy.subset import Subset
from volback.state.damaged import WHOLE

_RECORD, _MASK = struct.Struct(">QQ16s"), 2**64 - 1
_RECORD_BYTES = _RECORD.size
_FRAME_RECORD_BYTES = 150
"""What a frame takes in memory beside the records of its extents."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged object of a backup, and the files that are lost with it."""

    backup: str
    object: str
    message: str
    paths: list[str]


def read_all(ctx: Context, repository: Repository, backup: OpenBackup, seen: Seen) -> list[Damage]:
    """Read every extent once; the data object's own digest finds damage outside of them.

    What the index shares with a backup that was read before has been read with that one, and so has the data of a large
    file that a new line uses again. What is damaged is remembered.
    """
    manifest, parts = backup.manifest, Parts(backup, seen)
    ctx.progress.start(f"verify {backup.name}", total_bytes=None, total_files=None)
    index, own = _IndexCheck(backup), _DataObject(backup)
    for part, item, stored, raw in _checked(backup, parts):
        ctx.progress.advance(raw_bytes=item.stop - item.start)
        own.add(item.piece.frame, stored)
        index.compare(part, raw)
        frame = item.piece.frame
        if raw is not None and part.unit.kind == "file":
            seen.note(_object_of(backup, frame), item.piece)
        if raw is None:
            part.lost.append(_Lost((frame.backup, frame.offset), backup.data_key(frame.backup), part.paths()))
    bad, frames = parts.bad(), parts.frames()
    damaged = [Damage(backup.name, key, f"{key} is damaged", list(dict.fromkeys(paths))) for key, paths in bad.items()]
    if seen.subset is None and manifest.data_key not in bad and not own.is_as_written():
        damaged.append(Damage(backup.name, manifest.data_key, f"{manifest.data_key} is not what was written", []))
        frames.add((manifest.id, WHOLE))
    is_intact = not damaged and seen.subset is None
    repository.note_damaged(manifest, frames, read={manifest.id} if is_intact else ())
    return damaged + index.damage(parts.faults())


class _Lost(NamedTuple):
    """A damaged frame, the data object in which it lies, and the paths that are lost with it."""

    frame: tuple[str, int]
    key: str
    paths: list[str]


class Seen:
    """The segments of indexes whose data has been read, or the part of it that is wanted, and what was damaged."""

    def __init__(self, subset: Subset | None = None, *, remembered_bytes: int = 0) -> None:
        """So much may be kept of which extents of large files have been read."""
        self.subset = subset
        self._lost: dict[tuple[BackupKey, int], list[_Lost]] = {}
        self._read: dict[BackupKey, dict[int, bytes]] = {}
        """Records of extents, by data object and offset of their frame."""
        self._left_bytes = remembered_bytes

    def note(self, of: BackupKey, piece: Piece) -> None:
        """Remember that a piece was read, and is intact."""
        records = _records(piece)
        if len(records) + _FRAME_RECORD_BYTES <= self._left_bytes and not self.holds(of, piece):
            frames = self._read.setdefault(of, {})
            self._left_bytes -= len(records) + _FRAME_RECORD_BYTES
            frames[piece.frame.offset] = frames.get(piece.frame.offset, b"") + records

    def holds(self, of: BackupKey, piece: Piece) -> bool:
        """Whether the very extents of a piece were read, and are intact."""
        known = self._read.get(of, {}).get(piece.frame.offset)
        return known is not None and known.find(_records(piece)) % _RECORD_BYTES == 0

    def lost(self, segment: Segment, of: BackupKey) -> tuple[list[_Lost], bool]:
        """What was damaged of a segment, to add to, and whether it was read before."""
        key = BackupKey(of.host, of.volume, segment.backup), segment.offset
        is_seen = key in self._lost
        return self._lost.setdefault(key, []), is_seen


def _records(piece: Piece) -> bytes:
    """Place and digest of each extent, in few bytes."""
    return b"".join(_RECORD.pack(at & _MASK, size & _MASK, digest) for at, size, digest in piece.extents())


def _object_of(backup: OpenBackup, frame: Frame) -> BackupKey:
    return BackupKey(backup.key.host, backup.key.volume, frame.backup)


class Parts:
    """Every piece of a backup that is wanted and was not read before, whole, in stream order."""

    def __init__(self, backup: OpenBackup, seen: Seen) -> None:
        self._backup = backup
        self._seen = seen
        self._lost: list[list[_Lost]] = []
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

    def _parts_of(self, unit: Unit, lost: list[_Lost]) -> list[tuple[_Part, ranges.Slice]]:
        """What of a unit is read."""
        wanted = [self._is_wanted(piece.frame) for piece in unit.pieces]
        is_whole = all(wanted)
        parts: list[tuple[_Part, ranges.Slice]] = []
        for start, item, is_wanted in zip(unit.starts(), ranges.whole(unit.pieces), wanted, strict=True):
            if is_wanted and not self._is_read(unit, start, item.piece):
                parts.append((_Part(unit, start, start + item.stop, lost, is_whole), item))
            elif is_wanted and parts:
                before, slice_before = parts[-1]
                parts[-1] = before._replace(skipped_bytes=before.skipped_bytes + item.stop), slice_before
        return parts

    def _is_read(self, unit: Unit, start: int, piece: Piece) -> bool:
        """Whether these are data of a large file that were read before. Its header is in the first extent of the unit,
        and further names of it come after the data: these are compared each time."""
        if unit.kind != "file" or start < unit.pieces[0].sizes[0]:
            return False
        is_data = start + piece.raw_bytes <= next(unit.spans()).stop
        self._backup.data_key(piece.frame.backup)
        return is_data and self._seen.holds(_object_of(self._backup, piece.frame), piece)

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

    def compare(self, part: _Part, raw: memoryview | None) -> None:
        """Compare the next piece; None is one that is damaged. Units that are not read whole are left out."""
        if not part.is_whole:
            return
        if part.start == 0:
            self._announced = Announced(f"backup {self._backup.name}")
            self._announced.announce(expected_of(part.unit))
        if raw is None:
            self._announced = None
        if self._announced is None or raw is None:
            return
        try:
            self._announced.feed(raw)
            if part.skipped_bytes and not self._announced.skip(part.skipped_bytes):
                self._announced = None
            elif part.stop + part.skipped_bytes == part.unit.raw_bytes:
                self._announced.end()
        except IntegrityError as exc:
            self._announced = None
            self._faults[exc.message] = None
            self._paths |= dict.fromkeys(part.paths())

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
    lost: list[_Lost]
    """Of its segment."""
    is_whole: bool
    """Whether every piece of its unit is read, or was before."""
    skipped_bytes: int = 0
    """Of the pieces after it that were read before."""

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
