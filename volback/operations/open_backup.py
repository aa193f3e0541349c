"""Open backup: one backup of a repository - its units, and any part of its tar stream, each byte verified."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Container, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial, reduce
from itertools import chain

from volback.archive import ranges
from volback.archive.announced import Announced
from volback.archive.codec import FrameCodec, ZstdCodec
from volback.archive.parent import Reused, begins_of
from volback.archive.seal import open_slice, unseal
from volback.archive.segments import Segment
from volback.catalog.index import select_units
from volback.catalog.model import Manifest
from volback.catalog.objects import Kept, KeptNothing
from volback.catalog.paths import PathRanges
from volback.catalog.units import Member, Span, Unit
from volback.context.repository import Repository
from volback.errors import DamagedFrame, FormatError, IntegrityError, MissingObject, NotFoundError
from volback.operations.follow import Moved, newer_revision
from volback.operations.read_index import VERIFY_HINT, IndexReader
from volback.operations.zeros import with_zeros
from volback.store.base import Store

log = logging.getLogger(__name__)


class OpenBackup:
    """A backup whose index has been read and verified against its manifest; units are decoded again at each pass."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        *,
        codec: FrameCodec | None = None,
        kept: Kept | None = None,
        note: Callable[[Manifest, Collection[tuple[str, int]]], None] = lambda *_: None,
        newest: Callable[[Manifest], Manifest | None] = lambda _: None,
    ) -> None:
        """Read the index (kept compressed: about 40 bytes per file). Raises IntegrityError, NotFoundError.

        `codec` is the one with which the backup's frames were sealed; None is plain zstd. `kept` has local copies of
        indexes, which count as read: their SHA-256 is compared. Who has to know that the repository's own are intact
        gives none (verify; a backup that builds upon them). `note` gets the frames that a read finds damaged. Where an
        object is gone, `newest` says which later revision there is: it is read on from there.
        """
        self.manifest = manifest
        self.name = manifest.name
        self.key = manifest.key
        self._store = store
        self._codec = codec or ZstdCodec()
        self._note = note
        self._newest = newest
        self._moves: list[Moved] = []
        self._current = self
        self._paths = PathRanges()
        self._data_bytes: int | None = None
        self._objects = {manifest.id: manifest.data_key} | {
            used.object_id: manifest.key_of(used) for used in manifest.uses if not used.is_index
        }
        self.segments = IndexReader(store, manifest, kept or KeptNothing(), self._room).segments()
        """Of the index, in stream order."""

    @classmethod
    def of(cls, repository: Repository, manifest: Manifest) -> OpenBackup:
        """Open a backup to use it: with local copies of its index; what a read finds damaged is remembered."""
        return cls._of(repository, manifest, kept=repository.kept, note=repository.note_damaged)

    @classmethod
    def as_stored(cls, repository: Repository, manifest: Manifest) -> OpenBackup:
        """Open it without local copies: what is verified, or built upon, must be intact in the repository."""
        return cls._of(repository, manifest)

    @classmethod
    def _of(
        cls,
        repository: Repository,
        manifest: Manifest,
        *,
        kept: Kept | None = None,
        note: Callable[[Manifest, Collection[tuple[str, int]]], None] = lambda *_: None,
    ) -> OpenBackup:
        newest, opened = partial(newer_revision, repository), repository.opened(manifest)
        try:
            return cls(repository.store, opened, kept=kept, note=note, newest=newest)
        except MissingObject:
            if (newer := newest(opened)) is None:
                raise
            return cls(repository.store, newer, kept=kept, note=note, newest=newest)

    @property
    def holders(self) -> Collection[str]:
        """The data objects that the index may name, by their object ids."""
        return self._objects.keys()

    def lines(self) -> Iterator[Reused]:
        """Its units, of which only the beginnings of their lines are decoded. Raises FormatError."""
        return begins_of(self.segments, self.holders)

    def units(self) -> Iterator[Unit]:
        """Yield the units in stream order, the end-of-archive unit last. Raises IntegrityError."""
        return (unit for _, unit in self._select(lambda _: True))

    def units_of(self, segment: Segment) -> Iterator[Unit]:
        """Yield the units of one segment. Raises IntegrityError."""
        return (unit for _, unit in self._select(lambda _: True, [segment]))

    def numbered(self, numbers: Container[int]) -> Iterator[Unit]:
        """Yield the units of these numbers, which count from 0 in stream order; no other is decoded."""
        return (unit for _, unit in self._select(numbers.__contains__))

    def around(self, paths: Collection[bytes], *, below: Collection[bytes] = ()) -> Iterator[Unit]:
        """Yield, in stream order, every unit that holds one of `paths`, or a path at or below one of `below`.

        Other units may be among them, but few of those that earlier lookups have decoded.
        """
        for number, unit in self._select(self._paths.around(paths, below=below)):
            self._paths.note(number, unit)
            yield unit

    def members(self) -> Iterator[Member]:
        """Yield every member in stream order."""
        return (member for unit in self.units() for member in unit.members)

    def find(self, path: bytes) -> tuple[Unit, Span]:
        """Return the member of this path and its unit, which holds all names of its inode. Raises NotFoundError."""
        for unit in self.around([path]):
            for span in unit.spans():
                if span.member.path == path:
                    return unit, span
        raise self.lacks(path)

    def lacks(self, path: bytes) -> NotFoundError:
        """The error for a path that is not in the backup."""
        text = path.decode(errors="backslashreplace") or "."
        return NotFoundError(f"path {text!r} is not in backup {self.name}", f"see `volback ls {self.name}`")

    def stream(self, count: Callable[[int], None] = lambda _: None) -> Iterator[bytes | memoryview]:
        """Yield the backup's whole tar stream; each frame is verified, and each member compared with the index, before
        it is yielded.

        Nothing is left to verify at its end: `manifest.digest` is over the frame digests of the index, whose own
        SHA-256 the manifest holds, so with each frame verified, in the index's order, the stream is verified. `verify
        --data` compares the two, which could differ only by an error of the writer.
        """
        announced = Announced(f"backup {self.name}")
        buffers = self.read(announced.whole(self.units()), count)
        yield from announced.passed((buffer, buffer) for buffer in buffers)

    def read(
        self, slices: Iterable[ranges.Slice], count: Callable[[int], None] = lambda _: None
    ) -> Iterator[bytes | memoryview]:
        """Yield the wanted bytes in order, each frame verified before a byte of it is yielded; `count` gets stored
        sizes."""
        with closing(self.unsealed(slices)) as unsealed:
            for fetched, raw in unsealed:
                item = fetched.slice
                if item.before:
                    yield item.before
                frame = item.piece.frame
                count(frame.stored_bytes * len(raw) // max(frame.raw_bytes, 1))
                yield raw

    def unsealed(self, slices: Iterable[ranges.Slice]) -> Generator[tuple[ranges.Fetched, memoryview], None, None]:
        """Yield slices with their frames and their raw bytes, verified: the bytes of those that are given, which may be
        joined, or in pieces where the backup was repacked meanwhile. Raises IntegrityError that names the backup."""
        waiting = deque[ranges.Slice]()
        source = ranges.merged(reduce(lambda found, moved: moved.all(found), self._moves, iter(slices)))
        while True:
            try:
                yield from self._unsealed(source, waiting)
            except MissingObject as exc:
                log.debug("%s", exc.message)
                source = ranges.merged(self._followed(exc).all(chain(list(waiting), source)))
                waiting.clear()
            else:
                return

    def unsealed_as_indexed(
        self, slices: Iterable[ranges.Slice]
    ) -> Generator[tuple[ranges.Fetched, memoryview], None, None]:
        """As `unsealed`, for who copies the frames that the index names: raises MissingObject where the backup was
        repacked meanwhile, as its bytes lie in other frames then."""
        return self._unsealed(ranges.merged(iter(slices)), deque())

    def _followed(self, why: MissingObject) -> Moved:
        """Where the newest revision has what it does not find any more. Raises that error where there is none."""
        newer = self._newest(self._current.manifest)
        if newer is None:
            raise why
        before, self._current = self._current, OpenBackup(self._store, newer, codec=self._codec)
        now = self._current._objects
        self._moves.append(Moved(before.segments, self._current.segments, before._objects.keys() - now.keys()))
        self._objects |= now
        return self._moves[-1]

    def _unsealed(
        self, slices: Iterable[ranges.Slice], waiting: deque[ranges.Slice]
    ) -> Generator[tuple[ranges.Fetched, memoryview], None, None]:
        """`waiting` has those that were taken and not yielded."""

        def taken() -> Iterator[ranges.Slice]:
            for item in slices:
                waiting.append(item)
                yield item

        with self._store.reading(), closing(unseal(self.fetch(taken()), self._codec)) as unsealed:
            try:
                for found in unsealed:
                    waiting.popleft()
                    yield found
            except DamagedFrame as exc:
                self._note(self.manifest, {(exc.backup, exc.offset)})
                where = f"{self.data_key(exc.backup)}, frame at {exc.offset}"
                raise IntegrityError(
                    f"backup {self.name} is damaged: {where}: {exc.why}", _DAMAGE_HINT.format(self.name)
                ) from exc

    def fetch(self, slices: Iterable[ranges.Slice]) -> Generator[ranges.Fetched, None, None]:
        """Yield each slice with its frame, not verified. A remote store is read ahead, in threads; a local one when a
        frame is opened."""
        ahead = self._store.parallel_reads
        return ranges.fetch(slices, self.open_range, ahead=ahead if ahead > 1 else 0)

    def open_slice(self, fetched: ranges.Fetched) -> memoryview:
        """Return the raw bytes of a fetched slice. Raises IntegrityError unless they are what the index says."""
        return open_slice(fetched, self._codec)

    def data_key(self, backup: str) -> str:
        """The key of this backup's data object, or of one that it uses. Raises IntegrityError for any other."""
        if (key := self._objects.get(backup)) is None:
            raise IntegrityError(f"index of {self.name} names backup {backup}, which its manifest does not")
        return key

    def open_range(self, backup: str, offset: int, length: int) -> Iterator[bytes]:
        """Read stored bytes of this backup's data object, or of one that it depends on.

        What cannot be decrypted is zeros: the digests of the frames in it show that, and what lies behind is read.
        """
        key = self.data_key(backup)
        try:
            yield from with_zeros(self._store, key, offset, offset + length)
        except NotFoundError as exc:
            raise MissingObject(f"backup {self.name} is damaged: {key} is missing", VERIFY_HINT) from exc

    def _select(
        self, wanted: Callable[[int], bool], segments: list[Segment] | None = None
    ) -> Iterator[tuple[int, Unit]]:
        """The wanted units with their numbers. Raises IntegrityError, FormatError, which name the backup."""
        lines = (line for segment in segments or self.segments for line in segment.lines())
        try:
            yield from select_units(lines, wanted, room=self._room)
        except FormatError as exc:
            raise FormatError(f"backup {self.name} is damaged: {exc.message}", VERIFY_HINT) from exc

    def _room(self) -> int:
        """The size of all data objects that the index can name."""
        if self._data_bytes is None:
            self._data_bytes = sum(map(self._size, self._objects.values()))
        return self._data_bytes

    def _size(self, key: str) -> int:
        try:
            return self._store.stat(key).size_bytes
        except NotFoundError:
            return 0


_DAMAGE_HINT = "volback verify {} --data names what is lost; an older backup may have it, the next one stores it anew"
