"""Interrupts: SIGINT, SIGTERM and SIGHUP end a run by one exception, and never in the middle of a step
that must not be left half done (creating a container, removing it).

A signal mask would not do: with threads the handler runs in the main thread whatever that thread has blocked.
The first signal counts; while what it began is being cleaned up, further ones are ignored.

Python looks for signals inside its own library too. Raised there, in the middle of what takes or gives back a lock, an
exception would leave it taken, and threads of the run would wait for it without end; what was just entered would never
be left. And some C code ignores what is raised in methods that it calls. So the signal comes again a moment later.
Waiting, which may take long, is interrupted.

Python takes note of a signal at once, and looks for it between two instructions of the main thread. One that comes just
before that thread sleeps, for a lock, is looked for when it wakes, which may be never. So a timer wakes it.
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

_LIBRARY = ("threading", "concurrent.futures._base", "concurrent.futures.thread", "contextlib", "logging")
"""Python's modules that take locks, start threads, or enter and leave blocks: half done, nobody would know of these."""
_DROPPED = frozenset({"__hash__", "__eq__", "__getattr__", "__getattribute__"})
"""Methods that PyDict_GetItem and PyObject_HasAttr call: "exceptions ... are silently ignored" (the C API's pages on
dictionaries and objects), so the signal would be lost, and all that follow it. msgspec looks up types in that way."""
_AGAIN_S = 0.001
_WAKE_S = 0.5
SIGNALS = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""Each signal, and the signal that decides the exit code: a closed terminal ends a run as SIGTERM does."""


class _Interrupts:
    """The process's one state of interruption; signals are a matter of the process."""

    def __init__(self) -> None:
        self.depth = 0
        self.pending: int | None = None
        self.raised = False
        self._again: int | None = None
        self._wake_s = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            return
        if self.depth:
            self.pending = self.pending or number
        elif _is_in_library(frame) or _may_be_dropped(frame):
            self._come_again(number)
        else:
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
        self._come_again(what.exc_value.exit_code - 128)

    def watch(self) -> None:
        """Let a timer of the kernel wake the main thread now and then: to start a thread for it takes locks, which this
        one may hold."""
        self._wake_s = _WAKE_S
        self._set_timer(self._wake_s, self._wake_s)

    def _wake(self, _: int, frame: FrameType | None) -> None:
        if self._again is not None:
            number, self._again = self._again, None
            signal.setitimer(signal.ITIMER_REAL, self._wake_s, self._wake_s)
            self.handle(number, frame)

    def _come_again(self, number: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), number)
            return
        self._again = number
        # Again and again: one that comes just before a wait begins is handled when that ends.
        self._set_timer(_AGAIN_S, 10 * _AGAIN_S)

    def _set_timer(self, first_s: float, interval_s: float) -> None:
        signal.signal(signal.SIGALRM, self._wake)
        signal.setitimer(signal.ITIMER_REAL, first_s, interval_s)


def _is_in_library(frame: FrameType | None) -> bool:
    """Whether an exception in this frame would leave something half done."""
    if frame is None or _is_harmless(frame):
        return False
    names = set[str]()
    outer: FrameType | None = frame
    while outer is not None and _module(outer) in _LIBRARY:
        names.add(outer.f_code.co_name)
        outer = outer.f_back
    return bool(names) and (not names.isdisjoint(("start", "submit")) or not _is_waiting(frame))


def _may_be_dropped(frame: FrameType | None) -> bool:
    """Whether C code that ignores all errors may have called this frame, or one of those above."""
    while frame is not None:
        if frame.f_code.co_name in _DROPPED:
            return True
        frame = frame.f_back
    return False


def _is_harmless(frame: FrameType) -> bool:
    """A future's result is taken in a `with` block, the ends of which are in `threading`; logging waits for streams."""
    module, name = _module(frame), frame.f_code.co_name
    if module == "logging":
        return name not in ("acquire", "release")
    return module == "concurrent.futures._base" and name in ("result", "exception")


def _is_waiting(frame: FrameType) -> bool:
    """For a lock that Condition.wait gives back in any case from there on, or for the end of threads."""
    name = frame.f_code.co_name
    return name in ("join", "_wait_for_tstate_lock", "_shutdown") or (name == "wait" and "gotit" in frame.f_locals)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


_process = _Interrupts()


def install() -> None:
    """Make the signals raise Interrupted in the main thread, once. The cli calls it before anything else.

    A signal that the parent had ignored (nohup, a shell's job in the background) stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _process.handle)
    sys.unraisablehook = _process.unraisable
    _process.watch()


def end() -> None:
    """Let the timer end: Python gives signals back their default before it exits, and this one would kill it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


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
