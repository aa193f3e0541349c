"""Segments: an index as independent zstd frames, each some whole lines.

An increment's index consists of runs of segments: its own, and those of earlier backups whose units have not changed.
The bytes of such a segment are used as they are; only its lines' beginnings are read.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from volback.archive.codec import decompress, frame_length, lines_compressor
from volback.catalog.index import Room, decode_unit, endless, read_lines
from volback.catalog.model import INDEX_OBJECTS_MAX, ObjectDigest
from volback.catalog.runs import decode_runs, encode_runs
from volback.catalog.units import Run, Unit
from volback.errors import IntegrityError

SEGMENT_BYTES = 4 * 1024
"""Lines of a new segment: one or two groups. Seen with 55,000 small files, of which 1 % changed anywhere: the index of
the full backup, and what the increment stored of it, with 4 KiB: 5.27 and 1.60 MB; 8: 5.15, 1.92; 16: 5.02, 2.92;
32: 4.92, 3.73."""
_BEGINS_BYTES = 1024 * 1024
"""All lines of a segment begin within so many bytes, also in one that a later version writes."""
_STORED_LEAST_BYTES = 64
"""No segment is stored in fewer bytes: a line has two digests at least, which do not compress."""
_RUN_STORED_BYTES, _RUN_TEXT_BYTES = 32, 128
"""What a run takes in a list at least, as stored (its digest does not compress), and at most, as text."""
_KEPT_BYTES = 8 * 1024 * 1024
"""Of the lines of segments that were used last."""


@dataclass(slots=True, eq=False)
class Segment:
    """One segment, in the index object of `backup`, at `offset`."""

    backup: str
    offset: int
    stored: memoryview
    room: Room = endless
    """How much data there is for what the lines claim."""
    _count: int | None = None

    def lines(self) -> list[bytes]:
        """Its lines, without newlines. Raises IntegrityError."""
        lines = _kept.lines(self)
        self._count = len(lines)
        return lines

    def count(self) -> int:
        """How many lines it has: remembered, as the lines of all segments are not."""
        return len(self.lines()) if self._count is None else self._count

    def line(self, number: int) -> bytes:
        """One of its lines."""
        return _kept.lines(self)[number]

    def unit(self, number: int) -> Unit:
        """The unit of one of its lines. Raises IntegrityError, FormatError."""
        return decode_unit(self.line(number), room=self.room)


class _Kept:
    """The lines of some segments; several threads ask for them."""

    def __init__(self) -> None:
        self._held: OrderedDict[Segment, tuple[list[bytes], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def lines(self, segment: Segment) -> list[bytes]:
        with self._lock:
            if (found := self._held.get(segment)) is not None:
                self._held.move_to_end(segment)
                return found[0]
        lines = list(_lines_of(segment))
        size = sum(map(len, lines))
        with self._lock:
            if size <= _KEPT_BYTES and segment not in self._held:
                self._held[segment] = lines, size
                self._bytes += size
                while self._bytes > _KEPT_BYTES:
                    self._bytes -= self._held.popitem(last=False)[1][1]
        return lines


_kept = _Kept()


def _lines_of(segment: Segment) -> Iterator[bytes]:
    """A few kilobytes can claim to be gigabytes: no more of them is decompressed than a segment may hold."""
    what, at = f"index of backup {segment.backup}", 0
    for line in read_lines(decompress(segment.stored, what=what), room=segment.room, what=what):
        if at > _BEGINS_BYTES:
            raise IntegrityError(f"{what} is damaged: a segment has more lines than it may")
        yield line
        at += len(line) + 1


def split(backup: str, offset: int, stored: memoryview, *, room: Room = endless) -> Iterator[Segment]:
    """Yield the segments of a run. Raises IntegrityError."""
    at = 0
    while at < len(stored):
        try:
            length = frame_length(stored[at:])
        except IntegrityError as exc:
            raise IntegrityError(f"index of backup {backup} is damaged: {exc.message}") from exc
        if length < _STORED_LEAST_BYTES:
            raise IntegrityError(f"index of backup {backup} is damaged: a segment of {length} bytes")
        yield Segment(backup, offset + at, stored[at : at + length], room)
        at += length


def runs_of(table: memoryview, *, what: str) -> list[Run]:
    """The runs that the last segment of an increment's index object names. Raises IntegrityError, FormatError."""
    room = _RUN_TEXT_BYTES * (1 + len(table) // _RUN_STORED_BYTES)
    text = bytearray()
    for buffer in decompress(table, what=what):
        text += buffer
        if len(text) > room:
            raise IntegrityError(f"{what} is damaged: its list of runs claims more than it can hold")
    return decode_runs(bytes(text))


@dataclass(slots=True)
class StoredIndex:
    """An index as it is put into a store: the buffers of its object, and what of others it uses."""

    buffers: list[bytes]
    digest: ObjectDigest
    table_bytes: int
    used: dict[str, int]
    """Stored bytes by the id of the backup whose index object holds them."""


@dataclass(slots=True)
class IndexWriter:
    """Lines and segments in stream order become an index."""

    backup: str
    level: int
    _parts: list[Segment | bytes] = field(default_factory=list)
    """In stream order: segments of others, and the stored bytes of new ones."""
    _lines: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _begun: list[tuple[Segment, int]] = field(default_factory=list)
    _compress: Callable[[bytes], bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._compress = lines_compressor(self.level)

    def add(self, line: bytes) -> None:
        """Add a new line, its newline included."""
        self._give_up()
        self._add(line)

    def add_unchanged(self, segment: Segment, number: int) -> None:
        """Add line `number` of a segment of another backup, or of this one's first pass. If all its lines are added in
        order, it is used itself."""
        if number != len(self._begun) or (self._begun and self._begun[0][0] is not segment):
            self._give_up()
        if number != len(self._begun):
            self._add(segment.line(number) + b"\n")
            return
        self._begun.append((segment, number))
        if number + 1 < segment.count():
            return
        if self._bytes and len(segment.stored) < SEGMENT_BYTES // 16:
            self._give_up()  # so that segments do not become smaller and smaller
            return
        self._begun.clear()
        self._end_segment()
        self._parts.append(bytes(segment.stored) if segment.backup == self.backup else segment)

    def end(self) -> StoredIndex:
        """End the index."""
        self._end_parts()
        others = {part.backup for part in self._parts if isinstance(part, Segment)}
        if not others:
            return self._stored([part for part in self._parts if isinstance(part, bytes)], b"", {})
        if len(others) > INDEX_OBJECTS_MAX:
            self._parts = [bytes(part.stored) if isinstance(part, Segment) else part for part in self._parts]
        return self._with_runs()

    def segments(self) -> list[Segment]:
        """End the index; return its segments in order."""
        self._end_parts()
        own, found = 0, list[Segment]()
        for part in self._parts:
            if isinstance(part, bytes):
                found.append(Segment(self.backup, own, memoryview(part)))
                own += len(part)
            else:
                found.append(part)
        return found

    def _end_parts(self) -> None:
        self._give_up()
        self._end_segment()

    def _with_runs(self) -> StoredIndex:
        runs = list(_runs(self.segments()))
        table = self._compress(encode_runs(runs))
        used: dict[str, int] = {}
        for run in runs:
            if run.backup != self.backup:
                used[run.backup] = used.get(run.backup, 0) + run.stored_bytes
        return self._stored([part for part in self._parts if isinstance(part, bytes)], table, used)

    def _stored(self, own: Sequence[bytes], table: bytes, used: dict[str, int]) -> StoredIndex:
        buffers = [*own, table] if table else list(own)
        digest = hashlib.sha256()
        for buffer in buffers:
            digest.update(buffer)
        size = sum(map(len, buffers))
        return StoredIndex(buffers, ObjectDigest(size_bytes=size, sha256=digest.hexdigest()), len(table), used)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= SEGMENT_BYTES:
            self._end_segment()

    def _give_up(self) -> None:
        """The begun segment is not used as a whole: its lines become those of a new one."""
        begun, self._begun = self._begun, []
        for segment, number in begun:
            self._add(segment.line(number) + b"\n")

    def _end_segment(self) -> None:
        if self._lines:
            self._parts.append(self._compress(b"".join(self._lines)))
        self._lines, self._bytes = [], 0


def _runs(segments: Iterable[Segment]) -> Iterator[Run]:
    """Join segments that lie side by side in an index object."""
    first, length, digest = None, 0, hashlib.sha256()
    for segment in segments:
        if first is not None and (segment.backup, segment.offset) != (first.backup, first.offset + length):
            yield Run(first.backup, first.offset, length, digest.digest())
            first = None
        if first is None:
            first, length, digest = segment, 0, hashlib.sha256()
        length += len(segment.stored)
        digest.update(segment.stored)
    if first is not None:
        yield Run(first.backup, first.offset, length, digest.digest())
