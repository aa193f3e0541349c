"""A signal ends a run whatever the code that it meets does with errors."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from volback import interrupts
from volback.errors import WORST_FIRST, Failure, Interrupted, StoreError, VolbackError, failures, worst_first
from volback.interrupts import deferred_signals


@pytest.fixture
def installed() -> Iterator[None]:
    """The handlers of a process that has not seen a signal yet; afterwards those that were there."""
    before, state, hook = signal.getsignal(signal.SIGTERM), interrupts._process, sys.unraisablehook
    interrupts._process = interrupts._Interrupts()
    signal.signal(signal.SIGTERM, interrupts._process.handle)
    yield
    signal.signal(signal.SIGTERM, before)
    interrupts._process, sys.unraisablehook = state, hook


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(5)


def test_code_that_carries_on_after_errors_does_not_carry_on_after_a_signal(installed: None) -> None:
    carried_on = False
    with pytest.raises(Interrupted) as caught:  # noqa: PT012 - as such code is written
        try:
            terminate()
        except Exception:  # noqa: BLE001 - what is shown
            carried_on = True
    assert not carried_on
    assert (caught.value.exit_code, caught.value.message) == (143, "interrupted by signal 15")
    assert not issubclass(Interrupted, Exception)


def test_a_log_handler_does_not_swallow_a_signal(installed: None) -> None:
    """logging catches whatever Exception a handler raises."""

    class Struck(logging.StreamHandler):  # type: ignore[type-arg]
        def format(self, record: logging.LogRecord) -> str:
            terminate()
            return ""

    logger = logging.getLogger("volback.tests.struck")
    logger.propagate = False
    logger.addHandler(Struck())
    with pytest.raises(Interrupted):
        logger.error("x")


def test_a_signal_waits_for_the_end_of_a_step_of_the_main_thread_alone(installed: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def step() -> None:
        with deferred_signals():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=step)
    thread.start()
    inside.wait(10)
    with pytest.raises(Interrupted):
        terminate()
    leave.set()
    thread.join()
    assert interrupts._process.depth == 0


def test_an_interruption_comes_first_among_failures_and_is_the_worst() -> None:
    full, wrong, cut = StoreError("full"), VolbackError("wrong"), Interrupted(2)
    mixed: list[Failure] = [full, cut]
    assert failures(cut, [full]) == [cut, full]
    assert failures(None, (full, wrong)) == [full, wrong]
    assert worst_first(mixed) == [cut, full]
    assert (cut.exit_code, cut.kind, cut.hint) == (WORST_FIRST[1], "interrupted", "run the command again")


def test_what_starts_the_tests_may_ignore_hangups() -> None:
    """Under nohup children would inherit that, and a test of SIGHUP would wait for nothing."""
    script = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
