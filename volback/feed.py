"""Feed: what takes chunks runs in a thread, so that who makes them goes on meanwhile, in several turns if need be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from volback.interrupts import deferred_signals

AHEAD_BYTES = 4 * 1024 * 1024
"""So many bytes wait at most, or one chunk; as many again may have been taken."""

_Chunk = TypeVar("_Chunk", bound=bytes | bytearray | memoryview)


class GivenUpError(Exception):
    """The caller has failed: raised where the chunks are taken."""


class Feed(Generic[_Chunk]):
    """A context manager; where it is left without `end`, what takes the chunks gets GivenUpError, and is waited for."""

    def __init__(self, take: Callable[[Iterable[_Chunk]], object], name: str) -> None:
        """`take` gets all chunks, in a thread of that name, from the block's begin on. What it raises, `add` or `end`
        raises."""
        self._waiting: list[_Chunk] = []
        self._waiting_bytes = 0
        self._is_complete = self._is_given_up = False
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(1, name)
        self._take = take
        self._taken: Future[object]

    def add(self, chunks: Iterable[_Chunk]) -> None:
        """Add chunks; waits while too much waits. Raises what `take` raises."""
        for chunk in chunks:
            size = len(chunk)
            with self._changed:
                self._changed.wait_for(lambda size=size: self._has_room(size))  # type: ignore[misc]
                self._waiting.append(chunk)
                self._waiting_bytes += size
                if len(self._waiting) == 1:
                    self._changed.notify_all()
            if self._taken.done():
                self._taken.result()

    def end(self) -> None:
        """All has been added: wait until it is taken. Raises what `take` raises."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        self._taken.result()

    def __enter__(self) -> Self:
        try:
            with deferred_signals():
                self._taken = self._pool.submit(self._take, self._chunks())
                self._taken.add_done_callback(lambda _: self._notify())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with deferred_signals():
            with self._changed:
                self._is_given_up = not self._is_complete
                self._changed.notify_all()
            self._pool.shutdown()

    def _has_room(self, size: int) -> bool:
        return not self._waiting or self._waiting_bytes + size <= AHEAD_BYTES or self._taken.done()

    def _chunks(self) -> Iterator[_Chunk]:
        """All that wait are taken at once: so a thousand small ones cost no thousand locks."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_complete or self._is_given_up)
                if self._is_given_up:
                    raise GivenUpError
                if not self._waiting:
                    return
                chunks, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._changed.notify_all()
            chunks.reverse()
            while chunks and not self._is_given_up:
                yield chunks.pop()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
