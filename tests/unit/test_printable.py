"""What is escaped where text leaves volback, as text and in JSON; and that nothing in the program passes it by."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import volback
from volback.printable import has_control, printable, printable_json, printable_lines

ROOT = Path(volback.__file__).parent
WRITERS = {
    "cli/render.py", "cli/log.py", "cli/call.py", "cli/app.py", "cli/admin.py", "cli/main.py", "live/guard.py",
}  # fmt: skip
"""The files that write to standard output or standard error."""


@given(st.text())
def test_what_is_printable_stays_and_the_rest_becomes_printable(text: str) -> None:
    shown = printable(text)
    assert not has_control(shown)
    assert printable(shown) == shown
    assert shown == text or has_control(text)


@pytest.mark.parametrize(
    ("char", "shown"),
    [
        ("\x1b", "\\x1b"), ("\x9b", "\\x9b"), ("\u202e", "\\u202e"), ("\udcff", "\\xff"), ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"), ("\n", "\\x0a"), ("é", "é"), ("\u200d", "\u200d"),
    ],
)  # fmt: skip
def test_each_kind_has_its_escape(char: str, shown: str) -> None:
    assert printable(f"a{char}b") == f"a{shown}b"


def test_text_of_several_lines_keeps_them() -> None:
    assert printable_lines("a\tb\n\x1bc\n") == "a\tb\n\\x1bc\n"


@given(st.dictionaries(st.text(), st.text()))
@example({"": "\U000e0000"})
def test_a_json_document_says_the_same(document: dict[str, str]) -> None:
    try:
        plain = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    shown = printable_json(plain)
    assert json.loads(shown) == document
    assert not has_control(shown.decode())


def test_a_json_document_escapes_each_character_that_text_does() -> None:
    text = "".join(char for char in map(chr, range(0x7F, 0x110000)) if not "\ud800" <= char <= "\udfff")
    shown = printable_json(json.dumps(text, ensure_ascii=False).encode())
    assert json.loads(shown) == text
    kept = "".join(char for char in text if not has_control(char))
    assert re.sub(r"[\x00-\x7f]", "", shown.decode()) == kept


def test_nothing_else_writes_to_standard_output_or_error() -> None:
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if _writes(ast.parse(path.read_text()))}
    assert found <= WRITERS


def _writes(tree: ast.Module) -> bool:
    """Whether it prints, or writes to a standard stream itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"print", "typer.echo", "typer.secho"}:
                return True
            if called.startswith(("sys.stdout", "sys.stderr")) and ".write" in called:
                return True
    return False
