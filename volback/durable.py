"""Durable writes: a file is on disk whole, under its name, or not at all, also after a power cut."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file: temp file, fsync, rename, fsync of its directory. One writer at a time. Raises OSError."""
    part = path.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(data)
        while left:  # where space runs out, a write is first cut short, and only the next one fails
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    part.rename(path)
    sync_directory(path.parent)


def sync_directory(path: str | Path) -> None:
    """fsync a directory; one that a concurrent delete took needs none, and SMB mounts cannot (EINVAL)."""
    with suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)
