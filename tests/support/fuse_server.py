"""A FUSE filesystem that passes all through to a directory, as a file server does: `tests.support.fuse` starts it.

It stamps by a clock of its own, which is a file, and may invent inode numbers and ctimes at each mount. It notes which
files are opened.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

from mfusepy import FUSE

CTIME = "trusted.volback.ctime"
"""On each entry of the directory: its ctime in the filesystem, in ns."""
_STAT = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")


class PassThrough:
    """One mount of a directory; each call is one on it, and a stamp."""

    use_ns = True

    def __init__(self, root: str, clock: Path, opened: Path, invented: Collection[str]) -> None:
        self._root, self._clock, self._opened = root, clock, opened
        self._first_inode = int.from_bytes(os.urandom(3)) if "inodes" in invented else 0
        self._ctime_ns = time.time_ns() if "ctimes" in invented else None

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.lstat(self._root + path)
        ctime_ns = self._ctime_ns or int(os.getxattr(self._root + path, CTIME, follow_symlinks=False))
        times = {"st_atime": found.st_mtime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": ctime_ns}
        return {name: getattr(found, name) for name in _STAT} | times | {"st_ino": found.st_ino + self._first_inode}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        """With any inode number: what has none is not listed."""
        return [(name, {"st_ino": 1}, 0) for name in (".", "..", *os.listdir(self._root + path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._root + path)

    def open(self, path: str, flags: int) -> int:
        with self._opened.open("a") as note:
            note.write(f"{path[1:]}\n")
        return os.open(self._root + path, flags & ~os.O_APPEND)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def listxattr(self, path: str) -> list[str]:
        return [name for name in os.listxattr(self._root + path, follow_symlinks=False) if name != CTIME]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        return os.getxattr(self._root + path, name, follow_symlinks=False)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        opened = os.open(self._root + path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        return self._stamped(path, opened, is_new=True)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return self._stamped(path, os.pwrite(fh, data, offset), is_content=True)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._root + path, length)
        return self._stamped(path, is_content=True)

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._root + path, mode)
        return self._stamped(path, is_new=True)

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._root + target)
        return self._stamped(target, is_new=True)

    def link(self, target: str, source: str) -> int:
        os.link(self._root + source, self._root + target)
        return self._stamped(target, is_linked=True)

    def unlink(self, path: str) -> int:
        os.unlink(self._root + path)
        return self._stamped(os.path.dirname(path), is_content=True)

    def rename(self, old: str, new: str) -> int:
        os.rename(self._root + old, self._root + new)
        self._stamped(os.path.dirname(old), is_content=True)
        return self._stamped(new, is_linked=True)

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._root + path, mode)
        return self._stamped(path)

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._root + path, uid, gid)
        return self._stamped(path)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._root + path, ns=times or (self._now_ns(), self._now_ns()), follow_symlinks=False)
        return self._stamped(path)

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        os.setxattr(self._root + path, name, value, options, follow_symlinks=False)
        return self._stamped(path)

    def _now_ns(self) -> int:
        return int(self._clock.read_text())

    def _stamped(
        self, path: str, result: int = 0, *, is_content: bool = False, is_new: bool = False, is_linked: bool = False
    ) -> int:
        """Stamp what was changed by the clock; of a new name, the directory as well."""
        now_ns = self._now_ns()
        if is_content or is_new:
            os.utime(self._root + path, ns=(now_ns, now_ns), follow_symlinks=False)
        os.setxattr(self._root + path, CTIME, b"%d" % now_ns, follow_symlinks=False)
        if is_new or is_linked:
            self._stamped(os.path.dirname(path), is_content=True)
        return result


def main(root: str, point: str, clock: str, opened: str, subtype: str, *invented: str) -> None:
    """Mount and serve until it is unmounted."""
    if not os.listdir(root):
        os.setxattr(root, CTIME, Path(clock).read_bytes())
    served = PassThrough(root, Path(clock), Path(opened), invented)
    FUSE(
        served, point, foreground=True, nothreads=True, use_ino=True, fsname="server", subtype=subtype,
        attr_timeout=0, entry_timeout=0,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
