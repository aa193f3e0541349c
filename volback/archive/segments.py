"""Segments: an index as independent zstd frames, each some whole lines.

An increment's index consists of runs of segments: its own, and those of earlier backups whose units have not changed.
The bytes of such a segment are used as they are; only its lines' beginnings are read.

The line of a large file that changed is compressed with the segment of its former line as the dictionary: of its 40
bytes for each extent, those that are new are stored. A dictionary has none itself, so two segments are read for one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from volback.archive.codec import compress_after, decompress, frame_length, lines_compressor
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
AFTER_BYTES = 16 * 1024
"""A line that is as long is compressed with its former one: of a file of 25 MB or more. For what a shorter one would
save, an increment's reader would read another range of an index object."""
_AFTER_LEAST = 6
"""It is stored without a dictionary where it takes more than this part of its length. With 5 MB more each night, a log
of 200 MB has a line of 135 KB, of which 97 KB are stored without, and 3 KB more each night with the same dictionary."""
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
    dictionary: Segment | None = None
    """With which it was compressed."""
    _count: int | None = None

    @property
    def digest(self) -> bytes:
        """A SHA-256: segments that have the same one have the same lines."""
        before = b"" if self.dictionary is None else self.dictionary.digest
        return hashlib.sha256(before + self.stored).digest()

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
    dictionary = b"" if segment.dictionary is None else _text(segment.dictionary.lines())
    decompressed = decompress(segment.stored, what=what, dictionary=dictionary)
    for line in read_lines(decompressed, room=segment.room, what=what):
        if at > _BEGINS_BYTES:
            raise IntegrityError(f"{what} is damaged: a segment has more lines than it may")
        yield line
        at += len(line) + 1


def _text(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def compressed_after(
    backup: str, offset: int, stored: memoryview, dictionary: memoryview, of: Run, *, room: Room = endless
) -> Segment:
    """Return the one segment of a run, and with it its dictionary, of which `of` says where it lies.

    Raises IntegrityError.
    """
    before, *others = split(of.backup, of.offset, dictionary, room=room)
    segment, *more = split(backup, offset, stored, room=room)
    if others or more:
        raise IntegrityError(f"index of backup {backup} is damaged: a segment with a dictionary is not one")
    return replace(segment, dictionary=before)


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


@dataclass(frozen=True, slots=True)
class _Own:
    """A new segment, and its dictionary, which is of another index object."""

    stored: bytes
    dictionary: Segment | None = None


@dataclass(slots=True)
class IndexWriter:
    """Lines and segments in stream order become an index."""

    backup: str
    level: int
    _parts: list[Segment | _Own] = field(default_factory=list)
    """In stream order: segments of others, and new ones."""
    _lines: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _begun: list[tuple[Segment, int]] = field(default_factory=list)
    _dictionaries: set[tuple[str, int]] = field(default_factory=set)
    """Each is that of one segment."""
    _compress: Callable[[bytes], bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._compress = lines_compressor(self.level)

    def add(self, line: bytes, former: Segment | None = None) -> None:
        """Add a new line, its newline included; `former` has the one that its unit had in an earlier backup."""
        self._give_up()
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= SEGMENT_BYTES:
            self._end_segment(former if len(line) >= AFTER_BYTES else None)

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
        is_small = segment.dictionary is None and len(segment.stored) < SEGMENT_BYTES // 16
        if (self._bytes and is_small) or not self._may_use(segment.dictionary):
            self._give_up()  # so that segments do not become smaller and smaller
            return
        self._begun.clear()
        self._end_segment()
        is_own = segment.backup == self.backup
        self._parts.append(_Own(bytes(segment.stored), segment.dictionary) if is_own else segment)

    def end(self) -> StoredIndex:
        """End the index."""
        self._end_parts()
        others = {segment.backup for segment in self._of_others()}
        if len(others) > INDEX_OBJECTS_MAX:
            self._parts = [_Own(self._whole(segment)) for segment in self.segments()]
            others = set()
        own = [part.stored for part in self._parts if isinstance(part, _Own)]
        return self._with_runs(own) if others else self._stored(own, b"", {})

    def segments(self) -> list[Segment]:
        """End the index; return its segments in order."""
        self._end_parts()
        own, found = 0, list[Segment]()
        for part in self._parts:
            if isinstance(part, _Own):
                found.append(Segment(self.backup, own, memoryview(part.stored), dictionary=part.dictionary))
                own += len(part.stored)
            else:
                found.append(part)
        return found

    def _of_others(self) -> Iterator[Segment]:
        """The segments of other index objects that are used, also as dictionaries."""
        for part in self._parts:
            if isinstance(part, Segment):
                yield part
            if part.dictionary is not None:
                yield part.dictionary

    def _whole(self, segment: Segment) -> bytes:
        return bytes(segment.stored) if segment.dictionary is None else self._compress(_text(segment.lines()))

    def _end_parts(self) -> None:
        self._give_up()
        self._end_segment()

    def _with_runs(self, own: Sequence[bytes]) -> StoredIndex:
        table = self._compress(encode_runs(list(_runs(self.segments()))))
        sizes = {(segment.backup, segment.offset): len(segment.stored) for segment in self._of_others()}
        used: dict[str, int] = {}
        for (backup, _), size in sizes.items():
            used[backup] = used.get(backup, 0) + size
        return self._stored(own, table, used)

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

    def _end_segment(self, former: Segment | None = None) -> None:
        if self._lines:
            text = b"".join(self._lines)
            self._parts.append(self._after(text, former) or _Own(self._compress(text)))
        self._lines, self._bytes = [], 0

    def _after(self, text: bytes, former: Segment | None) -> _Own | None:
        """The segment compressed with its former state, or with what that was compressed with; None where that is not
        worth it."""
        dictionary = former and (former.dictionary or former)
        if dictionary is None or dictionary.backup == self.backup:
            return None
        stored = compress_after(text, _text(dictionary.lines()))
        is_worth_it = _STORED_LEAST_BYTES <= len(stored) <= len(text) // _AFTER_LEAST
        return _Own(stored, dictionary) if is_worth_it and self._may_use(dictionary) else None

    def _may_use(self, dictionary: Segment | None) -> bool:
        """Whether no other segment has that dictionary; from then on this one has."""
        if dictionary is None:
            return True
        place = dictionary.backup, dictionary.offset
        is_free = place not in self._dictionaries
        self._dictionaries.add(place)
        return is_free


def _runs(segments: Iterable[Segment]) -> Iterator[Run]:
    """Join segments that lie side by side in an index object; one with a dictionary is a run by itself."""
    joined = list[Segment]()
    for segment in segments:
        if joined and not _follows(segment, joined[-1]):
            yield _run(joined)
            joined = []
        joined.append(segment)
    if joined:
        yield _run(joined)


def _follows(segment: Segment, before: Segment) -> bool:
    is_next = (segment.backup, segment.offset) == (before.backup, before.offset + len(before.stored))
    return is_next and segment.dictionary is None and before.dictionary is None


def _run(segments: Sequence[Segment]) -> Run:
    digest = hashlib.sha256()
    for segment in segments:
        digest.update(segment.stored)
    first = segments[0]
    dictionary = None if first.dictionary is None else _run([first.dictionary])
    return Run(first.backup, first.offset, sum(len(one.stored) for one in segments), digest.digest(), dictionary)
