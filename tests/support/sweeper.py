"""Sweeper: a process that outlives a process of tests that was killed, and removes what that left.

No fixture ends where a process of tests is killed, nor where pytest-xdist ends its workers: an interrupted run gives
them 10 s. So each that uses an engine or servers starts a sweeper, which waits for the end of its standard input.
Unless it got the word before, it ends the processes that carry the session's mark in their environment, and removes
what the session made on the engine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, EngineSession, connect

MARK = "TESTS_SESSION"
"""Not one of volback's own variables: these are taken from what the tests start."""
_WORD = b"ended"
_END_S = 20
_SETTLE_S = 60


@contextmanager
def swept(id_: str, directory: Path) -> Iterator[None]:
    """What is started inside carries the mark. `directory` is where the session's temporary files are."""
    command = [sys.executable, "-m", "tests.support.sweeper", id_, str(directory)]
    sweeper = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT, process_group=0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, id_)
            yield
    finally:
        sweeper.communicate(_WORD)


def main(id_: str, directory: str) -> None:
    """Wait for the end of the session."""
    if sys.stdin.buffer.read() == _WORD:
        return
    _end_processes(id_)
    try:
        client = connect()
    except RuntimeError:  # then it made nothing there, or the engine has ended with it
        return
    client_ids = {path.read_text() for path in Path(directory).rglob("client-id")}
    session = EngineSession(client, id_, client_ids)
    deadline = time.monotonic() + _SETTLE_S
    while session.leftovers() and time.monotonic() < deadline:  # what the engine was asked for may still come
        session.remove()
    for tag in (tag for image in client.images.list(filters={"label": session.label}) for tag in image.tags):
        client.images.remove(tag, force=True)


def _end_processes(id_: str) -> None:
    deadline = time.monotonic() + _END_S
    while pids := _marked(id_):
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.2)


def _marked(id_: str) -> list[int]:
    """Processes with the mark; one that has ended and was not waited for has no environment."""
    found, mark = [], f"{MARK}={id_}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
