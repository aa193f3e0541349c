"""A store that remembers what is read of it: for tests that count bytes."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import NamedTuple

from volback.store.base import Store, Wrapper


class Read(NamedTuple):
    """One range that was opened, and how many bytes of it were taken."""

    key: str
    start: int
    length: int | None
    taken_bytes: int


class CountingStore(Wrapper):
    """`inner`, and each read of it, in the order in which they ended."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reads: list[Read] = []
        self._lock = threading.Lock()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        taken = 0
        try:
            for buffer in self._inner.open(key, start=start, length=length):
                taken += len(buffer)
                yield buffer
        finally:
            with self._lock:
                self.reads.append(Read(key, start, length, taken))
