"""Starting: a helper that is started in a thread, while something else is found out that comes before its work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from volback.interrupts import deferred_signals

Stream = TypeVar("Stream")


class Starting(Generic[Stream]):
    """A reader or writer that is being opened; a context manager whose end waits for that, and closes it.

    A signal waits for it too: a container that is being created has no id by which it could be removed. It starts when
    this object is made: defer signals until the block is entered, or use `started`.
    """

    def __init__(self, stream: AbstractContextManager[Stream]) -> None:
        self._resources = ExitStack()
        self._pool = ThreadPoolExecutor(1, "helper-start")
        self._opening = self._pool.submit(self._resources.enter_context, stream)

    def opened(self) -> Stream:
        """Wait for it. Raises what opening it raises."""
        return self._opening.result()

    def end(self) -> None:
        """Close it before the block ends: it has done its work. Once more does nothing. Raises what closing raises."""
        with deferred_signals():
            self._pool.shutdown()
            self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            self._pool.shutdown()
            self._resources.__exit__(kind, error, trace)


@contextmanager
def started(stream: AbstractContextManager[Stream]) -> Iterator[Starting[Stream]]:
    """Open it in a thread, for the block."""
    with ExitStack() as stack:
        with deferred_signals():
            starting = stack.enter_context(Starting(stream))
        yield starting
