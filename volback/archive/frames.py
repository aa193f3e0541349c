"""Frames that are copied, byte for byte, into a new data object, and an index whose lines name their new places.

Of these are made an increment that is copied complete, and data objects that are packed anew. Nothing is compressed
again; what reads the frames verifies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from volback.archive.codec import DEFAULT_LEVEL
from volback.archive.lookup import Place
from volback.archive.parent import Reused
from volback.archive.ranges import Fetched
from volback.archive.segments import IndexWriter, StoredIndex
from volback.catalog.index import encode_unit
from volback.catalog.model import ObjectDigest
from volback.catalog.units import Frame, Piece, Unit
from volback.errors import IntegrityError

Verified = Generator[tuple[Fetched, memoryview], None, None]
"""Slices whose extents have been verified, in order (`seal.unseal`)."""


class CopiedFrames:
    """Where frames of other data objects lie in a new one, each once, in the order in which they were asked for."""

    def __init__(self, backup: str) -> None:
        """`backup` is the id of that to which the new data object belongs."""
        self.stored_bytes = 0
        """Of all frames that have a place."""
        self._backup = backup
        self._offsets: dict[str, dict[int, int]] = {}
        """New ones, by id and offset of old ones."""
        self._written = 0
        self._data = hashlib.sha256()

    def place(self, frame: Frame) -> Frame:
        """Return the place of a frame in the new object: the end of it, where the frame was not asked for before."""
        offsets = self._offsets.setdefault(frame.backup, {})
        if (offset := offsets.get(frame.offset)) is None:
            offset = offsets[frame.offset] = self.stored_bytes
            self.stored_bytes += frame.stored_bytes
        return Frame(self._backup, offset, frame.stored_bytes, frame.raw_bytes)

    def data(self, verified: Verified) -> Iterator[bytes | memoryview]:
        """Yield the new object's bytes, from slices that have been verified; closes `verified`.

        The slices come in the order in which `place` was asked for their frames; it may be asked while they are made.
        A frame of which several slices are wanted is written with the first of them. Raises IntegrityError where frames
        are not among them that have a place.
        """
        with closing(verified):
            for fetched, _ in verified:
                if self.place(fetched.frame.frame).offset != self._written:
                    continue
                stored = fetched.frame.stored
                self._written += len(stored)
                self._data.update(stored)
                yield stored
        if self._written != self.stored_bytes:
            raise IntegrityError("frames that an index names were not among those that were read")

    def digest(self) -> ObjectDigest:
        """Size and SHA-256 of the new object, once `data` has ended."""
        return ObjectDigest(size_bytes=self._written, sha256=self._data.hexdigest())


class UsedFrames:
    """Frames that a backup uses, each counted once."""

    def __init__(self, backup: str) -> None:
        self.own_bytes = 0
        """Stored bytes of those in the backup's own data object."""
        self.used: dict[str, int] = {}
        """Stored bytes of the others, by the id of the backup that holds them."""
        self._backup = backup
        self._seen = set[tuple[str, int]]()

    def note(self, frame: Frame) -> None:
        """Count a frame."""
        if (frame.backup, frame.offset) in self._seen:
            return
        self._seen.add((frame.backup, frame.offset))
        if frame.backup == self._backup:
            self.own_bytes += frame.stored_bytes
        else:
            self.used[frame.backup] = self.used.get(frame.backup, 0) + frame.stored_bytes

    def raw_bytes_of_others(self, reused: Reused) -> int:
        """Raw bytes of a unit that lie in data objects of other backups."""
        owners = {frame.backup for frame in reused.begin.frames}
        if self._backup not in owners:
            return reused.raw_bytes
        if len(owners) == 1:
            return 0
        return self.raw_bytes_in_others(reused.segment.unit(reused.number))

    def raw_bytes_in_others(self, unit: Unit) -> int:
        """The same of a decoded unit."""
        return sum(piece.raw_bytes for piece in unit.pieces if piece.frame.backup != self._backup)


class MovedIndex:
    """The index of a backup of which some frames have moved. Lines that name none of these stay as they are."""

    def __init__(self, backup: str, level: int = DEFAULT_LEVEL) -> None:
        self.frames = UsedFrames(backup)
        self.reused_bytes = 0
        """Raw bytes that lie in data objects of other backups."""
        self._index = IndexWriter(backup, level)
        self._stream = hashlib.sha256()

    def add(self, unit: Unit) -> None:
        """Add a unit whose pieces name the places where its extents lie now."""
        for piece in unit.pieces:
            self.frames.note(piece.frame)
        self.reused_bytes += self.frames.raw_bytes_in_others(unit)
        self._stream.update(unit.digest)
        self._index.add(encode_unit(unit))

    def add_unchanged(self, reused: Reused) -> None:
        """Add a line of another index object as it is; segments whose lines are all added are used themselves."""
        for frame in reused.begin.frames:
            self.frames.note(frame)
        self.reused_bytes += self.frames.raw_bytes_of_others(reused)
        self._stream.update(reused.begin.digest)
        self._index.add_unchanged(reused.segment, reused.number)

    def add_moved(self, reused: Reused, is_moved: Callable[[Frame], bool], moved: Callable[[Unit], Unit]) -> None:
        """Add a line; where one of its frames has moved, it is decoded, and added as `moved` returns it."""
        if any(map(is_moved, reused.begin.frames)):
            self.add(moved(reused.segment.unit(reused.number)))
        else:
            self.add_unchanged(reused)

    def stream_digest(self) -> str:
        """SHA-256 over all units' digests: that of the backup, wherever its frames lie."""
        return self._stream.hexdigest()

    def end(self) -> StoredIndex:
        """End the index."""
        return self._index.end()


def joined(extents: Iterable[tuple[Place, int, bytes]]) -> Iterator[Piece]:
    """Join extents (place, size, digest) that follow one another in a frame."""
    frame, start, stop = Frame("", 0, 0, 0), 0, 0
    sizes, digests = list[int](), list[bytes]()
    for place, size, digest in extents:
        if sizes and (place.frame != frame or place.start != stop):
            yield Piece(frame, start, sizes, b"".join(digests))
            sizes, digests = [], []
        if not sizes:
            frame, start = place
        sizes.append(size)
        digests.append(digest)
        stop = place.start + size
    if sizes:
        yield Piece(frame, start, sizes, b"".join(digests))
