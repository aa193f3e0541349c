"""Interrupts: SIGINT, SIGTERM and SIGHUP end a run by one exception, and never in the middle of a step
that must not be left half done (creating a container, removing it).

A signal mask would not do: with threads the handler runs in the main thread whatever that thread has blocked.
The first signal counts; while what it began is being cleaned up, further ones are ignored.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from volback.errors import Interrupted

SIGNALS = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""Each signal, and the signal that decides the exit code: a closed terminal ends a run as SIGTERM does."""


class _Interrupts:
    """The process's one state of interruption; signals are a matter of the process."""

    def __init__(self) -> None:
        self.depth = 0
        self.pending: int | None = None
        self.raised = False

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.raised:
            return
        if self.depth:
            self.pending = self.pending or number
            return
        self._raise(number)

    def leave(self) -> None:
        self.depth -= 1
        if not self.depth and self.pending is not None and not self.raised:
            self._raise(self.pending)

    def _raise(self, number: int) -> None:
        self.raised = True
        raise Interrupted(SIGNALS[signal.Signals(number)])

    def unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised inside a finalizer: the signal has to be sent again, a moment later."""
        if not isinstance(what.exc_value, Interrupted):
            sys.__unraisablehook__(what)
            return
        self.raised = False
        # To the process: a signal that another thread sends itself would not wake the main one.
        again = threading.Timer(0.02, os.kill, [os.getpid(), what.exc_value.exit_code - 128])
        again.daemon = True
        again.start()


_process = _Interrupts()


def install() -> None:
    """Make the signals raise Interrupted in the main thread, once. The cli calls it before anything else.

    A signal that the parent had ignored (nohup, a shell's job in the background) stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _process.handle)
    sys.unraisablehook = _process.unraisable


def is_pending() -> bool:
    """Whether a signal waits for the end of a step; the step should then end soon."""
    return _process.pending is not None or _process.raised


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let the step end first: a signal that comes in between raises Interrupted after it.

    An error of the step itself passes through, and the signal waits for the next step's end. Signals are handled in
    the main thread alone, so in any other there is nothing to defer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _process.depth += 1
    try:
        yield
    except BaseException:
        _process.depth -= 1
        raise
    _process.leave()
