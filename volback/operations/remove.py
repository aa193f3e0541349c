"""Remove: delete backups from the repository, manifests first, and what nobody needs then.

What other backups use of them stays until the last of those is removed. A journal lists what is being removed: what a
killed run left half removed is not a backup any more, and the next run deletes what nobody needs of it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from volback.catalog.condemned import GRACE_S, Locked
from volback.catalog.keys import BackupKey, is_id, parse_backup_key
from volback.catalog.listing import DamagedManifest, Found, key_of
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference, parse_reference
from volback.catalog.references import References
from volback.catalog.space import Removed, sizes_of
from volback.context import Context
from volback.context.naming import has_glob, one_named, references_named
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import EngineUnreachable, FormatError, Interrupted, StoreError, UsageError, VolbackError
from volback.interrupts import deferred_signals
from volback.operations.condemned import Worker
from volback.operations.locks import volume_lock
from volback.operations.notes import check_not_held
from volback.operations.recover import sweep_repository
from volback.state.journal import NewBackup
from volback.state.runs import Run

log = logging.getLogger(__name__)

_AT_ONCE = 32
"""Backups whose manifests are deleted before their data is: then the volume is listed again, once for all of them."""


def find_all(repository: Repository, references: list[str]) -> list[Found]:
    """Return the backups to remove, each once, by volume, the newest first.

    Raises NotFoundError, UsageError for a reference without an id: a volume's name alone is too broad.
    A damaged backup is found by its whole id.
    """
    found = [_find(repository, reference) for reference in references]
    unique = {key_of(backup): backup for backup in found}
    return [unique[key] for key in sorted(unique, reverse=True)]


@dataclass(frozen=True, slots=True)
class RemovedBackups:
    """What was removed of one volume."""

    names: list[str]
    freed_bytes: int
    condemned_bytes: int = 0
    """Of what a prune deletes later, as other machines may use the repository."""
    until: datetime | None = None
    """When it may do that."""
    locked: Locked = field(default_factory=dict)
    """What an object lock keeps for now, by key."""
    error: VolbackError | Interrupted | None = None
    """Why no more was."""


def remove(
    ctx: Context, engine: Engine, repository: Repository, backups: Collection[Found], *, grace_s: int = GRACE_S
) -> list[RemovedBackups]:
    """Remove backups, those of a volume together, and return what was done for each volume; the first error ends it.

    That of a volume can be ConflictError where one of them is held, LockedError while another run backs up or restores
    it, IntegrityError where another manifest of it cannot be read: nothing of it is removed then.
    """
    sweep_repository(ctx, repository)
    done: list[RemovedBackups] = []
    for _, group in groupby(backups, key=lambda backup: (key_of(backup).host, key_of(backup).volume)):
        done.append(_remove_some(ctx, engine, repository, list(group), grace_s))
        if done[-1].error is not None:
            break
    return done


def _remove_some(
    ctx: Context, engine: Engine, repository: Repository, backups: list[Found], grace_s: int
) -> RemovedBackups:
    """Those of one volume."""
    removed, sizes, until = Removed(), dict[str, int](), None
    error: VolbackError | Interrupted | None = None
    try:
        with volume_locks(ctx, engine, repository, backups):
            first, catalog = key_of(backups[0]), repository.catalog
            needs = catalog.references(first.host, first.volume)
            held, keys = catalog.holdings(first.host, first.volume), [key_of(backup) for backup in backups]
            check_not_held(keys, catalog.notes.listed(one for key in keys for one in held.get(key, ())))
            sizes = sizes_of(held)
            remove_from(ctx, repository, keys, needs, removed, grace_s=grace_s)
            if removed.condemned and grace_s:
                until = catalog.condemned_until(removed.condemned[-1], grace_s)
            elif removed.condemned:
                done = Worker(repository, now=ctx.now(), grace_s=0).work_off(first.host, first.volume, None)
                removed.condemned = list(done.waiting)
                removed.objects += done.freed
                removed.locked |= done.locked
                sizes |= done.freed
    except (VolbackError, Interrupted) as exc:
        error = exc
    names = [str(Reference(key.host, key.volume, key.id)) for key in removed.backups]
    freed, condemned = (sum(sizes.get(name, 0) for name in some) for some in (removed.objects, removed.condemned))
    return RemovedBackups(names, freed, condemned, until, removed.locked, error)


@contextmanager
def volume_locks(ctx: Context, engine: Engine, repository: Repository, backups: Iterable[Found]) -> Iterator[None]:
    """Hold the locks of the volume of the backups: one for each engine that they were made on.

    Raises LockedError while another run backs up or restores it.
    """
    names = {(_engine_id(engine, repository, backup), backup.volume) for backup in backups}
    with ExitStack() as held:
        for engine_id, volume in sorted(names):
            held.enter_context(volume_lock(ctx, engine_id, volume))
        yield


def remove_from(
    ctx: Context,
    repository: Repository,
    keys: Sequence[BackupKey],
    needs: References,
    removed: Removed,
    *,
    grace_s: int = GRACE_S,
) -> None:
    """Remove these backups of one volume, whose locks the caller holds, some at once: signals wait for these.

    After SIGKILL the next run finishes it. Where the journal cannot be written, it works without: on a full disk this
    frees space. `needs` is what all manifests of the volume say; `removed` is filled while it works.
    """
    with _journalled(ctx, repository, keys, needs) as half_removed:
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            with deferred_signals():
                half_removed.update(some)
                repository.catalog.remove(some, needs, removed, grace_s=grace_s)
                repository.forget_newest(some)
                half_removed.difference_update(some)
            needs = needs.without(some)


@contextmanager
def _journalled(
    ctx: Context, repository: Repository, keys: Iterable[BackupKey], needs: References
) -> Iterator[set[BackupKey]]:
    """Note where objects will go, and yield a set; what is in it when the block ends is left to the next run."""
    where = {*keys, *filter(None, map(parse_backup_key, needs.freed_by(frozenset(keys))))}
    entries = {
        key: NewBackup(repository=repository.store.url, repository_id=repository.id, prefix=key.prefix) for key in where
    }
    half_removed: set[BackupKey] = set()

    def done() -> list[NewBackup]:
        loose = entries.keys() - set(keys)
        return [entries[key] for key in entries if key not in half_removed and not (half_removed and key in loose)]

    with ExitStack() as stack:
        try:
            with deferred_signals():
                run = stack.enter_context(Run(ctx.settings.state, "remove"))
                stack.callback(lambda: run.journal.drop(*done()))
                run.note(*entries.values())
        except StoreError as exc:
            log.info("objects that a kill leaves half removed will be swept when they are old: %s", exc.message)
        yield half_removed


def name_of_found(backup: Found) -> str:
    """A backup's full name."""
    return str(Reference(backup.host, backup.volume, backup.id))


