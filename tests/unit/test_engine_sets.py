"""The tests that are chosen for several engines exist, and the documentation has what the choice has."""

from __future__ import annotations

import os
import re

from scripts.engine_sets import ENGINES, EXCEPT, PARTS, table
from tests.support.engine import PROJECT

PAGE = PROJECT / "docs/reference/engines.md"
_TABLE = re.compile(r"(?<=<!-- engines -->\n).*(?=<!-- /engines -->)", re.DOTALL)


def test_each_test_that_is_chosen_or_left_out_is_there() -> None:
    names = [*(test for part in PARTS for test in part.tests), *(left.test for left in EXCEPT)]
    for name in names:
        file, _, function = name.partition("::")
        text = (PROJECT / file).read_text()
        assert not function or f"def {function.partition('[')[0]}(" in text, name


def test_what_is_left_out_belongs_to_an_engine_and_to_a_part() -> None:
    for left in EXCEPT:
        assert left.engine in {engine.name for engine in ENGINES}
        assert any(left.test.startswith(test) for part in PARTS for test in part.tests)


def test_the_documentation_has_the_table() -> None:
    text = PAGE.read_text()
    written = _TABLE.sub(lambda _: f"\n{table()}\n", text)
    if os.environ.get("VOLBACK_TEST_WRITE_DOCS") == "yes":
        PAGE.write_text(written)
    assert written == PAGE.read_text(), "VOLBACK_TEST_WRITE_DOCS=yes writes the table anew"
