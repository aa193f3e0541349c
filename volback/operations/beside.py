"""Beside: work of a set that need not wait for the reading of its other sources, nor be waited for by it.

While one source is read, the backup of the one before is committed, and a helper for a later one is started.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from volback.interrupts import deferred_signals


class Beside:
    """One thread for commits, one for helpers; a context manager whose end waits for both.

    A signal waits for them too: nothing is closed or discarded while a thread uses it.
    """

    def __init__(self) -> None:
        self.commits = ThreadPoolExecutor(1, "commits")
        self.helpers = ThreadPoolExecutor(1, "helpers")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            self.helpers.shutdown(cancel_futures=True)
            self.commits.shutdown()
