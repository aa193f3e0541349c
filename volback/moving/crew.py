"""Crew: steps of several moves in threads, a few at once; a signal ends all of them.

Signals reach the main thread alone. It then tells the others to stop, which they do at the next buffer that passes, and
ends what they wait for meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from volback.errors import Interrupted
from volback.interrupts import deferred_signals
from volback.progress import Progress

_WAKE_S = 5.0


class SharedProgress:
    """Progress of several moves as one stage, to which all of them add; it raises Interrupted in them once it is to."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._by: Interrupted | None = None

    def stop(self, by: Interrupted) -> None:
        """Let all who report to it end."""
        self._by = by

    def begin(self, stage: str) -> None:
        """A stage of all of them begins."""
        self._progress.start(stage, total_bytes=None, total_files=None)

    def start(self, stage: str, *, total_bytes: int | None, total_files: int | None) -> None:
        """One of them has a stage of its own, which is not shown."""
        self._check()

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        """See Progress."""
        self._check()
        with self._lock:
            self._progress.advance(raw_bytes=raw_bytes, stored_bytes=stored_bytes, files=files, sent_bytes=sent_bytes)

    def _check(self) -> None:
        if self._by is not None:
            raise Interrupted(self._by.exit_code - 128)


class Crew:
    """Works steps off, so many at once."""

    def __init__(self, jobs: int, progress: SharedProgress, wake: Callable[[], None]) -> None:
        """`wake` ends what threads wait for, after a signal; it is called again while one of them still waits."""
        self._jobs = jobs
        self._progress = progress
        self._wake = wake

    def work_off(self, stage: str, steps: Sequence[Callable[[], None]]) -> None:
        """Do all steps, which collect their own errors. Raises Interrupted, once all that had begun have ended."""
        if not steps:
            return
        self._progress.begin(stage)
        pool, begun = ThreadPoolExecutor(min(self._jobs, len(steps)), "move"), list[Future[None]]()
        try:
            begun += [pool.submit(step) for step in steps]
            wait(begun)
        except Interrupted as exc:
            self._progress.stop(exc)
            raise
        finally:
            with deferred_signals():
                pool.shutdown(wait=False, cancel_futures=True)
                while not all(one.done() for one in begun):
                    self._wake()
                    wait(begun, timeout=_WAKE_S)
                pool.shutdown()
        for one in begun:
            one.result()
