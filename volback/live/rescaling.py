"""Rescaling: gives a service that a run has scaled to 0 the replicas back that it had: at the run's end, by its guard,
or by `recover`.

What a person did meanwhile is not undone: a service that has replicas again, or was scaled to 0 once more, stays so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from volback.engine.engine import Engine
from volback.engine.services import Service
from volback.errors import ConflictError, NotFoundError, VolbackError
from volback.interrupts import is_pending
from volback.live.held import held_by_others, is_left, service_lock
from volback.live.order import all_at_once
from volback.live.services import TRIES
from volback.state.journal import HeldService
from volback.state.runs import RecordedRun

_LEADER_S = 30.0
"""How long a swarm may take to elect a leader after its managers have started."""
_POLL_S = 0.1


class Rescaler:
    """Scales the services of one run that are on this engine back."""

    def __init__(self, engine: Engine, state: Path, run: RecordedRun, *, limit_s: float) -> None:
        """`limit_s` is how long the tasks have to run again before that is a warning."""
        self.rescaled: list[str] = []
        """Names of those that have their replicas again."""
        self.errors: list[VolbackError] = []
        self.warnings: list[str] = []
        self._engine = engine
        self._state = state
        self._run = run
        self._limit_s = limit_s
        self._awaited: list[HeldService] = []

    def rescale_all(self) -> None:
        """Scale all of them back; one that fails stays in the journal, and errors are collected, not raised."""
        here = [held for held in self._run.journal.of(HeldService) if held.engine == self._engine.info.id]
        all_at_once([partial(self._rescale, held) for held in here])

    def await_tasks(self, on_resumed: Callable[[str], None]) -> None:
        """Wait until as many tasks run as before; fewer are a warning. `on_resumed` gets the names of containers."""
        deadline = time.monotonic() + self._limit_s
        for held in self._awaited:
            try:
                self._await_tasks_of(held, deadline)
            except VolbackError as exc:
                self.warnings.append(f"whether service {held.name!r} runs again is not known: {exc.message}")
            for task in held.containers:
                on_resumed(task.name)

    def _rescale(self, held: HeldService) -> None:
        try:
            with service_lock(self._state, held.id):
                if is_left(self._state, self._run.id, held.id):
                    self._warn_of_left(held)
                elif held.phase != "planned" and held.id not in held_by_others(self._state, self._run.id):
                    self._give_back(held)
        except NotFoundError:
            self.warnings.append(f"service {held.name!r} was removed while it was scaled to 0")
        except VolbackError as exc:
            self.errors.append(_still_down(held, exc))
            return
        self._run.drop(held)

    def _warn_of_left(self, held: HeldService) -> None:
        if held.phase != "planned":
            self.warnings.append(
                f"service {held.name!r} stays at 0: a move of another run has left it so;"
                f" to have it back: docker service scale {held.name}={held.replicas}"
            )

    def _give_back(self, held: HeldService) -> None:
        for _ in range(TRIES):
            service = self._engine.service(held.id, leader_wait_s=_LEADER_S)
            try:
                self._give_back_now(held, service)
            except ConflictError:
                continue  # others were quicker: look again at what they did
            return
        raise ConflictError(f"service {held.name!r} is changed by others again and again")

    def _give_back_now(self, held: HeldService, service: Service) -> None:
        """Raises ConflictError if others have changed the service since it was described."""
        if service.replicas:
            self._leave(held, service)
        elif service.is_reaffirmed:
            self.warnings.append(
                f"service {held.name!r} was scaled to 0 by others while it was down, and stays at 0;"
                f" to have it back: docker service scale {held.name}={held.replicas}"
            )
        else:
            self._engine.scale_service(service, held.replicas)
            self.rescaled.append(held.name)
            self._awaited.append(held)

    def _leave(self, held: HeldService, service: Service) -> None:
        """It has replicas. If the run died when it asked the swarm, the call may still be on its way: it is valid for
        one version only, so a change that changes nothing makes it too late."""
        if held.phase == "stopping":
            if service.version == held.version:
                self._engine.scale_service(service, service.replicas)
        elif service.replicas != held.replicas:
            self.warnings.append(
                f"service {held.name!r} was scaled to {service.replicas} by others while it was down, and stays so;"
                f" it had {held.replicas}"
            )

    def _await_tasks_of(self, held: HeldService, deadline: float) -> None:
        while (running := self._engine.tasks(held.id, node=held.node).running) < held.running:
            if is_pending():
                return
            if time.monotonic() >= deadline:
                self.warnings.append(
                    f"service {held.name!r} is scaled back, but runs {running} of {held.running} tasks"
                    f" after {self._limit_s:.0f} s"
                )
                return
            time.sleep(_POLL_S)


def _still_down(held: HeldService, exc: VolbackError) -> VolbackError:
    error = type(exc)(
        f"service {held.name!r} is still scaled to 0: {exc.message}",
        f"fix that, then run: volback recover (or docker service scale {held.name}={held.replicas})",
    )
    error.__cause__ = exc
    return error
