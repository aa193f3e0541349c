"""The command line before a command runs: where options may stand, what is imported for help."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.reference import helps
from volback.cli.app import commands, parser
from volback.cli.call import Call, command_at, global_options_first
from volback.cli.helping import GROUPS

SLOW = ("docker", "boto3", "botocore", "msgspec", "rich", "zstandard", "requests", "urllib3")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], []),
        (["list", "--json"], ["--json", "list"]),
        (["backup", "db", "--repo", "/r", "-q"], ["--repo", "/r", "-q", "backup", "db"]),
        (["backup", "db", "--host=ssh://web"], ["--host=ssh://web", "backup", "db"]),
        (["list", "--repo"], ["--repo", "list"]),
        (["cat", "db", "--", "--json"], ["cat", "db", "--", "--json"]),
        (["backup", "--exclude=--json"], ["backup", "--exclude=--json"]),
    ],
)
def test_global_options_may_stand_anywhere_before_two_dashes(given: list[str], meant: list[str]) -> None:
    assert global_options_first(given) == meant


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys\n"
        "from volback.cli.main import run\n"
        "code = run(['--help'])\n"
        f"print([name for name in {SLOW!r} if name in sys.modules], code, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"


def test_the_help_of_every_command_has_examples_and_fits_80_columns() -> None:
    for path, said in helps(parser()):
        assert "Examples:" in said, path
        assert ("Global options" in said) == (path != "volback"), path
        assert "list[str]" not in said, path
        assert [line for line in said.splitlines() if len(line) > 80] == [], path
        assert [line for line in said.splitlines() if re.match(r"  \w.*\.\.\.$", line)] == [], "no summary is cut off"


def test_every_argument_and_every_option_is_described() -> None:
    for path, command in _commands(parser(), "volback"):
        for parameter in command.params:
            assert parameter.help or getattr(parameter, "hidden", False), (path, parameter.name)


def test_every_command_is_in_one_group_of_the_help() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(commands())


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for below, its in getattr(command, "commands", {}).items():
        yield from _commands(its, f"{name} {below}")


def test_an_empty_repository_that_nobody_chose_points_at_those_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "volback.toml"
    file.write_text('[repositories.main]\nurl = "/srv/a"\n[repositories.usb]\nurl = "/srv/b"\n')
    monkeypatch.delenv("VOLBACK_REPO", raising=False)
    others = ["the configuration has others: --repo main, --repo usb"]
    assert Call(config=[str(file)]).elsewhere() == others
    assert Call(config=[str(file)], repository="usb").elsewhere() == []
    monkeypatch.setenv("VOLBACK_REPO", "/srv/c")
    assert Call(config=[str(file)]).elsewhere() == []


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug() -> None:
    script = (
        "import sys, volback.cli.app as app\n"
        "def broken(*_): raise RuntimeError('out of tea')\n"
        "app.invoke = broken\n"
        "from volback.cli.main import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    plain = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    loud = subprocess.run([sys.executable, "-c", script, "--debug"], capture_output=True, text=True, check=False)
    assert (plain.returncode, loud.returncode) == (1, 1)
    assert plain.stderr.splitlines()[0] == "error: internal error: RuntimeError: out of tea"
    assert "Traceback" not in plain.stderr
    assert "--debug" in plain.stderr
    assert "Traceback" in loud.stderr


def test_a_signal_that_python_drops_in_a_finalizer_comes_again() -> None:
    script = (
        "import os, signal, time\n"
        "from volback import interrupts\n"
        "from volback.errors import Interrupted\n"
        "interrupts.install()\n"
        "class Finalized:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.01)\n"
        "try:\n"
        "    Finalized()\n"
        "    time.sleep(20)\n"
        "except Interrupted as exc:\n"
        "    print(exc.exit_code)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("143\n", "")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_each_signal_has_its_exit_code(signal: str, code: int) -> None:
    script = (
        "import os, signal, sys, time\n"
        "import volback.cli.app as app\n"
        f"def struck(*_): os.kill(os.getpid(), signal.{signal}); time.sleep(20)\n"
        "app.invoke = struck\n"
        "from volback.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("error: interrupted by signal")


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from volback import interrupts\n"
        "interrupts.install()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "time.sleep(0.05)\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"


_ENDING = """
import os, sys, threading
from volback.cli.main import main

class Kept:
    def __del__(self, write=os.write):
        write(1, b"taken apart\\n")

def opened():
    try:
        yield
    finally:
        os.write(1, b"closed\\n")

kept, cycle = Kept(), [opened()]
next(cycle[0])
cycle.append(cycle)
del cycle
if "thread" in sys.argv:
    threading.Thread(target=lambda: (threading.main_thread().join(), os.write(1, b"thread ended\\n"))).start()
sys.argv[1:] = sys.argv[1].split()
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["version"], 0, {"closed"}),
        (["version", "thread"], 0, {"closed", "thread ended", "taken apart"}),
        (["show --nothing"], 2, {"closed", "taken apart"}),
    ],
)
def test_after_a_success_what_was_imported_stays_as_it_is(arguments: list[str], code: int, expected: set[str]) -> None:
    """All else ends as it would: output is there, a generator that is left is closed, a thread is waited for."""
    command = [sys.executable, "-c", _ENDING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("volback ")]
    assert set(done.stdout.splitlines()) - {*said} == expected
    assert len(said) == (1 if code == 0 else 0)


def test_what_was_imported_is_not_looked_through_by_the_collector_which_goes_on() -> None:
    script = (
        "import gc\n"
        "from volback.cli.call import Call\n"
        "with Call(quiet=True).context():\n"
        "    print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 10_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        (["backup", "list"], 0),
        (["--repo", "list", "-q", "backup", "db"], 3),
        (["--repo=list", "schedule", "show"], 1),
        (["--help"], None),
        ([], None),
    ],
)
def test_the_command_is_the_first_word_that_no_option_takes(arguments: list[str], at: int | None) -> None:
    assert command_at(arguments) == at


def test_each_command_alone_has_the_help_that_it_has_among_all() -> None:
    whole = dict(helps(parser()))
    assert len(whole) > 25
    for path, said in whole.items():
        name = path.partition(" ")[2].partition(" ")[0]
        alone = dict(helps(parser(name)))
        assert alone["volback"] == whole["volback"] if not name else alone[path] == said, path


def test_a_command_imports_its_own_family_alone() -> None:
    script = (
        "import sys\n"
        "from volback.cli.app import build\n"
        "build('ls')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('volback.cli.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "volback.cli.browse" in done.stdout.split()
    assert not {"volback.cli.backup", "volback.cli.prune"} & set(done.stdout.split())
