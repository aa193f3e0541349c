"""Quiesce: words and times that the engine takes in another form."""

from __future__ import annotations

import pytest

from volback.policy.quiesce import whole_grace_s


@pytest.mark.parametrize(("stop_timeout_s", "grace_s"), [(0, 0), (0.5, 1), (1.5, 2), (30, 30)])
def test_a_grace_time_is_rounded_up_so_that_half_a_second_is_not_none_at_all(
    stop_timeout_s: float, grace_s: int
) -> None:
    assert whole_grace_s(stop_timeout_s) == grace_s
