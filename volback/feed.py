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

_TURN_BYTES = 256 * 1024
"""So many are passed on at once, or one chunk: a thousand small ones cost no thousand locks on this side either."""

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
        self._begin = lambda: take(self._chunks())
        self._taken: Future[object]

    @classmethod
    def in_lists(cls, take: Callable[[Iterable[list[_Chunk]]], object], name: str) -> Self:
        """The same for what takes all chunks at once that wait."""
        feed = cls(lambda _: None, name)
        feed._begin = lambda: take(feed._lists())
        return feed

    def add(self, chunks: Iterable[_Chunk]) -> None:
        """Add chunks; waits while too much waits. Raises what `take` raises."""
        some, size = list[_Chunk](), 0
        for chunk in chunks:
            some.append(chunk)
            size += len(chunk)
            if size >= _TURN_BYTES:
                self._pass(some, size)
                some, size = [], 0
        if some:
            self._pass(some, size)

    def _pass(self, chunks: list[_Chunk], size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size))
            if not self._waiting:
                self._changed.notify_all()
            self._waiting += chunks
            self._waiting_bytes += size
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
                self._taken = self._pool.submit(self._begin)
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
        for chunks in self._lists():
            chunks.reverse()
            while chunks and not self._is_given_up:
                yield chunks.pop()

    def _lists(self) -> Iterator[list[_Chunk]]:
        """All that wait are taken at once."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_complete or self._is_given_up)
                if self._is_given_up:
                    raise GivenUpError
                if not self._waiting:
                    return
                chunks, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._changed.notify_all()
            yield chunks
            del chunks  # they are not held while more is waited for

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
