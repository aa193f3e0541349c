"""Copy: backups from one repository into another, each object verified meanwhile.

A full backup is copied byte for byte, and so is an increment if the target has the objects of others that it uses. Any
other increment arrives complete: the frames that the target lacks come with it, in one data object (`copy_complete`).
Where one of the two repositories is encrypted, and no identity was given that opens it, the backups that it uses come
along as they are: frames cannot be taken out of closed objects, nor found in closed indexes.

Between repositories that are encrypted for different identities, or of which one is in clear, the copies become what
the target is, if that is requested. The manifest is put last, so an interrupted copy is not a backup; what it left is
swept like that of a backup. No engine is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Literal, NamedTuple

from volback.catalog.copies import is_same_backup, objects_of
from volback.catalog.faults import faults_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.private import in_clear
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.naming import spelled_out
from volback.context.repository import Repository
from volback.errors import (
    ConflictError,
    IdentityNeeded,
    IntegrityError,
    MissingObject,
    NotFoundError,
    StoreDenied,
    UsageError,
)
from volback.operations.copy_complete import put_complete
from volback.operations.copy_objects import Kept, can_read, check_free, kept_at, put_object, shown
from volback.operations.locks import prefix_lock
from volback.operations.recover import discard, sweep_repository
from volback.state.journal import NewBackup
from volback.state.runs import Run

log = logging.getLogger(__name__)

_PROBE = "volback-probe-copy"

Done = Literal["copied", "skipped"]


class CopyResult(NamedTuple):
    """What was done with one backup."""

    done: Done
    stored_bytes: int
    """Written to the target: data and index."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One backup to copy: its manifest, opened where that is possible, and the original bytes of that."""

    manifest: Manifest
    document: bytes | None
    """None where the target's is another one: it is encrypted otherwise."""
    is_whole: bool
    """Whether it is copied as it is, after the backups that it uses: without an identity of both repositories."""
    loose: tuple[UsedObject, ...] = ()
    """Objects that it uses of removed backups: where it is copied as it is, they are copied with it."""

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
        """Full names of the backups without which it cannot be copied."""
        gone = {used.id for used in self.loose}
        return [str(Reference(key.host, key.volume, key.id)) for key in self.first if key.id not in gone]

    @property
    def first(self) -> list[BackupKey]:
        """The backups that are copied before it."""
        return _used_by(self) if self.is_whole else []

    @property
    def objects(self) -> list[tuple[str, ObjectDigest]]:
        """All that is copied with its manifest byte for byte, by key."""
        others = {self.manifest.key_of(used) for used in _of_others(self.manifest) if used not in self.loose}
        return [(key, expected) for key, expected in objects_of(self.manifest) if key not in others]


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
            _difference(source, target),
            "to store the copies as the target stores its backups: --reencrypt, or in a job reencrypt = true",
        )
    sweep_repository(ctx, target)


def _is_alike(source: Repository, target: Repository) -> bool:
    """Whether both are in clear, or encrypted for the same identities: then objects are copied as they are stored."""
    return _recipient(source) == _recipient(target) and _past(source) <= _past(target)


def _past(repository: Repository) -> set[str]:
    """The recipients for which it was encrypted: who reads the target must know that it has backups for them."""
    stated = repository.info.encryption
    return set() if stated is None else set(stated.past)


def _recipient(repository: Repository) -> str | None:
    stated = repository.info.encryption
    return None if stated is None else stated.recipient


def _difference(source: Repository, target: Repository) -> str:
    if _recipient(source) == _recipient(target):
        return f"{_how(source)}, and for earlier identities, which {target.store.url} does not know"
    return f"{_how(source)}, and {_how(target)}"


def _how(repository: Repository) -> str:
    recipient = _recipient(repository)
    return f"repository {repository.store.url} is {f'encrypted for {recipient}' if recipient else 'in clear'}"


