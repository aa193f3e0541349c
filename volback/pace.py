"""Pace: a limit of bytes a second, shared by all that moves within it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Buffer = TypeVar("Buffer", bound=bytes | bytearray | memoryview)


class Pace:
    """Safe to use from threads; time in which nothing moved is not made up for."""

    def __init__(
        self,
        bytes_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_s = bytes_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def slowed(self, buffers: Iterable[Buffer]) -> Iterator[Buffer]:
        """Yield the same buffers, no faster than the limit allows."""
        for buffer in buffers:
            self.pay(memoryview(buffer).nbytes)
            yield buffer

    def pay(self, count: int) -> None:
        """Wait until the bytes moved before are within the limit."""
        with self._lock:
            now = self._clock()
            wait_s = max(0.0, self._free_at - now)
            self._free_at = now + wait_s + count / self._bytes_s
        if wait_s:
            self._sleep(wait_s)
