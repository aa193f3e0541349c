"""The order of the tests names files that are there: a renamed one would come late again, without a word."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LONGEST_FIRST


def test_the_longest_groups_are_those_of_files_and_directories_that_exist() -> None:
    tests = Path(__file__).parent.parent
    paths = [name for name in LONGEST_FIRST if "/" in name]
    assert len(paths) > 20
    assert [name for name in paths if not (tests / name).exists()] == []
    assert LONGEST_FIRST[-1] == "", "every test has a place"
