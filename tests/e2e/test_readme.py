"""The README is true: each command in its ```console blocks runs, in order, and says what stands below it.

Volatile parts (ids, ages, sizes, durations) are compared as patterns, columns by their words.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import volback
from tests.support.engine import PROJECT, Volback

README = PROJECT / "README.md"
VOLUME, COPY, DIRECTORY = "shop", "shop-copy", "/srv/shop"
"""As the README calls them; each run has names of its own."""
HOST = "web1"
COLUMNS_MAX = 100
MARK = "<end of a command>"
TIME_NS = 1_790_000_000_123_456_789

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VOLATILE = (
    (re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{4}\b"), "<id>"),
    (re.compile(r"\b[\d.]+ ([KMG]iB|B)\b"), "<size>"),
    (re.compile(r"(?<=\bin )([\d.]+ s|\d+ min \d+ s)"), "<duration>"),
    (re.compile(r"\b(now|\d+ (s|min|h) ago)\b"), "<age>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"(?<=\bPython )\d+\.\d+\.\d+"), "<python>"),
    (re.compile(r"\s+"), " "),
)


class Step(NamedTuple):
    """One command of a console block, and what the README says that it says."""

    command: str
    output: list[str]


def read_steps(text: str) -> list[Step]:
    """The commands of all console blocks, in order; a command whose line ends in a backslash goes on."""
    steps: list[Step] = []
    for block in _BLOCK.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], []))
            else:
                assert steps, f"a console block begins with output: {line!r}"
                steps[-1].output.append(line)
    return steps


def comparable(line: str) -> str:
    """The line with its volatile parts as patterns."""
    for pattern, mark in _VOLATILE:
        line = pattern.sub(mark, line)
    return line.strip()


def fill_shop(root: Path) -> None:
    """Fill the demo's volume; the same for whoever does it."""
    some = random.Random(1)
    for number in range(1200):
        path = root / f"orders/{number // 100:02}" / f"{number:04}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"order": number, "items": some.choices(range(10_000), k=150)}))
    (root / "photos").mkdir()
    for number in range(3):
        (root / f"photos/{number}.jpg").write_bytes(some.randbytes(1_500_000))
    (root / "etc").mkdir()
    (root / "etc/app.conf").write_text("currency = EUR\n")
    os.symlink("etc/app.conf", root / "conf")
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("a name in Latin-1\n")
    for top, directories, names in os.walk(root):
        for name in [*directories, *names]:
            os.utime(Path(top) / name, ns=(TIME_NS, TIME_NS), follow_symlinks=False)


@pytest.fixture
def run_steps(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str], tmp_path: Path
) -> Callable[[list[Step]], list[list[str]]]:
    """Runs the README's lines as a person does, in one shell, and returns what each says (stderr's lines too)."""
    directory = tmp_path / "directory"
    names = {DIRECTORY: str(directory), COPY: volume_name("copy"), VOLUME: volume_factory("readme", fill=fill_shop)}
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "volback"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m volback "$@"\n')
    program.chmod(0o755)
    environment = run_volback.environment({"VOLBACK_HOSTNAME": HOST, "PATH": f"{programs}:{os.environ['PATH']}"})

    def run(steps: list[Step]) -> list[list[str]]:
        script = "".join(f"{step.command}\nstatus=$?; echo '{MARK}'; (exit $status)\n" for step in steps)
        for name, real in names.items():
            script = script.replace(name, real)
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
        )  # fmt: skip
        run_volback.note_client_id()
        said = done.stdout.decode("utf-8", "surrogateescape")
        for name, real in names.items():
            said = said.replace(real, name)
        return [part.splitlines() for part in said.split(f"{MARK}\n")[:-1]]

    return run


def test_each_command_says_what_the_readme_says(run_steps: Callable[[list[Step]], list[list[str]]]) -> None:
    steps = read_steps(README.read_text())
    words = {word for step in steps for word in step.command.split()}
    assert {"backup", "list", "restore", "prove", "verify", "zstd"} <= words
    for step, said in zip(steps, run_steps(steps), strict=True):
        told = "\n".join(said)
        assert [comparable(line) for line in said] == [comparable(line) for line in step.output], (
            f"$ {step.command}\nsays:\n{told}"
        )


def test_console_blocks_fit_the_page() -> None:
    lines = [line for block in _BLOCK.findall(README.read_text()) for line in block.splitlines()]
    assert len(lines) > 20
    assert [line for line in lines if len(line) > COLUMNS_MAX] == []
    said = [line for line in lines if not line.startswith("$ ")]
    assert [line for line in said if len(line) > 80] == [], "what volback says fits a terminal"


def test_readme_names_every_setting_of_the_environment() -> None:
    config = (PROJECT / "volback/config.py").read_text()
    settings = set(re.findall(r'"(VOLBACK_[A-Z0-9_]+)"', config))
    assert len(settings) >= 5
    assert settings == set(re.findall(r"`(VOLBACK_[A-Z0-9_]+)`", README.read_text()))


def test_readme_names_the_commands_that_there_are(run_volback: Volback) -> None:
    """Each command of `volback --help` has its line in the README's table, and no other has one."""
    listed = run_volback("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    commands = re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE)
    assert "backup" in commands
    assert sorted(commands) == sorted(re.findall(r"^\| `volback ([a-z]+)", README.read_text(), re.MULTILINE))


def test_readme_and_changelog_speak_of_this_version() -> None:
    assert f"## {volback.__version__}" in (PROJECT / "CHANGELOG.md").read_text()
