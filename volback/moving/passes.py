"""Passes: a move that stops the containers which write to the source, and has copied most of it before.

With two passes, the first copies while they run, and is proven. Then they are stopped; what has changed since is sent,
what is gone is removed, and both sides are compared: what is known of all files, and the content of what was sent. The
containers stay stopped, as two sides that both take writes cannot be brought together again, unless they are to run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from volback.archive.plan import Plan, learn
from volback.archive.verdicts import Verdicts
from volback.context import Context
from volback.engine.containers import Container
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.live.guard import guarded
from volback.live.leaving import Left, idle_users
from volback.live.plan import QuiesceRequest, plan_quiesce, quiesce_candidates
from volback.live.quiesce import Quiesced
from volback.live.services import Services
from volback.moving.connections import Connections
from volback.moving.delta import Delta, delta
from volback.moving.move import Moved, MoveOptions, PassDone, checked
from volback.moving.proof import compare_whole, digest_of_all, opened_proof, prove_delta, prove_transfer
from volback.moving.rest import prove_rest, prove_sent, send_rest
from volback.moving.sides import Side
from volback.moving.stopped import check_undisturbed, ended
from volback.moving.targets import Filling, filling
from volback.moving.transfer import Route, Transferred, Wires
from volback.operations.observe import Observer
from volback.operations.prove import Comparison
from volback.operations.removal import open_remover, remove_paths, remove_with
from volback.operations.volumes import check_mounted, scan
from volback.state.runs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stopping:
    """How the containers of the source are stopped."""

    live: bool = False
    """Whether a first pass copies while they run."""
    restart: bool = False
    """Whether they are started again in the end."""
    passes: int = 1
    """How many passes copy at most while they run; none follows one that brought no less than the one before."""


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
    stack: ExitStack
    """Its end ends them."""
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
    connections = Connections(ctx, run, [source.engine, target.engine], limit_s=options.retry_s)
    with ExitStack() as making:
        fill = filling(ctx, run, target, options, source=source, on_wire=wires.of_writer, hint=hint, kept=connections)
        filled = making.enter_context(fill)
        route = Route(ctx, run, source, filled.side, wires, options.drop)
        moving = Moving(route, filled, options, stopping, connections)
        first = moving.live_passes() if stopping.live else None
        with connections.giving_up():
            found, held = moving.last_pass(first, making.close)
    done = moving.moved(first, found, held.containers, duration_s=time.monotonic() - began)
    notices = (*held.warnings, *found.left.warnings)
    return replace(done, warnings=(*notices, *done.warnings), errors=tuple(held.errors))


class Moving:
    """One move: what its passes have in common."""

    def __init__(
        self, route: Route, filled: Filling, options: MoveOptions, stopping: Stopping, connections: Connections
    ) -> None:
        self._route = replace(route, traffic=connections.traffic)
        self._connections = connections
        self._passes: list[PassDone] = []
        self._filled = filled
        self._options = options
        self._stopping = stopping
        self._storage = route.source.engine.storage(route.source.volume)
        self._observer = Observer(route.source.engine, route.source.volume, self._storage)
        self._notices: list[str] = []
        self.has_written = False
        """Whether a later pass may have changed the target."""

    def live_passes(self) -> Pass:
        """Copy all, whatever changes meanwhile, then what has changed, while that becomes less; prove what was copied.

        Raises EngineError.
        """
        with self._counted(is_live=True):
            latest = self._connections.through(self._first_pass, again=self._filled.is_begun)
        for _ in range(1, self._stopping.passes):
            with self._counted(is_live=True):
                latest = self._connections.through(partial(self._next_pass, latest))
            before, last = (done.raw_bytes for done in self._passes[-2:])
            if last >= before or not last:
                break
        return latest

    @contextmanager
    def _counted(self, *, is_live: bool) -> Iterator[None]:
        """Note what the block, a pass, has brought."""
        traffic, began = self._route.traffic, time.monotonic()
        raw_bytes, sent_bytes = traffic.raw_bytes, traffic.sent_bytes
        yield
        took_s = time.monotonic() - began
        done = PassDone(is_live, traffic.raw_bytes - raw_bytes, traffic.sent_bytes - sent_bytes, took_s)
        self._passes.append(done)

    def _first_pass(self, again: bool) -> Pass:
        route, prove = self._route, self._options.prove
        with route.opened_reader() as reader:
            plan = scan(reader, [])
            if again:
                changed, done = send_rest(route, reader, plan, digested=prove)
                return Pass(plan, done, prove and prove_sent(route, changed, done))
            self._notices += checked(route.source, self._filled, plan, self._options)
            done = route.transfer(reader, self._filled.writer(), plan, digested=prove)
        self._filled.end()  # to remove a helper takes as long as to stop a container
        return Pass(plan, done, prove and digest_of_all(route) == done.digest)

    def _next_pass(self, latest: Pass, again: bool) -> Pass:
        """Send what has changed since; `again`: a part of it may be there."""
        route, prove = self._route, self._options.prove
        with route.opened_reader() as reader:
            plan = scan(reader, [])
            if again:
                changed, done = self._sent_again(latest, reader, plan)
            else:
                with route.opened_writer() as writer:
                    changed, done = self._sent_since(latest, reader, writer, plan)
        done = replace(done, unset=done.unset | latest.done.unset)
        return Pass(plan, done, latest.is_proven and prove_sent(route, changed, done) if prove else False)

    def _sent_since(
        self, latest: Pass, reader: VolumeReader, writer: VolumeWriter, plan: Plan, remover: VolumeWriter | None = None
    ) -> tuple[Delta, Transferred]:
        route = self._route
        changed = delta(latest.plan, plan)
        self.has_written = self.has_written or bool(changed.sent)
        if changed.gone and remover is not None:
            remove_with(remover, route.target.volume, changed.gone)
        elif changed.gone:
            remove_paths(route.target.engine, route.run, route.target.volume, changed.gone)
        if not changed.sent:
            return changed, NOTHING
        return changed, route.transfer(reader, writer, plan, changed, digested=self._options.prove)

    def _sent_again(self, latest: Pass | None, reader: VolumeReader, plan: Plan) -> tuple[Delta, Transferred]:
        """As `_sent_since`, where the target holds a part of it: what is proven, or need not be, is not read again."""
        prove, self.has_written = self._options.prove, True
        is_known = latest is not None and (latest.is_proven or not prove)
        unproven = delta(latest.plan, plan).sent if latest is not None and is_known else None
        return send_rest(self._route, reader, plan, unproven, digested=prove)

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
            with _said_of(held), held as quiesced:
                found = self.copied(first, ready)
                self.check_undisturbed(quiesced, quiesced.containers)
                is_good = found.proof is None or not found.proof.differs
                if is_good and not self._stopping.restart:
                    self.end_filling()
                    end_making()
                    self._connections.has_arrived = True
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
        ready = self._connections.through(lambda again: self._opened(first, again=again))
        with ended(ready.stack), self._observer.observing():
            yield ready

    def _opened(self, first: Pass | None, *, again: bool) -> Helpers:
        route = self._route
        with ExitStack() as opening:
            reader = opening.enter_context(route.opened_reader(rescan=True))
            learn(reader.scan(), Verdicts([]))  # so that the kernel knows all files when they are scanned again
            is_new = again or first is not None
            writer = opening.enter_context(route.opened_writer()) if is_new else self._filled.writer()
            prover = opening.enter_context(opened_proof(route)) if first and self._options.prove else None
            if prover is not None:
                learn(prover.scan(), Verdicts([]))
            removing = open_remover(route.target.engine, route.run, route.target.volume)
            remover = opening.enter_context(removing) if first else None
            return Helpers(reader, writer, prover, opening.pop_all(), remover)

    def end_filling(self) -> None:
        """End the helper that filled the target, so that nothing is left to do on its engine. Raises EngineError."""
        self._connections.through(lambda _: self._filled.end())

    def copied(self, first: Pass | None, helpers: Helpers) -> Outcome:
        """Copy while nothing writes, and prove; containers wait while an engine is unreachable. Raises EngineError."""
        connections = self._connections
        is_begun = first is None and (self._filled.is_begun or connections.retries > 0)
        with self._counted(is_live=False):
            return connections.through(
                lambda again: self._copied_again(first) if again else self._copied(first, helpers), again=is_begun
            )

    def _copied(self, first: Pass | None, helpers: Helpers) -> Outcome:
        route, prove, reader, writer = self._route, self._options.prove, helpers.reader, helpers.writer
        self._observer.begin()
        plan = scan(reader, [])
        if first is None:
            self._notices += checked(route.source, self._filled, plan, self._options)
            done = route.transfer(reader, writer, plan, digested=prove)
            self._observer.end()
            return Outcome(done, plan, prove_transfer(route, done) if prove else None)
        changed, done = self._sent_since(first, reader, writer, plan, helpers.remover)
        self._observer.end()
        done = replace(done, unset=done.unset | first.done.unset)
        return Outcome(done, plan, self._proof(first, plan, changed, done, helpers.prover))

    def _copied_again(self, first: Pass | None) -> Outcome:
        """As `_copied`, where the target holds a part of it."""
        route, prove = self._route, self._options.prove
        self._observer.begin()
        with route.opened_reader() as reader:
            plan = scan(reader, [])
            changed, done = self._sent_again(first, reader, plan)
        self._observer.end()
        if first is not None:
            done = replace(done, unset=done.unset | first.done.unset)
        return Outcome(done, plan, prove_rest(route, plan, changed, done) if prove else None)

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
        check_undisturbed(self._connections, self._observer, self._route.source, quiesced, stopped)

    def moved(
        self, first: Pass | None, found: Outcome, stopped: Iterable[Container], *, duration_s: float
    ) -> Moved:  # fmt: skip
        """The result; `stopped`: the containers that were stopped."""
        route, done = self._route, found.done
        unset = [*(first.done.unset_warnings if first else []), *done.unset_warnings]
        incomplete = [*done.read_warnings, *dict.fromkeys(unset)]
        notices = [*self._notices, *self._observer.notices(but=[])]
        traffic, connections = route.traffic, self._connections
        return Moved(
            route.source.volume,
            route.target.volume,
            files=len(found.plan.records),
            raw_bytes=traffic.raw_bytes,
            sockets=found.plan.sockets,
            consistency=self._observer.consistency("stopped"),
            containers=tuple(sorted(container.name for container in stopped)),
            proof=found.proof,
            sent_bytes=traffic.sent_bytes,
            duration_s=duration_s,
            passes=len(self._passes),
            again_bytes=self._passes[-1].raw_bytes if first else 0,
            each_pass=tuple(self._passes),
            resumed=self._filled.is_begun,
            retries=connections.retries,
            downtime_s=found.downtime_s,
            left=found.left,
            safety_backup=self._filled.safety_backup,
            warnings=(*notices, *incomplete),
            incomplete=bool(incomplete),
        )


@contextmanager
def _said_of(held: Quiesced) -> Iterator[None]:
    """Where the block, of which one error is shown, raises: say what could not be started again, too."""
    try:
        yield
    except BaseException:
        for error in held.errors:
            log.warning("%s; %s", error.message, error.hint)
        raise


NOTHING = Transferred(0, 0, 0, b"")
