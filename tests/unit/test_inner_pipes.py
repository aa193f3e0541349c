"""Pipes between programs are made wider from outside, and these notice nothing."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import suppress

import pytest

from volback.engine.inner_pipes import PIPE_BYTES, widen_pipes_below

F_GETPIPE_SZ = 1032


def _sizes(process_id: int) -> set[int]:
    """Of the pipe that is the standard input of each child."""
    sizes = set()
    with open(f"/proc/{process_id}/task/{process_id}/children") as children:
        for child in children.read().split():
            with suppress(OSError), open(f"/proc/{child}/fd/0", "rb") as pipe:
                sizes.add(fcntl.fcntl(pipe, F_GETPIPE_SZ))
    return sizes


def test_pipes_of_all_programs_below_are_wide_and_the_data_is_the_same() -> None:
    data = os.urandom(3 * PIPE_BYTES)
    script = "cat | { cat | cat; }; exit 3"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(data[:10])
        shell.stdin.flush()
        assert shell.stdout.read(10) == data[:10], "all of the programs run"
        assert widen_pipes_below(shell.pid) >= 4
        assert _sizes(shell.pid) == {PIPE_BYTES}
        shell.stdin.write(data[10 : PIPE_BYTES // 2])
        shell.stdin.flush()
        assert shell.stdout.read(PIPE_BYTES // 2 - 10) == data[10 : PIPE_BYTES // 2]
        shell.stdin.close()
        assert shell.stdout.read() == b""
        assert shell.wait() == 3


def test_a_process_that_has_ended_is_an_error() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(OSError, match="No such file"):
        widen_pipes_below(ended.pid)
