"""Quiesce: the containers that write to some volumes are stopped or paused while these are read.

Dependants are stopped first and run again last; those that do not need one another, at the same time. The journal is
written before the first stop, and the caller has a guard (see `guard`), so nothing stays stopped: not after an error, a
signal, SIGKILL, or an engine that was restarted in between.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from volback.catalog.model import Source
from volback.context import Context
from volback.engine.containers import Container
from volback.engine.engine import Engine
from volback.errors import ConflictError, NotFoundError, NotRunningError, VolbackError
from volback.interrupts import deferred_signals
from volback.live.order import all_at_once, levels
from volback.live.resuming import HEALTH_LIMIT_S, Resumer, container_lock
from volback.policy.quiesce import How
from volback.policy.schedulers import owner_of
from volback.policy.storage import Storage, is_tmpfs
from volback.state.journal import HeldContainer
from volback.state.runs import Run, live_journals

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuiesceTarget:
    """A container to be stopped or paused, and how."""

    container: Container
    how: How
    grace_s: int


@dataclass(frozen=True, slots=True)
class QuiesceRequest:
    """How the writers of one source are quiesced; `grace_s` None is each container's own grace time."""

    source: Source
    how: How
    grace_s: int | None = None
    storage: Storage | None = None
    """Where the source's bytes are; None is what its name alone says."""

    @property
    def reached(self) -> Storage:
        """By which names and paths containers reach the source."""
        if self.storage is not None:
            return self.storage
        if self.source.kind == "volume":
            return Storage(frozenset({self.source.name}), frozenset())
        return Storage(frozenset(), frozenset({self.source.name}))


def quiesce_candidates(ctx: Context, engine: Engine) -> list[Container]:
    """Containers that run, and those that another run has quiesced: that run must not start them while this one reads.

    The container that this process runs in is not among them.
    """
    own = engine.own_container_id
    found = {container.id: container for container in engine.containers() if container.id != own}
    for _, journal in live_journals(ctx.settings.state):
        for held in journal.of(HeldContainer):
            if held.engine == engine.info.id and held.id not in found:
                try:
                    found[held.id] = engine.container(held.id)
                except NotFoundError:
                    continue
    return list(found.values())


def plan_quiesce(containers: list[Container], requests: Iterable[QuiesceRequest]) -> list[QuiesceTarget]:
    """Return the containers to quiesce, in the order in which they are to be stopped.

    Those are the running ones that have a source mounted writable, and those that share a namespace with one that is
    stopped. Raises ConflictError for a container that would be removed or replaced (by its scheduler) when it is
    stopped, or that cannot be paused.
    """
    targets: dict[str, QuiesceTarget] = {}
    for request in requests:
        _refuse_to_lose(request)
        for container in writers(request, containers):
            _add_request(targets, container, request.how, request.grace_s)
    _add_sharers(targets, containers)
    for item in targets.values():
        _refuse(item)
    return [item for level in _stop_levels(list(targets.values())) for item in level]


def _refuse_to_lose(request: QuiesceRequest) -> None:
    source = request.source
    if request.how == "stop" and source.kind == "volume" and is_tmpfs(source.driver, source.options):
        raise ConflictError(
            f"volume {source.name!r} is in memory (tmpfs): its content is lost when its containers stop",
            "pause them instead with --pause",
        )


def _refuse(item: QuiesceTarget) -> None:
    name = item.container.name
    owner = owner_of(item.container.labels)
    if item.how == "stop" and owner is not None:
        raise ConflictError(
            f"container {name!r} belongs to {owner.what}, which starts another one when it is stopped",
            f"run: {owner.stop_command}; then back up without --stop, and run: {owner.start_command};"
            " or use --pause instead",
        )
    if item.how == "stop" and item.container.auto_remove:
        raise ConflictError(
            f"container {name!r} would be removed as soon as it stops (--rm)",
            "pause it instead with --pause, or start it without --rm",
        )
    if item.how == "pause" and item.container.state == "restarting":
        raise _never_pausable(name)


def _never_pausable(name: str) -> ConflictError:
    return ConflictError(
        f"container {name!r} ends and is restarted again and again, so it cannot be paused",
        f"stop it instead with --stop; see docker logs {name}",
    )


def writers(request: QuiesceRequest, containers: Iterable[Container]) -> list[Container]:
    """Those of the containers that can write to the source, but for those that mount all volumes at once."""
    return [
        item
        for item in containers
        if any(mount.writable and request.reached.reach(mount.kind, mount.source) == "near" for mount in item.mounts)
    ]


