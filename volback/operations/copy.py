"""Copy: backups from one repository into another, byte for byte, each object verified meanwhile.

Nothing is decompressed, and only what is read ahead is kept in memory. Between repositories that are encrypted for
different identities, or of which one is in clear, the copies become what the target is, if that is requested: they are
decrypted and encrypted, and the manifest is written anew. The manifest is put last, so an interrupted
copy is not a backup; what it left is swept like that of a backup. No engine is needed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Container, Generator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from volback.archive.age import stored_size
from volback.archive.ranges import read_pieces
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.private import in_clear, is_same_in_clear
from volback.catalog.reference import Reference
from volback.context import Context, Repository
from volback.errors import ConflictError, IntegrityError, NotFoundError, StoreDenied, UsageError
from volback.operations.locks import prefix_lock
from volback.operations.recover import discard, sweep_repository
from volback.state.journal import NewBackup
from volback.state.runs import Run
from volback.store.base import Buffer, Store

log = logging.getLogger(__name__)

_PROBE = "volback-probe-copy"

Done = Literal["copied", "skipped"]


@dataclass(frozen=True, slots=True)
class Copy:
    """One backup to copy: its manifest, opened where its objects are, and the original bytes of that."""

    manifest: Manifest
    document: bytes | None
    """None where the target's is another one: it is encrypted otherwise."""
    loose: tuple[UsedObject, ...] = ()
    """Objects that it uses of removed backups: they are copied with it."""

    @property
    def key(self) -> BackupKey:
        """Its key, the same in both repositories."""
        return self.manifest.key

    @property
    def name(self) -> str:
        """The backup's full name."""
        return self.manifest.name

    @property
    def needs(self) -> list[str]:
        """Full names of the backups that it depends on, and that are there."""
        key, gone = self.key, {used.id for used in self.loose}
        return [str(Reference(key.host, key.volume, id_)) for id_ in self.manifest.depends_on if id_ not in gone]

    @property
    def objects(self) -> list[tuple[str, ObjectDigest]]:
        """All that is copied with its manifest, by key."""
        manifest = self.manifest
        own = [(manifest.data_key, manifest.data), (manifest.index_key, manifest.index)]
        loose = [
            (manifest.key_of(used), ObjectDigest(size_bytes=used.size_bytes, sha256=used.sha256)) for used in self.loose
        ]
        return [*loose, *own]


def prepare_target(ctx: Context, source: Repository, target: Repository, *, reencrypt: bool = False) -> None:
    """Check that the target is another repository, and remove what crashed copies left there.

    Raises UsageError if it is the one to copy from, or is encrypted otherwise and `reencrypt` does not allow that;
    NoRepository where one of them is not there.
    """
    if _is_same(ctx, source, target):
        raise UsageError(
            f"repository {target.store.url} is the one to copy from", "name another one with --to, or with --repo"
        )
    if not reencrypt and not _is_alike(source, target):
        raise UsageError(
            f"{_how(source)}, and {_how(target)}", "to store the copies as the target stores its backups: --reencrypt"
        )
    sweep_repository(ctx, target)


def _is_alike(source: Repository, target: Repository) -> bool:
    """Whether both are in clear, or encrypted for the same identity: then objects are copied as they are stored."""
    return _recipient(source) == _recipient(target)


def _recipient(repository: Repository) -> str | None:
    stated = repository.info.encryption
    return None if stated is None else stated.recipient


def _how(repository: Repository) -> str:
    recipient = _recipient(repository)
    return f"repository {repository.store.url} is {f'encrypted for {recipient}' if recipient else 'in clear'}"


def plan_copies(source: Repository, target: Repository, references: list[str]) -> list[Copy]:
    """Return the named backups and all that they depend on, each once, each after what it depends on.

    Raises NotFoundError for a reference that matches none, IdentityNeeded where encrypted ones are to be stored
    otherwise.
    """
    found: dict[BackupKey, Copy | None] = {}
    wanted = [source.find(reference).key for reference in references]
    while wanted:
        key = wanted.pop()
        if key in found:
            continue
        found[key] = _load(source, key, as_stored=_is_alike(source, target))
        wanted += _needed(found[key])
    there = {key: _with_loose(item, found) for key, item in sorted(found.items()) if item is not None}
    graph = {key: [needed for needed in _needed(item) if needed in there] for key, item in there.items()}
    try:
        return [there[key] for key in TopologicalSorter(graph).static_order()]
    except CycleError as exc:
        names = ", ".join(sorted({there[key].name for key in exc.args[1]}))
        raise IntegrityError(f"backups that depend on one another: {names}", "see `volback verify`") from exc


