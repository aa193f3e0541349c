"""Strikes a volback at one step of its way, or halts it there while a test does something to its surroundings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engine import Result, Volback


def struck(
    run_volback: Volback, number: int, step: str | int, *arguments: str, env: dict[str, str] | None = None
) -> int:
    """Run volback, struck by a signal at a step (see tests.support.strike); return the exit code."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.strike", str(int(number)), str(step), *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        env=run_volback.environment(env), cwd=run_volback.directory,
    )  # fmt: skip
    run_volback.note_client_id()
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode


class Halted:
    """A volback that goes on when the block ends, if it was not killed; `ended` is how it ended then."""

    pid: int
    ended: Result


@contextmanager
def halted(run_volback: Volback, step: str, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Halted]:
    """Run volback until it reaches `step` (see tests.support.strike), for the block; then to its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.strike", str(int(signal.SIGSTOP)), step, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=run_volback.environment(env), cwd=run_volback.directory, process_group=0,
    )  # fmt: skip
    run = Halted()
    run.pid = process.pid
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"{step!r} was never reached: {process.communicate()}"
        yield run
        process.send_signal(signal.SIGCONT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
        run_volback.note_client_id()
    run.ended = Result(process.returncode, stdout, stderr)
