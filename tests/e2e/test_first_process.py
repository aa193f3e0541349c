"""As a container's first process volback passes signals on, reaps orphans, and ends with its command's exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, Volback
from tests.support.remote import wait_for

_FIRST = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""The program behind it is process 1 of a PID namespace of its own, as in a container."""


def _start(script: str) -> subprocess.Popen[bytes]:
    command = [
        *_FIRST,
        sys.executable,
        "-c",
        f"from volback.cli import first_process; first_process.take_over()\n{script}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)


def test_a_command_runs_and_gives_its_exit_code(run_volback: Volback) -> None:
    for arguments, code in ((["version"], 0), (["nonsense"], 2)):
        command = [*_FIRST, *run_volback.command(*arguments)]
        done = subprocess.run(command, env=run_volback.environment(), capture_output=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr


@pytest.mark.root
def test_what_outlives_a_killed_command_ends_by_itself(tmp_path: Path) -> None:
    """As a guard does, which is an orphan then and ends a moment later."""
    process = _start(
        "import os, signal, time\n"
        "if not os.fork():\n"
        f"    time.sleep(1); open({str(tmp_path / 'done')!r}, 'x').close(); os._exit(0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert process.wait(60) == 128 + signal.SIGKILL
    assert (tmp_path / "done").exists()


@pytest.mark.root
def test_orphans_are_reaped() -> None:
    process = _start(
        "import os, time\n"
        "from pathlib import Path\n"
        "read, write = os.pipe()\n"
        "if not os.fork():\n"
        "    if not os.fork(): os.write(write, b'%d' % os.getpid())\n"
        "    os._exit(0)\n"
        "os.wait(); orphan = Path(f'/proc/{int(os.read(read, 20))}')\n"
        "deadline = time.monotonic() + 30\n"
        "while orphan.exists() and time.monotonic() < deadline: time.sleep(0.05)\n"
        "raise SystemExit(orphan.exists())"
    )
    assert process.wait(60) == 0


@pytest.mark.root
def test_signals_reach_the_command(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = _start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        f"open({str(ready)!r}, 'x').close(); time.sleep(60)"
    )
    wait_for(ready.exists, "the command")
    # unshare's child is the process 1 that a container's engine would signal
    (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    began = time.monotonic()
    os.kill(int(first), signal.SIGTERM)
    assert process.wait(60) == 7
    assert time.monotonic() - began < 50
