"""A wrapper that limits a store's reads and writes together to a number of bytes per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable

from volback.pace import Pace
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
        self._pace = Pace(bytes_s, clock=clock, sleep=sleep)

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        return self._inner.put(key, self._pace.slowed(chunks), if_absent=if_absent)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        return self._slowed_open(self._inner.open(key, start=start, length=length))

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        return self._inner.extend(left, key, self._pace.slowed(chunks), keep_bytes=keep_bytes)

    def _slowed_open(self, buffers: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        try:
            yield from self._pace.slowed(buffers)
        finally:
            buffers.close()
