"""Passes: a move that stops the containers which write to the source, and has copied most of it before.

With two passes, the first copies while they run, and is proven. Then they are stopped; what has changed since is sent,
what is gone is removed, and both sides are compared: what is known of all files, and the content of what was sent. The
containers stay stopped, as two sides that both take writes cannot be brought together again, unless they are to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from volback.archive import tar
from volback.archive.plan import Plan, learn
from volback.archive.verdicts import Verdicts
from volback.context import Context
from volback.engine.containers import Container
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.errors import ConflictError
from volback.live.guard import guarded
from volback.live.leaving import Left, idle_users
from volback.live.plan import QuiesceRequest, plan_quiesce, quiesce_candidates
from volback.live.quiesce import Quiesced
from volback.live.services import Services
from volback.moving.delta import Delta, delta
from volback.moving.move import Moved, MoveOptions, checked
from volback.moving.proof import compare_whole, digest_of_all, opened_proof, prove_delta, prove_transfer
from volback.moving.sides import Side
from volback.moving.targets import Filling, filling
from volback.moving.transfer import Route, Transferred, Wires
from volback.operations.observe import Observer
from volback.operations.prove import Comparison
from volback.operations.removal import open_remover, remove_with
from volback.operations.volumes import check_mounted, open_reader, scan
from volback.state.runs import Run


@dataclass(frozen=True, slots=True)
class Stopping:
    """How the containers of the source are stopped."""

    live: bool = False
    """Whether a first pass copies while they run."""
    restart: bool = False
    """Whether they are started again in the end."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass over the whole volume has brought, while it may have been written to."""

    plan: Plan
    done: Transferred
    is_proven: bool


@dataclass(frozen=True, slots=True)
class Helpers:
    """Those of the last pass, which wait while the containers are stopped."""

    reader: VolumeReader
    writer: VolumeWriter
    prover: VolumeReader | None
    """Where a first pass was, and a proof is wanted."""
    remover: VolumeWriter | None = None
    """Where a first pass was: what it copied may be gone since."""


@dataclass(slots=True)
class Outcome:
    """What comes out of the last pass."""

    done: Transferred
    plan: Plan
    proof: Comparison | None = None
    left: Left = field(default_factory=Left)
    downtime_s: float | None = None
    """None where no container was stopped."""


def move_stopped(
    ctx: Context, run: Run, source: Side, target: Side, options: MoveOptions, stopping: Stopping, *, hint: str
) -> Moved:  # fmt: skip
    """Move a volume whose containers are stopped for the last pass. Raises as `move` does.

    After an error, or a difference, the containers run again.
    """
    began = time.monotonic()
    check_mounted(source.engine, source.volume, hint="pause its container, and back it up")
    wires = Wires.between(source.engine, target.engine, compress=options.compress, bytes_s=options.bytes_s)
    with ExitStack() as making:
        filled = making.enter_context(filling(ctx, run, target, options, on_wire=wires.of_writer, hint=hint))
        moving = Moving(Route(ctx, run, source, filled.side, wires, options.drop), filled, options, stopping)
        first = moving.first_pass() if stopping.live else None
        found, held = moving.last_pass(first, making.close)
    done = moving.moved(first, found, held.containers, duration_s=time.monotonic() - began)
    notices = (*held.warnings, *found.left.warnings)
    return replace(done, warnings=(*notices, *done.warnings), errors=tuple(held.errors))


