"""The documentation is true: each command of a ```console block runs, in order, and prints what stands below it.

Volatile parts (ids, ages, sizes, durations) are compared as patterns, columns by their words. Each page runs by itself,
with a volume `shop` and a new repository (none, if the page makes it); `<!-- run: COMMAND -->` brings about what it
takes for granted.
VOLBACK_TEST_WRITE_DOCS=yes writes what commands print into the pages where it is not what these say.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.engine import PROJECT, EngineSession, Volback, remove_volume
from tests.support.forked import server_descriptor
from tests.support.pages import PAGES, Step, blocks, page_id, rewritten, steps

VOLUME = "shop"
HOST = "web1"
COLUMNS_MAX = 100
MARK = "<end of a command>"
TIME_NS = 1_790_000_000_123_456_789
CONFIGURATION = "# /etc/volback/volback.toml\n"
"""A toml block that begins so is the configuration of the page's commands."""

_VOLATILE = (
    (re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{4}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( [A-Z]+\b|Z)?"), "<time>"),
    (re.compile(r"\b[\d.]+ ([KMGT]iB|B)\b"), "<size>"),
    (re.compile(r"\b[\d.]+ (?=MB/s)"), "<speed> "),
    (re.compile(r"(?<=\bin )([\d.]+ s|\d+ min \d+ s|\d+ h \d+ min|\d+ h|\d+ d|\d+ min)"), "<duration>"),
    (re.compile(r"(?<=\bdown for )[\d.]+ s"), "<duration>"),
    (re.compile(r"\b(now|\d+ (s|min|h) ago)\b"), "<age>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{8}( [0-9a-f]{8}){7}\b"), "<key>"),
    (re.compile(r"\bage1[02-9ac-hj-np-z]{58}\b"), "<recipient>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<repository>"),
    (re.compile(r"(?<=\bPython )\d+\.\d+\.\d+"), "<python>"),
    (re.compile(r"\s+"), " "),
)
_RUN = [page for page in PAGES if steps(page.read_text())]


class Answer(NamedTuple):
    """What a command printed, standard error's lines too, and its exit code."""

    output: list[str]
    exit_code: int


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
def volume(volume_factory: Callable[..., str]) -> str:
    """The volume that the pages call `shop`."""
    return volume_factory("docs", fill=fill_shop)


@pytest.fixture
def project(engine: EngineSession, volume: str, volume_path: Callable[[str], Path]) -> Iterator[Callable[[], None]]:
    """Makes `shop_db` and `shop_uploads`, with the labels that compose gives a project's volumes."""
    names = {f"{volume}_{part}": part for part in ("db", "uploads")}

    def make() -> None:
        engine.names.update(names)
        for name, part in names.items():
            labels = {"com.docker.compose.project": volume, "com.docker.compose.volume": part}
            engine.client.volumes.create(name, labels=engine.labels | labels)
            (volume_path(name) / "file").write_text(part)

    copies = [f"{volume}-staging_{part}" for part in names.values()]
    engine.names.update(copies)
    yield make
    for name in [*names, *copies]:
        remove_volume(engine.client, name)


@pytest.fixture
def run_page(
    run_volback: Volback, volume: str, volume_name: Callable[..., str], tmp_path: Path,
    *, project: Callable[[], None], container_factory: Callable[..., Any],
) -> Callable[[str], list[Answer]]:  # fmt: skip
    """Runs a page's commands as a person does, in one shell."""
    names = {
        "/srv": str(tmp_path / "srv"),
        "/etc/volback": str(tmp_path / "etc"),
        "/var/lib/volback/repository": str(run_volback.repository),
        "rescue.py": str(PROJECT / "docs/rescue.py"),
        "shop-copy": volume_name("copy"),
        VOLUME: volume,
    }
    for directory in ("srv", "etc", "bin"):
        (tmp_path / directory).mkdir()
    program = tmp_path / "bin/volback"
    client = f"{shlex.quote(sys.executable)} -m tests.support.fork_client {server_descriptor()}"
    program.write_text(f'#!/bin/sh\nexec {client} volback "$@"\n')
    program.chmod(0o755)
    environment = run_volback.environment(
        {"VOLBACK_HOSTNAME": HOST, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    )

    def real(text: str) -> str:
        """In one pass: what stands for a name may hold another name."""
        return re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], text)

    def prepare(text: str) -> None:
        for configuration in blocks(text, "toml"):
            if configuration.startswith(CONFIGURATION):
                (tmp_path / "etc/volback.toml").write_text(real(configuration))
                environment["VOLBACK_CONFIG"] = str(tmp_path / "etc/volback.toml")
        if "shop_db" in text:
            project()
        if "shop-app" in text:
            container_factory(volumes={volume: "/data"}, name=f"{volume}-app")

    def run(text: str) -> list[Answer]:
        prepare(text)
        script = "".join(f'{step.command}\nstatus=$?; echo "{MARK}$status"; (exit $status)\n' for step in steps(text))
        done = subprocess.run(
            ["bash", "-c", real(script)], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
            pass_fds=[server_descriptor()],
        )  # fmt: skip
        run_volback.note_client_id()
        printed = done.stdout.decode("utf-8", "surrogateescape")
        surplus = " " * (len(volume) - len(VOLUME))
        printed = printed.replace(f"\nBACKUP{surplus}", "\nBACKUP")  # the column is as wide as the volume's real name
        for name, other in names.items():
            printed = printed.replace(other, name)
        parts = re.split(f"{re.escape(MARK)}([0-9]+)\n", printed)
        return [Answer(output.splitlines(), int(code)) for output, code in zip(parts[::2], parts[1::2], strict=False)]

    return run


def test_the_pages_show_what_people_need() -> None:
    words = {word for page in _RUN for step in steps(page.read_text()) for word in step.command.split()}
    assert {"backup", "list", "restore", "prove", "verify", "prune", "run", "export", "import", "zstd"} <= words


@pytest.mark.parametrize("page", _RUN, ids=page_id)
def test_each_command_prints_what_the_page_says(
    page: Path, run_page: Callable[[str], list[Answer]], run_volback: Volback
) -> None:
    text = page.read_text()
    if "$ volback init\n" in text:
        shutil.rmtree(run_volback.repository)
    pairs = list(zip(steps(text), run_page(text), strict=True))
    changed = [(step, answer.output) for step, answer in pairs if not step.hidden and _differs(step, answer)]
    if os.environ.get("VOLBACK_TEST_WRITE_DOCS") == "yes":
        page.write_text(rewritten(text, changed))
    for step, answer in pairs:
        printed = "\n".join(answer.output)
        assert not step.hidden or answer.exit_code == 0, f"{step.command}\n{printed}"
        assert step.hidden or not _differs(step, answer), f"$ {step.command}\nprints:\n{printed}"


def _differs(step: Step, answer: Answer) -> bool:
    return [comparable(line) for line in answer.output] != [comparable(line) for line in step.output]


@pytest.mark.parametrize("page", _RUN, ids=page_id)
def test_console_blocks_fit_the_page(page: Path) -> None:
    lines = [line for block in blocks(page.read_text(), "console") for line in block.splitlines()]
    assert [line for line in lines if len(line) > COLUMNS_MAX] == []
    printed = [line for step in steps(page.read_text()) for line in step.output]
    assert [line for line in printed if len(line) > 80] == [], "what volback prints fits a terminal"
