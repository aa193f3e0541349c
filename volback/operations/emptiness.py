"""Emptiness: whether a volume or directory holds anything. Asked before a first byte is written, and before one that a
crashed run made is removed.
"""

from __future__ import annotations

from pathlib import Path

from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.errors import EngineError

_FIRST_ENTRY = ["/bin/sh", "-c", "find . -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit >&2"]
"""Names one entry, on standard error. A new filesystem has a lost+found, and is empty all the same."""


def first_entry(engine: Engine, target: Source, *, run: str, directory: Path) -> str:
    """Name one entry of `target` that is not its filesystem's own; empty where there is none.

    `run` is the id of the run that asks, and `directory` a new one inside its own. Raises NotFoundError, EngineError.
    """
    with engine.writer(target, run=run, directory=directory, write=_FIRST_ENTRY) as helper:
        status, said = helper.write(()), helper.messages()
    messages = said.decode(errors="backslashreplace").splitlines()
    if status:
        why = messages[0] if messages else status
        raise EngineError(f"{target.kind} {target.name!r} cannot be looked into: {why}")
    return messages[0] if messages else ""
