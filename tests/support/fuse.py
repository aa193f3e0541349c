"""A file server for tests: a directory that is mounted through FUSE, with a clock of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.engine import PROJECT

_START_S = 120


class FileServer:
    """What it serves stays between its mounts."""

    def __init__(self, directory: Path, point: Path, *, ahead_s: float) -> None:
        """`ahead_s` is how far its clock is ahead of this machine's; it stands still until it is set on."""
        self.point = point
        self._stored, self._clock, self._opened = (directory / name for name in ("stored", "clock", "opened"))
        self.point.mkdir(parents=True)
        self._stored.mkdir(parents=True)
        self._clock.write_text(str(time.time_ns() + int(ahead_s * 1e9)))

    def pass_time(self, seconds: float) -> None:
        """Set its clock on."""
        self._clock.write_text(str(int(self._clock.read_text()) + int(seconds * 1e9)))

    def opened(self) -> list[str]:
        """The files that were opened since this was asked last, in order of their names."""
        names = self._opened.read_text().splitlines() if self._opened.exists() else []
        self._opened.unlink(missing_ok=True)
        return sorted(set(names))

    @contextmanager
    def mounted(self, subtype: str = "volback-test", *, invents: tuple[str, ...] = ()) -> Iterator[Path]:
        """Mount it as `fuse.SUBTYPE`; it invents "inodes" and "ctimes" at each mount."""
        paths = map(str, (self._stored, self.point, self._clock, self._opened))
        command = [sys.executable, "-m", "tests.support.fuse_server", *paths, subtype, *invents]
        with subprocess.Popen(command, cwd=PROJECT) as server:
            try:
                deadline = time.monotonic() + _START_S
                while not self.point.is_mount():
                    assert server.poll() is None
                    assert time.monotonic() < deadline, "it is not mounted"
                    time.sleep(0.01)
                yield self.point
            finally:
                if self.point.is_mount():
                    subprocess.run(["umount", self.point], check=True)