def _engine_id(engine: Engine, repository: Repository, backup: Found) -> str:
    """The engine of the backup, whose id is in the lock's name; it need not answer now."""
    if isinstance(backup, Manifest):
        return backup.engine_id
    others = repository.catalog.manifests(backup.host, backup.volume)
    known = [other.engine_id for other in others if isinstance(other, Manifest)]
    if known:
        return known[-1]
    try:
        return engine.info.id
    except EngineUnreachable:
        return ""  # an engine that does not exist is not backed up


def _find(repository: Repository, text: str) -> Found:
    parsed = _with_id(repository, text)
    try:
        return repository.find(str(parsed))
    except FormatError:
        for backup in repository.catalog.manifests(parsed.host or repository.host, parsed.volume):
            if backup.id == parsed.id_prefix and isinstance(backup, DamagedManifest):
                return backup
        raise


def _with_id(repository: Repository, text: str) -> Reference:
    """What to remove, named by its id: neither a day nor `latest` names it, as another backup may be that soon."""
    if is_id(text):
        return one_named(repository, text)
    try:
        parsed = parse_reference(text)
    except UsageError:
        meant = ", ".join(map(str, references_named(repository, text)))
        raise UsageError(f"{text!r} names no backup by its id", f"name what is removed: {meant}") from None
    if parsed.id_prefix is None or has_glob(text):
        name = text.partition("@")[0]
        what = "names all backups of a volume" if parsed.id_prefix is None else "names several volumes"
        raise UsageError(f"{text!r} {what}", f"name one: {name}@ID; see `volback list {name}`")
    return parsed
