"""Secrets: values that are written in the configuration or in a file, or that a command prints. Never shown, never
logged."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from volback.config.places import Place, Problem
from volback.errors import UsageError
from volback.streams import is_readable

_WAIT_S = 30.0
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


def read_file(path: Path, limit_bytes: int) -> tuple[bytes, int]:
    """What a file or a pipe holds, one byte more than the limit at most, and its mode.

    Raises OSError, also where nothing more comes from a pipe for half a minute; ValueError for a name with NUL.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _read_pipe(file.fileno(), limit_bytes), status.st_mode
        return file.read(limit_bytes + 1), status.st_mode


def _open_at_once(path: str, flags: int) -> int:
    """A pipe that nobody has opened for writing would never be open."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_pipe(descriptor: int, limit_bytes: int) -> bytes:
    """Raises TimeoutError."""
    data = bytearray()
    while len(data) <= limit_bytes:
        if not is_readable(descriptor, _WAIT_S):
            raise TimeoutError(errno.ETIMEDOUT, f"nothing came within {_WAIT_S:.0f} s")
        chunk = os.read(descriptor, min(65536, limit_bytes + 1 - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _read(path: Path) -> str:
    try:
        data, _ = read_file(path, _SECRET_MAX_BYTES)
    except (OSError, ValueError) as exc:
        raise _Failed(f"cannot read {path}: {_reason(exc)}") from None
    if len(data) > _SECRET_MAX_BYTES:
        raise _Failed(f"{path} is larger than {_SECRET_MAX_BYTES} bytes")
    return _text(data)


def _run(command: tuple[str, ...]) -> str:
    """The command's output; its standard error may contain anything, so it is discarded."""
    program = command[0]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as process:
            assert process.stdout is not None
            try:
                data = _read_pipe(process.stdout.fileno(), _SECRET_MAX_BYTES)
                status = None if len(data) > _SECRET_MAX_BYTES else process.wait(_WAIT_S)
            finally:
                process.kill()
    except (TimeoutError, subprocess.TimeoutExpired):
        raise _Failed(f"{program} did not end within {_WAIT_S:.0f} s") from None
    except (OSError, ValueError) as exc:
        raise _Failed(f"cannot run {program}: {_reason(exc)}") from None
    if status is None:
        raise _Failed(f"{program} prints more than {_SECRET_MAX_BYTES} bytes")
    if status:
        raise _Failed(f"{program} ended with status {status}: run it by hand to see why")
    return _text(data)


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise _Failed("the value is not UTF-8") from None


def _reason(exc: OSError | ValueError) -> str:
    return exc.strerror or "it cannot be" if isinstance(exc, OSError) else "there is a NUL in it"
