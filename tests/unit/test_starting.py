"""A helper that starts in a thread, while something else is asked: whatever happens meanwhile, it is removed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from volback import interrupts
from volback.engine.streams import VolumeReader
from volback.errors import EngineError, Interrupted, StoreUnreachable, VolbackError
from volback.interrupts import deferred_signals
from volback.operations.starting import Starting


class Opening:
    """Opens a reader, but waits before it does until it is let; notes what it did."""

    def __init__(self, error: Exception | None = None) -> None:
        self.did: list[object] = []
        self.began, self.let = threading.Event(), threading.Event()
        self._error = error

    @contextmanager
    def reader(self) -> Iterator[VolumeReader]:
        self.did.append("create")
        self.began.set()
        assert self.let.wait(60)
        if self._error is not None:
            raise self._error
        try:
            yield cast(VolumeReader, self)
        except BaseException as exc:
            self.did.append(exc)
            raise
        finally:
            self.did.append("remove")


def test_the_reader_is_there_when_it_is_asked_for_and_removed_in_the_end() -> None:
    opening = Opening()
    with Starting(opening.reader()) as starting:
        opening.let.set()
        assert cast(Any, starting.opened()) is opening
        assert opening.did == ["create"]
    assert opening.did == ["create", "remove"]


def test_it_can_be_ended_before_its_block() -> None:
    opening = Opening()
    opening.let.set()
    with Starting(opening.reader()) as starting:
        starting.opened()
        starting.end()
        assert opening.did == ["create", "remove"]
    assert opening.did == ["create", "remove"]


def test_what_fails_meanwhile_comes_first_and_the_helper_is_removed() -> None:
    opening, failure = Opening(), StoreUnreachable("nobody answers")
    assert _raised(opening, failure) is failure
    assert opening.did == ["create", failure, "remove"]


def test_where_both_fail_the_error_of_what_was_asked_comes_first() -> None:
    opening, failure = Opening(EngineError("no such image")), StoreUnreachable("nobody answers")
    assert _raised(opening, failure) is failure


def test_a_helper_that_does_not_start_fails_who_asks_for_it() -> None:
    failure = EngineError("no such image")
    assert _raised(Opening(failure)) is failure


def test_a_signal_waits_for_the_helper_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first one strikes while the helper starts, the second while its end is waited for."""
    monkeypatch.setattr(interrupts, "_process", interrupts._Interrupts())
    before = signal.signal(signal.SIGTERM, interrupts._process.handle)
    interrupts._process.watch()
    opening = Opening()
    striking = threading.Thread(target=_strike_twice, args=[opening])
    striking.start()
    try:
        raised = _raised(opening, let=False)
        striking.join(60)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert isinstance(raised, Interrupted)
    assert opening.did == ["create", raised, "remove"]


def _raised(opening: Opening, failure: Exception | None = None, *, let: bool = True) -> BaseException | None:
    """What a block raises that meanwhile does what fails, or else asks for the reader."""
    try:
        with ExitStack() as stack:
            with deferred_signals():
                starting = stack.enter_context(Starting(opening.reader()))
            if let:
                opening.let.set()
            if failure is not None:
                raise failure
            starting.opened()
    except (VolbackError, Interrupted) as exc:
        return exc
    return None


def _strike_twice(opening: Opening) -> None:
    assert opening.began.wait(60)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        _await_delivery(signal.SIGTERM)
    opening.let.set()


def _await_delivery(number: int) -> None:
    """Until the kernel has handed the signal over; Python's own handler runs soon after, in the main thread."""
    while _is_pending(number):
        pass


def _is_pending(number: int) -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)
