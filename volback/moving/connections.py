"""Connections: a move that loses an engine waits for it, removes the helpers that were left there, and goes on.

Two writers on one target must never be: nothing goes on before both engines answer and no helper of the run is left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from volback.context import Context
from volback.engine.engine import Engine
from volback.errors import EngineError, EngineUnreachable, HelperLost
from volback.measures import human_duration
from volback.retry import RetryBudget
from volback.state.runs import Run

log = logging.getLogger(__name__)

RETRY_S = 300.0
"""How long engines may be unreachable."""
_IDLE_MOST = 10
"""So often a move tries again that brings nothing to the target between one cut and the next."""

T = TypeVar("T")


@dataclass(slots=True)
class Traffic:
    """What has gone from one side to the other, in all tries."""

    raw_bytes: int = 0
    """Of tar streams."""
    sent_bytes: int = 0
    """What helpers of the target were given."""
    missing_bytes: float = math.inf
    """What the target lacked when it was last compared with the source."""


class Connections:
    """The engines of one move, and how often one of them was lost."""

    def __init__(self, ctx: Context, run: Run | None, engines: Sequence[Engine], *, limit_s: float | None) -> None:
        """Without a limit nothing is tried again; without a run there are no helpers."""
        self.retries = 0
        self.gave_up = False
        """Whether an engine did not come back: what the target holds is kept then, to go on from."""
        self.has_arrived = False
        """Whether all is there, and nothing of it can be lost any more."""
        self.traffic = Traffic()
        self._ctx = ctx
        self._run = run
        self._engines = engines
        self._limit_s = limit_s

    def through(self, work: Callable[[bool], T], *, again: bool = False) -> T:
        """Return what `work` returns; it is called again, with true, whenever an engine was lost meanwhile.

        Raises what `work` raises, EngineUnreachable where an engine does not come back in time.
        """
        idle, missing_bytes = 0, self.traffic.missing_bytes
        while True:
            try:
                return work(again)
            except EngineError as exc:
                if self._limit_s is None or not self._is_cut(exc):
                    raise
                idle = 0 if self.traffic.missing_bytes < missing_bytes else idle + 1
                missing_bytes, again = self.traffic.missing_bytes, True
                self._come_back(exc, 0.0 if idle > _IDLE_MOST else self._limit_s)

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """An engine that is lost where nothing is tried again, as at a stop of containers, ends the move in the block:
        what the target holds is kept."""
        try:
            yield
        except EngineUnreachable as exc:
            if self.gave_up or self.has_arrived or self._limit_s is None:
                raise
            self.gave_up = True
            raise _given_up(exc, 0.0) from exc

    def _is_cut(self, exc: EngineError) -> bool:
        """Whether it is about the way to an engine, or one that stops, and not about what was to be done."""
        return isinstance(exc, EngineUnreachable | HelperLost) or not self._all_answer()

    def _all_answer(self) -> bool:
        try:
            for engine in self._engines:
                engine.check_same()
        except EngineUnreachable:
            return False
        return True

    def _come_back(self, exc: EngineError, limit_s: float) -> None:
        """Wait until both engines answer, and no helper of this run is left on them."""
        self._ctx.progress.start(f"wait for an engine: {exc.message}", total_bytes=None, total_files=None)
        budget, last = RetryBudget(limit_s), exc
        while True:
            if not budget.wait():
                self.gave_up = True
                raise _given_up(last, limit_s) from exc
            self._ctx.progress.advance()  # it is what ends a thread's wait after a signal
            try:
                for engine in self._engines:
                    engine.check_same()
                    if self._run is not None:
                        engine.remove_helpers(self._run.id)
                break
            except EngineError as lost:
                last = lost
        self.retries += 1
        log.warning("the connection to an engine was lost, and the move goes on: %s", exc.message)


def _given_up(exc: EngineError, limit_s: float) -> EngineUnreachable:
    tried = f"tried again for {human_duration(limit_s)}" if limit_s else "not tried again"
    hint = "run the same command again: it goes on from what is there"
    return EngineUnreachable(f"the move was given up: {exc.message} ({tried})", hint)
