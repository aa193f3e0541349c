"""A store that remembers what is read of it: for tests that count bytes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

from volback.store.base import Buffer, ObjectInfo, Store


class Read(NamedTuple):
    """One range that was opened, and how many bytes of it were taken."""

    key: str
    start: int
    length: int | None
    taken_bytes: int


class CountingStore:
    """`inner`, and each read of it, in the order in which they ended."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.reads: list[Read] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def parallel_reads(self) -> int:
        return self.inner.parallel_reads

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        taken = 0
        try:
            for buffer in self.inner.open(key, start=start, length=length):
                taken += len(buffer)
                yield buffer
        finally:
            with self._lock:
                self.reads.append(Read(key, start, length, taken))

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        return self.inner.put(key, chunks, if_absent=if_absent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
