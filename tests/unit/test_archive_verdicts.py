"""Verdicts: what a first scan has matched against the patterns is not matched again while containers are down."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.archive import END, record, scan_facts
from volback.archive.plan import learn, make_plan
from volback.archive.verdicts import Verdicts
from volback.errors import EngineError


def _scan(paths: Iterable[str]) -> list[bytes]:
    return [scan_facts() + b"".join(record(path.encode()) for path in ["", *paths]) + END]


def _kept(paths: Iterable[str], verdicts: Verdicts) -> list[str]:
    plan = make_plan(_scan(paths), verdicts=verdicts)
    return [plan.entry(number).path.decode() for number in range(1, len(plan.records))]


BEFORE = ["a.log", "b", "cache", "cache/1", "cache/2", "d", "d/e.log", "d/f"]


def test_only_paths_that_are_new_are_matched_in_the_second_scan() -> None:
    verdicts = Verdicts(["*.log", "cache"])
    assert learn(_scan(BEFORE), verdicts) == len(BEFORE) + 1
    assert verdicts.matched == 6, "not what is below an excluded directory"
    assert _kept([*BEFORE, "c.log", "d/g"], verdicts) == ["b", "d", "d/f", "d/g"]
    assert verdicts.matched == 6 + 2


def test_what_is_gone_and_what_was_excluded_by_its_directory_are_as_in_one_scan() -> None:
    verdicts = Verdicts(["*.log", "cache"])
    learn(_scan(BEFORE), verdicts)
    moved = ["b", "cached", "cached/1", "d.log", "d.log/f"]
    assert _kept(moved, verdicts) == _kept(moved, Verdicts(["*.log", "cache"])) == ["b", "cached", "cached/1"]


def test_what_is_not_remembered_is_matched_again() -> None:
    verdicts = Verdicts(["*.log"], limit=3)
    learn(_scan(BEFORE), verdicts)
    first = verdicts.matched
    assert _kept(BEFORE, verdicts) == ["b", "cache", "cache/1", "cache/2", "d", "d/f"]
    assert verdicts.matched == 2 * first - 3


def test_without_patterns_nothing_is_matched_or_remembered() -> None:
    verdicts = Verdicts()
    learn(_scan(BEFORE), verdicts)
    assert _kept(BEFORE, verdicts) == BEFORE
    assert verdicts.matched == 0


def test_a_first_scan_that_was_cut_off_is_an_error() -> None:
    with pytest.raises(EngineError, match="cut off"):
        learn([_scan(BEFORE)[0][: -len(END)]], Verdicts())
