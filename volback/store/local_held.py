"""Objects that stay open while many ranges of them are read.

To open one takes a step for each directory above it (`local_tree`): 14 system calls for a range of some kilobytes. A
deep increment has thousands of such ranges in a hundred objects.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HELD_MAX = 128
"""Descriptors, or a quarter of those that the process may have. Objects beyond these are opened for each range."""


@dataclass(slots=True)
class _Opened:
    fd: int
    users: int = 1
    is_held: bool = False


class HeldObjects:
    """Descriptors by key, for several threads. One is closed once it is neither held nor in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most = min(HELD_MAX, _descriptors() // 4)
        self._blocks = 0
        self._held: dict[str, _Opened] = {}

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold what is opened until the outermost of such blocks ends."""
        with self._lock:
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                ended = [] if self._blocks else [*self._held.values()]
                if ended:
                    self._held.clear()
                for opened in ended:
                    opened.is_held = False
                unused = [opened.fd for opened in ended if not opened.users]
            for fd in unused:
                os.close(fd)

    @contextmanager
    def opened(self, key: str, open_object: Callable[[], int]) -> Iterator[int]:
        """The descriptor of an object, for the block; `open_object` opens it where it is not held."""
        opened = self._known(key) or self._opened(key, open_object())
        try:
            yield opened.fd
        finally:
            with self._lock:
                opened.users -= 1
                is_unused = not (opened.users or opened.is_held)
            if is_unused:
                os.close(opened.fd)

    def _known(self, key: str) -> _Opened | None:
        with self._lock:
            if (opened := self._held.get(key)) is not None:
                opened.users += 1
            return opened

    def _opened(self, key: str, fd: int) -> _Opened:
        opened = _Opened(fd)
        with self._lock:
            if self._blocks and key not in self._held and len(self._held) < self._most:
                opened.is_held = True
                self._held[key] = opened
        return opened


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4 * HELD_MAX if soft == resource.RLIM_INFINITY else soft
