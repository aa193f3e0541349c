"""Starting: a helper that is started in a thread, while the repository is asked for the earlier backups."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from volback.engine.streams import VolumeReader
from volback.interrupts import deferred_signals


class Starting:
    """A reader that is being opened; a context manager whose end waits for that, and closes it.

    A signal waits for it too: a container that is being created has no id by which it could be removed. It starts when
    this object is made: defer signals until the block is entered.
    """

    def __init__(self, reader: AbstractContextManager[VolumeReader]) -> None:
        self._resources = ExitStack()
        self._pool = ThreadPoolExecutor(1, "helper-start")
        self._opening = self._pool.submit(self._resources.enter_context, reader)

    def reader(self) -> VolumeReader:
        """Wait for it. Raises what opening it raises."""
        return self._opening.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            self._pool.shutdown()
            self._resources.__exit__(kind, error, trace)
