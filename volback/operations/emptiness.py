"""Emptiness: whether a volume or directory holds anything. Asked before a first byte is written, and before one that a
crashed run made is removed.

The helper that will write looks first, or where nothing is to be written, one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.streams import Looker
from volback.errors import EngineError

_FIRST_ENTRY = "find . -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit"
"""Names one entry. A new filesystem has a lost+found, and is empty all the same."""


class Looking(Protocol):
    """What is asked of a target before anything is written into it."""

    @property
    def command(self) -> Sequence[str]:
        """What the helper runs; it says it on standard error."""

    def take(self, status: int, said: bytes) -> str:
        """Take how the command has ended and what it has said; name something that is there, or nothing.

        Raises EngineError.
        """


class LookingForAnything:
    """Looks whether anything is in a target that is not its filesystem's own."""

    command = ("/bin/sh", "-c", f"{_FIRST_ENTRY} >&2")

    def __init__(self, target: Source) -> None:
        self._target = target

    def take(self, status: int, said: bytes) -> str:
        """See Looking."""
        messages = said.decode(errors="backslashreplace").splitlines()
        if status:
            why = messages[0] if messages else status
            raise EngineError(f"{self._target.kind} {self._target.name!r} cannot be looked into: {why}")
        return messages[0] if messages else ""


def first_entry(engine: Engine, target: Source, *, run: str, directory: Path) -> str:
    """Name one entry of `target` that is not its filesystem's own; empty where there is none.

    `run` is the id of the run that asks, and `directory` a new one inside its own. Raises NotFoundError, EngineError.
    """
    return look_alone(engine, target, LookingForAnything(target), run=run, directory=directory)


def look_alone(engine: Engine, target: Source, looking: Looking, *, run: str, directory: Path) -> str:
    """Look by a helper that does nothing else. Raises NotFoundError, EngineError."""
    with engine.writer(target, run=run, directory=directory, write=[*looking.command]) as helper:
        return looking.take(helper.write(()), helper.messages())


def look_first(looking: Looking, helper: Looker) -> str:
    """Look by the helper that is to write. Raises EngineError."""
    return looking.take(*helper.look())
