"""Files for those who carry the project on: what they name is there, and what they call is what CI runs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.engine import PROJECT
from tests.support.pages import page_id, prose
from tests.unit.test_import_table import FLOORS

_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
_KINDS = (".py", ".md", ".toml", ".yaml", "/")
PLACEHOLDER = "NAME"
TOP_LEVEL = {
    ".ci", ".dockerignore", ".github", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md",
    "Dockerfile", "LICENSE", "README.md", "SECURITY.md", "compose.test.yaml", "docs", "pyproject.toml", "scripts",
    "tests", "volback",
}  # fmt: skip


def paths_in(text: str) -> set[str]:
    """What stands in backticks, or in a shell block, and is a path of the project."""
    quoted = re.findall(r"`([^`\n]+)`", prose(text))
    called = re.findall(r"^(?:bash )?((?:scripts|\.ci)/\w+)", text, re.MULTILINE)
    return {
        word
        for word in (*(word.split(" ")[0] for word in quoted), *called)
        if _PATH.fullmatch(word) and PLACEHOLDER not in word and ("/" in word or word.endswith(_KINDS))
    }


@pytest.mark.parametrize(
    "page", [PROJECT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "docs/design.md")], ids=page_id
)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    made = {line.strip("/") for line in (PROJECT / ".gitignore").read_text().splitlines()}
    paths = {path for path in paths_in(page.read_text()) if path.split("/")[0] not in made}
    named = sorted(paths - {"volback.toml", "HOST/VOLUME/ID"})
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_the_design_has_the_floors_of_the_import_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (`volback/.*?) \|", (PROJECT / "docs/design.md").read_text(), re.MULTILINE)
    rooms = {room.removesuffix(".py"): int(floor) for floor, names in rows for room in re.findall(r"/(\w+)", names)}
    assert rooms == {room: floor for room, floor in FLOORS.items() if room != "__init__"}


def test_contributing_names_what_each_how_to_touches() -> None:
    assert {
        "volback/store/base.py",
        "volback/cli/app.py",
        "volback/policy/labels.py",
        "volback/notify/targets.py",
        "scripts/check",
        "scripts/test",
        ".ci/run",
    } <= paths_in((PROJECT / "CONTRIBUTING.md").read_text())


def test_the_top_level_holds_nothing_that_was_not_meant_to_be_there() -> None:
    """A package that somebody downloaded there was committed once."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert {path.split("/")[0] for path in listed.split("\0") if path} == TOP_LEVEL


def test_types_are_part_of_the_package() -> None:
    data = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data == {"volback": ["py.typed"]}
    assert (PROJECT / "volback/py.typed").is_file()


def test_the_hosted_workflow_runs_all_that_ci_runs() -> None:
    workflow = (PROJECT / ".github/workflows/ci.yaml").read_text()
    assert re.search(r"^ +- run: .*\bbash \.ci/run$", workflow, re.MULTILINE)
    uses = re.findall(r"uses: (\S+)", workflow)
    assert uses
    assert [name for name in uses if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", name)] == []


def test_each_hook_before_a_commit_is_a_step_of_the_check() -> None:
    hooks = re.findall(r"^ +entry: scripts/check (\w+)$", (PROJECT / ".pre-commit-config.yaml").read_text(), re.M)
    assert hooks == re.findall(r"^step (\w+) ", (PROJECT / "scripts/check").read_text(), re.M)
