"""Starts runs of volback as forks of a process that has imported it: see tests.support.fork_server."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock

from tests.support.fork_server import STATUS, send_request

_PROJECT = Path(__file__).resolve().parents[2]
_START_S = 300
"""The first run waits for the server, which imports all that there is; a second or two, on an idle machine."""


def clean_environment() -> dict[str, str]:
    """This process's environment without volback's own variables; modules are those of this project."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("VOLBACK_")}
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))}


def server_descriptor() -> int:
    """Of the fork server's socket, for a process that inherits it: see tests.support.fork_client."""
    return _server().control.fileno()


class Forked:
    """`python -m MODULE ARGUMENT...` as a fork; the calls are those of subprocess.Popen, as far as tests need them."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str | bytes | Path],
        *,
        environment: dict[str, str],
        directory: Path,
        input: bytes | None = None,
        own_group: bool = False,
    ) -> None:
        """Start it. `input` is what its standard input gives; None: /dev/null."""
        self.returncode: int | None = None
        self._input = input
        self._stdin: int | None
        with ExitStack() as theirs:
            stdin, self._stdin = (os.open(os.devnull, os.O_RDONLY), None) if input is None else os.pipe()
            self._stdout, stdout = os.pipe()
            self._stderr, stderr = os.pipe()
            for descriptor in (stdin, stdout, stderr):
                theirs.callback(os.close, descriptor)
            self._channel = send_request(
                _server().control,
                module,
                [os.fsencode(argument) for argument in arguments],
                {os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
                directory=os.fsencode(directory),
                process_group=0 if own_group else os.getpgrp(),
                descriptors=(stdin, stdout, stderr),
            )
        self.pid = self._next(_START_S)

    def wait_until_stopped(self, timeout_s: float) -> bool:
        """Wait for a SIGSTOP of it; False where it ended instead."""
        return self._note(self._next(timeout_s))

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; return the exit code, or the negated signal. Raises TimeoutError."""
        while self.returncode is None:
            self._note(self._next(timeout_s))
        return self.returncode

    def communicate(self, timeout_s: float) -> tuple[bytes, bytes]:
        """Wait for its end; return what it wrote to standard output and error. It is killed after the timeout."""
        with ThreadPoolExecutor(3) as pool:
            streams = [pool.submit(_read_all, descriptor) for descriptor in (self._stdout, self._stderr)]
            if self._stdin is not None:
                pool.submit(_write_all, self._stdin, self._input or b"")
            try:
                self.wait(timeout_s)
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                self.wait(10)
                raise
            stdout, stderr = (stream.result() for stream in streams)
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(self.pid, number)

    def _next(self, timeout_s: float) -> int:
        self._channel.settimeout(timeout_s)
        packet = self._channel.recv(STATUS.size)
        assert packet, f"the fork server has ended: {_server().log()}"
        return int(STATUS.unpack(packet)[0])

    def _note(self, status: int) -> bool:
        """Whether it stopped; its end is kept."""
        if os.WIFSTOPPED(status):
            return True
        self.returncode = os.waitstatus_to_exitcode(status)
        return False


class _ForkServer:
    """The process of this process of tests. It ends with its socket."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                cwd=_PROJECT, env=clean_environment(), process_group=0,
            )  # fmt: skip
        atexit.register(self._end)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _end(self) -> None:
        self.control.close()
        self._process.wait()


_started: list[_ForkServer] = []
_starting = Lock()


def _server() -> _ForkServer:
    """Tests start runs from several threads."""
    with _starting:
        if not _started:
            _started.append(_ForkServer())
        return _started[0]


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()


def _write_all(descriptor: int, content: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as stream:
        stream.write(content)
