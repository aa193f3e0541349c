"""Durable: files that are on disk whole, or not at all. A power failure after a call loses nothing of it.

A file is written under a draft's name, fsynced, put in place, and its directory is fsynced: a name is on disk only with
its directory (fsync(2)). Each function raises OSError. A killed writer may leave a draft, and never a part of the file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

_PRIVATE = 0o600
_BUFFER_BYTES = 8 * 1024 * 1024
_NAME_MAX_BYTES = 200
"""Of a file's name in its draft's: no name has more than 255 bytes."""


def write_whole(path: Path, data: bytes, *, mode: int = _PRIVATE) -> None:
    """Write a file, in place of one of that name; readers see the old one or the new one. One writer at a time.

    The draft is `.NAME~`. A draft that a killed writer left is removed first.
    """
    draft = path.with_name(f".{_cut(path.name)}~")
    draft.unlink(missing_ok=True)
    try:
        _write(draft, [data], mode)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_new(path: Path, buffers: Iterable[bytes | memoryview]) -> int:
    """Write a new file, readable by its owner alone; return its size. Replaces nothing: raises FileExistsError.

    The draft is `.NAME.XXXXXXXX.part`: of several writers one succeeds.
    """
    draft = path.with_name(f".{_cut(path.name)}.{secrets.token_hex(4)}.part")
    try:
        size_bytes = _write(draft, buffers, _PRIVATE)
        _name(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
    return size_bytes


def sync_directory(path: str | Path, *, missing_ok: bool = False) -> None:
    """fsync a directory, so that the names in it are on disk. SMB mounts cannot (EINVAL); that is not an error."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_MAX_BYTES])


def _write(draft: Path, buffers: Iterable[bytes | memoryview], mode: int) -> int:
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "wb", buffering=_BUFFER_BYTES) as file:
        if mode != _PRIVATE:
            os.fchmod(fd, mode)  # whatever the umask; vfat refuses it, so it is asked only where it is needed
        for buffer in buffers:
            file.write(buffer)
        file.flush()
        os.fsync(fd)
        return file.tell()


def _name(draft: Path, path: Path) -> None:
    """Give the file its name: by a link, which unlike a rename never replaces a file that has appeared meanwhile."""
    try:
        os.link(draft, path)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        draft.rename(path)  # a filesystem without hard links
