"""The spread of steps that a common run strikes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.steps import spread


@pytest.mark.parametrize("size", [11, 12, 20, 21, 57, 500])
def test_a_spread_has_the_first_the_last_and_one_of_each_stretch_between(size: int) -> None:
    chosen = spread(range(size), "salt", 10)
    assert (len(chosen), chosen[0], chosen[-1]) == (10, 0, size - 1)
    assert chosen == sorted(set(chosen))
    widest = max(later - earlier for earlier, later in pairwise(chosen))
    assert widest <= 2 * (size // 8 + 1)


def test_few_steps_are_all_struck() -> None:
    assert spread("abc", "salt", 10) == ["a", "b", "c"]
    assert spread([], "salt", 10) == []


def test_it_is_the_same_each_time_and_another_for_another_test() -> None:
    assert spread(range(100), "one") == spread(range(100), "one")
    assert spread(range(100), "one") != spread(range(100), "other")
