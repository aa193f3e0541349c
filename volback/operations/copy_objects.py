"""Objects of a copy: which of them other backups keep at the target, and how one is copied byte for byte.

Nothing is decompressed, and only what is read ahead is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from volback.archive.age import stored_size
from volback.archive.ranges import read_pieces
from volback.catalog.copies import is_same_backup, is_same_object, objects_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ObjectDigest
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import ConflictError, IdentityNeeded, IntegrityError, MissingObject, NotFoundError
from volback.store.base import Buffer, Store

_HINT = "see what is damaged with `volback verify --data`; copy an older backup"


@dataclass(frozen=True, slots=True)
class Kept:
    """Objects of a backup that are at the target, and that other backups there use."""

    by: list[Manifest] = field(default_factory=list)
    """Those backups."""
    names: set[str] = field(default_factory=set)
    """The keys of the objects."""


def kept_at(source: Repository, target: Repository, manifest: Manifest) -> Kept:
    """Find what of a backup's objects is kept at the target: the same bytes under the same keys."""
    wanted, kept = dict(objects_of(manifest)), Kept()
    for other in _keepers(target, manifest):
        names = {
            key for key, found in objects_of(other) if key in wanted and _is_same(source, other, wanted[key], found)
        }
        if names - kept.names:
            kept.by.append(other)
            kept.names.update(names)
        if len(kept.names) == len(wanted):
            break
    return kept


def check_free(target: Repository, of: BackupKey, names: Iterable[str]) -> None:
    """Raises ConflictError if an object that is to be written is there with other bytes, and another backup uses it."""
    there = [name for name in names if target.size_of(name) >= 0]
    users = target.catalog.references(of.host, of.volume).users if there else {}
    for name in there:
        for user in users.get(name, frozenset()) - {of}:
            using = Reference(user.host, user.volume, user.id)
            raise ConflictError(
                f"repository {target.store.url} has another {name}, of a backup that was removed there, and {using}"
                " uses it",
                f"copy into another repository, or remove {using} there first",
            )


def put_object(
    ctx: Context,
    source: Repository,
    target: Repository,
    name: str,
    key: str,
    expected: ObjectDigest,
    *,
    as_stored: bool,
) -> None:
    """Copy one object of the backup `name`; `as_stored`: without decrypting it.

    Raises IntegrityError if it is not what was written.
    """
    stored_key = source.store.stored_key(key) if as_stored else key
    if stored_key != key:  # encrypted for one identity: copied as it is, and only its size is known
        expected = ObjectDigest(size_bytes=stored_size(expected.size_bytes), sha256="")
    put_to, read_from = (target.store, source.store) if stored_key == key else (target.stored, source.stored)
    with closing(_proven(ctx, read_from, name, stored_key, expected)) as proven:
        put_to.put(stored_key, proven)


def _keepers(target: Repository, manifest: Manifest) -> Iterator[Manifest]:
    """Backups at the target that may keep objects of this one, opened where that is possible: its parent most often
    names all; all others, where an object is there that none of these names."""
    seen = {manifest.id}
    for id_ in filter(None, [manifest.parent, *reversed(manifest.depends_on)]):
        if id_ not in seen:
            seen.add(id_)
            yield from _read(target, BackupKey(manifest.host, manifest.volume, id_))
    if any(target.size_of(key) == expected.size_bytes for key, expected in objects_of(manifest)):
        for key in target.catalog.backups(manifest.host, manifest.volume):
            if key.id not in seen:
                yield from _read(target, key)


def _read(target: Repository, key: BackupKey) -> Iterator[Manifest]:
    try:
        yield shown(target, target.catalog.read(key))
    except (NotFoundError, IntegrityError):
        return


def can_read(repository: Repository) -> bool:
    """Whether what it holds is in clear, or a key was given that opens it, and nobody has to be asked."""
    if repository.encryption is None:
        return True
    if not (repository.sources.identities or repository.sources.passphrases):
        return False
    try:
        return bool(repository.encryption.identities())
    except IdentityNeeded:
        return False


def shown(repository: Repository, manifest: Manifest) -> Manifest:
    """The manifest with its private part, if a key was given that opens it, and nobody has to be asked."""
    if not manifest.is_closed or not can_read(repository):
        return manifest
    try:
        return repository.opened(manifest)
    except IdentityNeeded:  # it is encrypted for an earlier identity
        return manifest


def _is_same(source: Repository, other: Manifest, one: ObjectDigest, found: ObjectDigest) -> bool:
    """Whether an object that a backup at the target names has the same bytes."""
    is_same = is_same_object(one, found)
    return _is_stored_alike(source, other) if is_same is None else is_same


def _is_stored_alike(source: Repository, other: Manifest) -> bool:
    """Whether the source has that backup too, in objects of the same sizes. One that was copied complete has others."""
    try:
        held = source.catalog.read(other.key)
    except (NotFoundError, IntegrityError):
        return False
    return is_same_backup(held, other) and _sizes(held) == _sizes(other)


def _sizes(manifest: Manifest) -> tuple[int, dict[str, int]]:
    return manifest.index_table_bytes, {key: found.size_bytes for key, found in objects_of(manifest)}


def _proven(ctx: Context, source: Store, name: str, key: str, expected: ObjectDigest) -> Generator[Buffer, None, None]:
    """The object's bytes, read ahead. Raises IntegrityError at their end, before the put ends, unless they are what
    was written. Of what is encrypted, and in early manifests of what a removed backup stored, the size alone is known.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with closing(_buffers(source, key, expected.size_bytes + 1)) as buffers:
            for buffer in buffers:
                digest.update(buffer)
                size += len(buffer)
                ctx.progress.advance(raw_bytes=len(buffer))
                yield buffer
    except NotFoundError as exc:
        raise MissingObject(f"backup {name} is damaged: {key} is missing", _HINT) from exc
    if size != expected.size_bytes or digest.hexdigest() != (expected.sha256 or digest.hexdigest()):
        raise _damaged(name, f"{key} is not what was written")


def _buffers(store: Store, key: str, length: int) -> Generator[Buffer, None, None]:
    """Up to `length` bytes of an object; ranges of a remote store are read ahead in threads, and returned in order."""
    ahead = store.parallel_reads
    if ahead == 1:
        return store.open(key, length=length)
    return read_pieces(lambda start, size: store.open(key, start=start, length=size), length, ahead=ahead)


def _damaged(name: str, what: str) -> IntegrityError:
    return IntegrityError(f"backup {name} is damaged: {what}", _HINT)
