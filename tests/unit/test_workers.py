"""Threads of a generator: none is left when it ends, and the garbage collector never waits for one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.leftovers import Leftovers
from volback.ahead import read_ahead
from volback.archive.seal import in_order

Start = Callable[[threading.Event], Generator[int, None, None]]


def _frames(go: threading.Event) -> Generator[int, None, None]:
    return in_order(_work(go), iter(range(9)), threads=2)


def _ahead(go: threading.Event) -> Generator[int, None, None]:
    work = _work(go)
    return read_ahead(lambda number, stop: work(number), iter(range(9)), ahead=2)


def _work(go: threading.Event) -> Callable[[int], int]:
    """The first piece is done once the second has begun; that one, and all others, wait for `go`."""
    second = threading.Event()

    def work(number: int) -> int:
        if number:
            second.set()
        assert (go if number else second).wait(60)
        return number

    return work


_WORKERS = ("ahead", "frames")


@pytest.fixture
def go(leftovers: Leftovers) -> Iterator[threading.Event]:
    """What the workers wait for; set at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()
    for thread in leftovers.threads(*_WORKERS):
        thread.join(30)


@pytest.mark.parametrize("start", [_frames, _ahead])
def test_the_collector_does_not_wait_for_a_worker(start: Start, go: threading.Event, leftovers: Leftovers) -> None:
    """It may run where a lock is held that the worker needs."""
    abandoned: list[Any] = [start(go)]
    assert next(abandoned[0]) == 0
    abandoned.append(abandoned)
    collector = threading.Thread(target=gc.collect, daemon=True)
    gc.disable()
    try:
        del abandoned
        collector.start()
        collector.join(30)
        assert not collector.is_alive(), "the collection waits for a worker, and that for the end of this test"
    finally:
        gc.enable()
    assert leftovers.threads(*_WORKERS), "the worker was still at work"


@pytest.mark.parametrize("start", [_frames, _ahead])
def test_who_closes_it_waits_until_no_thread_is_left(start: Start, go: threading.Event, leftovers: Leftovers) -> None:
    generator = start(go)
    assert next(generator) == 0
    threading.Timer(0.2, go.set).start()
    generator.close()
    assert leftovers.threads(*_WORKERS) == []
