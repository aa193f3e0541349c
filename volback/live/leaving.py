"""Leaving: what a run has stopped stays stopped, as its volumes are on another engine now: both must not be written.

One write of the journal decides it. Before that, whoever ends the run starts the containers again; after it, nobody
does: not the run, its guard, `recover` or, as their restart policy is `no`, the engine when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path

from volback.engine.containers import NO_RESTART, Container, RestartPolicy
from volback.engine.engine import Engine
from volback.errors import NotFoundError, VolbackError
from volback.live.held import container_lock, note_left, service_lock
from volback.policy.schedulers import owner_of
from volback.policy.storage import Storage
from volback.state.journal import HeldContainer, HeldService, PendingHook
from volback.state.runs import RecordedRun, Run


@dataclass(frozen=True, slots=True)
class LeftContainer:
    """A container that stays stopped."""

    id: str
    name: str
    restart_policy: str | None
    """The one that it had, as `docker update --restart` takes it; None: it had none."""

    @property
    def start_commands(self) -> list[str]:
        """What starts it again, with the policy that it had."""
        update = [f"docker update --restart {self.restart_policy} {self.name}"] if self.restart_policy else []
        return [*update, f"docker start {self.name}"]


@dataclass(frozen=True, slots=True)
class Left:
    """What stays stopped."""

    containers: list[LeftContainer] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    """Names of those that stay scaled to 0."""
    warnings: list[str] = field(default_factory=list)


def idle_users(engine: Engine, storage: Storage) -> list[Container]:
    """Describe the containers of a storage that do not run, and that the engine may start: `leave_stopped` takes them.

    Those of another scheduler are left to it. Raises EngineError.
    """
    found = []
    for user in engine.storage_users(storage):
        try:
            container = engine.container(user.container_id)
        except NotFoundError:
            continue
        restarts = container.restart_policy[0] != NO_RESTART[0]
        if restarts and not container.is_active and owner_of(container.labels) is None:
            found.append(container)
    return found


def leave_stopped(
    engine: Engine, state: Path, run: Run, idle: Iterable[Container] = (), *, only: Set[str] | None = None
) -> Left:
    """Leave what the run has stopped on this engine as it is, and do not let the engine start `idle` ones either.

    `only`: ids of the containers that stay stopped, where others are to run again. Raises StoreError: then nothing is
    decided.
    """
    held = [entry for entry in run.journal.held if _is_left(engine, entry, only)]
    info = engine.info
    resting = [
        HeldContainer(
            engine=info.id, host=info.name, id=container.id, name=container.name, how="stop", stays=True,
            restart_policy=container.restart_policy,
        )
        for container in idle
    ]  # fmt: skip
    for entry in held:
        entry.stays = True
    try:
        if resting:
            run.note(*resting)
        else:
            run.write_journal()
    except BaseException:
        for entry in held:
            entry.stays = False
        raise
    names = {entry.name for entry in [*held, *resting]}
    run.drop(*(hook for hook in run.journal.of(PendingHook) if hook.hook.container in names))
    return settle_left(engine, state, run)


def settle_left(engine: Engine, state: Path, run: RecordedRun) -> Left:
    """Do what `leave_stopped` has decided in this run, or in one that died then, and forget it. Raises StoreError.

    Other runs that hold the same containers and services leave them as they are.
    """
    left = Left()
    for service in run.journal.of(HeldService):
        if service.stays and service.engine == engine.info.id:
            with service_lock(state, service.id):
                note_left(state, run.id, service.id)
                run.drop(service)
            left.services.append(service.name)
    for held in run.journal.of(HeldContainer):
        if held.stays and held.engine == engine.info.id:
            with container_lock(state, held.id):
                left.warnings.extend(set_no_restart(engine, held))
                note_left(state, run.id, held.id)
                run.drop(held)
            left.containers.append(LeftContainer(held.id, held.name, _text(held.restart_policy)))
    return left


def set_no_restart(engine: Engine, held: HeldContainer) -> list[str]:
    """Let the engine not start it by itself any more; a warning where that cannot be done."""
    if held.restart_policy is None:
        return []
    try:
        engine.set_restart_policy(held.id, NO_RESTART)
    except NotFoundError:
        return []
    except VolbackError as exc:
        return [
            f"the engine may start container {held.name!r} again, as its restart policy is still"
            f" {_text(held.restart_policy)!r}: {exc.message}; change it: docker update --restart no {held.name}"
        ]
    return []


def restore_restart_policy(engine: Engine, held: HeldContainer) -> list[str]:
    """Give it the restart policy that it had; a warning where that cannot be done."""
    if held.restart_policy is None:
        return []
    try:
        engine.set_restart_policy(held.id, held.restart_policy)
    except NotFoundError:
        return []
    except VolbackError as exc:
        return [
            f"restart policy of container {held.name!r} is still 'no': {exc.message}; change it: docker update"
            f" --restart {_text(held.restart_policy)} {held.name}"
        ]
    return []


def _is_left(engine: Engine, entry: HeldContainer | HeldService, only: Set[str] | None) -> bool:
    if entry.engine != engine.info.id or entry.phase == "planned":
        return False
    ids = {entry.id} if isinstance(entry, HeldContainer) else {task.id for task in entry.containers}
    return only is None or not only.isdisjoint(ids)


def _text(policy: RestartPolicy | None) -> str | None:
    if policy is None:
        return None
    name, retries = policy
    return f"{name}:{retries}" if retries else name
