"""Recovery: remove what crashed runs left. Every run that changes something does it first; `doctor --fix` too.

Only what a dead run's journal or label names is touched; a run that lives holds its lock.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from volback.catalog.keys import BackupKey
from volback.context import Session
from volback.errors import ConflictError, EngineError, LockedError, NotFoundError, StoreDenied, VolbackError
from volback.interrupts import deferred_signals
from volback.live.post_hooks import run_pending
from volback.live.resuming import Resumer
from volback.state.runs import DeadRun, Journal, Run, dead_runs, live_journals, live_runs, lock

log = logging.getLogger(__name__)

RESTORE_LABEL = "com.docker.volback.restore"
"""On a volume that a restore created: the id of its run. With it a half-made volume is told from any other.

A label cannot be taken off again, and docker-compose 1 warns at each `up` of one that its file does not have, unless it
begins with `com.docker.` (compose/volume.py, check_remote_volume_config).
"""

GUARD_S = 60.0
_POLL_S = 0.1
COPY, REMOVE = "copy ", "remove "
"""How the commands of runs begin that have nothing to do with an engine."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What crashed runs left; names for people."""

    helpers: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    """Those of which nothing is left to remember."""
    directories: list[str] = field(default_factory=list)
    """Those that a restore made and did not fill to its end; they are named once, and stay."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Volumes whose replacement was cut off, and the backup that holds what they were."""
    containers: list[str] = field(default_factory=list)
    """Those that a crashed run kept still; they run again, unless told not to remove, or there is an error."""
    errors: list[VolbackError] = field(default_factory=list)
    """Why some of them do not."""

    def __bool__(self) -> bool:
        made = self.helpers or self.volumes or self.directories or self.backups or self.runs
        return bool(made or self.replaced or self.containers)


def sweep(session: Session, *, remove: bool = True) -> Leftovers:
    """Find, and unless told not to remove, what crashed runs left. Raises EngineUnreachable, StoreError."""
    left = Leftovers()
    state = session.settings.state
    alive = live_runs(state)
    with dead_runs(state) as dead:
        for run in dead:
            resume_containers(session, run, left, resume=remove)
        for helper in session.engine.leftover_helpers(running=alive):
            left.helpers.append(helper[:12])
            if remove:
                session.engine.remove_helper(helper)
        for run in dead:
            if _sweep_run(session, run, left, remove=remove):
                left.runs.append(run.id)
                if remove:
                    run.forget()
    return left


def recover(session: Session) -> Leftovers:
    """Let the containers run again that crashed runs kept still; needs no repository. Raises EngineUnreachable.

    A guard that is at it already is waited for.
    """
    left = Leftovers()
    _await_guards(session)
    with dead_runs(session.settings.state) as dead:
        for run in dead:
            resume_containers(session, run, left)
            if run.journal is not None and not run.journal.is_open:
                run.forget()
    return left


def resume_containers(session: Session, run: DeadRun, left: Leftovers, *, resume: bool = True) -> None:
    """Let those of one dead run run again; what cannot stays in its journal, and is an error that is logged too."""
    journal = run.journal
    if journal is None or not (journal.containers or journal.hooks):
        return
    if journal.engine != session.engine.info.id:
        log.warning("containers of another engine are still down: %s", ", ".join(_names(journal)))
        return
    if not resume:
        left.containers.extend(_names(journal))
        return
    resumer = Resumer(session.engine, session.settings.state, run.id, journal, run.write_journal)
    with deferred_signals():
        resumer.resume_all()
    errors = resumer.errors
    if not journal.containers:
        errors += run_pending(session, journal, run.write_journal)[0]
    left.containers.extend(resumer.resumed)
    left.errors.extend(errors)
    for error in errors:
        log.warning("%s", error.message)


def _names(journal: Journal) -> list[str]:
    return [held.name for held in journal.containers]


def _await_guards(session: Session) -> None:
    """A run that lives though its process is dead is a guard at work; it has a moment to come to its end."""
    deadline = time.monotonic() + GUARD_S
    while time.monotonic() < deadline and any(
        (journal.containers or journal.hooks) and not _is_alive(journal.pid)
        for _, journal in live_journals(session.settings.state)
    ):
        time.sleep(_POLL_S)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sweep_repository(session: Session) -> None:
    """Remove what crashed runs left in this repository alone; needs no engine. Raises StoreError."""
    with dead_runs(session.settings.state) as dead:
        for run in dead:
            journal = run.journal or Journal(pid=0, command=COPY)  # without a journal, nothing had been begun
            here = journal.repository == session.store.url
            done = here or not journal.prefixes
            for prefix in journal.prefixes if here else ():
                done &= _sweep_prefix(session, journal, prefix, Leftovers(), remove=True)
            if journal.command.startswith((COPY, REMOVE)) and done:
                run.forget()  # nothing else can be left of it


