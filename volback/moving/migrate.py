"""Migrate: a volume goes to another engine, which may be on another host, or to another name.

The source is only read. It is removed if the person wants that, and only once the target is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import ConflictError, UsageError, VolbackError
from volback.live.held import held_by_others
from volback.moving.begun import find_begun
from volback.moving.carry import carry_image
from volback.moving.connections import Connections
from volback.moving.move import Moved, MoveOptions, move
from volback.moving.passes import Stopping, move_stopped
from volback.moving.sides import Side, source_side
from volback.moving.targets import wanted_volume
from volback.operations.recover import check_whole, half_restored, sweep
from volback.policy.schedulers import stop_command
from volback.state.runs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MigrateOptions(MoveOptions):
    """How to move to another engine."""

    name: str | None = None
    """Of the volume there; None: the same."""
    remove_source: bool = False
    stopping: Stopping | None = None
    """How the containers that write to it are stopped; None: there must be none."""


def migrate(
    ctx: Context, source_engine: Engine, target_engine: Engine, repository: Repository, name: str,
    options: MigrateOptions,
) -> Moved:  # fmt: skip
    """Move the volume `name` to another engine, where it does not exist, or is empty, or is to be replaced.

    `repository` is that of the target's engine; it is used for what crashed runs left in it, and for a safety copy.
    Raises NotFoundError, ConflictError, LockedError, EngineError.
    """
    if options.remove_source and not options.prove:
        raise UsageError("--remove-source needs the proof", "leave out --no-prove")
    source = source_side(source_engine, name)
    target = Side(target_engine, wanted_volume(source.volume, options.name or name, options))
    if source.is_same(target):
        raise ConflictError(f"{source.what} is on that engine already", "give another engine, or a name with --as")
    make_ready(ctx, source_engine, target_engine, repository, [(source, target)], retry_s=options.retry_s)
    check_whole(source.volume, half_restored(ctx, source_engine))
    if options.stopping is None:
        check_unwritten(ctx, source)
    with source.locked(ctx), target.locked(ctx), Run(ctx.settings.state, "migrate", name) as run:
        hint = "choose another name with --as, or give --replace"
        if options.stopping is None:
            done = move(ctx, run, source, target, options, hint=hint)
        else:
            done = move_stopped(ctx, run, source, target, options, options.stopping, hint=hint)
        return without_source(source, done) if options.remove_source else done


def make_ready(
    ctx: Context, source: Engine, target: Engine, repository: Repository, sides: Sequence[tuple[Side, Side]],
    *, retry_s: float | None,
) -> None:  # fmt: skip
    """Let both engines have a helper image, and remove what crashed runs left on them, but not what they have begun of
    the same moves: source and target of each.

    `retry_s`: how long an engine may be lost while the image is carried over. What it has of a part of the image has no
    name, so it is sent again. Raises EngineError.
    """
    connections = Connections(ctx, None, [source, target], limit_s=retry_s)
    if carried := connections.through(lambda _: carry_image(source, target)):
        log.info("%s", carried)
    engines = [source] if source.info.id == target.info.id else [source, target]
    begun = [(there, find_begun(ctx, here, there)) for here, there in sides]
    spared = [(found.run, there.volume.name) for there, found in begun if found is not None]
    for engine in engines:
        sweep(ctx, engine, repository, others=[other.info.id for other in engines], spared=spared)


def check_unwritten(ctx: Context, source: Side) -> None:
    """Raises ConflictError if a container can write to it that runs, or that another run is about to start again: what
    it wrote later would stay behind."""
    held = held_by_others(ctx.settings.state, run_id="")
    for user in source.engine.storage_users(source.engine.storage(source.volume)):
        if not user.writable or user.broad:
            continue
        if user.is_active:
            raise ConflictError(
                f"{source.what} is in use by container {user.name!r}",
                f"give --live or --stop, or stop it first: {stop_command(user.name, user.labels)}",
            )
        if user.container_id in held:
            raise ConflictError(
                f"container {user.name!r} writes to {source.what}, and another run has stopped it for a while",
                "wait for the end of that run, or give --live or --stop",
            )


def without_source(source: Side, done: Moved) -> Moved:
    """Remove the source if the target is proven; what prevents that is an error beside what was done."""
    if done.proof is None or not done.proof.identical:
        return done
    try:
        source.engine.remove_volume(source.volume.name)
    except VolbackError as exc:
        return replace(done, errors=(exc,))
    return replace(done, source_removed=True)
