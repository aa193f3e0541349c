"""Seen: what a verification of several backups has read, so that what they share is read once."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from volback.archive.segments import Segment
from volback.catalog.keys import BackupKey
from volback.catalog.units import Frame, Span, Unit
from volback.policy.subset import Subset

_RECORD, _MASK = struct.Struct(">QQ16s"), 2**64 - 1
_RECORD_BYTES = _RECORD.size
_FRAME_RECORD_BYTES = 150
"""What a frame takes in memory beside the records of its extents."""


class Lost(NamedTuple):
    """A damaged frame, the data object in which it lies, and the paths that are lost with it."""

    frame: tuple[str, int]
    key: str
    paths: list[str]


class Seen:
    """The segments of indexes whose data has been read, or the part of it that is wanted, and what was damaged."""

    def __init__(self, subset: Subset | None = None, *, remembered_bytes: int = 0) -> None:
        """So much may be kept of which extents of large files have been read."""
        self.subset = subset
        self._lost: dict[tuple[BackupKey, int], list[Lost]] = {}
        self._read: dict[BackupKey, dict[int, bytes]] = {}
        """Records of extents, by data object and offset of their frame."""
        self.is_remembering = remembered_bytes > 0
        self._left_bytes = remembered_bytes

    def note(self, of: BackupKey, frame: Frame, records: bytes) -> None:
        """Remember that a piece of a frame was read and compared, and is intact."""
        if records and len(records) + _FRAME_RECORD_BYTES <= self._left_bytes and not self.holds(of, frame, records):
            frames = self._read.setdefault(of, {})
            self._left_bytes -= len(records) + _FRAME_RECORD_BYTES
            frames[frame.offset] = frames.get(frame.offset, b"") + records

    def holds(self, of: BackupKey, frame: Frame, records: bytes) -> bool:
        """Whether a piece with these records was read and compared, and is intact."""
        known = self._read.get(of, {}).get(frame.offset)
        return known is not None and bool(records) and known.find(records) % _RECORD_BYTES == 0

    def lost(self, segment: Segment, of: BackupKey) -> tuple[list[Lost], bool]:
        """What was damaged of a segment, to add to, and whether it was read before."""
        key = BackupKey(of.host, of.volume, segment.backup), segment.offset
        is_seen = key in self._lost
        return self._lost.setdefault(key, []), is_seen


def records_of(unit: Unit) -> Iterator[bytes]:
    """For each piece, in few bytes: the place of each extent, and a digest of it and of the members that begin in it,
    as the line announces them."""
    spans, at = deque(unit.spans()), 0
    for piece in unit.pieces:
        records = []
        for start, size, digest in piece.extents():
            begun = [digest]
            while spans and spans[0].start < at + size:
                begun.append(repr(_announced(spans.popleft(), at)).encode())
            of_both = digest if len(begun) == 1 else hashlib.sha256(b"".join(begun)).digest()
            records.append(_RECORD.pack(start & _MASK, size & _MASK, of_both))
            at += size
        yield b"".join(records)


def _announced(span: Span, at: int) -> tuple[object, ...]:
    """All that is compared of a member's header, and its place in an extent that begins at `at`."""
    member = span.member
    facts = (member.path, member.type, member.size_bytes, member.link, member.mode, member.uid, member.gid)
    return (span.start - at, span.stop - at, *facts)
