"""What has come to be in this process since a test began. Not what is there: threads and descriptors of tests before it
end whenever they do, or when the garbage collector finds their generators."""

from __future__ import annotations

import os
import threading


class Leftovers:
    """Threads and descriptors that were not there when this was made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    def threads(self, *starts: str) -> list[threading.Thread]:
        """Those whose names begin so; without `starts`, all."""
        new = [thread for thread in threading.enumerate() if thread not in self._threads]
        return [thread for thread in new if not starts or thread.name.startswith(starts)]

    def descriptors(self) -> list[int]:
        """The open ones."""
        return sorted(_descriptors() - self._descriptors)


def _descriptors() -> set[int]:
    """Not that of the listing itself."""
    return {number for number in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{number}")}
