"""Upload: one object is put in a thread, so that the caller can make its bytes in several turns, with other work in
between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from volback.archive.record import Recorder
from volback.interrupts import deferred_signals
from volback.store.base import Store

AHEAD = 4
"""So many chunks wait at most: each is a frame of up to 8 MiB."""


class _GivenUpError(Exception):
    """The caller has failed: the object must not come into being."""


class Upload:
    """A context manager; left without `end`, nothing of the object is stored, and no thread runs on."""

    def __init__(self, put: Callable[[Iterable[bytes]], object]) -> None:
        """`put` stores all chunks as one object, or nothing if they raise."""
        self._waiting = deque[bytes]()
        self._is_complete = self._is_given_up = False
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(1, "upload")
        self._stored = self._pool.submit(put, self._taken())
        self._stored.add_done_callback(lambda _: self._notify())

    def add(self, chunks: Iterable[bytes]) -> None:
        """Add chunks; waits while the store is behind. Raises StoreError if the object cannot be stored."""
        for chunk in chunks:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) < AHEAD or self._stored.done())
                if not self._stored.done():
                    self._waiting.append(chunk)
                    self._changed.notify_all()
            if self._stored.done():
                self._stored.result()

    def end(self) -> None:
        """All has been added: wait until it is stored. Raises StoreError."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        self._stored.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            with self._changed:
                self._is_given_up = not self._is_complete
                self._changed.notify_all()
            self._pool.shutdown()

    def _taken(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_complete or self._is_given_up)
                if self._is_given_up:
                    raise _GivenUpError
                if not self._waiting:
                    return
                chunk = self._waiting.popleft()
                self._changed.notify_all()
            yield chunk

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def data_upload(store: Store, key: str, recorder: Recorder) -> Upload:
    """Of a data object, which is hashed in the thread that stores it."""
    return Upload(lambda chunks: store.put(key, recorder.hashed(chunks)))