def plan_copies(source: Repository, target: Repository, references: list[str]) -> list[Copy]:
    """Return the named backups, each once, each after those of them that it uses.

    Where one of the repositories cannot be read without an identity, those that they use come with them.

    Raises NotFoundError for a reference that matches none, IdentityNeeded where encrypted ones are to be stored
    otherwise.
    """
    as_stored, is_whole = _is_alike(source, target), not (can_read(source) and can_read(target))
    found: dict[BackupKey, Copy | None] = {}
    wanted = [source.find(one).key for one in spelled_out(source, references)]
    while wanted:
        key = wanted.pop()
        if key in found:
            continue
        item = found[key] = _load(source, key, as_stored=as_stored, is_whole=is_whole)
        wanted += [] if item is None else item.first
    there = {key: _with_loose(item, found) for key, item in sorted(found.items()) if item is not None}
    graph = {key: [used for used in _used_by(item) if used in there] for key, item in there.items()}
    try:
        return [there[key] for key in TopologicalSorter(graph).static_order()]
    except CycleError as exc:
        names = ", ".join(sorted({there[key].name for key in exc.args[1]}))
        raise IntegrityError(f"backups that depend on one another: {names}", "see `volback verify`") from exc


def copy_backup(ctx: Context, source: Repository, target: Repository, item: Copy) -> CopyResult:
    """Copy one backup; "skipped" if the target has it, by its id and digest.

    Raises IntegrityError if an object is not what the manifest says (nothing of it is at the target then),
    ConflictError if another backup has its name there, LockedError if another run copies it. On any error nothing of
    it is left; after SIGKILL the next run removes it. One that is repacked at the source meanwhile is copied as it is
    then.
    """
    while True:
        try:
            return _copy(ctx, source, target, item)
        except MissingObject as exc:
            if (newer := _newer(source, item)) is None:
                raise
            log.info("%s, as it was repacked: it is copied from the beginning", exc.message)
            item = newer


def _newer(source: Repository, item: Copy) -> Copy | None:
    """The same backup in a later revision; None where there is none."""
    found = _load(source, item.key, as_stored=item.document is not None, is_whole=item.is_whole)
    if found is None or found.manifest.revision <= item.manifest.revision:
        return None
    if not is_same_backup(found.manifest, item.manifest):
        return None
    return _with_loose(found, {key: found if source.catalog.exists(key) else None for key in found.first})


def _copy(ctx: Context, source: Repository, target: Repository, item: Copy) -> CopyResult:
    with prefix_lock(ctx, target, item.key.prefix):
        if _is_there(target, item):
            return CopyResult("skipped", 0)
        kept = kept_at(source, target, item.manifest)
        is_kept = kept.names.issuperset(map(item.manifest.key_of, _of_others(item.manifest)))
        as_it_is = is_kept or item.is_whole
        if item.is_whole:
            _check_kept(target, item, kept)
        objects = [(key, expected) for key, expected in item.objects if key not in kept.names]
        new = [key for key, _ in objects] if as_it_is else [item.key.increment, item.key.index]
        check_free(target, item.key, new)
        with Run(ctx.settings.state, "copy", item.name) as run, ExitStack() as begun:
            for key in dict.fromkeys([item.key, *_loose_keys(item)]):
                entry = NewBackup(repository=target.store.url, repository_id=target.id, prefix=key.prefix)
                begun.enter_context(run.begun(entry, undo=partial(discard, target, key, is_copy=True)))
            if as_it_is:
                return _put_as_it_is(ctx, source, target, item, objects, kept)
            return _put_complete(ctx, source, target, item)


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


def _load(source: Repository, key: BackupKey, *, as_stored: bool, is_whole: bool) -> Copy | None:
    """None for one that was removed: what others use of it is there."""
    try:
        manifest, document = source.catalog.load(key)
        if as_stored:
            return Copy(shown(source, manifest), document, is_whole)
        return Copy(in_clear(source.opened(manifest)), None, is_whole)
    except NotFoundError:
        return None


