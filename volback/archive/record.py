"""Record: sealed frames become one data object and its index, with the offset of each frame and the totals of the
backup."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from volback.archive.codec import Compressor
from volback.archive.cut import Reused, UnitEnd
from volback.archive.seal import Sealed, SealedFrame
from volback.catalog.index import encode_unit
from volback.catalog.model import Frame, ObjectDigest, Unit
from volback.progress import Progress


class Recorder:
    """Records one backup; its totals are complete once `data` is exhausted."""

    def __init__(self, backup_id: str, progress: Progress) -> None:
        self.stored_bytes = 0
        """Of this backup's data object."""
        self.reused_bytes = 0
        """Raw bytes that are stored in data objects of other backups."""
        self.depends_on: set[str] = set()
        """Ids of these backups."""
        self._id = backup_id
        self._progress = progress
        self._frames: list[Frame] = []
        self._data = hashlib.sha256()
        self._stream = hashlib.sha256()
        self._index = Compressor()

    def data(self, sealed: Generator[Sealed, None, None]) -> Generator[bytes, None, None]:
        """Yield the bytes of the data object, and note each frame and unit. Closed early, it closes `sealed`."""
        with closing(sealed):
            yield from self._data_of(sealed)

    def _data_of(self, sealed: Iterable[Sealed]) -> Iterator[bytes]:
        for item in sealed:
            if isinstance(item, UnitEnd):
                self._end_unit(item)
            elif isinstance(item, Reused):
                self._note_reused(item.frame)
            else:
                self._note_new(item)
                yield item.stored

    def data_digest(self) -> ObjectDigest:
        """Size and SHA-256 of the data object."""
        return ObjectDigest(size_bytes=self.stored_bytes, sha256=self._data.hexdigest())

    def stream_digest(self) -> str:
        """SHA-256 over all frames' digests in stream order: the same whether they are new or reused."""
        return self._stream.hexdigest()

    def index(self) -> tuple[list[bytes], ObjectDigest]:
        """End the index; return its stored bytes, and their size and SHA-256."""
        buffers = self._index.end()
        digest = hashlib.sha256()
        for buffer in buffers:
            digest.update(buffer)
        return buffers, ObjectDigest(size_bytes=sum(map(len, buffers)), sha256=digest.hexdigest())

    def _note_new(self, item: SealedFrame) -> None:
        size = len(item.stored)
        self._note(Frame(self._id, self.stored_bytes, size, item.raw_bytes, item.sha256))
        self.stored_bytes += size
        self._data.update(item.stored)
        self._progress.advance(stored_bytes=size)

    def _note_reused(self, frame: Frame) -> None:
        self._note(frame)
        if frame.backup != self._id:
            self.reused_bytes += frame.raw_bytes
            self.depends_on.add(frame.backup)

    def _note(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._stream.update(bytes.fromhex(frame.sha256))
        self._progress.advance(raw_bytes=frame.raw_bytes)

    def _end_unit(self, end: UnitEnd) -> None:
        self._index.feed(encode_unit(Unit(end.kind, self._frames, end.members)))
        self._progress.advance(files=len(end.members))
        self._frames = []
