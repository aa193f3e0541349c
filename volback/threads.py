"""Threads: work that must be done also where the machine allows no further thread (ulimit -u, pids.max, memory)."""

from __future__ import annotations

import threading
from collections.abc import Callable


def in_thread(work: Callable[[], None], name: str, *, daemon: bool = False) -> Callable[[], None]:
    """Do `work` in a thread, or here and now where none can be started. Returns what waits for its end."""
    thread = threading.Thread(target=work, name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError:
        work()
        return lambda: None
    return thread.join
