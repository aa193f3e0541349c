"""Halts a volback at one step of its way, so that a test can do something to its surroundings, and lets it go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engine import Result, Volback


class Halted:
    """A volback that goes on when the block ends; `ended` is how it ended then."""

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