def _of_others(manifest: Manifest) -> list[UsedObject]:
    """The objects of other backups that it uses: not those of its own that came with a later revision."""
    return [used for used in manifest.uses if used.id != manifest.id]


def _used_by(item: Copy) -> list[BackupKey]:
    """The backups of which it uses objects."""
    return [BackupKey(item.key.host, item.key.volume, id_) for id_ in item.manifest.depends_on]


def _with_loose(item: Copy, found: Mapping[BackupKey, Copy | None]) -> Copy:
    gone = {key.id for key in item.first if found[key] is None}
    return replace(item, loose=tuple(used for used in item.manifest.uses if used.id in gone))


def _is_there(target: Repository, item: Copy) -> bool:
    """Whether the target has this backup. Raises ConflictError if it has another one of its name."""
    try:
        held, document = target.catalog.load(item.key)
    except NotFoundError:
        return False
    held = shown(target, held)
    if document != item.document and not is_same_backup(item.manifest, held):
        raise ConflictError(
            f"repository {target.store.url} has another backup {item.name}",
            f"see what it is: volback --repo {target.store.url} show {item.name}",
        )
    for fault in faults_of(held, target.size_of):  # one day this copy may be the only one
        raise IntegrityError(
            f"backup {item.name} in {target.store.url} is damaged: {fault.message}",
            f"remove it there, then copy it again: volback --repo {target.store.url} remove {item.name}",
        )
    return True


def _check_kept(target: Repository, item: Copy, kept: Kept) -> None:
    """What is copied as it is stored finds what it uses under the same names. Raises IdentityNeeded."""
    names = {key for key, _ in item.objects} | kept.names
    if any(item.manifest.key_of(used) not in names for used in _of_others(item.manifest)):
        raise IdentityNeeded(
            f"backup {item.name} cannot be copied as it is: repository {target.store.url} has what it uses in other"
            " objects",
            "name a file with the identities of both repositories with --identity: what is missing is then copied",
        )


def _put_as_it_is(
    ctx: Context,
    source: Repository,
    target: Repository,
    item: Copy,
    objects: list[tuple[str, ObjectDigest]],
    kept: Kept,
) -> CopyResult:
    """Data, index, manifest. From another machine the same backup may be copied at the same time: its bytes are the
    same, so it does not matter whose objects stay, and the first manifest counts. If the other copy is interrupted, it
    removes what it put before it saw this manifest: so what is missing afterwards is put again."""
    total = sum(expected.size_bytes for _, expected in objects)
    put = partial(put_object, ctx, source, target, item.name, as_stored=item.document is not None)
    target.catalog.renew_all(item.manifest)  # of a copy that failed, or was removed
    ctx.progress.start(f"copy {item.manifest.volume}", total_bytes=total, total_files=None)
    for key, expected in objects:
        put(key, expected)
    try:
        target.catalog.commit(item.manifest, document=item.document, kept_by=kept.by)
    except ConflictError:
        if not _is_there(target, item):
            raise
        log.debug("%s was copied by another run meanwhile", item.name)
        return CopyResult("skipped", 0)
    for key, expected in objects:
        if target.size_of(key) != expected.size_bytes:
            put(key, expected)
    return CopyResult("copied", total)


def _put_complete(ctx: Context, source: Repository, target: Repository, item: Copy) -> CopyResult:
    """Another machine may copy it at the same time, and take its frames from another backup there: so nothing that is
    there is replaced."""
    try:
        made = put_complete(ctx, source, target, item.manifest)
        target.catalog.commit(made.manifest, kept_by=made.keepers)
    except ConflictError as exc:
        if _is_there(target, item):
            log.debug("%s was copied by another run meanwhile", item.name)
            return CopyResult("skipped", 0)
        raise ConflictError(
            f"repository {target.store.url} has objects of {item.name}, and not the backup: another run copies it, or"
            " was interrupted",
            "wait for it; what an interrupted one left is removed by the next prune once it is a day old",
        ) from exc
    return CopyResult("copied", made.manifest.stored_bytes + made.manifest.index.size_bytes)
