"""Salvage: a backup without a parent that was killed is gone on with by the next one of its volume.

While such a backup is stored, this machine notes now and then which units, and which extents of a large file, have been
stored. The next backup takes the beginning of the unfinished data object as that of its own, as far as it is what was
given to the store, and as a first pass: what has not changed since is not read again. So what was left is never a
backup, nor is anything shared by two.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from volback.archive.blocks import CUT
from volback.archive.codec import compress_lines, decompress
from volback.archive.cut import PrivilegedAttribute
from volback.archive.record import Recorder, part_of_unit
from volback.catalog.index import decode_unit, encode_unit, read_lines
from volback.catalog.keys import BackupKey, parse_backup_key
from volback.catalog.model import ObjectDigest, ScanFacts, Source
from volback.catalog.units import Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import IntegrityError, StoreError, StoreUnreachable, cleaning_up
from volback.feed import Feed
from volback.operations.first_pass import FirstPass
from volback.operations.recover import sweep_repository
from volback.policy.unchanged import is_settled
from volback.state.unfinished import Begun, Privileged, Record, UnfinishedFile

log = logging.getLogger(__name__)

NOTED_EVERY_BYTES = 16 * 1024 * 1024
"""Of the data object. What is stored of a smaller backup is not worth keeping."""


class Salvage:
    """What was left of killed backups of one volume, on one engine; and what the present one notes for the next."""

    def __init__(self, ctx: Context, repository: Repository, source: Source, engine_id: str) -> None:
        self._ctx = ctx
        self._repository = repository
        self._source = source
        self._file = UnfinishedFile(ctx.settings.state, repository.id, engine_id, repository.host, source.name)
        self._objects: list[str] = []

    @property
    def waits(self) -> bool:
        """Whether a killed backup has left something. To verify it takes as long as to read it."""
        return self._file.exists

    @contextmanager
    def first_pass(self, key: BackupKey, level: int) -> Iterator[FirstPass | None]:
        """Begin the backup `key` with what a killed one has stored; None where nothing of that can be used.

        At the end it is committed, or nothing of it stays: then nothing waits any more. Raises StoreUnreachable.
        """
        self._objects = [key.data, key.increment]
        found = self._found(key) if self.waits else None
        if found is None:
            self.give_up()
        try:
            with nullcontext() if found is None else self._extended(found, key, level) as first:
                yield first
        finally:
            with suppress(StoreError):
                self._file.forget()

    @contextmanager
    def _extended(self, found: _Found, key: BackupKey, level: int) -> Iterator[FirstPass]:
        store, kept_bytes = self._repository.store, found.size_bytes
        recorder = Recorder(key.id, self._ctx.progress, level)
        segments = recorder.resume(found.hash, kept_bytes, found.lines)
        log.info("%d bytes that a killed backup had stored are used", kept_bytes)

        def put(chunks: Iterable[bytes]) -> None:
            store.extend(found.key, key.increment, recorder.hashed(chunks), keep_bytes=kept_bytes)

        try:
            with Feed(put, "upload") as upload:
                yield FirstPass(
                    self._ctx.now(), recorder, upload, segments, found.scan, found.privileged,
                    passes=0, resumed_bytes=kept_bytes,
                )  # fmt: skip
        finally:
            with cleaning_up("the next run removes what a killed backup had stored"):
                store.delete(found.key)

    def note(self, recorder: Recorder, scan: ScanFacts, privileged: Mapping[str, PrivilegedAttribute]) -> None:
        """Note what `recorder` stores from now on, and the attributes that are found meanwhile.

        Nothing in an encrypted repository: who backs up cannot read what is stored there.
        """
        if self._repository.encryption is not None:
            return
        begun = None if self.waits else self._begun(self._objects)
        noting = _Noting(self._file, begun, recorder, scan, privileged)
        recorder.on_line, recorder.on_stored = noting.line, noting.stored

    def give_up(self) -> None:
        """What is there cannot be used: let it be removed."""
        if self.waits:
            with suppress(StoreError):
                self._file.forget()
                sweep_repository(self._ctx, self._repository)

    def _begun(self, objects: list[str]) -> Begun:
        return Begun(repository_id=self._repository.id, source=self._source, cut=CUT, objects=objects)

    def _found(self, key: BackupKey) -> _Found | None:
        """What can be used. Before anything is moved, it is noted that it may belong to the new backup."""
        try:
            noted = self._file.read()
            if noted is None or not noted.records or not self._fits(noted.begun):
                return None
            self._file.begin(self._begun([*self._objects, *noted.begun.objects]), noted.records)
            left = self._largest(noted.begun.objects)
            found = None if left is None else self._verified(left, noted.records, key.id)
            if found is not None:
                self._file.begin(self._begun([*self._objects, found.key]), [found.record()])
        except StoreUnreachable:
            raise
        except (StoreError, IntegrityError) as exc:
            log.info("what a killed backup had stored is not used: %s", exc.message)
            return None
        return found

    def _fits(self, begun: Begun) -> bool:
        old, new = begun.source, self._source
        return begun.cut == CUT and (old.kind, old.driver, old.options) == (new.kind, new.driver, new.options)

    def _largest(self, names: list[str]) -> str | None:
        """The largest of these objects, or of their beginnings, that no backup needs. Raises IntegrityError."""
        needs = self._repository.catalog.references(self._repository.host, self._source.name)
        needs.check_known("what a killed backup had stored")
        condemned = self._repository.catalog.condemned(self._repository.host, self._source.name)
        names = [name for name in names if name not in condemned]
        backups = needs.backups
        unneeded = [name for name in needs.unneeded(names) if (key := parse_backup_key(name)) and key not in backups]
        sizes = {name: self._repository.store.finish(name) or 0 for name in unneeded}
        largest = max(sizes, key=sizes.__getitem__, default="")
        return largest if sizes.get(largest) else None

    def _verified(self, name: str, records: list[Record], id_: str) -> _Found | None:
        """What is stored as it was given to the store; after a power failure there may be holes, which end it."""
        ends = [record.stored.size_bytes for record in records]
        self._ctx.progress.start(f"{self._source.name}, stored before", total_bytes=ends[-1], total_files=None)
        proven: tuple[int, hashlib._Hash] | None = None
        buffers = self._counted(self._repository.store.open(name, length=ends[-1]))
        for number, (record, digest) in enumerate(zip(records, _hashes(buffers, ends), strict=False), 1):
            if digest.hexdigest() != record.stored.sha256:
                break
            proven = number, digest
        return None if proven is None else _Found.of(name, records[: proven[0]], proven[1], id_)

    def _counted(self, buffers: Iterable[bytes]) -> Iterator[bytes]:
        for buffer in buffers:
            self._ctx.progress.advance(raw_bytes=len(buffer))
            yield buffer


@dataclass(frozen=True, slots=True)
class _Found:
    """What a killed backup has stored, as a part of the new one."""

    key: str
    size_bytes: int
    hash: hashlib._Hash
    """Of those first bytes of the object."""
    lines: list[bytes]
    scan: ScanFacts
    privileged: dict[str, PrivilegedAttribute]

    @classmethod
    def of(cls, key: str, records: list[Record], digest: hashlib._Hash, id_: str) -> _Found:
        """Raises IntegrityError."""
        privileged = {
            name: PrivilegedAttribute(found.members, found.paths)
            for record in records
            for name, found in record.privileged.items()
        }
        last = records[-1]
        lines = [
            encode_unit(found)
            for record in records
            for unit in map(decode_unit, read_lines(decompress(record.lines, what="what was noted of a backup")))
            for found in _of_new(unit, record.scan, last, id_)
        ]
        return cls(key, last.stored.size_bytes, digest, lines, last.scan, privileged)

    def record(self) -> Record:
        """All of it."""
        return Record(
            scan=self.scan,
            lines=compress_lines(b"".join(self.lines)),
            stored=ObjectDigest(size_bytes=self.size_bytes, sha256=self.hash.hexdigest()),
            privileged=_noted(self.privileged),
        )


def _of_new(unit: Unit, scan: ScanFacts, last: Record, id_: str) -> Iterator[Unit]:
    """The unit as one of the new backup, or what of it is stored.

    It has no fingerprint where a change may not have shown in its scan.
    """
    pieces = [
        piece._replace(frame=piece.frame._replace(backup=id_))
        for piece in unit.pieces
        if piece.frame.offset + piece.frame.stored_bytes <= last.stored.size_bytes
    ]
    if len(pieces) == len(unit.pieces):
        is_known = is_settled(unit.newest_ns, scan, last.scan.filesystem)
        yield unit._replace(pieces=pieces, scan=unit.scan if is_known else "")
    elif pieces:
        yield part_of_unit(pieces)


def _hashes(buffers: Iterable[bytes], ends: Iterable[int]) -> Iterator[hashlib._Hash]:
    """Yield the SHA-256 of the first so many bytes, for each of the ends, in order, as far as there are so many."""
    digest, at, waiting = hashlib.sha256(), 0, deque(ends)
    for buffer in buffers:
        view = memoryview(buffer)
        while waiting and waiting[0] <= at + len(view):
            count = waiting.popleft() - at
            digest.update(view[:count])
            at, view = at + count, view[count:]
            yield digest.copy()
        digest.update(view)
        at += len(view)


def _noted(privileged: Mapping[str, PrivilegedAttribute]) -> dict[str, Privileged]:
    return {name: Privileged(members=found.members, paths=found.paths) for name, found in privileged.items()}


class _Noting:
    """Lines are collected, and noted when much has been stored since the last time."""

    def __init__(
        self,
        file: UnfinishedFile,
        begun: Begun | None,
        recorder: Recorder,
        scan: ScanFacts,
        privileged: Mapping[str, PrivilegedAttribute],
    ) -> None:
        """`begun` is what the file begins with, where there is none."""
        self._file = file
        self._begun = begun
        self._recorder = recorder
        self._scan = scan
        self._privileged = privileged
        self._lines: list[bytes] = []
        self._noted_bytes = recorder.stored_bytes

    def line(self, line: bytes) -> None:
        self._lines.append(line)

    def stored(self) -> None:
        recorder = self._recorder
        if recorder.stored_bytes - self._noted_bytes < NOTED_EVERY_BYTES:
            return
        self._noted_bytes = recorder.stored_bytes
        if (begun := recorder.begun_line()) is not None:
            self._lines.append(begun)
        try:
            if self._begun is not None:
                self._file.begin(self._begun)
                self._begun = None
            lines = compress_lines(b"".join(self._lines))
            self._file.append(
                Record(scan=self._scan, lines=lines, stored=recorder.given(), privileged=_noted(self._privileged))
            )
        except StoreError as exc:
            log.info("if this backup is killed, less of it can be used: %s", exc.message)
            recorder.on_line = recorder.on_stored = None
        self._lines = []
