"""Execute: a shell command in a running container, its output line by line as it arrives.

The command's processes do not outlive this object: where it takes too long, or nobody waits for it any more, a second
command in the container kills its session. Neither the command nor the container's environment is ever logged: both
may hold passwords.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from volback.engine.connect import translated
from volback.engine.containers import inspect
from volback.engine.raw import STDERR, STDOUT, Wire, upgrade
from volback.errors import ConflictError, EngineError, EngineUnreachable, NotRunningError, VolbackError
from volback.interrupts import deferred_signals
from volback.policy.schedulers import start_command

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 8 * 1024
"""A longer line is split into pieces."""

_BUFFER_BYTES = 64 * 1024
_SILENCE_S = 10.0
"""How long no output may arrive before the engine is asked whether the command still runs."""
_SETTLE_S = 10.0

# The shell keeps its PID when it becomes the command. An engine makes each such process the leader of a session.
_RUN = 'echo "$$"; exec /bin/sh -c "$1"'

# Everything in the session that PID $1 leads, then its own group, then itself. Field 6 of stat is the session; before
# it is the name, in parentheses, which may hold blanks. Builtins only: the container may have no other program.
_KILL = """leader=$1
for file in /proc/[0-9]*/stat; do
  { read -r line <"$file"; } 2>/dev/null || continue
  set -- ${line##*) }
  if [ "$4" = "$leader" ]; then set -- "${file#/proc/}"; kill -KILL "${1%/stat}"; fi
done 2>/dev/null
kill -KILL -- "-$leader" 2>/dev/null
kill -KILL "$leader" 2>/dev/null
:"""


class Execution:
    """A running command: a context manager; when it ends, the command ends too. `lines`, then `status`."""

    def __init__(
        self, client: Any, container: str, command: str, *, user: str | None, limit_s: float, what: str
    ) -> None:
        self.container = container
        """Its name, once it is known."""
        self.status: int | None = None
        """The exit status, once it is known."""
        self._client = client
        self._command = command
        self._user = user or ""
        self._limit_s = limit_s
        self._kind = what
        self._deadline = 0.0
        self._silence_limit_s = min(_SILENCE_S, client.timeout)
        self._id: str | None = None
        self._wire: Wire | None = None
        self._pid: str | None = None
        self._pending: dict[int, bytearray] = {}
        self._last: dict[int, str] = {}

    def __enter__(self) -> Self:
        self.container = _running(self._client, self.container)
        try:
            with deferred_signals():  # an interrupted call may have started a command that nobody waits for
                self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            try:
                if self.status is None:
                    self._end()
            except VolbackError as exc:
                log.warning("%s may still run: %s", self.what, exc.message)
            finally:
                self._close()

    @property
    def what(self) -> str:
        """The command, for errors."""
        return f"{self._kind} in container {self.container!r}"

    @property
    def last_words(self) -> str:
        """The last line on standard error so far, or where there is none, on standard output."""
        return self._last.get(STDERR) or self._last.get(STDOUT, "")

    def lines(self) -> Iterator[str]:
        """Yield the command's output, of both streams, as it arrives; at the end `status` is known.

        Raises EngineError if it cannot be run, or does not end in time (it is killed then); EngineUnreachable.
        """
        yield from self._lines()
        self.status = self._settle()

    def _start(self) -> None:
        self._deadline = time.monotonic() + self._limit_s
        command = ["/bin/sh", "-c", _RUN, "sh", self._command]
        try:
            with translated(self.what):
                self._id = str(self._client.exec_create(self.container, command, user=self._user)["Id"])
            response = upgrade(self._client, f"exec/{self._id}/start", self.what, body=_START)
        except ConflictError as exc:  # it was stopped or paused just now
            raise NotRunningError(exc.message) from exc
        except EngineUnreachable:
            raise
        except EngineError as exc:  # what is wrong with it, newer engines say here, and older ones as its output
            raise self._not_run(exc.message.removeprefix(f"{self.what}: ")) from exc
        self._wire = Wire(response, self.what, buffer_bytes=_BUFFER_BYTES)

    def _lines(self) -> Iterator[str]:
        while received := self._receive(self._deadline):
            yield from self._lines_of(received)
        if received is None:
            raise self._too_late()
        yield from self._rest()

    def _lines_of(self, received: memoryview) -> list[str]:
        """The lines that are complete by now; the first on standard output is the command's PID in the container."""
        assert self._wire is not None
        notes = []
        for stream, piece in self._wire.demultiplex(received):
            pending = self._pending.setdefault(stream, bytearray())
            pending += piece
            for line in _take_lines(pending):
                if self._pid is None and stream == STDOUT:
                    self._pid = self._read_pid(_text(line))
                else:
                    notes.append(self._noted(stream, line))
        return notes

    def _rest(self) -> Iterator[str]:
        """The output after the end of the last line."""
        if self._pid is None:
            raise self._cannot_run(_text(bytes(self._pending.get(STDOUT, b""))))
        yield from (self._noted(stream, bytes(pending)) for stream, pending in self._pending.items() if pending)

    def _noted(self, stream: int, line: bytes) -> str:
        text = _text(line)
        if text.strip():
            self._last[stream] = text.strip()
        return text

    def _read_pid(self, text: str) -> str:
        if not text.isdigit():
            raise self._cannot_run(text)
        return text

    def _receive(self, deadline: float) -> memoryview | None:
        """Wait for output and return it; empty at the end, None after the time limit."""
        assert self._wire is not None
        while (left_s := deadline - time.monotonic()) > 0:
            received = self._wire.receive_at_once()
            if received is not None:
                return received
            if (
                not self._wire.is_ready(select.POLLIN, min(left_s, self._silence_limit_s))
                and self._exit_status() is not None
            ):
                return memoryview(b"")  # it has ended, and processes that it left keep the stream open
        return None

    def _settle(self) -> int:
        """Wait for the exit status: a command may close its output long before it ends."""
        pause_s = 0.01
        while (status := self._exit_status()) is None:
            if time.monotonic() > self._deadline:
                raise self._too_late()
            time.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)
        return status

    def _exit_status(self) -> int | None:
        with translated(self.what):
            facts = self._client.exec_inspect(self._id)
        return None if facts["Running"] or facts["ExitCode"] is None else int(facts["ExitCode"])

    def _end(self) -> None:
        """Kill the command with all that it started, and wait for its end. Raises EngineError."""
        if self._id is None or self._exit_status() is not None:
            return
        self._learn_pid()
        if self._pid is None:
            raise EngineError(f"{self.what} did not say which process it is")
        with translated(self.what):
            kill = self._client.exec_create(self.container, ["/bin/sh", "-c", _KILL, "sh", self._pid], user="0")
            self._client.exec_start(kill["Id"])
        deadline = time.monotonic() + _SETTLE_S
        while self._exit_status() is None:
            if time.monotonic() > deadline:
                raise EngineError(f"{self.what} could not be ended")
            time.sleep(0.05)

    def _learn_pid(self) -> None:
        deadline = time.monotonic() + _SETTLE_S
        while self._wire is not None and self._pid is None and (received := self._receive(deadline)):
            self._lines_of(received)

    def _too_late(self) -> EngineError:
        message = f"{self.what} did not end within {self._limit_s:g} s"
        try:
            self._end()
        except VolbackError as exc:
            return EngineError(f"{message}, and may still run: {exc.message}", _LATE_HINT)
        return EngineError(f"{message}, so it was ended", _LATE_HINT)

    def _cannot_run(self, reason: str) -> EngineError:
        self.status = self._settle()
        if not reason and self.status in _NO_PROGRAM:
            reason = f"/bin/sh: status {self.status}"
        return self._not_run(reason or "the engine does not say why")

    def _not_run(self, reason: str) -> EngineError:
        if "/bin/sh" in reason:
            return EngineError(f"container {self.container!r} has no /bin/sh, so no command can run in it: {reason}")
        return EngineError(f"{self.what} cannot be run: {reason}", "check whether its user exists there")

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.close()


_NO_PROGRAM = (126, 127)
"""Podman's exit status for a program that is not there, without a word."""
_START = {"Detach": False, "Tty": False}
_LATE_HINT = "find out why it takes so long, or give it more time"


def _running(client: Any, container: str) -> str:
    """The container's name. Raises NotFoundError, NotRunningError."""
    found = inspect(client, container)
    if found.state != "running":
        message = f"container {found.name!r} is {found.state}, so no command can run in it"
        raise NotRunningError(message, start_command(found.name, found.labels))
    return found.name


def _text(line: bytes) -> str:
    return line.decode(errors="backslashreplace").rstrip("\r\n")


def _take_lines(pending: bytearray) -> list[bytes]:
    """Take the complete lines out of `pending`, and pieces of one that is too long."""
    *lines, rest = bytes(pending).split(b"\n")
    pieces = [line[at : at + LINE_MAX_BYTES] for line in lines for at in range(0, max(1, len(line)), LINE_MAX_BYTES)]
    while len(rest) > LINE_MAX_BYTES:
        pieces.append(rest[:LINE_MAX_BYTES])
        rest = rest[LINE_MAX_BYTES:]
    pending[:] = rest
    return pieces
