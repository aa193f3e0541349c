"""A forked run is what a newly started one is: the same streams, signals, descriptors, environment and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import Forked, clean_environment, server_descriptor

_PROBE = """
import json, os, resource, signal, sys, threading
with open(sys.argv[1], "w") as out:
    json.dump({
        "descriptors": sorted(n for n in map(int, os.listdir("/proc/self/fd")) if n != out.fileno() and
                              os.path.exists(f"/proc/self/fd/{n}")),
        "kinds": [os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in range(3)],
        "streams": [(each.encoding, each.errors, each.line_buffering, each.write_through, each.seekable(),
                     type(each.buffer).__name__) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "arguments": sys.argv, "path": sys.path, "directory": os.getcwd(), "environment": dict(os.environ),
        "main": [sys.modules["__main__"].__name__, sys.modules["__main__"].__file__, __name__],
        "signals": {n: str(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "umask": os.umask(0),
        "group": "own" if os.getpgrp() == os.getpid() else os.getpgrp(), "session": os.getsid(0),
        "threads": threading.active_count(), "switch": sys.getswitchinterval(), "nice": os.nice(0),
        "limits": [resource.getrlimit(n) for n in range(10)],
    }, out)
"""


def forked(directory: Path, script: str, *arguments: str, **options: Any) -> Forked:
    """Run a script as a module of a directory."""
    if not (directory / "scripted.py").exists() or (directory / "scripted.py").read_text() != script:
        (directory / "scripted.py").write_text(script)
    environment = clean_environment() | options.pop("env", {})
    return Forked("scripted", arguments, environment=environment, directory=directory, **options)


@contextmanager
def ignoring(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("env", [{"VOLBACK_REPO": "x", "NEW": "ü"}, {"TZ": "Asia/Tokyo"}], ids=["forked", "executed"])
@pytest.mark.parametrize("own_group", [False, True])
@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGWINCH])
def test_it_has_what_a_new_one_has(
    tmp_path: Path, env: dict[str, str], own_group: bool, ignored: signal.Signals
) -> None:
    with ignoring(ignored):
        forked(tmp_path, _PROBE, "forked", env=env, own_group=own_group).communicate(60)
        subprocess.run(
            [sys.executable, "-m", "scripted", "new"], stdin=subprocess.DEVNULL, capture_output=True, check=True,
            cwd=tmp_path, env=clean_environment() | env, process_group=0 if own_group else None,
        )  # fmt: skip
    seen = [json.loads((tmp_path / name).read_text()) for name in ("forked", "new")]
    assert [each["arguments"].pop() for each in seen] == ["forked", "new"]
    assert seen[0] == seen[1]


def test_it_has_imported_what_a_new_one_would_import_later(tmp_path: Path) -> None:
    lazily = (
        "import sys; print([name for name in ('docker', 'apprise', 'volback.store.s3') if name not in sys.modules])"
    )
    assert forked(tmp_path, lazily).communicate(60) == (b"[]\n", b"")


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("pass", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('words')", 1),
        ("raise ValueError", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
        ("import os; os.kill(os.getpid(), 2)", -2),
        ("import atexit, os; atexit.register(os._exit, 5)", 5),
        ("import threading, os; threading.Thread(target=lambda: os._exit(6)).start()", 6),
    ],
)
def test_its_end_is_that_of_a_new_one(tmp_path: Path, script: str, exit_code: int) -> None:
    run = forked(tmp_path, script)
    run.communicate(60)
    assert run.returncode == exit_code
    new = subprocess.run([sys.executable, "-m", "scripted"], cwd=tmp_path, capture_output=True, check=False)
    assert new.returncode == exit_code


def test_what_it_reads_and_writes(tmp_path: Path) -> None:
    script = "import sys; data = sys.stdin.buffer.read(); print(len(data)); sys.stderr.write('x' * 300_000)"
    assert forked(tmp_path, script, input=bytes(2_000_000)).communicate(60) == (b"2000000\n", b"x" * 300_000)
    assert forked(tmp_path, "pass", input=bytes(2_000_000)).communicate(60) == (b"", b"")
    assert forked(tmp_path, "import sys; print(repr(sys.stdin.read()))").communicate(60)[0] == b"''\n"


def test_runs_beside_each_other_share_nothing(tmp_path: Path) -> None:
    runs = [forked(tmp_path, "import sys; print(sys.stdin.read())", input=bytes(1)) for _ in range(5)]
    assert len({run.pid for run in runs}) == 5
    for run in reversed(runs):
        assert run.communicate(60) == (b"\0\n", b"")


def test_a_stop_is_seen_and_a_killed_one_has_ended(tmp_path: Path) -> None:
    run = forked(tmp_path, "import os; os.kill(os.getpid(), 19); print('on')", own_group=True)
    assert run.wait_until_stopped(60)
    run.send_signal(signal.SIGCONT)
    assert run.communicate(60) == (b"on\n", b"")
    assert not forked(tmp_path, "pass").wait_until_stopped(60)
    run = forked(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(TimeoutError):
        run.communicate(0.1)
    assert run.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(run.pid, 0)


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)], ids=["exits", "is killed"]
)
def test_a_shell_starts_one_by_a_client_that_ends_as_it_does(tmp_path: Path, end: str, code: int) -> None:
    (tmp_path / "scripted.py").write_text(f"import os, sys\nprint(input() + sys.argv[1], flush=True)\n{end}\n")
    server = server_descriptor()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fork_client", str(server), "scripted", "b"],
        input="a", capture_output=True, text=True, cwd=tmp_path, env=clean_environment(), pass_fds=[server],
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("ab\n", "", code)
