"""Durable: files that are on disk whole, or not at all. A power failure after a call loses nothing of it.

A file is written under a draft's name, fsynced, put in place, and its directory is fsynced: a name is on disk only with
its directory (fsync(2)). Each function raises OSError. A killed writer may leave a draft, and never a part of the file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

_PRIVATE = 0o600
_BUFFER_BYTES = 8 * 1024 * 1024
_NAME_MAX_BYTES = 200
"""Of a file's name in its draft's: no name has more than 255 bytes."""
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_REPLACE = 1


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
        rename_new(draft, path)
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
        sync_descriptor(fd)
    finally:
        os.close(fd)


def sync_descriptor(directory: int) -> None:
    """fsync a directory that is open for reading; see `sync_directory`."""
    try:
        os.fsync(directory)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def rename_new(source: str | Path, target: str | Path, *, dir_fd: int | None = None) -> None:
    """Rename a file, and replace nothing: raises FileExistsError.

    By a hard link, which unlike a rename never replaces what has appeared meanwhile. Without hard links (vfat, exFAT,
    SMB, some of FUSE) by Linux's rename that replaces nothing; where there is none, by a look and a rename.
    """
    try:
        os.link(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        if not _rename_no_replace(source, target, -100 if dir_fd is None else dir_fd):
            _check_absent(target, dir_fd)
            os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        os.unlink(source, dir_fd=dir_fd)


def _rename_no_replace(source: str | Path, target: str | Path, dir_fd: int) -> bool:
    """renameat2(2) with RENAME_NOREPLACE; False where system or filesystem lacks it. Raises OSError."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if call(dir_fd, os.fsencode(source), dir_fd, os.fsencode(target), _NO_REPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, *_NO_LINKS):
        return False
    raise OSError(code, os.strerror(code), str(target))


def _check_absent(target: str | Path, dir_fd: int | None) -> None:
    try:
        os.stat(target, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


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
