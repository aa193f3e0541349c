"""Quiesce: the containers that write to some volumes are stopped or paused while these are read.

Dependants are stopped first and run again last; those that do not need one another, at the same time. The journal is
written before the first stop, and the caller has a guard (see `guard`), so nothing stays stopped: not after an error, a
signal, SIGKILL, or an engine that was restarted in between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from volback.context import Context
from volback.engine.containers import NO_RESTART, Container
from volback.engine.engine import Engine
from volback.errors import NotFoundError, NotRunningError, VolbackError
from volback.interrupts import deferred_signals
from volback.live.held import container_lock, forget_left, held_by_others
from volback.live.leaving import Left, leave_stopped, set_no_restart
from volback.live.order import all_at_once
from volback.live.plan import QuiesceTarget, never_pausable, stop_levels
from volback.live.resuming import HEALTH_LIMIT_S, Resumer
from volback.live.services import planned_services, scale_down
from volback.policy.schedulers import owner_of
from volback.state.journal import HeldContainer, HeldService
from volback.state.runs import Run
from volback.threads import in_thread

log = logging.getLogger(__name__)


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
        may_stay: bool = False,
    ) -> None:
        """`may_stay`: they may stay stopped in the end (`leave_stopped`); the engine must not start them by itself."""
        self.errors: list[VolbackError] = []
        self.warnings: list[str] = []
        self.downtime_s: dict[str, float] = {}
        """By the name of the container; that of a service's task is gone, and another one runs in its place."""
        self._ctx = ctx
        self._engine = engine
        self._run = run
        self._targets = targets
        self._health_limit_s = health_limit_s
        self._may_stay = may_stay
        self._down_since: dict[str, float] = {}
        self._started_at: dict[str, str] = {}
        self._await_released: Callable[[], None] | None = None
        self._signals = engine.signals()

    def __enter__(self) -> Self:
        try:
            if self._targets:
                self._signals.__enter__()  # before the first stop: an engine soon forgets what it has reported
                for level in self._begin():
                    with deferred_signals():
                        all_at_once(level)
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
        return sorted(name for held in self._run.journal.held if held.phase != "planned" for name in _names(held))

    def disturbed(self, among: Set[str]) -> list[str]:
        """Names of those (or of what runs in their place) that others have started since: the consistency of what was
        read meanwhile is not as promised."""
        held = [held for held in self._run.journal.held if held.phase == "held" and not among.isdisjoint(_names(held))]
        return [name for item in held for name in self._started_by_others(item)]

    def release(self) -> None:
        """All has been read: start them again, in a thread, while the caller continues."""
        if self._await_released is None and self._targets:
            self._await_released = in_thread(self._resume, "resume-containers")

    def leave_stopped(self, idle: Iterable[Container] = (), *, only: Set[str] | None = None) -> Left:
        """Leave them as they are from now on, whatever happens; see `leaving.leave_stopped`."""
        with deferred_signals():
            left = leave_stopped(self._engine, self._ctx.settings.state, self._run, idle, only=only)
        for container in left.containers:
            self._note_downtime(container.name)
        return left

    def _begin(self) -> list[list[Callable[[], None]]]:
        """Write the journal before anything is stopped; return what to do, level by level."""
        owned = [(item.container, item.service) for item in self._targets if item.service is not None]
        services = planned_services(self._engine, owned)
        alone = [item for item in self._targets if item.service is None]
        planned = {item.container.id: _planned(self._engine, item, alone, may_stay=self._may_stay) for item in alone}
        self._run.note(*planned.values(), *services)
        halts: list[list[Callable[[], None]]] = [
            [partial(self._halt, item, planned[item.container.id]) for item in level] for level in stop_levels(alone)
        ]
        scalings = [partial(self._scale_down, held) for held in services]
        return [[*scalings, *(halts[0] if halts else [])], *halts[1:]]

    def _halt(self, target: QuiesceTarget, held: HeldContainer) -> None:
        """Stop or pause one. It may have ended meanwhile: then this run must not start it."""
        engine = self._engine
        with container_lock(self._ctx.settings.state, held.id):
            try:
                state = engine.container(held.id).state
            except NotFoundError:
                return
            is_running = state in ("running", "restarting")
            if is_running:
                forget_left(self._ctx.settings.state, held.id)
            elif held.id not in held_by_others(self._ctx.settings.state, self._run.id):
                return
            held.phase, held.since = "stopping", time.time()
            self._run.write_journal()
            self._down_since[held.name] = time.monotonic()
            self.warnings += set_no_restart(engine, held)
            if is_running:
                if target.how == "stop":
                    engine.stop_container(held.id, grace_s=target.grace_s)
                else:
                    self._pause(held)
            held.phase = "held"
            self._run.write_journal()
            self._started_at[held.id] = engine.container(held.id).started_at
        log.info("container %s %s", held.name, "stopped" if target.how == "stop" else "paused")

    def _scale_down(self, held: HeldService) -> None:
        began = time.monotonic()
        self.warnings += scale_down(self._engine, self._ctx.settings.state, self._run, held)
        if held.phase == "held":
            self._down_since.update(dict.fromkeys(_names(held), began))

    def _pause(self, held: HeldContainer) -> None:
        try:
            self._engine.pause_container(held.id)
        except NotRunningError as exc:  # it ended after it was seen to run
            raise never_pausable(held.name) from exc

    def _started_by_others(self, held: HeldContainer | HeldService) -> list[str]:
        if isinstance(held, HeldContainer):
            return [held.name] if self._runs(held) else []
        with suppress(NotFoundError):
            if self._engine.service(held.id).replicas:
                return [container.name for container in self._engine.service_containers(held.id)] or _names(held)
        return []

    def _runs(self, held: HeldContainer) -> bool:
        with suppress(NotFoundError):
            seen = self._engine.container(held.id)
            if seen.state == "running" or seen.started_at != self._started_at.get(held.id, seen.started_at):
                return True
        successor = self._engine.successor(held.id, held.name, held.replica)
        return successor is not None and successor.has_run

    def _end(self) -> None:
        with deferred_signals():
            if self._await_released is None:
                self._resume()
            else:
                self._await_released()
            self._signals.__exit__(None, None, None)

    def _resume(self) -> None:
        resumer = Resumer(
            self._engine,
            self._ctx.settings.state,
            self._run,
            health_limit_s=self._health_limit_s,
            was_signalled=self._signals.has,
        )
        resumer.resume_all(self._note_downtime)
        resumer.await_health(self._note_downtime)
        self.errors += resumer.errors
        self.warnings += resumer.warnings

    def _note_downtime(self, name: str) -> None:
        if name in self._down_since:
            self.downtime_s[name] = time.monotonic() - self._down_since[name]


def _names(held: HeldContainer | HeldService) -> list[str]:
    """The containers of it."""
    return [held.name] if isinstance(held, HeldContainer) else [task.name for task in held.containers]


def _planned(engine: Engine, item: QuiesceTarget, targets: list[QuiesceTarget], *, may_stay: bool) -> HeldContainer:
    info, container = engine.info, item.container
    needs = [other.container.id for other in targets if other is not item and container.needs(other.container)]
    owner = owner_of(container.labels)
    return HeldContainer(
        engine=info.id, host=info.name, id=container.id, name=container.name, how=item.how, grace_s=item.grace_s,
        needs=needs, replica=container.replica, owner=owner.what if owner else "",
        restart_policy=container.restart_policy if may_stay and container.restart_policy != NO_RESTART else None,
    )  # fmt: skip
