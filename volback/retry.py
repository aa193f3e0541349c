"""When to try a failed call again: exponential backoff with full jitter, and a limit in time.

boto3's own retries are off: they count tries, not time, and an interrupt cannot end their waits.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

_FIRST_S = 0.2
_LONGEST_S = 20.0


class Stopped(Exception):
    """The caller has ended this call from another thread."""


class RetryBudget:
    """How long one call (or stream) may go on failing: `limit_s` from its start, or from its last progress."""

    def __init__(
        self,
        limit_s: float,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.tries = 0
        self._limit_s = limit_s
        self._stop = stop or threading.Event()
        self._clock = clock
        self._jitter = jitter
        self._began = clock()

    def progress(self) -> None:
        """Start the limit anew, as the call has succeeded in part."""
        self.tries, self._began = 0, self._clock()

    def wait(self) -> bool:
        """Wait until the next try and return True; return False at once if the limit ends before it. Raises Stopped."""
        delay_s = max(0.05, self._jitter() * min(_LONGEST_S, _FIRST_S * 2 ** min(self.tries, 10)))
        self.tries += 1
        if self._clock() + delay_s - self._began > self._limit_s:
            return False
        if self._stop.wait(delay_s):
            raise Stopped
        return True
