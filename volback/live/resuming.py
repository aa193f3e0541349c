"""Resuming: starts what a run has stopped or paused again: at the run's end, by its guard, or by `recover`.

The journal says what was to be quiesced; the engine says what is. A container that another live run holds too is left
to that run: the last holder starts it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from volback.engine.containers import Container
from volback.engine.engine import Engine
from volback.errors import ConflictError, EngineError, EngineUnreachable, NotFoundError, VolbackError
from volback.interrupts import is_pending
from volback.live.held import container_lock, held_by_others, is_left
from volback.live.leaving import restore_restart_policy, settle_left
from volback.live.order import all_at_once, levels
from volback.live.rescaling import Rescaler
from volback.policy.schedulers import owner_of
from volback.state.journal import HeldContainer
from volback.state.runs import RecordedRun

log = logging.getLogger(__name__)

HEALTH_LIMIT_S = 120.0
_STOP_MARGIN_S = 3.0
_POLL_S = 0.1


class Resumer:
    """Starts the containers of one run that are on this engine again: each after those that it needs.

    Services that the run has scaled to 0 are scaled back at the same time.
    """

    def __init__(
        self,
        engine: Engine,
        state: Path,
        run: RecordedRun,
        *,
        health_limit_s: float = HEALTH_LIMIT_S,
        was_signalled: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`was_signalled`: whether the caller has heard that a container (by id) was sent a signal."""
        self.resumed: list[str] = []
        """Names of those that were stopped or paused and run again."""
        self.rescaled: list[str] = []
        """Names of services that have their replicas again."""
        self.errors: list[VolbackError] = []
        self.warnings: list[str] = []
        self._engine = engine
        self._state = state
        self._run = run
        self._health_limit_s = health_limit_s
        self._was_signalled = was_signalled
        self._started: dict[str, str] = {}
        self._successors: dict[str, str] = {}
        """The id of what was made in place of a container of the journal, by that container's id."""
        self._known_health: dict[str, str | None] = {}
        self._rescaler = Rescaler(engine, state, run, limit_s=health_limit_s)

    def resume_all(self, on_resumed: Callable[[str], None] = lambda _: None) -> None:
        """Start all of them, at the same time where none needs another.

        One that fails does not stop the others, and stays in the journal; errors are collected, not raised.
        `on_resumed` gets their names, in threads. The caller defers signals, or is not the main thread.
        """
        self.warnings += settle_left(self._engine, self._state, self._run).warnings
        all_at_once([partial(self._resume_containers, on_resumed), self._rescaler.rescale_all])
        self.rescaled += self._rescaler.rescaled
        self.errors += self._rescaler.errors

    def _resume_containers(self, on_resumed: Callable[[str], None]) -> None:
        here = [held for held in self._run.journal.of(HeldContainer) if held.engine == self._engine.info.id]
        by_id = {held.id: held for held in reversed(here)}
        for level in levels({id_: held.needs for id_, held in by_id.items()}):
            for id_ in level:
                self._await_needed(by_id[id_])
            all_at_once([partial(self._resume_one, by_id[id_], on_resumed) for id_ in level])

    def _resume_one(self, held: HeldContainer, on_resumed: Callable[[str], None]) -> None:
        try:
            self._resume(held)
        except NotFoundError:
            self.errors.append(_gone(held))
            self._run.drop(held)
        except VolbackError as exc:
            self.errors.append(_still_down(held, exc))
        else:
            self._run.drop(held)
        on_resumed(held.name)

    def await_health(self, on_resumed: Callable[[str], None] = lambda _: None) -> None:
        """Wait for the health of all that were started and have a check; one that is not healthy then is a warning.

        Also for the tasks of services: `on_resumed` gets the names of the containers that they had.
        """
        self._rescaler.await_tasks(on_resumed)
        self.warnings += self._rescaler.warnings
        for id_, name in self._started.items():
            if self._health(id_) not in (None, "healthy") and not is_pending():
                self.warnings.append(
                    f"container {name!r} runs again, but is not healthy after {self._health_limit_s:.0f} s"
                )

    def _resume(self, held: HeldContainer) -> None:
        with container_lock(self._state, held.id):
            if is_left(self._state, self._run.id, held.id):
                self._warn_of_left(held)
                return
            if held.phase != "planned":
                self.warnings += restore_restart_policy(self._engine, held)
            if held.id in held_by_others(self._state, self._run.id):
                return
            if held.phase == "planned":
                return  # this run did not stop it: if it is down, somebody else has stopped it
            if self._is_left_to_its_owner(held):
                return
            try:
                if held.phase == "stopping":
                    self._end_stopping(held)
                started = self._is_replaced(held) or self._engine.resume_container(held.id, may_start=not held.owner)
            except NotFoundError:
                started = self._resume_successor(held)
            if started:
                self.resumed.append(held.name)
                self._started[held.id] = held.name

    def _is_replaced(self, held: HeldContainer) -> bool:
        """Whether it is down and another one runs in its place: both would write to one volume.

        That one counts as resumed.
        """
        if self._engine.container(held.id).is_active:
            return False
        new = self._engine.successor(held.id, held.name, held.replica)
        if new is None or not new.is_active:
            return False
        self._note_successor(held, new)
        return True

    def _resume_successor(self, held: HeldContainer) -> bool:
        """Start what was made in its place while it was down, if it does not run. Raises NotFoundError without one."""
        new = self._engine.successor(held.id, held.name, held.replica)
        if new is None:
            raise NotFoundError(f"container {held.name!r} does not exist")
        self._note_successor(held, new)
        with container_lock(self._state, new.id):
            if new.is_active or new.id in held_by_others(self._state, self._run.id):
                return True
            return self._engine.resume_container(new.id, may_start=owner_of(new.labels) is None)

    def _note_successor(self, held: HeldContainer, new: Container) -> None:
        self._successors[held.id] = new.id
        log.info("container %s was made anew while it was %s", held.name, "stopped" if held.how == "stop" else "paused")

    def _is_left_to_its_owner(self, held: HeldContainer) -> bool:
        """Whether a scheduler owns it and it is not paused: started by us, it could run beside the one that replaced
        it. A paused one is thawed, as nobody else does that."""
        try:
            seen = self._engine.container(held.id)
        except NotFoundError:
            if held.owner:
                self._warn_of_owner(held, held.owner, "was removed")
            return bool(held.owner)
        owner = owner_of(seen.labels)
        if owner is None or (held.how == "pause" and seen.is_active):
            return False
        if not seen.is_active:
            self._warn_of_owner(held, owner.what, "has ended")
        return True

    def _warn_of_left(self, held: HeldContainer) -> None:
        if held.phase != "planned":
            self.warnings.append(
                f"container {held.name!r} stays stopped: a move of another run has left it so;"
                f" to have it back: docker start {held.name}"
            )

    def _warn_of_owner(self, held: HeldContainer, owner: str, what: str) -> None:
        word = "stopped" if held.how == "stop" else "paused"
        self.warnings.append(f"container {held.name!r} {what} while it was {word}; {owner} starts another one")

    def _end_stopping(self, held: HeldContainer) -> None:
        """The engine continues a stop although nobody waits for its answer: a container that runs now may stop in a
        moment.

        Only a container that is known to have stopped can be started reliably. So a stop in progress is waited for, and
        an unknown one is done now: its run died between the journal and the engine's answer.
        """
        if self._engine.container(held.id).state != "running":
            return
        if held.how == "stop" and self._is_stopping(held):
            deadline = held.since + held.grace_s + _STOP_MARGIN_S
            while self._engine.container(held.id).state == "running" and time.time() < deadline:
                time.sleep(_POLL_S)
        elif self._run.journal.pid != os.getpid():  # else the engine has refused, and reported it to this run
            self._stop_now(held)

    def _is_stopping(self, held: HeldContainer) -> bool:
        return self._was_signalled(held.id) or self._engine.was_signalled(held.id, since=held.since)

    def _stop_now(self, held: HeldContainer) -> None:
        try:
            if held.how == "stop":
                self._engine.stop_container(held.id, grace_s=held.grace_s)
            else:
                self._engine.pause_container(held.id)
        except EngineUnreachable:
            raise
        except (ConflictError, EngineError) as exc:  # it was paused just now, or cannot be: it runs, or is unpaused
            log.info("container %s: %s", held.name, exc.message)

    def _await_needed(self, held: HeldContainer) -> None:
        for id_ in held.needs:
            if id_ in self._started:
                self._health(id_)

    def _health(self, id_: str) -> str | None:
        if id_ not in self._known_health:
            try:
                self._known_health[id_] = self._engine.wait_healthy(
                    self._successors.get(id_, id_), limit_s=self._health_limit_s, hurry=is_pending
                )
            except VolbackError as exc:
                self.warnings.append(f"health of container {self._started[id_]!r} is not known: {exc.message}")
                self._known_health[id_] = None
        return self._known_health[id_]


def _gone(held: HeldContainer) -> EngineError:
    return EngineError(
        f"container {held.name!r} was removed while it was stopped or paused: it cannot be started again",
        "create it again",
    )


def _still_down(held: HeldContainer, exc: VolbackError) -> VolbackError:
    word = "stopped" if held.how == "stop" else "paused"
    error = type(exc)(
        f"container {held.name!r} is still {word}: {exc.message}",
        f"fix that, then run: volback recover (or docker {'start' if held.how == 'stop' else 'unpause'} {held.name})",
    )
    error.__cause__ = exc
    return error
