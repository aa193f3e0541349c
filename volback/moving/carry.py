"""Carry: the helper image comes from the engine that a volume leaves, where the other one has none.

So both read and write with the same tar, and an engine without a registry needs nothing.
"""

from __future__ import annotations

from volback.engine.engine import Engine
from volback.errors import ConflictError, EngineError, EngineUnreachable


def carry_image(source: Engine, target: Engine) -> str | None:
    """Let `target` have a helper image; return a line for people if it was carried over.

    An image for another processor cannot be: then the engine pulls one. Raises EngineError where that fails.
    """
    if source.info.id == target.info.id:
        return None
    try:
        is_carried = target.take_image(source)
    except ConflictError as exc:
        _pull(target, exc)
        return None
    return f"the helper image was carried over to host {target.info.name}" if is_carried else None


def _pull(target: Engine, why: ConflictError) -> None:
    try:
        target.ensure_image()
    except EngineUnreachable:
        raise
    except EngineError as exc:
        raise EngineError(
            f"{why.message}; none can be pulled there: {exc.message}",
            f"pull one there for {target.info.architecture} that has GNU tar, find, sync, head and sh, and name it with"
            " --helper-image IMAGE",
        ) from exc
