"""A limit of bytes a second is kept over all that moves, and time in which nothing moved is not made up for."""

from __future__ import annotations

import pytest

from volback.pace import Pace


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _pace(clock: Clock) -> Pace:
    return Pace(1000, clock=clock, sleep=clock.sleep)


def test_what_moves_keeps_to_the_limit_and_is_the_same(clock: Clock) -> None:
    given = [bytes([number]) * 500 for number in range(20)]
    left_at = list[tuple[bytes, float]]()
    for buffer in _pace(clock).slowed(given):
        left_at.append((buffer, clock() - 100))
    assert [buffer for buffer, _ in left_at] == given
    assert [at for _, at in left_at] == pytest.approx([number * 0.5 for number in range(20)])


def test_all_that_share_it_are_within_it_together(clock: Clock) -> None:
    pace = _pace(clock)
    for _ in zip(pace.slowed([b"x" * 1000] * 5), pace.slowed([b"y" * 1000] * 5), strict=True):
        pass
    assert clock() - 100 == pytest.approx(9), "the last of ten goes once nine are within the limit"


def test_a_pause_is_not_made_up_for(clock: Clock) -> None:
    pace = _pace(clock)
    pace.pay(1000)
    clock.now_s += 60
    begin = clock()
    for _ in range(4):
        pace.pay(1000)
    assert clock() - begin == pytest.approx(3)


def test_less_than_a_buffer_waits_for_what_went_before(clock: Clock) -> None:
    pace = _pace(clock)
    pace.pay(4_000_000)
    pace.pay(1)
    assert clock() - 100 == pytest.approx(4000)
