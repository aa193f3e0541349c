"""Reading: one backup of a repository, opened - its units, and any part of its tar stream, each byte proven."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from volback.archive import ranges, tar
from volback.archive.seal import decompress, unseal
from volback.catalog.index import read_units
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, Member, Unit
from volback.context import name_of
from volback.errors import IntegrityError, NotFoundError
from volback.store.base import Store

INDEX_MAX_BYTES = 4 * 1024**3


class OpenBackup:
    """A backup whose index has been read and proven against its manifest; units are decoded again at each pass."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Read the index (kept compressed: about 40 bytes a file). Raises IntegrityError, NotFoundError."""
        self.manifest = manifest
        self.name = name_of(manifest)
        self.key = BackupKey(manifest.host, manifest.volume, manifest.id)
        self._store = store
        self._index = self._read_index()

    def units(self) -> Iterator[Unit]:
        """Yield the units in stream order, the end-of-archive unit last. Raises IntegrityError."""
        return read_units(decompress(self._index, what=f"index of {self.name}"))

    def members(self) -> Iterator[Member]:
        """Yield every member in stream order."""
        return (member for unit in self.units() for member in unit.members)

    def stream(self, count: Callable[[int], None] = lambda _: None) -> Iterator[bytes | memoryview]:
        """Yield the backup's whole tar stream, each frame proven before it leaves.

        Nothing is left to prove at its end: `manifest.digest` is over the frame digests of the index, whose own SHA-256
        the manifest holds, so with each frame proven, in the index's order, the stream is. `verify --data` holds the
        two against each other, which could differ only by a mistake of the writer.
        """
        return self.read(ranges.whole(frame for unit in self.units() for frame in unit.frames), count)

    def read(
        self, slices: Iterable[ranges.Slice], count: Callable[[int], None] = lambda _: None
    ) -> Iterator[bytes | memoryview]:
        """Yield the wanted bytes in order, each frame proven before a byte of it leaves; `count` gets stored sizes."""
        with closing(unseal(self.fetch(slices))) as unsealed:
            for item, raw in unsealed:
                if item.before:
                    yield item.before
                count(item.frame.stored_bytes)
                yield raw if item.stop - item.start == len(raw) else memoryview(raw)[item.start : item.stop]

    def fetch(self, slices: Iterable[ranges.Slice]) -> Generator[tuple[ranges.Slice, bytes | memoryview], None, None]:
        """Yield each slice with its frame's stored bytes, unproven; a distant store is read ahead, in threads."""
        return ranges.fetch(slices, self.open_range, ahead=self._store.parallel_reads)

    def open_range(self, backup: str, offset: int, length: int) -> Iterator[bytes]:
        """Read stored bytes of this backup's data object, or of one that it depends on."""
        if backup != self.manifest.id and backup not in self.manifest.depends_on:
            raise IntegrityError(f"index of {self.name} names backup {backup}, which its manifest does not")
        key = BackupKey(self.manifest.host, self.manifest.volume, backup).data
        try:
            yield from self._store.open(key, start=offset, length=length)
        except NotFoundError as exc:
            raise IntegrityError(f"backup {self.name} is damaged: {key} is missing", _VERIFY_HINT) from exc

    def selection(self, paths: Iterable[bytes]) -> Selection:
        """Return the part of the backup at and below `paths`. Raises NotFoundError for a path that it lacks."""
        return Selection(self, list(paths))

    def _read_index(self) -> bytes:
        expected = self.manifest.index
        if expected.size_bytes > INDEX_MAX_BYTES:
            raise IntegrityError(f"index of {self.name} claims {expected.size_bytes} bytes", _VERIFY_HINT)
        try:
            stored = b"".join(self._store.open(self.key.index, length=expected.size_bytes + 1))
        except NotFoundError as exc:
            raise IntegrityError(f"backup {self.name} is damaged: {self.key.index} is missing", _VERIFY_HINT) from exc
        if len(stored) != expected.size_bytes or hashlib.sha256(stored).hexdigest() != expected.sha256:
            raise IntegrityError(
                f"backup {self.name} is damaged: {self.key.index} is not what was written", _VERIFY_HINT
            )
        return stored


