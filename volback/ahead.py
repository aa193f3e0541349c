"""Read ahead: results of slow work (reads of a store) in order, while threads work on the next items. It knows neither
stores nor what is read of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from typing import TypeVar

from volback.workers import Workers

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_ahead(
    work: Callable[[_Item, threading.Event], _Result], items: Iterable[_Item], *, ahead: int
) -> Generator[_Result, None, None]:
    """Yield `work(item, stop)` for each item, in order; up to `ahead` of them are in flight, each in a thread.

    At most `ahead` results are kept besides the one that the caller has. The error that comes first in the order
    of the items is raised, after all results before it. When the caller stops early, or is interrupted, `stop` is
    set: work that sees it may end at once; its result is dropped. No thread is left when this generator has ended.
    """
    source = _Source(iter(items))
    first = source.take(2)
    stop = threading.Event()
    if ahead < 2 or len(first) < 2:  # nothing to read ahead
        for item in chain(first, source):
            yield work(item, stop)
        source.end()
        return
    flight: deque[Future[_Result]] = deque()
    with Workers(ahead, thread_name_prefix="ahead") as pool:
        try:
            flight.extend(pool.submit(work, item, stop) for item in first)
            while flight:
                flight.extend(pool.submit(work, item, stop) for item in source.take(ahead - len(flight)))
                yield flight.popleft().result()
        finally:
            stop.set()
            for future in flight:
                future.cancel()
    source.end()


class _Source(Iterator[_Item]):
    """Items; an error of the iterator waits until all results before it have been delivered, a signal does not wait."""

    def __init__(self, items: Iterator[_Item]) -> None:
        self._items = items
        self._failure: Exception | None = None
        self._ended = False

    def __next__(self) -> _Item:
        if self._ended:
            raise StopIteration
        try:
            return next(self._items)
        except StopIteration:
            self._ended = True
            raise
        except Exception as exc:
            self._ended, self._failure = True, exc
            raise StopIteration from exc

    def take(self, count: int) -> list[_Item]:
        """The next items, fewer at the end."""
        return [item for _, item in zip(range(count), self, strict=False)]

    def end(self) -> None:
        """All results have been delivered. Raises the error that ended the items."""
        if self._failure is not None:
            raise self._failure
