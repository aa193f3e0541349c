"""The page with all helps, and the manual page."""

from __future__ import annotations

import os

from scripts.reference import helps, manual, page
from tests.support.engine import PROJECT
from volback.cli.app import parser

PAGE = PROJECT / "docs/reference/help.md"


def test_the_page_says_what_the_commands_say() -> None:
    if os.environ.get("VOLBACK_TEST_WRITE_DOCS") == "yes":
        PAGE.write_text(page())
    assert page() == PAGE.read_text(), "VOLBACK_TEST_WRITE_DOCS=yes writes the page anew"


def test_the_manual_page_has_every_line_as_it_is() -> None:
    lines = manual().splitlines()
    assert [
        line for line in lines if line.startswith((".", "'")) and not line.startswith((".TH", ".SH", ".nf", ".fi"))
    ] == []
    shown = [line.removeprefix(r"\&").replace(r"\-", "-").replace(r"\e", "\\") for line in lines]
    for path, said in helps(parser()):
        at = shown.index(f'.SH "{path.upper()}"')
        wanted = said.rstrip().splitlines()
        assert shown[at + 2 : at + 2 + len(wanted)] == wanted
