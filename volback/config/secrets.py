"""Secrets: values that are written in the configuration or in a file, or that a command prints. Never shown, never
logged."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from volback.config.places import Place, Problem
from volback.errors import UsageError

_COMMAND_LIMIT_S = 30.0
_SECRET_MAX_BYTES = 1024 * 1024


class UnreadableSecret(UsageError):
    """A secret that cannot be read; the message names its place, and contains nothing of it."""

    def __init__(self, place: Place, reason: str) -> None:
        self.problem = Problem(place, reason)
        super().__init__(str(self.problem), "see `volback config check`")


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a value is read from; exactly one of the three is set."""

    place: Place
    text: str | None = field(default=None, repr=False)
    file: Path | None = None
    command: tuple[str, ...] | None = field(default=None, repr=False)
    """Arguments may be secrets themselves."""

    def reveal(self) -> str:
        """Return the value, without white space around it. Raises UnreadableSecret."""
        if self.text is not None:
            return self.text
        try:
            value = _read(self.file) if self.file is not None else _run(self.command or ("",))
        except _Failed as exc:
            raise UnreadableSecret(self.place, str(exc)) from None
        if not value:
            raise UnreadableSecret(self.place, "the value is empty")
        return value


class _Failed(Exception):
    """Why a secret cannot be read."""


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(file.read(_SECRET_MAX_BYTES))
    except (OSError, ValueError) as exc:
        raise _Failed(f"cannot read {path}: {_reason(exc)}") from None


def _run(command: tuple[str, ...]) -> str:
    """The command's output; its standard error may contain anything, so it is discarded."""
    program = command[0]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"{program} did not end within {_COMMAND_LIMIT_S:.0f} s") from None
    except (OSError, ValueError) as exc:
        raise _Failed(f"cannot run {program}: {_reason(exc)}") from None
    if done.returncode:
        raise _Failed(f"{program} ended with status {done.returncode}: run it by hand to see why")
    return _text(done.stdout)


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise _Failed("the value is not UTF-8") from None


def _reason(exc: OSError | ValueError) -> str:
    return exc.strerror or "it cannot be" if isinstance(exc, OSError) else "there is a NUL in it"
