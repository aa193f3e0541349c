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
    is_closed: bool = False


class HeldObjects:
    """Descriptors by key, for several threads. One is closed once it is neither held nor in use.

    The collector may end a block, or a reading, that nobody finished, in any thread and at any step (`workers`): also
    under the lock, which that thread gets again. So no step relies on one that comes before it in another call.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
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
                while self._held and not self._blocks:
                    _, opened = self._held.popitem()
                    opened.is_held = False
                    self._close_unused(opened)

    @contextmanager
    def opened(self, key: str, open_object: Callable[[], int]) -> Iterator[int]:
        """The descriptor of an object, for the block; `open_object` opens it where it is not held."""
        opened = self._known(key) or self._opened(key, open_object())
        try:
            yield opened.fd
        finally:
            with self._lock:
                opened.users -= 1
                self._close_unused(opened)

    def _known(self, key: str) -> _Opened | None:
        with self._lock:
            if (opened := self._held.get(key)) is None:
                return None
            opened.users += 1
            return None if opened.is_closed else opened

    def _opened(self, key: str, fd: int) -> _Opened:
        opened = _Opened(fd)
        with self._lock:
            has_room = key not in self._held and len(self._held) < self._most
            if has_room and self._blocks:
                opened.is_held = True
                self._held[key] = opened
        return opened

    def _close_unused(self, opened: _Opened) -> None:
        if not (opened.users or opened.is_held or opened.is_closed):
            opened.is_closed = True
            os.close(opened.fd)


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4 * HELD_MAX if soft == resource.RLIM_INFINITY else soft
