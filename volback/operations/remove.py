"""Remove: delete backups from the repository, manifest first; what others depend on stays.

A journal lists what is being removed: what a killed run left half removed is not a backup any more, and the next run
deletes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference, parse_reference
from volback.context import Context, Repository
from volback.engine.engine import Engine
from volback.errors import EngineUnreachable, FormatError, StoreError, UsageError
from volback.interrupts import deferred_signals
from volback.operations.locks import volume_lock
from volback.operations.recover import sweep_repository
from volback.state.journal import NewBackup
from volback.state.runs import Run

log = logging.getLogger(__name__)

Found = Manifest | DamagedManifest


def find_all(repository: Repository, references: list[str]) -> list[Found]:
    """Return the backups to remove, each once, each before what it depends on, else the newest first.

    Raises NotFoundError, UsageError for a reference without an id: a volume's name alone is too broad.
    A damaged backup is found by its whole id.
    """
    found = [_find(repository, reference) for reference in references]
    unique = {(backup.id, backup.host, backup.volume): backup for backup in found}
    return _dependents_first([unique[key] for key in sorted(unique, reverse=True)])


def remove(
    ctx: Context, engine: Engine, repository: Repository, backup: Found, *, together: Collection[Found] = ()
) -> str:
    """Remove one backup and return its name; `together` with it others are removed, before or after.

    Damage can make backups depend on one another in a circle, so that none of them comes first.
    Raises ConflictError if others depend on it, LockedError while another run backs up or restores its volume.
    """
    sweep_repository(ctx, repository)
    with volume_locks(ctx, engine, repository, [backup]):
        ids = {other.id for other in together if (other.host, other.volume) == (backup.host, backup.volume)}
        repository.catalog.check_unneeded(backup, besides=ids)
        with removal(ctx, repository, [key_of(backup)]) as erase:
            erase(key_of(backup))
    return name_of_found(backup)


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


@contextmanager
def removal(ctx: Context, repository: Repository, keys: Iterable[BackupKey]) -> Iterator[Callable[[BackupKey], None]]:
    """Yield a function that erases one of these backups; after SIGKILL the next run finishes it.

    The caller holds the volume's locks, and erases what depends on a backup before it. Where the journal cannot be
    written, it works without: on a full disk this frees space.
    """
    entries = {
        key: NewBackup(repository=repository.store.url, repository_id=repository.id, prefix=key.prefix) for key in keys
    }
    half_erased: list[BackupKey] = []

    def erase(key: BackupKey) -> None:
        with deferred_signals():
            half_erased.append(key)
            repository.catalog.erase(key)
            half_erased.remove(key)

    with ExitStack() as stack:
        try:
            with deferred_signals():
                run = stack.enter_context(Run(ctx.settings.state, "remove"))
                stack.callback(lambda: run.journal.drop(*(entries[key] for key in entries if key not in half_erased)))
                run.note(*entries.values())
        except StoreError as exc:
            log.info("objects that a kill leaves half removed will be swept when they are old: %s", exc.message)
        yield erase


def _dependents_first(backups: list[Found]) -> list[Found]:
    """Those that depend on one another in a circle come in the given order. A clock may have been put back, so ids do
    not decide."""
    order: list[Found] = []
    seen: set[int] = set()

    def visit(backup: Found) -> None:
        if id(backup) in seen:
            return
        seen.add(id(backup))
        for other in backups:
            if isinstance(other, Manifest) and _needs(other, backup):
                visit(other)
        order.append(backup)

    for backup in backups:
        visit(backup)
    return order


def _needs(backup: Manifest, other: Found) -> bool:
    return (backup.host, backup.volume) == (other.host, other.volume) and other.id in backup.depends_on


def key_of(backup: Found) -> BackupKey:
    """Its key."""
    return BackupKey(backup.host, backup.volume, backup.id)


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
    parsed = parse_reference(text)
    if parsed.id_prefix is None:
        raise UsageError(f"{text!r} names all backups of a volume", f"name one: {text}@ID; see `volback list {text}`")
    try:
        return repository.find(text)
    except FormatError:
        for backup in repository.catalog.manifests(parsed.host or repository.host, parsed.volume):
            if backup.id == parsed.id_prefix and isinstance(backup, DamagedManifest):
                return backup
        raise