def copy_backup(ctx: Context, source: Repository, target: Repository, item: Copy) -> Done:
    """Copy one backup whose dependencies are there already; "skipped" if it is there, byte for byte.

    Raises IntegrityError if an object is not what the manifest says (nothing of it is at the target then),
    ConflictError if another backup has its name there, LockedError if another run copies it. On any error nothing of
    it is left; after SIGKILL the next run removes it.
    """
    with prefix_lock(ctx, target, item.key.prefix):
        if _is_there(target, item):
            return "skipped"
        with Run(ctx.settings.state, "copy", item.name) as run, ExitStack() as begun:
            for key in dict.fromkeys([item.key, *_loose_keys(item)]):
                entry = NewBackup(repository=target.store.url, repository_id=target.id, prefix=key.prefix)
                begun.enter_context(run.begun(entry, undo=partial(discard, target, key, is_copy=True)))
            return _put(ctx, source, target, item)


def _loose_keys(item: Copy) -> list[BackupKey]:
    return [BackupKey(item.key.host, item.key.volume, used.id) for used in item.loose]


def _is_same(ctx: Context, source: Repository, target: Repository) -> bool:
    """Whether they are one place: a copied disk has the id of the original, and is another place.

    What is written to the target is then in the source too. Where it cannot be deleted again, the next one replaces it.
    """
    if source.info.id != target.info.id:
        return False
    probe = ctx.random_hex(16).encode()
    target.store.put(_PROBE, [probe])
    try:
        return b"".join(source.store.open(_PROBE)) == probe
    except NotFoundError:
        return False
    finally:
        with suppress(StoreDenied):
            target.store.delete(_PROBE)


def _load(source: Repository, key: BackupKey, *, as_stored: bool) -> Copy | None:
    """None for one that was removed: what others use of it is there."""
    try:
        manifest, document = source.catalog.load(key)
        if as_stored:
            return Copy(manifest, document)
        return Copy(in_clear(source.opened(manifest)), None)
    except NotFoundError:
        return None


def _needed(item: Copy | None) -> list[BackupKey]:
    """The backups of which it uses objects."""
    return [] if item is None else [BackupKey(item.key.host, item.key.volume, id_) for id_ in item.manifest.depends_on]


def _with_loose(item: Copy, found: Mapping[BackupKey, Copy | None]) -> Copy:
    gone = {key.id for key in _needed(item) if found[key] is None}
    return replace(item, loose=tuple(used for used in item.manifest.uses if used.id in gone))


def _is_there(target: Repository, item: Copy) -> bool:
    """Whether the target has this backup. Raises ConflictError if it has another one of its name."""
    try:
        held, document = target.catalog.load(item.key)
    except NotFoundError:
        return False
    if not _is_the_same(item, held, document):
        raise ConflictError(
            f"repository {target.store.url} has another backup {item.name}",
            f"see what it is: volback --repo {target.store.url} show {item.name}",
        )
    for key, expected in item.objects:
        _check_there(target, item, key, expected)
    return True


def _is_the_same(item: Copy, held: Manifest, document: bytes) -> bool:
    """Whether the target's manifest is that of the backup. Encrypted anew, it agrees in what both have in clear."""
    if item.document is not None:
        return document == item.document
    return is_same_in_clear(item.manifest, held) if held.is_closed else in_clear(held) == item.manifest


def _check_there(target: Repository, item: Copy, key: str, expected: ObjectDigest) -> None:
    """A skipped backup must have all objects at the right size: one day its copy may be the only one."""
    size = target.size_of(key)
    if size != expected.size_bytes:
        what = "is missing" if size < 0 else f"has {size} bytes, not {expected.size_bytes}"
        raise IntegrityError(
            f"backup {item.name} in {target.store.url} is damaged: {key} {what}",
            f"remove it there, then copy it again: volback --repo {target.store.url} remove {item.name}",
        )


