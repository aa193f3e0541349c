"""Support code stands below the tests: it imports none of them, so that each test can be read and moved by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import PROJECT

SUPPORT = sorted((PROJECT / "tests/support").glob("*.py"))


def _imported(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def _tests_in(code: str) -> list[str]:
    """What it imports of the tests, other than support."""
    return [
        name for name in _imported(code) if name.startswith(("tests", ".")) and not name.startswith("tests.support.")
    ]


@pytest.mark.parametrize("path", SUPPORT, ids=lambda path: path.name)
def test_support_imports_no_test(path: Path) -> None:
    assert _tests_in(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["from tests.unit.test_x import Y", "import tests.conftest", "from tests import conftest", "from . import engine"],
)
def test_an_import_of_a_test_is_seen(line: str) -> None:
    assert _tests_in(f"def late():\n    {line}\n") != []