def discard(session: Session, run: Run, key: BackupKey) -> None:
    """Remove what there is of a backup of this run that failed; one that was committed after all stays.

    Where that is denied (a key that may only write), the run is remembered; any other error is raised.
    """
    try:
        with deferred_signals():
            session.catalog.remove_litter(key.prefix)
    except ConflictError:
        log.debug("backup %s was committed before the interruption", key.prefix)
    except StoreDenied as exc:
        _say_that_it_stays(key.prefix, exc)
        return
    run.journal.prefixes = []


def prefix_lock(session: Session, prefix: str) -> AbstractContextManager[None]:
    """Hold one backup's place in a repository. A new backup has a new place; a copy and its sweep can meet in one."""
    name = hashlib.sha256(f"{session.store.url}\n{prefix}".encode()).hexdigest()
    return lock(session.settings.state, f"prefix-{name}", f"backup {prefix.rstrip('/')} in {session.store.url}")


def _sweep_run(session: Session, run: DeadRun, left: Leftovers, *, remove: bool) -> bool:
    """Whether nothing of the run is left to remember."""
    journal = run.journal
    if journal is None:
        return True
    done = True
    for volume in journal.volumes:
        done &= _sweep_volume(session, run.id, volume, left, remove=remove)
    if journal.repository == session.store.url:
        for prefix in journal.prefixes:
            done &= _sweep_prefix(session, journal, prefix, left, remove=remove)
    elif journal.prefixes:
        done = False  # its repository is not the one at hand: a run that uses that one will do it
    if journal.containers or journal.hooks:
        done = False  # those that still do not run
    for directory in journal.directories:
        left.directories.append(directory)
        if remove:
            log.warning("a run died while it restored into %s: what is there is incomplete", directory)
    if journal.replacing:
        left.replaced.update(journal.replacing)
        done = False
    return done


def _sweep_volume(session: Session, run_id: str, name: str, left: Leftovers, *, remove: bool) -> bool:
    try:
        volume = session.engine.volume(name)
    except NotFoundError:
        return True
    if volume.labels.get(RESTORE_LABEL) != run_id:
        return True  # somebody's own volume by now
    left.volumes.append(name)
    if remove:
        try:
            session.engine.remove_volume(name)
        except (ConflictError, EngineError) as exc:
            log.warning("half-restored volume %s stays: %s", name, exc.message)
            return False
    return True


def _sweep_prefix(session: Session, journal: Journal, prefix: str, left: Leftovers, *, remove: bool) -> bool:
    """Whether nothing is left to remember; what a key may not delete must not keep its host from new backups."""
    # A dead run's uploads are dead however young they are; but another machine may be copying the same backup there.
    older_than_s = None if journal.command.startswith((COPY, REMOVE)) else 0.0
    try:
        with prefix_lock(session, prefix):
            found = any(True for _ in session.store.list(prefix))
            if found and prefix in session.catalog.litter():
                left.backups.append(prefix)
            if remove:
                session.store.sweep(prefix, older_than_s=older_than_s)
                session.catalog.remove_litter(prefix)
    except ConflictError:
        log.debug("%s was committed before its run died", prefix)
    except LockedError:
        log.debug("%s is being copied anew: that run answers for it", prefix)
    except StoreDenied as exc:
        _say_that_it_stays(prefix, exc)
        return False
    return True


def _say_that_it_stays(prefix: str, denied: StoreDenied) -> None:
    log.warning("what a failed run left in %s stays, until volback doctor --fix runs with a key that may delete: %s",
                prefix, denied.message)  # fmt: skip


def forget_replacement(session: Session, volume: str) -> None:
    """A replacement of `volume` has come to an end: journals of earlier ones that did not are of no use any more."""
    with dead_runs(session.settings.state) as dead:
        for run in dead:
            if run.journal is not None and volume in run.journal.replacing:
                run.forget()