def _put(ctx: Context, source: Repository, target: Repository, item: Copy) -> Done:
    """Data, index, manifest. From another machine the same backup may be copied at the same time: its bytes are the
    same, so it does not matter whose objects stay, and the first manifest counts. If the other copy is interrupted, it
    removes what it put before it saw this manifest: so what is missing afterwards is put again."""
    manifest, keepers = item.manifest, _keepers(target, item)
    kept = {name for keeper in keepers for name in keeper.references}
    objects = [(key, expected) for key, expected in item.objects if not _is_kept(target, kept, key, expected)]
    target.catalog.renew_all(manifest)  # of a copy that failed, or was removed
    total = sum(expected.size_bytes for _, expected in objects)
    ctx.progress.start(f"copy {manifest.volume}", total_bytes=total, total_files=None)
    for key, expected in objects:
        _put_object(ctx, source, target, item, key, expected)
    try:
        target.catalog.commit(manifest, document=item.document, kept_by=keepers)
    except ConflictError:
        if not _is_there(target, item):
            raise
        log.debug("%s was copied by another run meanwhile", item.name)
        return "skipped"
    for key, expected in objects:
        if target.size_of(key) != expected.size_bytes:
            _put_object(ctx, source, target, item, key, expected)
    return "copied"


def _keepers(target: Repository, item: Copy) -> list[Manifest]:
    """Backups at the target that reference what this one uses; its parent most often names all."""
    manifest = item.manifest
    wanted = {manifest.key_of(used) for used in manifest.uses}
    found: list[Manifest] = []
    for id_ in dict.fromkeys(filter(None, [manifest.parent, *reversed(manifest.depends_on)])):
        if not wanted:
            break
        try:
            other = target.catalog.read(BackupKey(item.key.host, item.key.volume, id_))
        except (NotFoundError, IntegrityError):
            continue
        if names := wanted.intersection(other.references):
            found.append(other)
            wanted -= names
    return found


def _is_kept(target: Repository, kept: Container[str], key: str, expected: ObjectDigest) -> bool:
    """Whether an object is at the target, and a backup there keeps it, or its digest is not known."""
    is_there = target.size_of(key) == expected.size_bytes
    return is_there and (key in kept or not expected.sha256)


def _put_object(
    ctx: Context, source: Repository, target: Repository, item: Copy, key: str, expected: ObjectDigest
) -> None:
    stored_key = key if item.document is None else source.store.stored_key(key)
    if stored_key != key:  # encrypted for one identity: copied as it is, and only its size is known
        expected = ObjectDigest(size_bytes=stored_size(expected.size_bytes), sha256="")
    put_to, read_from = (target.store, source.store) if stored_key == key else (target.stored, source.stored)
    with closing(_proven(ctx, read_from, item, stored_key, expected)) as proven:
        put_to.put(stored_key, proven)


def _proven(ctx: Context, source: Store, item: Copy, key: str, expected: ObjectDigest) -> Generator[Buffer, None, None]:
    """The object's bytes, read ahead. Raises IntegrityError at their end, before the put ends, unless they are what
    was written. Of what is encrypted, and in early manifests of what a removed backup stored, the size alone is known.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with closing(_read(source, key, expected.size_bytes + 1)) as buffers:
            for buffer in buffers:
                digest.update(buffer)
                size += len(buffer)
                ctx.progress.advance(raw_bytes=len(buffer))
                yield buffer
    except NotFoundError as exc:
        raise _damaged(item, f"{key} is missing") from exc
    if size != expected.size_bytes or digest.hexdigest() != (expected.sha256 or digest.hexdigest()):
        raise _damaged(item, f"{key} is not what was written")


def _read(store: Store, key: str, length: int) -> Generator[Buffer, None, None]:
    """Up to `length` bytes of an object; ranges of a remote store are read ahead in threads, and returned in order."""
    ahead = store.parallel_reads
    if ahead == 1:
        return store.open(key, length=length)
    return read_pieces(lambda start, size: store.open(key, start=start, length=size), length, ahead=ahead)


def _damaged(item: Copy, what: str) -> IntegrityError:
    hint = "see what is damaged with `volback verify --data`; copy an older backup"
    return IntegrityError(f"backup {item.name} is damaged: {what}", hint)
