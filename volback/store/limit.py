"""A wrapper that limits a store's reads and writes together to a number of bytes per second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from volback.store.base import Buffer, Store, Wrapper


class LimitStore(Wrapper):
    """`inner`, limited to `bytes_s`; time in which nothing moved is not made up for. Safe to use from threads."""

    def __init__(
        self,
        inner: Store,
        bytes_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._bytes_s = bytes_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        return self._inner.put(key, self._slowed(chunks), if_absent=if_absent)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        return self._slowed_open(self._inner.open(key, start=start, length=length))

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        return self._inner.extend(left, key, self._slowed(chunks), keep_bytes=keep_bytes)

    def _slowed(self, chunks: Iterable[Buffer]) -> Iterator[Buffer]:
        for chunk in chunks:
            self._pay(memoryview(chunk).nbytes)
            yield chunk

    def _slowed_open(self, buffers: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        try:
            for buffer in buffers:
                self._pay(len(buffer))
                yield buffer
        finally:
            buffers.close()

    def _pay(self, count: int) -> None:
        """Wait until the bytes moved before are within the limit."""
        with self._lock:
            now = self._clock()
            wait_s = max(0.0, self._free_at - now)
            self._free_at = now + wait_s + count / self._bytes_s
        if wait_s:
            self._sleep(wait_s)
