"""Recover: remove what crashed runs left. Every run that changes something does it first; `doctor --fix` too.

Only what a dead run's journal or label names is changed; a live run holds its lock.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Sequence

from volback.catalog.keys import BackupKey
from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.volumes import Volume
from volback.errors import (
    ConflictError,
    EngineError,
    IntegrityError,
    LockedError,
    ManifestUnreadable,
    NotFoundError,
    StoreDenied,
    VolbackError,
)
from volback.interrupts import deferred_signals
from volback.live.post_hooks import run_pending
from volback.live.resuming import Resumer
from volback.operations.emptiness import first_entry
from volback.operations.leftovers import FoundLeftovers, Leftovers
from volback.operations.locks import prefix_lock
from volback.operations.single_files import remove_part
from volback.policy.inherited import restored_by
from volback.state.journal import (
    Entry,
    HeldContainer,
    HeldService,
    InRepository,
    Kind,
    NewBackup,
    NewDirectory,
    NewFile,
    NewVolume,
    OnEngine,
    Quiescing,
    Reading,
    Replacing,
)
from volback.state.runs import DeadRun, dead_runs, live_journals, live_runs
from volback.state.unfinished import is_kept

log = logging.getLogger(__name__)

GUARD_S = 60.0
_POLL_S = 0.1
_ENGINELESS: tuple[Kind, ...] = ("copy", "remove")
"""Runs of these kinds do not use an engine."""


def sweep(
    ctx: Context, engine: Engine, repository: Repository, *, remove: bool = True, others: Collection[str] = (),
    spared: Collection[tuple[str, str]] = (),
) -> Leftovers:  # fmt: skip
    """Find what crashed runs left, and remove it unless only asked to find it. Raises EngineUnreachable, StoreError.

    `others`: ids of engines for which the caller sweeps too, so that nothing on them is reported here.
    `spared`: ids of runs, and names of volumes, or paths, that they have begun, which the caller goes on with.
    """
    left = FoundLeftovers()
    state = ctx.settings.state
    helpers = engine.leftover_helpers(running=lambda: live_runs(state))
    with dead_runs(state) as dead:
        for run in dead:
            resume_containers(ctx, engine, run, left, resume=remove)
        for helper in helpers:
            left.helpers.append(helper[:12])
            if remove:
                engine.remove_helper(helper)
        for run in dead:
            _sweep_run(ctx, engine, repository, run, left, remove=remove, spared=spared)
    left.elsewhere = [entry for entry in left.elsewhere if not (isinstance(entry, OnEngine) and entry.engine in others)]
    if remove:
        _warn_of(left)
    return left.all()


def half_restored(ctx: Context, engine: Engine) -> set[str]:
    """Names of the volumes on this engine that crashed runs filled half; a sweep removes them."""
    with dead_runs(ctx.settings.state) as dead:
        return {
            entry.name
            for run in dead
            for entry in run.journal.of(NewVolume)
            if _half_restored(engine, run, entry) is not None
        }


def check_whole(source: Source, half: Collection[str]) -> None:
    """Raises ConflictError for a volume that is `half_restored` still: a sweep could not remove it."""
    if source.kind == "volume" and source.name in half:
        raise ConflictError(
            f"volume {source.name!r} holds a part of a backup: the run that restored it died",
            f"fill it with volback restore BACKUP --as {source.name} --replace, or remove it:"
            f" docker volume rm {source.name}",
        )


def recover(ctx: Context, engine: Engine) -> Leftovers:
    """Start the containers again that crashed runs stopped or paused; needs no repository. Raises EngineUnreachable.

    It waits for a guard that is doing it already.
    """
    left = FoundLeftovers()
    left.errors.extend(
        EngineError(f"{entry.what} is left to the guard of a crashed run, which still tries", "run it again later")
        for entry in _await_guards(ctx, engine)
    )
    with dead_runs(ctx.settings.state) as dead:
        for run in dead:
            resume_containers(ctx, engine, run, left)
            left.elsewhere.extend(entry for entry in run.journal.quiescing if not _is_on(engine, entry))
            if not run.is_open:
                run.forget()
    _warn_of(left)
    return left.all()


def resume_containers(ctx: Context, engine: Engine, run: DeadRun, left: FoundLeftovers, *, resume: bool = True) -> None:
    """Start those of one dead run on this engine again; one that cannot be started stays in its journal, and is an
    error."""
    if not any(_is_on(engine, entry) for entry in run.journal.quiescing):
        return
    if not resume:
        here = [held for held in run.journal.held if _is_on(engine, held)]
        left.containers.extend(held.name for held in here if isinstance(held, HeldContainer))
        left.services.extend(held.name for held in here if isinstance(held, HeldService))
        return
    resumer = Resumer(engine, ctx.settings.state, run)
    with deferred_signals():
        resumer.resume_all()
    errors = resumer.errors
    if not any(_is_on(engine, held) for held in run.journal.held):
        errors += run_pending(engine, run)[0]
    left.containers.extend(resumer.resumed)
    left.services.extend(resumer.rescaled)
    left.errors.extend(errors)
    for message in [*resumer.warnings, *(error.message for error in errors)]:
        log.warning("%s", message)


def _is_on(engine: Engine, entry: OnEngine) -> bool:
    """Whether a run on this engine may act on the entry."""
    return entry.engine == engine.info.id


def _warn_of(left: FoundLeftovers) -> None:
    """Report what stays because it belongs to another engine. Objects left in a repository wait for its next backup."""
    for entry in left.elsewhere:
        if isinstance(entry, OnEngine):
            log.warning("a crashed run left %s %s; it stays until volback runs there", entry.what, entry.where)
    for directory in left.unreadable:
        log.warning("a crashed run left %s, whose journal this version cannot read; it stays", directory)
    for line in left.kept:
        log.warning("%s", line)


def _await_guards(ctx: Context, engine: Engine) -> list[Quiescing]:
    """A live run whose process is dead is a guard in progress; it gets a moment to finish. Return what it has left."""
    deadline = time.monotonic() + GUARD_S
    while (guarded := _guarded(ctx, engine)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return guarded


def _guarded(ctx: Context, engine: Engine) -> list[Quiescing]:
    return [
        entry
        for _, journal in live_journals(ctx.settings.state)
        if not _is_alive(journal.pid)
        for entry in journal.quiescing
        if _is_on(engine, entry)
    ]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sweep_repository(ctx: Context, repository: Repository) -> None:
    """Remove what crashed runs left in this repository only; needs no engine. Raises StoreError."""
    left = FoundLeftovers()
    with dead_runs(ctx.settings.state) as dead:
        for run in dead:
            here = [entry for entry in run.journal.of(NewBackup) if repository.has(entry)]
            done = [entry for entry in here if _sweep_backup(ctx, repository, run, entry, left, remove=True)]
            _settle(run, done, forget=run.journal.kind in _ENGINELESS)
    _warn_of(left)


def discard(repository: Repository, key: BackupKey, *, is_copy: bool = False) -> bool:
    """Remove what exists of a failed backup; one that was committed meanwhile stays.

    Of a copy, another machine may be making the same one: what that has put is condemned in a shared repository.

    False where that is denied (a key that may only write), or where it is unknown what other backups of the volume
    need, so that the run is remembered; any other error is raised.
    """
    try:
        repository.catalog.remove_litter(key.prefix, at_once=not is_copy)
    except ConflictError:
        log.debug("backup %s was committed before the interruption", key.prefix)
    except (StoreDenied, IntegrityError, ManifestUnreadable) as exc:
        log.warning("%s", _why_it_stays(key.prefix, exc))
        return False
    return True


def _sweep_run(
    ctx: Context, engine: Engine, repository: Repository, run: DeadRun, left: FoundLeftovers, *, remove: bool,
    spared: Collection[tuple[str, str]] = (),
) -> None:  # fmt: skip
    if not run.is_readable:
        left.unreadable.append(run.directory)
        return
    done = [
        entry
        for entry in run.journal.entries
        if (run.id, _name_of(entry)) not in spared
        and _sweep_entry(ctx, engine, repository, run, entry, left, remove=remove)
    ]
    if len(done) == len(run.journal.entries):
        left.runs.append(run.id)
    if remove:
        _settle(run, done)


def _name_of(entry: Entry) -> str:
    """Of what it has made: of a volume, or the path of a directory."""
    return entry.name if isinstance(entry, NewVolume) else entry.path if isinstance(entry, NewDirectory) else ""


def _settle(run: DeadRun, done: Sequence[Entry], *, forget: bool = True) -> None:
    """Drop entries of which nothing is left, and the run with its last entry."""
    if forget and len(done) == len(run.journal.entries) and run.is_readable:
        run.forget()
    else:
        run.drop(*done)


def _sweep_entry(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    run: DeadRun,
    entry: Entry,
    left: FoundLeftovers,
    *,
    remove: bool,
) -> bool:
    """Whether nothing of it is left to remember."""
    if isinstance(entry, Reading):
        return True  # its process has ended
    if not _concerns(engine, repository, run, entry):
        left.elsewhere.append(entry)
        return False
    match entry:
        case NewBackup():
            return _sweep_backup(ctx, repository, run, entry, left, remove=remove)
        case NewVolume():
            return _sweep_volume(engine, run, entry, left, remove=remove)
        case NewDirectory():
            left.directories.append(entry.path)
            if remove:
                log.warning("a run died while it restored into %s: what is there is incomplete", entry.path)
        case NewFile():
            return _sweep_part(engine, run, entry, remove=remove)
        case Replacing():
            left.replaced.append(entry)
    # other entries left here are containers that still do not run, and hooks that wait for them
    return isinstance(entry, NewDirectory)


def _concerns(engine: Engine, repository: Repository, run: DeadRun, entry: Entry) -> bool:
    """Whether a run on this engine and repository may act on the entry.

    Entries of earlier versions do not name their engine. A volume's label proves it; what is only reported is reported
    by any run.
    """
    if isinstance(entry, OnEngine) and not entry.engine:
        return not isinstance(entry, NewVolume) or _half_restored(engine, run, entry) is not None
    if isinstance(entry, InRepository):
        return repository.has(entry)
    return _is_on(engine, entry)


def _half_restored(engine: Engine, run: DeadRun, entry: NewVolume) -> Volume | None:
    """The volume that the run made; None where it does not exist, or belongs to others by now."""
    try:
        volume = engine.volume(entry.name)
    except NotFoundError:
        return None
    return volume if restored_by(volume.labels) == (entry.made_by or run.id) else None


def _sweep_volume(engine: Engine, run: DeadRun, entry: NewVolume, left: FoundLeftovers, *, remove: bool) -> bool:
    volume = _half_restored(engine, run, entry)
    if volume is None:
        return True
    if not remove:
        left.volumes.append(entry.name)
        return True
    try:
        if not entry.was_empty and _is_of_others(engine, run, volume):
            log.warning("volume %s stays: a run made it and died, and what is in it was there before", entry.name)
            return True
        if volume.driver != "local":
            log.warning("half-restored volume %s stays: removing it could remove older data too", entry.name)
            return False
        engine.remove_volume(entry.name)
    except (ConflictError, EngineError) as exc:
        log.warning("half-restored volume %s stays: %s", entry.name, exc.message)
        return False
    left.volumes.append(entry.name)
    return True


def _sweep_part(engine: Engine, run: DeadRun, entry: NewFile, *, remove: bool) -> bool:
    try:
        return not remove or remove_part(engine, entry.path, run=run.id, directory=run.directory / "part")
    except NotFoundError:
        return True
    except EngineError as exc:
        log.warning("%s stays: %s", entry.what, exc.message)
        return False


def _is_of_others(engine: Engine, run: DeadRun, volume: Volume) -> bool:
    """Whether a volume into which the run had not looked yet is not empty: then the run has not filled it."""
    source = Source(kind="volume", name=volume.name)
    return bool(first_entry(engine, source, run=run.id, directory=run.directory / "look"))


def _sweep_backup(
    ctx: Context, repository: Repository, run: DeadRun, entry: NewBackup, left: FoundLeftovers, *, remove: bool
) -> bool:
    """Whether nothing is left to remember; objects that a key may not delete must not block new backups of its host."""
    if remove and is_kept(ctx.settings.state, repository.id, entry.prefix, ctx.now()):
        return False
    # A dead run's uploads are dead at any age; but another machine may be copying the same backup there.
    older_than_s = None if run.journal.kind in _ENGINELESS else 0.0
    catalog = repository.catalog
    try:
        with prefix_lock(ctx, repository, entry.prefix):
            if remove:
                repository.store.sweep(entry.prefix, older_than_s=older_than_s)
            at_once = run.journal.kind not in _ENGINELESS  # no other machine has seen a backup there
            if catalog.remove_litter(entry.prefix, at_once=at_once) if remove else catalog.litter_of(entry.prefix):
                left.backups.append(entry.prefix)
    except ConflictError:
        log.debug("%s was committed before its run died", entry.prefix)
    except LockedError:
        log.debug("%s is being copied again: that run is responsible for it", entry.prefix)
    except (StoreDenied, IntegrityError, ManifestUnreadable) as exc:
        left.kept.append(_why_it_stays(entry.prefix, exc))
        return False
    return True


def _why_it_stays(prefix: str, why: VolbackError) -> str:
    if isinstance(why, StoreDenied):
        instead = "until volback doctor --fix runs with a key that may delete"
        return f"what a failed run left in {prefix} stays, {instead}: {why.message}"
    return "; ".join(filter(None, [why.message, why.hint]))


def forget_replacements(ctx: Context, engine: Engine, volume: str) -> None:
    """Drop the entries of dead runs about filling `volume` on this engine: a new replacement has succeeded."""
    with dead_runs(ctx.settings.state) as dead:
        for run in dead:
            of_volume: list[Replacing | NewVolume] = [
                *(entry for entry in run.journal.of(Replacing) if entry.volume == volume),
                *(entry for entry in run.journal.of(NewVolume) if entry.name == volume),
            ]
            done = [entry for entry in of_volume if not entry.engine or _is_on(engine, entry)]
            if done:
                _settle(run, done)
