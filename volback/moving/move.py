"""Move: what `clone` and `migrate` share: a volume is copied, proven, and described by one result."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from volback.archive.attributes import Kind
from volback.archive.plan import Plan
from volback.catalog.model import Consistency, Source
from volback.context import Context
from volback.engine.streams import VolumeReader
from volback.errors import VolbackError
from volback.live.leaving import Left
from volback.moving.checks import check_before
from volback.moving.connections import Connections
from volback.moving.sides import Side
from volback.moving.targets import Filling, TargetOptions, filling, storage_warnings
from volback.moving.transfer import Route, Transferred, Wires
from volback.operations.observe import Observer
from volback.operations.starting import Starting, started
from volback.operations.volumes import check_mounted, scan
from volback.state.runs import Run

if TYPE_CHECKING:
    from volback.operations.prove import Comparison


@dataclass(frozen=True, slots=True)
class MoveOptions(TargetOptions):
    """How to move."""

    prove: bool = True
    compress: bool = True
    """Whether what goes from one host to another is compressed."""
    bytes_s: float | None = None
    """At most so many go to the target in a second."""
    drop: tuple[Kind, ...] = ()
    """Kinds of attributes that are left out."""
    retry_s: float | None = None
    """How long an engine may be unreachable until the move is given up; None: then it fails, and leaves nothing."""


@dataclass(frozen=True, slots=True)
class PassDone:
    """What one pass over the volume has brought, in all its tries."""

    is_live: bool
    """Whether containers ran meanwhile."""
    raw_bytes: int
    """Of the tar stream."""
    sent_bytes: int
    """What the target's helper was given."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class Moved:
    """One volume that is on the other side now; the source is as it was."""

    source: Source
    target: Source
    files: int
    raw_bytes: int
    sockets: int
    consistency: Consistency
    containers: tuple[str, ...]
    """That had the source mounted."""
    proof: Comparison | None
    """None where no proof was wanted."""
    sent_bytes: int
    """What the target's helper was given."""
    duration_s: float
    passes: int = 1
    again_bytes: int = 0
    """Of the stream of a second pass."""
    downtime_s: float | None = None
    """From the first stop of a container until it could be started there; None where none was stopped."""
    left: Left = field(default_factory=Left)
    """What stays stopped."""
    safety_backup: str | None = None
    """Of what the target held before."""
    warnings: tuple[str, ...] = ()
    source_removed: bool = False
    errors: tuple[VolbackError, ...] = ()
    """What failed after the move was done."""
    was_there: bool = False
    """Whether an earlier run has moved it: both sides are the same, and nothing was sent."""
    each_pass: tuple[PassDone, ...] = ()
    """Where containers were stopped."""
    resumed: bool = False
    """Whether the target held a part of it, of a run that had died or given up."""
    retries: int = 0
    """How often an engine was lost, and the move went on."""
    incomplete: bool = False
    """Whether something did not arrive as it was: the warnings name it."""


def move(ctx: Context, run: Run, source: Side, target: Side, options: MoveOptions, *, hint: str) -> Moved:
    """Copy and prove. A target that differs stays, to be looked at: the result says so.

    Raises ConflictError, with that hint, for a target that exists and is not empty; EngineError. After an error the
    target is as it was before.
    """
    began = time.monotonic()
    if options.prove or options.retry_s is not None:  # now: the program may be updated while it copies
        import volback.moving.rest  # noqa: F401
    check_mounted(source.engine, source.volume, hint="start its container first")
    observer = Observer(source.engine, source.volume)
    connections = Connections(ctx, run, [source.engine, target.engine], limit_s=options.retry_s)
    with observer.observing():
        observer.begin()
        wires = Wires.between(source.engine, target.engine, compress=options.compress, bytes_s=options.bytes_s)
        route = Route(ctx, run, source, target, wires, options.drop, connections.traffic)
        copier = route.copier(digested=options.prove)
        fill = partial(filling, ctx, run, target, options, source=source, on_wire=wires.of_writer, copier=copier)
        with ExitStack() as stack:
            reading = None if copier else stack.enter_context(started(route.opened_reader()))
            filled = stack.enter_context(fill(hint=hint, kept=connections))
            copying = _Copying(replace(route, target=filled.side), filled, options, observer, reading)
            done = connections.through(copying.copied, again=filled.is_begun)
            connections.through(lambda _: filled.end())
    notices = copying.notices + observer.notices(but=[])
    incomplete = done.read_warnings + done.unset_warnings
    return Moved(
        source.volume,
        filled.side.volume,
        done.files,
        connections.traffic.raw_bytes,
        done.sockets,
        observer.consistency("live"),
        tuple(sorted(observer.users)),
        copying.proof,
        connections.traffic.sent_bytes,
        time.monotonic() - began,
        safety_backup=filled.safety_backup,
        warnings=(*notices, *incomplete),
        resumed=filled.is_begun,
        retries=connections.retries,
        incomplete=bool(incomplete),
    )


class _Copying:
    """One pass over a volume, which goes on after a connection was lost."""

    def __init__(
        self,
        route: Route,
        filled: Filling,
        options: MoveOptions,
        observer: Observer,
        reading: Starting[VolumeReader] | None,
    ) -> None:
        self.proof: Comparison | None = None
        self.notices: list[str] = []
        self._route = route
        self._filled = filled
        self._options = options
        self._observer = observer
        self._reading = reading

    def copied(self, again: bool) -> Transferred:
        """Copy and prove; `again`: the target holds a part. Raises EngineError."""
        return self._go_on() if again else self._copied()

    def _copied(self) -> Transferred:
        route, filled, prove = self._route, self._filled, self._options.prove
        opening = filled.copying or self._reading
        assert opening is not None
        reader = opening.opened()
        plan = scan(reader, [])
        self.notices = checked(route.source, filled, plan, self._options)
        writer = None if filled.copying else filled.writer()
        done = route.transfer(reader, writer, plan, digested=prove)
        self._observer.end()
        if prove:
            from volback.moving.proof import prove_transfer

            self.proof = prove_transfer(route, done)
        return done

    def _go_on(self) -> Transferred:
        from volback.moving.rest import prove_rest, send_rest

        route, prove = self._route, self._options.prove
        with route.opened_reader() as reader:
            plan = scan(reader, [])
            changed, done = send_rest(route, reader, plan, digested=prove)
        self._observer.end()
        self.proof = prove_rest(route, plan, changed, done) if prove else None
        return done


def checked(source: Side, filled: Filling, plan: Plan, options: MoveOptions) -> list[str]:
    """Warnings of what will be different there. Raises EngineError where the files have no room."""
    made, name = filled.side, source.volume.name
    infos = {"source": source.engine.info, "target": made.engine.info}
    found = check_before(plan, filled.look, name=name, drop=options.drop, **infos)
    return found + storage_warnings(source.volume, made.volume)
