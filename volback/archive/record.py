"""Record: sealed frames become one data object and its index, with the place of each extent and the totals of the
backup."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, takewhile

from volback.archive.codec import DEFAULT_LEVEL
from volback.archive.cut import UnitEnd
from volback.archive.frames import UsedFrames, joined
from volback.archive.lookup import Place
from volback.archive.parent import Parent, Reused
from volback.archive.seal import Extents, NewFrame, NewPlace, Sealed
from volback.archive.segments import IndexWriter, Segment, StoredIndex
from volback.catalog.index import encode_unit
from volback.catalog.model import ObjectDigest
from volback.catalog.units import Frame, Member, Piece, Unit
from volback.progress import Progress

_ROOT = Member(b"", "d", 0, 0, 0, 0, 0, 0, 0, b"", 0)


class Recorder:
    """Records one backup; its totals are complete once `data` is exhausted."""

    def __init__(self, backup_id: str, progress: Progress, level: int = DEFAULT_LEVEL) -> None:
        self.stored_bytes = 0
        """Of this backup's data object."""
        self.on_line: Callable[[bytes], None] | None = None
        """Called with the line of each unit that was read, once all of it is stored."""
        self.on_stored: Callable[[], None] | None = None
        """Called after each item that the store has taken."""
        self._id = backup_id
        self._level = level
        self._progress = progress
        self._data, self._hashed_bytes = hashlib.sha256(), 0
        self._hashing = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.reused_bytes = 0
        """Raw bytes that are stored in data objects of other backups."""
        self._frames = UsedFrames(self._id)
        self._stream = hashlib.sha256()
        self._index = IndexWriter(self._id, self._level)
        self._parent = Parent()
        self._extents: list[Extents] = []
        self._noted = 0
        self._waiting = deque[tuple[UnitEnd, list[Extents]] | Reused]()

    def again(self) -> list[Segment]:
        """Begin the index anew, for a second pass: `data` goes on with the data object. Return the first pass's
        index."""
        segments = self._index.segments()
        self._begin()
        return segments

    def resume(self, data: hashlib._Hash, stored_bytes: int, lines: Iterable[bytes]) -> list[Segment]:
        """Go on with a data object whose first bytes have that hash, and hold the units of these lines.

        Return their index.
        """
        self._data, self._hashed_bytes, self.stored_bytes = data.copy(), stored_bytes, stored_bytes
        for line in lines:
            self._index.add(line)
        return self.again()

    def begun_line(self) -> bytes | None:
        """A line with those extents that are stored of units whose lines are not complete.

        Of the unit that is being read, those that were stored since this was last asked.
        """
        waiting = (item[1] for item in self._waiting if not isinstance(item, Reused))
        stored = list(filter(_is_written, chain.from_iterable(waiting)))
        begun = list(takewhile(_is_written, self._extents[self._noted :]))
        self._noted += len(begun)
        pieces = list(self._pieces(stored + begun))
        return encode_unit(part_of_unit(pieces)) if pieces else None

    @property
    def used(self) -> dict[str, int]:
        """Stored bytes of the frames that are used, by the id of the other backup that holds them."""
        return self._frames.used

    @property
    def unused_bytes(self) -> int:
        """Stored bytes of this backup's data object that its index does not use: a first pass's that were replaced."""
        return self.stored_bytes - self._frames.own_bytes

    def data(self, sealed: Generator[Sealed, None, None], parent: Parent | None = None) -> Generator[bytes, None, None]:
        """Yield the bytes of the data object, and note each frame and unit. Closed early, it closes `sealed`.

        After `again`, the bytes that follow those of the first pass.
        """
        self._parent = parent or Parent()
        with closing(sealed):
            yield from self._data_of(sealed)

    def _data_of(self, sealed: Iterable[Sealed]) -> Iterator[bytes]:
        for item in sealed:
            if isinstance(item, NewFrame):
                self._note_new(item)
                yield item.stored
                item.stored = b""
            elif isinstance(item, Extents):
                self._extents.append(item)
            elif isinstance(item, Reused):
                self._waiting.append(item)
            else:
                self._waiting.append((item, self._extents))
                self._extents, self._noted = [], 0
            self._note_complete()
            if self.on_stored is not None:
                self.on_stored()

    def hashed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on the chunks of the data object, in order, for `data_digest`: in the thread that stores them."""
        for chunk in chunks:
            with self._hashing:
                self._data.update(chunk)
                self._hashed_bytes += len(chunk)
            yield chunk

    def given(self) -> ObjectDigest:
        """Size and SHA-256 of what has gone through `hashed` up to now."""
        with self._hashing:
            return ObjectDigest(size_bytes=self._hashed_bytes, sha256=self._data.hexdigest())

    def data_digest(self) -> ObjectDigest:
        """Size and SHA-256 of the data object, whose chunks have all gone through `hashed`."""
        assert self._hashed_bytes == self.stored_bytes
        return self.given()

    def stream_digest(self) -> str:
        """SHA-256 over all units' digests in stream order: the same whether they are new or reused."""
        return self._stream.hexdigest()

    def index(self) -> StoredIndex:
        """End the index."""
        return self._index.end()

    def _note_new(self, frame: NewFrame) -> None:
        size = len(frame.stored)
        frame.offset = self.stored_bytes
        frame.stored_bytes = size
        self.stored_bytes += size
        self._progress.advance(stored_bytes=size)

    def _note_complete(self) -> None:
        """Write down the units that wait first, as far as all frames have been written in which their extents lie."""
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Reused):
                self._note_reused(first)
            elif all(_is_written(extents) for extents in first[1]):
                self._note_unit(*first)
            else:
                return
            self._waiting.popleft()

    def _note_reused(self, reused: Reused) -> None:
        begin = reused.begin
        self._stream.update(begin.digest)
        self.reused_bytes += self._frames.raw_bytes_of_others(reused)
        for frame in begin.frames:
            self._frames.note(frame)
        self._index.add_unchanged(reused.segment, reused.number)
        self._progress.advance(raw_bytes=begin.raw_bytes, files=begin.members)

    def _note_unit(self, end: UnitEnd, extents: list[Extents]) -> None:
        pieces = list(self._pieces(extents))
        unit = Unit(end.kind, pieces, end.members, end.scan, end.newest_ns)
        self._stream.update(unit.digest)
        for piece in pieces:
            self._frames.note(piece.frame)
        self.reused_bytes += self._frames.raw_bytes_in_others(unit)
        line = encode_unit(unit)
        if self.on_line is not None:
            self.on_line(line)
        if (same := self._parent.same_line(line[:-1])) is not None:
            self._index.add_unchanged(*same)
        else:
            self._index.add(line, self._parent.former(end.members[0].path) if end.kind == "file" else None)
        self._progress.advance(raw_bytes=unit.raw_bytes, files=len(end.members))

    def _pieces(self, extents: list[Extents]) -> Iterator[Piece]:
        """Join extents that follow one another in a frame."""
        placed = list[tuple[Place, int, bytes]]()
        for batch in extents:
            if isinstance(batch.places, NewFrame):
                yield from joined(placed)
                placed.clear()
                yield Piece(self._new(batch.places), 0, batch.sizes, b"".join(batch.digests))
            else:
                placed += zip(map(self._placed, batch.places), batch.sizes, batch.digests, strict=True)
        yield from joined(placed)

    def _placed(self, place: Place | NewPlace) -> Place:
        return place if isinstance(place, Place) else Place(self._new(place.frame), place.start)

    def _new(self, new: NewFrame) -> Frame:
        return Frame(self._id, new.offset, new.stored_bytes, new.raw_bytes)


def part_of_unit(pieces: list[Piece]) -> Unit:
    """What serves to find some extents again: it has no fingerprint, and the root as its member."""
    return Unit("group", pieces, [_ROOT])


def _is_written(extents: Extents) -> bool:
    if isinstance(extents.places, NewFrame):
        return extents.places.offset >= 0
    return all(not isinstance(place, NewPlace) or place.frame.offset >= 0 for place in reversed(extents.places))
