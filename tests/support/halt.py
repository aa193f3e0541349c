"""Strikes a volback at one step of its way, or halts it there while a test does something to its surroundings."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.engine import Result, Volback
from tests.support.forked import Forked

_LIMIT_S = 120


def struck(
    run_volback: Volback, number: int, step: str | int, *arguments: str, env: dict[str, str] | None = None
) -> int:
    """Run volback, struck by a signal at a step (see tests.support.strike); return the exit code."""
    ended = _finish(_start(run_volback, number, step, arguments, env))
    run_volback.note_client_id()
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.exit_code


class Halted:
    """A volback that goes on when the block ends, if it was not killed; `ended` is how it ended then."""

    pid: int
    ended: Result


@contextmanager
def halted(run_volback: Volback, step: str, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Halted]:
    """Run volback until it reaches `step` (see tests.support.strike), for the block; then to its end.

    All of its threads stand still meanwhile, wherever they are: what it does beside the step may be done, or not.
    """
    process = _start(run_volback, signal.SIGSTOP, step, arguments, env, own_group=True)
    run = Halted()
    run.pid = process.pid
    try:
        assert process.wait_until_stopped(_LIMIT_S), f"{step!r} was never reached: {process.communicate(_LIMIT_S)}"
        yield run
        process.send_signal(signal.SIGCONT)
        run.ended = _finish(process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(_LIMIT_S)
        run_volback.note_client_id()


@contextmanager
def delayed(run_volback: Volback, step: str, *arguments: str) -> Iterator[Halted]:
    """Run volback; the thread that reaches `step` waits there for the block, while all others go on."""
    name = f"volback-step-{secrets.token_hex(8)}"
    run = Halted()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        listener.settimeout(_LIMIT_S)
        process = _start(run_volback, 0, step, arguments, {"STRIKE_WAIT": name})
        run.pid = process.pid
        try:
            with listener.accept()[0]:
                yield run
            run.ended = _finish(process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(_LIMIT_S)
            run_volback.note_client_id()


def guard_of(run_volback: Volback) -> int:
    """The process that watches over its run."""
    needle, state = b"volback.live.guard", os.fsencode(run_volback.state)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if needle in words and state in words:
                return int(path.parent.name)
    raise AssertionError(f"no guard watches over a run in {run_volback.state}")


def _start(
    run_volback: Volback, number: int, step: str | int, arguments: tuple[str, ...], env: dict[str, str] | None,
    *, own_group: bool = False,
) -> Forked:  # fmt: skip
    return Forked(
        "tests.support.strike", [str(int(number)), str(step), *arguments],
        environment=run_volback.environment(env), directory=run_volback.directory, own_group=own_group,
    )  # fmt: skip


def _finish(run: Forked) -> Result:
    stdout, stderr = (stream.decode("utf-8", "surrogateescape") for stream in run.communicate(_LIMIT_S))
    return Result(run.wait(0), stdout, stderr)