class Moving:
    """One move: what its passes have in common."""

    def __init__(self, route: Route, filled: Filling, options: MoveOptions, stopping: Stopping) -> None:
        self._route = route
        self._filled = filled
        self._options = options
        self._stopping = stopping
        self._storage = route.source.engine.storage(route.source.volume)
        self._observer = Observer(route.source.engine, route.source.volume, self._storage)
        self._notices: list[str] = []
        self.has_written = False
        """Whether a later pass may have changed the target."""

    def first_pass(self) -> Pass:
        """Copy all, whatever changes meanwhile, and prove what was copied. Raises EngineError."""
        route = self._route
        with self._reading(rescan=False) as reader:
            plan = scan(reader, [])
            self._notices += checked(route.source, self._filled, plan, self._options)
            writer = self._filled.writer()
            done = route.transfer(reader, writer, plan, digested=self._options.prove)
        self._filled.end()  # to remove a helper takes as long as to stop a container
        is_proven = self._options.prove and digest_of_all(route) == done.digest
        return Pass(plan, done, is_proven)

    def last_pass(self, first: Pass | None, end_making: Callable[[], None]) -> tuple[Outcome, Quiesced]:
        """Stop the containers, copy what has changed, and prove. Raises ConflictError, EngineError.

        `end_making` makes the target a whole volume. It is called before the containers are left stopped: whatever
        happens in between, one of both sides can be used.
        """
        ctx, engine = self._route.ctx, self._route.source.engine
        with ExitStack() as waiting, Run(ctx.settings.state, "quiesce", self._route.source.volume.name) as run:
            ready = waiting.enter_context(self.waiting(first))
            targets = plan_quiesce(quiesce_candidates(ctx, engine), [self.request], Services(engine))
            waiting.enter_context(guarded(ctx, run, needed=bool(targets)))
            held = Quiesced(ctx, engine, run, targets, may_stay=not self._stopping.restart)
            began = time.monotonic()
            with held as quiesced:
                found = self.copied(first, ready)
                self.check_undisturbed(quiesced, quiesced.containers)
                is_good = found.proof is None or not found.proof.differs
                if is_good and not self._stopping.restart:
                    end_making()
                    found.left = quiesced.leave_stopped(idle_users(engine, self._storage))
                found.downtime_s = time.monotonic() - began if targets else None
        return found, held

    @property
    def request(self) -> QuiesceRequest:
        """Its containers are to be stopped."""
        return QuiesceRequest(self._route.source.volume, "stop", storage=self._storage)

    @contextmanager
    def waiting(self, first: Pass | None) -> Iterator[Helpers]:
        """Start the helpers of the last pass while containers run, and let them know all files. Raises EngineError."""
        route = self._route
        with ExitStack() as stack:
            reader = stack.enter_context(self._reading(rescan=True))
            learn(reader.scan(), Verdicts([]))  # so that the kernel knows all files when they are scanned again
            writer = stack.enter_context(route.opened_writer()) if first else self._filled.writer()
            prover = stack.enter_context(opened_proof(route)) if first and self._options.prove else None
            if prover is not None:
                learn(prover.scan(), Verdicts([]))
            removing = open_remover(route.target.engine, route.run, route.target.volume)
            remover = stack.enter_context(removing) if first else None
            stack.enter_context(self._observer.observing())
            yield Helpers(reader, writer, prover, remover)

    def copied(self, first: Pass | None, helpers: Helpers) -> Outcome:
        """Copy while nothing writes, and prove. Raises EngineError."""
        route, prove, reader, writer = self._route, self._options.prove, helpers.reader, helpers.writer
        self._observer.begin()
        plan = scan(reader, [])
        if first is None:
            self._notices += checked(route.source, self._filled, plan, self._options)
            done = route.transfer(reader, writer, plan, digested=prove)
            self._observer.end()
            return Outcome(done, plan, prove_transfer(route, done) if prove else None)
        changed = delta(first.plan, plan)
        self.has_written = bool(changed.sent)
        if changed.gone:
            assert helpers.remover is not None
            remove_with(helpers.remover, route.target.volume, changed.gone)
        done = route.transfer(reader, writer, plan, changed, digested=prove) if changed.sent else NOTHING
        self._observer.end()
        done = replace(done, unset=done.unset | first.done.unset)
        return Outcome(done, plan, self._proof(first, plan, changed, done, helpers.prover))

    def _proof(
        self, first: Pass, plan: Plan, changed: Delta, done: Transferred, prover: VolumeReader | None
    ) -> Comparison | None:
        if prover is None:
            return None
        if first.is_proven and prove_delta(self._route, prover, plan, changed, done):
            return Comparison([], [], [])
        return compare_whole(self._route, done.unset)

    def check_undisturbed(self, quiesced: Quiesced, stopped: Iterable[Container]) -> None:
        """Raises ConflictError if something has run meanwhile that can write to the source."""
        names = {container.name for container in stopped}
        disturbers = sorted({*quiesced.disturbed(names), *self._observer.came})
        if disturbers:
            raise ConflictError(
                f"container {disturbers[0]!r} was started by others while {self._route.source.what} was moved",
                "find out what starts it, and move the volume again",
            )

    @contextmanager
    def _reading(self, *, rescan: bool) -> Iterator[VolumeReader]:
        route = self._route
        with open_reader(
            route.source.engine,
            route.run,
            route.source.volume,
            rescan=rescan,
            read=tar.without(route.drop),
            on_wire=route.wires.of_reader,
        ) as reader:
            yield reader

    def moved(
        self, first: Pass | None, found: Outcome, stopped: Iterable[Container], *, duration_s: float
    ) -> Moved:  # fmt: skip
        """The result; `stopped`: the containers that were stopped."""
        route, done = self._route, found.done
        unset = [*(first.done.unset_warnings if first else []), *done.unset_warnings]
        incomplete = [*done.read_warnings, *dict.fromkeys(unset)]
        notices = [*self._notices, *self._observer.notices(but=[])]
        earlier = first.done if first else NOTHING
        return Moved(
            route.source.volume,
            route.target.volume,
            files=len(found.plan.records),
            raw_bytes=earlier.raw_bytes + done.raw_bytes,
            sockets=found.plan.sockets,
            consistency=self._observer.consistency("stopped"),
            containers=tuple(sorted(container.name for container in stopped)),
            proof=found.proof,
            sent_bytes=earlier.sent_bytes + done.sent_bytes,
            duration_s=duration_s,
            passes=2 if first else 1,
            again_bytes=done.raw_bytes if first else 0,
            downtime_s=found.downtime_s,
            left=found.left,
            safety_backup=self._filled.safety_backup,
            warnings=(*notices, *incomplete),
            incomplete=bool(incomplete),
        )


NOTHING = Transferred(0, 0, 0, b"")