class Selection:
    """The members at and below some paths, with the directories above them."""

    def __init__(self, backup: OpenBackup, paths: list[bytes]) -> None:
        self._backup = backup
        self._exact = set(paths)
        self._below = tuple(path + b"/" for path in paths if path)
        self._everything = b"" in self._exact
        self._above = {path[:at] for path in paths for at in _slashes(path)} | {b""}
        found = {member.path for member in backup.members() if member.path in self._exact}
        if missing := self._exact - found:
            path = min(missing).decode(errors="backslashreplace")
            raise NotFoundError(f"path {path!r} is not in backup {backup.name}", f"see `volback ls {backup.name}`")

    def holds(self, member: Member) -> bool:
        """Whether the member is selected."""
        path = member.path
        return (
            self._everything
            or path in self._exact
            or path.startswith(self._below)
            or (member.type == "d" and path in self._above)
        )

    def members(self) -> Iterator[Member]:
        """Yield the selected members in stream order."""
        return filter(self.holds, self._backup.members())

    def stream(self, count: Callable[[int], None] = lambda _: None) -> Iterator[bytes | memoryview]:
        """Yield a tar stream of the selected members; a hard link whose first name is not selected becomes a file."""
        yield from self._backup.read(self._slices(), count)
        yield tar.END_OF_ARCHIVE

    def _slices(self) -> Iterator[ranges.Slice]:
        for unit in self._backup.units():
            stops = [member.offset for member in unit.members[1:]] + [ranges.unit_bytes(unit)]
            spans = {member.path: (member, stop) for member, stop in zip(unit.members, stops, strict=False)}
            first_names: dict[bytes, bytes] = {}
            for member, stop in spans.values():
                if not self.holds(member):
                    continue
                target = spans.get(member.link) if member.type == "h" else None
                if target is None or self.holds(target[0]):
                    yield from ranges.part(unit, member.offset, stop)
                else:
                    yield from self._instead(unit, member, target, first_names)

    def _instead(
        self, unit: Unit, member: Member, target: tuple[Member, int], first_names: dict[bytes, bytes]
    ) -> Iterator[ranges.Slice]:
        """A hard link without its first name: the data under its own name, or a link to the name that has it now."""
        first, stop = target
        source = member if first.path in first_names else first
        source_stop = member.offset + _HEADER_ROOM if source is member else stop
        header = self.header(unit, source, source_stop)
        link = first_names.get(first.path)
        renamed = tar.build_header(header, path=member.path, link=link)
        first_names.setdefault(first.path, member.path)
        if link is not None or source.offset + len(header) == stop:
            yield ranges.Slice(unit.frames[0], 0, 0, renamed)
            return
        yield from ranges.part(unit, source.offset + len(header), stop, before=renamed)

    def header(self, unit: Unit, member: Member, stop: int) -> bytes:
        """Return a member's header bytes: pax header, its records, ustar header."""
        return read_member_header(self._backup, unit, member, stop)


def read_member_header(backup: OpenBackup, unit: Unit, member: Member, stop: int) -> bytes:
    """Return a member's header bytes, where the member ends at `stop` of its unit at the latest."""
    room = _HEADER_ROOM
    while True:
        end = min(member.offset + room, stop, ranges.unit_bytes(unit))
        data = b"".join(backup.read(ranges.part(unit, member.offset, end)))
        size = tar.extended_size(data, 0) + tar.BLOCK
        if size <= len(data):
            return data[:size]
        room = size


def _slashes(path: bytes) -> Iterator[int]:
    at = path.find(b"/")
    while at >= 0:
        yield at
        at = path.find(b"/", at + 1)


_HEADER_ROOM = 3 * tar.BLOCK
_VERIFY_HINT = "see what is damaged with `volback verify --data`; take an older backup"
