"""Move: what `clone` and `migrate` share: a volume is copied, proven, and described by one result."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from volback.archive.attributes import Kind
from volback.archive.plan import Plan
from volback.catalog.model import Consistency, Source
from volback.context import Context
from volback.errors import VolbackError
from volback.live.leaving import Left
from volback.moving.checks import check_before
from volback.moving.proof import prove_transfer
from volback.moving.sides import Side
from volback.moving.targets import Filling, TargetOptions, filling, storage_warnings
from volback.moving.transfer import Route, Transferred, Wires
from volback.operations.observe import Observer
from volback.operations.prove import Comparison
from volback.operations.starting import started
from volback.operations.volumes import check_mounted, scan
from volback.state.runs import Run


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
    incomplete: bool = False
    """Whether something did not arrive as it was: the warnings name it."""


def move(ctx: Context, run: Run, source: Side, target: Side, options: MoveOptions, *, hint: str) -> Moved:
    """Copy and prove. A target that differs stays, to be looked at: the result says so.

    Raises ConflictError, with that hint, for a target that exists and is not empty; EngineError. After an error the
    target is as it was before.
    """
    began = time.monotonic()
    check_mounted(source.engine, source.volume, hint="start its container first")
    observer = Observer(source.engine, source.volume)
    with observer.observing():
        observer.begin()
        wires = Wires.between(source.engine, target.engine, compress=options.compress, bytes_s=options.bytes_s)
        route = Route(ctx, run, source, target, wires, options.drop)
        copier = route.copier(digested=options.prove)
        with ExitStack() as stack:
            reading = None if copier else stack.enter_context(started(route.opened_reader()))
            fill = filling(ctx, run, target, options, on_wire=wires.of_writer, copier=copier, hint=hint)
            filled = stack.enter_context(fill)
            opening = filled.copying or reading
            assert opening is not None
            reader = opening.opened()
            plan = scan(reader, [])
            notices = checked(source, filled, plan, options)
            writer = None if filled.copying else filled.writer()
            route = replace(route, target=filled.side)
            done = route.transfer(reader, writer, plan, digested=options.prove)
            observer.end()
            proof = prove_transfer(route, done) if options.prove else None
    notices += observer.notices(but=[])
    return _moved(source, filled, observer, done, proof=proof, duration_s=time.monotonic() - began, notices=notices)


def checked(source: Side, filled: Filling, plan: Plan, options: MoveOptions) -> list[str]:
    """Warnings of what will be different there. Raises EngineError where the files have no room."""
    made, name = filled.side, source.volume.name
    infos = {"source": source.engine.info, "target": made.engine.info}
    found = check_before(plan, filled.look, name=name, drop=options.drop, **infos)
    return found + storage_warnings(source.volume, made.volume)


def _moved(
    source: Side,
    filled: Filling,
    observer: Observer,
    done: Transferred,
    *,
    proof: Comparison | None,
    duration_s: float,
    notices: list[str],
) -> Moved:
    incomplete = done.read_warnings + done.unset_warnings
    return Moved(
        source.volume,
        filled.side.volume,
        done.files,
        done.raw_bytes,
        done.sockets,
        observer.consistency("live"),
        tuple(sorted(observer.users)),
        proof,
        done.sent_bytes,
        duration_s,
        safety_backup=filled.safety_backup,
        warnings=(*notices, *incomplete),
        incomplete=bool(incomplete),
    )
