"""Order of containers: levels, and all of one level at the same time."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from volback.live.order import all_at_once, levels
from volback.threads import in_thread


def test_each_comes_after_all_that_it_waits_for() -> None:
    found = levels({"web": ["db", "cache"], "db": [], "cron": ["web"], "cache": []})
    assert found == [["db", "cache"], ["web"], ["cron"]]


def test_what_is_not_among_the_keys_is_not_waited_for() -> None:
    assert levels({"web": ["db", "elsewhere"], "db": []}) == [["db"], ["web"]]


def test_in_a_circle_each_is_alone_in_the_given_order() -> None:
    assert levels({"a": ["b"], "b": ["a"], "c": []}) == [["a"], ["b"], ["c"]]


def test_nothing_has_no_level() -> None:
    assert levels({}) == []


@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_all_tasks_run_at_the_same_time(count: int) -> None:
    meeting = threading.Barrier(count, timeout=30) if count else None
    all_at_once([meeting.wait for _ in range(count)] if meeting else [])  # type: ignore[misc]
    assert meeting is None or not meeting.broken


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    ended = []

    def task(number: int) -> None:
        ended.append(number)
        if number:
            raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        all_at_once([partial(task, number) for number in range(3)])
    assert sorted(ended) == [0, 1, 2]


def test_all_tasks_are_done_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ended: list[int] = []
    all_at_once([partial(ended.append, number) for number in range(3)])
    assert sorted(ended) == [0, 1, 2]
    in_thread(partial(ended.append, 3), "one")()
    assert ended[-1] == 3
