"""Standard output and error that are closed, full, slow, or that nobody reads: as a process, with real descriptors."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from typing import IO, Any

import pytest

from volback.streams import is_readable

_SAYS = """
import logging, sys
from volback.streams import take_standard_streams, end_standard_streams
take_standard_streams()
logging.basicConfig(stream=sys.stderr)
for number in range(3):
    print("message", number, file=sys.stderr)
    logging.getLogger("x").error("logged %s", number)
print("result")
sys.stdout.flush()
end_standard_streams()
"""


def run(
    *arguments: str, stdout: int | IO[Any] | None = None, stderr: int | IO[Any] | None = None
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE if stderr is None else stderr,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout or "", done.stderr or ""


def unread() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("where", ["unread", "full", "closed"])
def test_messages_that_cannot_be_written_stop_nothing(where: str) -> None:
    if where == "closed":
        done = subprocess.run(
            ["/bin/sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, _SAYS], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "result\n")
        return
    stderr = unread() if where == "unread" else os.open("/dev/full", os.O_WRONLY)
    assert run("-c", _SAYS, stderr=stderr) == (0, "result\n", "")
    os.close(stderr)


def test_messages_wait_for_a_slow_reader_of_a_non_blocking_pipe() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    script = _SAYS.replace('"message"', '"m" * 200_000')
    with subprocess.Popen([sys.executable, "-c", script], stderr=writing, stdout=subprocess.PIPE) as process:
        os.close(writing)
        with open(reading, "rb") as reader:
            heard = reader.read()
        assert process.wait(30) == 0
    assert heard.count(b"m") >= 600_000
    assert heard.endswith(b"ERROR:x:logged 2\n")


@pytest.mark.parametrize("command", [["--help"], ["version"], ["version", "--json"]])
def test_a_command_that_only_shows_fails_where_it_cannot(command: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    code, _, said = run("-m", "volback", *command, stdout=full)
    os.close(full)
    assert (code, said) == (1, "error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("command", [["--help"], ["version"], ["version", "--json"]])
def test_a_reader_that_has_gone_ends_it_quietly(command: list[str]) -> None:
    pipe = unread()
    code, _, said = run("-m", "volback", *command, stdout=pipe)
    os.close(pipe)
    assert (code, said) == (141, "")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_failure_keeps_its_exit_code_whoever_reads(option: list[str]) -> None:
    for stdout in (unread(), os.open("/dev/full", os.O_WRONLY)):
        code, _, said = run("-m", "volback", *option, "list", "--nope", stdout=stdout)
        os.close(stdout)
        assert code == 2
        assert said.startswith("error: No such option: --nope")


def test_a_descriptor_of_a_high_number_is_waited_for() -> None:
    """A process with many open files: the guard's pipe gets a number that `select` does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    made = os.pipe()
    source, sink = (fcntl.fcntl(end, fcntl.F_DUPFD, 1024) for end in made)
    try:
        assert not is_readable(source, 0)
        os.write(sink, b".")
        assert is_readable(source, 60)
        assert os.read(source, 1) == b"."
        os.close(made[1])
        os.close(sink)
        assert is_readable(source, 60), "its end is there to be read"
    finally:
        os.close(made[0])
        os.close(source)
