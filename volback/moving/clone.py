"""Clone: a second volume on the same engine, with the files of the first as they are now."""

from __future__ import annotations

from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import ConflictError
from volback.moving.move import Moved, MoveOptions, move
from volback.moving.sides import Side, source_side
from volback.moving.targets import wanted_volume
from volback.operations.recover import check_whole, half_restored, sweep
from volback.state.runs import Run


def clone(
    ctx: Context, engine: Engine, repository: Repository, name: str, new_name: str, options: MoveOptions
) -> Moved:
    """Copy the volume `name` into `new_name`, which does not exist or is empty.

    The repository is not used, unless an earlier run crashed and left something in it. Raises NotFoundError,
    ConflictError, LockedError, EngineError.
    """
    if name == new_name:
        raise ConflictError(f"volume {name!r} cannot be cloned into itself", "choose another name")
    sweep(ctx, engine, repository)
    source = source_side(engine, name)
    check_whole(source.volume, half_restored(ctx, engine))
    target = Side(engine, wanted_volume(source.volume, new_name, options))
    with source.locked(ctx), target.locked(ctx), Run(ctx.settings.state, "clone", f"{name} {new_name}") as run:
        return move(ctx, run, source, target, options, hint="choose another name, or remove it first")
