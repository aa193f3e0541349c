"""Member: one volume or directory of several that are moved together.

Its steps are called from threads, one after the other. Each collects its error: then what it has made is undone, and
no later step does anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cached_property, partial

from volback.archive.plan import Plan
from volback.context import Context
from volback.engine.containers import Container
from volback.errors import ConflictError, Failure, Interrupted, VolbackError
from volback.live.plan import QuiesceRequest, writers
from volback.live.quiesce import Quiesced
from volback.moving.again import is_untouched, note_moved
from volback.moving.begun import find_begun, is_half_made, take_over
from volback.moving.connections import Connections
from volback.moving.directories import are_one_storage, filling_directory, is_there
from volback.moving.look import Look
from volback.moving.migrate import MigrateOptions, check_unwritten
from volback.moving.move import Moved
from volback.moving.passes import NOTHING, Helpers, Moving, Pass, Stopping
from volback.moving.proof import same_there
from volback.moving.sides import Side, source_side
from volback.moving.targets import Filling, Replacement, filling
from volback.moving.transfer import Route, Wires
from volback.operations.in_use import UnusedStorage
from volback.operations.observe import Observer
from volback.operations.prove import Comparison
from volback.operations.recover import forget_replacements
from volback.operations.volumes import check_mounted, open_reader, scan
from volback.state.journal import Replacing
from volback.state.runs import Run

log = logging.getLogger(__name__)

EXISTS_HINT = "give --replace, or remove it there first"


class Member:
    """One of them, on its way."""

    def __init__(
        self, ctx: Context, source: Side, target: Side, wires: Wires, options: MigrateOptions, refill: Replacement
    ) -> None:  # fmt: skip
        """`refill`: how a target is replaced that holds only what an earlier run has put there."""
        self.source = source
        self.error: Failure | None = None
        """Why it was not moved."""
        self.moved: Moved | None = None
        """Once it was, whether or not it is the same there."""
        self.is_working = False
        """Whether its helpers may be ended to stop it: those that undo something must not be."""
        self._ctx = ctx
        self._target = target
        self._wires = wires
        self._options = options
        self._refill = refill
        self._began = 0.0
        self._held = ExitStack()
        self._making = ExitStack()
        self._helping = ExitStack()
        self._run: Run | None = None
        self._moving: Moving | None = None
        self._first: Pass | None = None
        self._helpers: Helpers | None = None
        self._was_there = False

    @property
    def name(self) -> str:
        """Of the volume, or the path."""
        return self.source.volume.name

    @property
    def run_id(self) -> str | None:
        """Of its run, by which its helpers are known."""
        return None if self._run is None else self._run.id

    @property
    def is_left(self) -> bool:
        """Whether it is still to be moved."""
        return self.error is None and self.moved is None

    @property
    def is_good(self) -> bool:
        """Whether it is there, and nothing of it differs."""
        return self.moved is not None and (self.moved.proof is None or not self.moved.proof.differs)

    @cached_property
    def request(self) -> QuiesceRequest:
        """The containers that write to it are to be stopped. Raises EngineError."""
        source = self.source
        return QuiesceRequest(source.volume, "stop", storage=source.engine.storage(source.volume))

    def open(self) -> None:
        """Lock both ends, until `close`."""
        self._do(self._open)

    def close(self) -> None:
        """End the helpers that wait, and release the locks."""
        self._helping.close()
        self._held.close()

    def fail(self, error: Failure, *, keep: bool = False) -> None:
        """Undo what was made, because of an error; `keep`: an engine is lost, and the next run is to go on from it."""
        self.is_working = False
        if keep and self._run is not None:
            self._connections.gave_up = True
        self.error = error
        for stack in (self._helping, self._making):
            try:
                stack.__exit__(type(error), error, error.__traceback__)
            except (VolbackError, Interrupted) as exc:
                self.error = exc

    def begin(self) -> None:
        """Make the target; with --live, copy what there is now. What is there already, and the same, is not copied."""
        self._do(self._begin)

    def get_ready(self) -> None:
        """Start the helpers that wait while containers are stopped."""
        self._do(self._get_ready)

    def finish(self, quiesced: Quiesced | None = None) -> None:
        """Copy what is left to copy while nothing writes, and prove it. The target is whole then."""
        was_ready = self._is_ready
        if not self._has_begun:
            self.begin()
        self.get_ready()
        self._do(partial(self._finish, quiesced))
        if not was_ready:
            self._helping.close()

    def goes_on(self) -> None:
        """Remember the target, as its source changes again: the next run may replace it if nobody touches it."""
        try:
            note_moved(self._ctx, self._route.run, self._target)
        except (VolbackError, Interrupted) as exc:
            log.debug("%s is not remembered: %s", self._target.what, exc.message)

    def stopped(self, quiesced: Quiesced | None) -> list[Container]:
        """The containers that were stopped, and write to it."""
        return [] if quiesced is None else writers(self.request, quiesced.containers)

    def _do(self, step: Callable[[], None]) -> None:
        """Do it unless an earlier step has failed, or all is done."""
        if not self.is_left:
            return
        self.is_working = True
        try:
            step()
        except (VolbackError, Interrupted) as exc:
            log.debug("%s", self.source.what, exc_info=exc)
            self.fail(exc)
        finally:
            self.is_working = False

    @property
    def _has_begun(self) -> bool:
        return self._moving is not None

    @property
    def _is_ready(self) -> bool:
        """Whether the helpers of the last pass wait."""
        return self._helpers is not None

    def _open(self) -> None:
        if self.source.is_same(self._target):
            raise ConflictError(f"{self.source.what} is on that engine already", "give another engine")
        self._held.enter_context(self.source.locked(self._ctx))
        self._held.enter_context(self._target.locked(self._ctx))
        self._run = self._held.enter_context(Run(self._ctx.settings.state, "migrate", self.name))

    def _begin(self) -> None:
        self._began = time.monotonic()
        source = self.source
        check_mounted(source.engine, source.volume, hint="start its container first")
        if self._options.stopping is None:
            check_unwritten(self._ctx, source)
        if not self._is_there_already():
            fill = partial(
                filling if source.volume.kind == "volume" else filling_directory,
                self._ctx, self._route.run, self._target, self._options,
            )  # fmt: skip
            making = fill(source=source, kept=self._connections, on_wire=self._wires.of_writer, hint=EXISTS_HINT)
            self._moving = self._movement(self._making.enter_context(making))
            if self._options.stopping is not None and self._options.stopping.live:
                self._first = self._moving.live_passes()

    def _is_there_already(self) -> bool:
        """Whether an earlier run has moved it: both sides are read, and are the same bit for bit."""
        there = self._existing()
        if there is None:
            return False
        observer = Observer(self.source.engine, self.source.volume)
        with observer.observing():
            observer.begin()
            plan = same_there(replace(self._route, target=there))
            observer.end()
        if plan is None:
            if self._options.replace is None and is_untouched(self._ctx, self._route.run, there):
                self._options = replace(self._options, replace=self._refill)
            return False
        unused = UnusedStorage(there.engine, there.volume)
        if self._options.stopping is None:
            unused.check()
            self.moved = self._unchanged(there, plan, observer)
            self._forget_replacements()
            return True
        self._making.enter_context(unused.replacing(done="filled", again="move it again"))
        self._was_there = True
        self._first = Pass(plan, NOTHING, is_proven=True)
        self._moving = self._movement(Filling(there, None, Look("", "")))
        return True

    def _existing(self) -> Side | None:
        """The target as it is there; None where a run that died has begun it.

        Raises ConflictError for a directory that is the source itself.
        """
        target, run = self._target, self._route.run
        if target.volume.kind == "volume":
            is_known = target.engine.has_volume(target.volume.name)
            # A dead run answers for what it has begun, and would have it removed: this one takes it over.
            if not is_known or is_half_made(self._ctx, run, target):
                return None
            return source_side(target.engine, target.volume.name)
        if not is_there(run, target):
            return None
        plans = []
        for side in (self.source, target):
            with open_reader(side.engine, run, side.volume) as reader:
                plans.append(scan(reader, []))
        if are_one_storage(*plans):
            raise ConflictError(
                f"{target.what} holds the same files on both engines: they are on one host",
                "leave out --with-binds, or name another place with --map",
            )
        return target

    def _get_ready(self) -> None:
        if self._helpers is None:
            assert self._moving is not None
            self._helpers = self._helping.enter_context(self._moving.waiting(self._first))

    def _finish(self, quiesced: Quiesced | None) -> None:
        moving, helpers, stopped = self._moving, self._helpers, self.stopped(quiesced)
        assert moving is not None
        assert helpers is not None
        with self._changing(moving):
            found = moving.copied(self._first, helpers)
        if quiesced is not None:
            moving.check_undisturbed(quiesced, stopped)
        moving.end_filling()
        self._making.close()
        if self._was_there:
            self._forget_replacements()
        moved = moving.moved(self._first, found, stopped, duration_s=time.monotonic() - self._began)
        self.moved = replace(moved, was_there=self._was_there and not found.done.raw_bytes)

    def _changing(self, moving: Moving) -> AbstractContextManager[None]:
        """What is whole already is half made while what has changed is sent to it."""
        if not self._was_there:
            return nullcontext()
        target, info = self._target, self._target.engine.info
        entry = Replacing(engine=info.id, host=info.name, volume=target.volume.name, is_copied_into=True)
        return self._route.run.begun(entry, undo=lambda: not moving.has_written)

    def _forget_replacements(self) -> None:
        """What a run that died was filling is whole, as both sides are the same."""
        ctx, target = self._ctx, self._target
        if target.volume.kind == "volume":
            forget_replacements(ctx, target.engine, target.volume.name)
        elif (begun := find_begun(ctx, self.source, target)) is not None:
            take_over(ctx, begun, self.source, target)

    def _unchanged(self, there: Side, plan: Plan, observer: Observer) -> Moved:
        return Moved(
            self.source.volume,
            there.volume,
            files=len(plan.records),
            raw_bytes=0,
            sockets=plan.sockets,
            consistency=observer.consistency("live"),
            containers=tuple(sorted(observer.users)),
            proof=Comparison([], [], []),
            sent_bytes=0,
            duration_s=time.monotonic() - self._began,
            warnings=tuple(observer.notices(but=[])),
            was_there=True,
        )

    @property
    def _route(self) -> Route:
        assert self._run is not None
        return Route(self._ctx, self._run, self.source, self._target, self._wires, self._options.drop)

    def _movement(self, filled: Filling) -> Moving:
        stopping = self._options.stopping or Stopping()
        return Moving(replace(self._route, target=filled.side), filled, self._options, stopping, self._connections)

    @cached_property
    def _connections(self) -> Connections:
        engines = [self.source.engine, self._target.engine]
        return Connections(self._ctx, self._route.run, engines, limit_s=self._options.retry_s)