class Quiesced:
    """Containers that are quiesced for a block: the caller calls `release` when all has been read, and they run again.

    Entering raises the error of a stop, after those stopped before run again; leaving raises only Interrupted: see
    `errors`, `warnings` and `downtime_s`, which are complete after the block.
    """

    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        run: Run,
        targets: list[QuiesceTarget],
        *,
        health_limit_s: float = HEALTH_LIMIT_S,
    ) -> None:
        self.errors: list[VolbackError] = []
        self.warnings: list[str] = []
        self.downtime_s: dict[str, float] = {}
        self._ctx = ctx
        self._engine = engine
        self._run = run
        self._targets = targets
        self._health_limit_s = health_limit_s
        self._down_since: dict[str, float] = {}
        self._started_at: dict[str, str] = {}
        self._releasing: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            if self._targets:
                planned = {held.id: held for held in self._begin()}
                for level in _stop_levels(self._targets):
                    with deferred_signals():
                        all_at_once([partial(self._halt, item, planned[item.container.id]) for item in level])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def containers(self) -> list[Container]:
        """The containers to quiesce, as they were before."""
        return [item.container for item in self._targets]

    @property
    def held(self) -> list[str]:
        """Names of those that are stopped or paused by this run."""
        return sorted(held.name for held in self._run.journal.of(HeldContainer) if held.phase != "planned")

    def disturbed(self) -> list[str]:
        """Names of those that others have started since: the consistency of what was read meanwhile is not as
        promised."""
        containers = self._run.journal.of(HeldContainer)
        return [held.name for held in containers if held.phase == "held" and self._runs(held)]

    def release(self) -> None:
        """All has been read: start them again, in a thread, while the caller continues."""
        if self._releasing is None and self._targets:
            self._releasing = threading.Thread(target=self._resume, name="resume-containers")
            self._releasing.start()

    def _begin(self) -> list[HeldContainer]:
        """Write the journal before anything is stopped."""
        planned = [_planned(self._engine, item, self._targets) for item in self._targets]
        self._run.note(*planned)
        return planned

    def _halt(self, target: QuiesceTarget, held: HeldContainer) -> None:
        """Stop or pause one. It may have ended meanwhile: then this run must not start it."""
        engine = self._engine
        with container_lock(self._ctx.settings.state, held.id):
            try:
                state = engine.container(held.id).state
            except NotFoundError:
                return
            others = _held_by_others(self._ctx, self._run)
            if state not in ("running", "restarting") and held.id not in others:
                return
            held.phase, held.since = "stopping", time.time()
            self._run.write_journal()
            self._down_since[held.name] = time.monotonic()
            if state in ("running", "restarting"):
                if target.how == "stop":
                    engine.stop_container(held.id, grace_s=target.grace_s)
                else:
                    self._pause(held)
            held.phase = "held"
            self._run.write_journal()
            self._started_at[held.id] = engine.container(held.id).started_at
        log.info("container %s %s", held.name, "stopped" if target.how == "stop" else "paused")

    def _pause(self, held: HeldContainer) -> None:
        try:
            self._engine.pause_container(held.id)
        except NotRunningError as exc:  # it ended after it was seen to run
            raise _never_pausable(held.name) from exc

    def _runs(self, held: HeldContainer) -> bool:
        with suppress(NotFoundError):
            seen = self._engine.container(held.id)
            if seen.state == "running" or seen.started_at != self._started_at.get(held.id, seen.started_at):
                return True
        successor = self._engine.successor(held.id, held.name, held.replica)
        return successor is not None and successor.has_run

    def _end(self) -> None:
        with deferred_signals():
            if self._releasing is None:
                self._resume()
            else:
                self._releasing.join()

    def _resume(self) -> None:
        resumer = Resumer(self._engine, self._ctx.settings.state, self._run, health_limit_s=self._health_limit_s)
        resumer.resume_all(self._note_downtime)
        resumer.await_health()
        self.errors += resumer.errors
        self.warnings += resumer.warnings

    def _note_downtime(self, held: HeldContainer) -> None:
        if held.name in self._down_since:
            self.downtime_s[held.name] = time.monotonic() - self._down_since[held.name]


def _held_by_others(ctx: Context, run: Run) -> set[str]:
    return {
        held.id
        for other, journal in live_journals(ctx.settings.state)
        if other != run.id
        for held in journal.of(HeldContainer)
        if held.phase != "planned"
    }


def _add_request(targets: dict[str, QuiesceTarget], container: Container, how: How, grace_s: int | None) -> None:
    """Add a request; of two for one container the stronger applies, and the longer grace time."""
    grace_s = container.grace_s if grace_s is None else grace_s
    before = targets.get(container.id)
    if before is not None:
        how = "stop" if "stop" in (how, before.how) else "pause"
        grace_s = max(grace_s, before.grace_s)
    targets[container.id] = QuiesceTarget(container, how, grace_s)


def _add_sharers(targets: dict[str, QuiesceTarget], active: list[Container]) -> None:
    """A container in another's namespace would be cut off from it by a restart, so it is stopped with it."""
    while True:
        stopped = [item.container for item in targets.values() if item.how == "stop"]
        more = [
            container
            for container in active
            if (container.id not in targets or targets[container.id].how != "stop")
            and any(container.shares_with(other) for other in stopped)
        ]
        if not more:
            return
        for container in more:
            _add_request(targets, container, "stop", None)


def _stop_levels(targets: list[QuiesceTarget]) -> list[list[QuiesceTarget]]:
    """Those that can be stopped at the same time, level by level: each before what it needs."""
    by_id = {item.container.id: item for item in targets}
    users = {
        id_: [other.container.id for other in targets if other is not item and other.container.needs(item.container)]
        for id_, item in by_id.items()
    }
    return [[by_id[id_] for id_ in level] for level in levels(users)]


def _planned(engine: Engine, item: QuiesceTarget, targets: list[QuiesceTarget]) -> HeldContainer:
    info, container = engine.info, item.container
    needs = [other.container.id for other in targets if other is not item and container.needs(other.container)]
    owner = owner_of(container.labels)
    return HeldContainer(
        engine=info.id, host=info.name, id=container.id, name=container.name, how=item.how, grace_s=item.grace_s,
        needs=needs, replica=container.replica, owner=owner.what if owner else "",
    )  # fmt: skip
