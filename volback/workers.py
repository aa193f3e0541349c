"""Workers: the threads of one generator. It waits for them when it ends, but not when the garbage collector ends it.

A generator that nobody finished, because its consumer raised and the error is kept, is closed by the collector: in any
thread, at any allocation. That may be inside threading.Thread.start(), which holds a lock (_shutdown_locks_lock of
CPython 3.11) that a thread of the pool needs to begin or to end. Waiting for that thread there never ends; a fuzz
test did.
"""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Workers(ThreadPoolExecutor):
    """A pool whose `with` block leaves no thread behind, unless the garbage collector leaves it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.shutdown(wait=not _collector.runs_here())
        return None


class _Collector:
    """Knows in which thread the garbage collector runs: finalizers run between its two calls."""

    def __init__(self) -> None:
        self._thread: int | None = None

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        self._thread = threading.get_ident() if phase == "start" else None

    def runs_here(self) -> bool:
        """Whether this thread is inside a collection; there is one at most in a process."""
        return self._thread == threading.get_ident()


_collector = _Collector()
gc.callbacks.append(_collector)
