"""Locks: files that one process holds at a time; the kernel releases a lock when its process ends, in any way."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from volback.errors import LockedError, StoreError
from volback.state.files import private_directory, usable

_POLL_S = 0.1
_NAME_MAX_CHARS = 200


@contextmanager
def lock(state: Path, name: str, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of that name.

    Raises LockedError, which says `what` is locked, if another process still has it after `wait_s`; StoreError.
    """
    path = private_directory(state / "locks") / _file_name(name)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fd = lock_file(path, what)
            break
        except LockedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(_POLL_S, wait_s))
    try:
        yield
    finally:
        os.close(fd)


def _file_name(name: str) -> str:
    """A file name for any text, parts of which may come from a repository: no two texts share one."""
    plain = quote(name, safe=" !#$&'()*+,:;=?@[]", errors="surrogatepass")
    if len(plain) <= _NAME_MAX_CHARS:
        return plain
    return f"{plain[: _NAME_MAX_CHARS - 65]}-{hashlib.sha256(plain.encode()).hexdigest()}"


def lock_file(path: Path, what: str | None = None) -> int:
    """Lock the file, which is created if needed, and return its descriptor. Raises LockedError, StoreError."""
    with usable(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        is_ours = _lock(fd, fcntl.LOCK_EX, path)
        holder = "" if is_ours else os.pread(fd, 20, 0).decode(errors="replace")
    except BaseException:
        os.close(fd)
        raise
    if not is_ours:
        os.close(fd)
        by = f" by process {holder}" if holder else ""
        raise LockedError(f"{what or path} is locked{by}", "wait until that run has ended")
    with suppress(OSError):  # the holder is only written for people, and a full disk must not prevent a lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; one that cannot be opened (it ended just now) is not locked.

    To ask takes a shared lock for a moment: two that ask at the same time do not take each other for a holder.
    Raises StoreError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def _lock(fd: int, how: int, path: Path) -> bool:
    """Whether the file is locked now, and not by another. Raises StoreError where its filesystem has no locks.

    Nothing can be done without them: only its lock tells a run that is alive from one whose containers must be started.
    """
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise StoreError(
            f"state directory cannot be used: {path} cannot be locked: {exc.strerror}",
            "name another with VOLBACK_STATE_DIR, on a local filesystem",
        ) from exc
    return True
