"""Cache: local copies of what never changes in a distant repository: revisions of manifests, and pieces of indexes.

It is only ever a saving: each entry is compared with its digest at each use, whoever finds none reads the repository,
and nothing that goes wrong here (a full or read-only disk, a damaged file, another user's directory) is an error. It
may be deleted at any time, also while volback runs. Files are not synced: one that a power failure cut is not used.

ROOT/added         a byte for each block written since the entries were last counted
ROOT/PLACE/ENTRY   32 bytes of digest, then the object's; both names are digests. The time of its last use is its mtime
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_BLOCK_BYTES = 4096
"""What the smallest entry takes on a disk; entries are counted in these."""
_DIGEST_BYTES = 32
_NAME_CHARS = 40
_SLACK = 16
"""The entries may exceed the limit by one part of so many before they are counted again, and are then cut to one part
below it: counting 100,000 entries takes half a second."""
_NOTE_USE_AFTER_S = 600.0


class Cache:
    """The entries of one repository, below `root`, which all repositories share. Safe to use from several threads and
    processes."""

    def __init__(self, root: Path, place: str, *, limit_bytes: int, clock: Callable[[], float] = time.time) -> None:
        """`place` says which repository it is; entries of another one are never used."""
        self._root = root
        self._place = place.encode(errors="surrogateescape")
        self._directory = root / _file_name(self._place)
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._is_ready: bool | None = None
        self._is_writable = True

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        """What was put under `name`; None where that is not there, is damaged, or has another SHA-256 (hex) or size."""
        path = self._directory / _file_name(name.encode())
        try:
            if not self._ready():
                return None
            entry = self._read(path)
        except OSError as exc:
            if not isinstance(exc, FileNotFoundError):
                log.debug("cache entry %s cannot be read: %s", path, exc)
            return None
        data = entry[_DIGEST_BYTES:]
        is_whole = entry[:_DIGEST_BYTES] == self._digest(name, data)
        is_wanted = sha256 is None or hashlib.sha256(data).hexdigest() == sha256
        if is_whole and is_wanted and size_bytes in {None, len(data)}:
            return data
        log.debug("cache entry %s is not what was wanted of %s", path, name)
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, if that is possible. What takes more than a quarter of the cache is not kept."""
        size_bytes = _DIGEST_BYTES + len(data)
        if not self._is_writable or size_bytes > self._limit_bytes // 4:
            return
        path = self._directory / _file_name(name.encode())
        try:
            if self._is_ready is None:
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._directory.mkdir(mode=0o700, exist_ok=True)
            if not self._ready():
                return
            _write(path, self._digest(name, data), data)
            if self._note_added(size_bytes):
                self._evict()
        except OSError as exc:
            log.debug("nothing more is kept in the cache: %s", exc)
            self._is_writable = False

    def _read(self, path: Path) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > self._limit_bytes:
                return b""
            if abs(self._clock() - status.st_mtime) > _NOTE_USE_AFTER_S:
                with suppress(OSError):  # on a read-only disk nothing is evicted either
                    os.utime(fd, (self._clock(), self._clock()))
            return file.read(status.st_size)

    def _ready(self) -> bool:
        """Whether the directory is private: what others can write into is not used. Raises OSError."""
        if self._is_ready is None:
            status = self._directory.lstat()
            self._is_ready = (
                stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
            )
            if not self._is_ready:
                log.debug("cache %s is not used: others can write there", self._directory)
        return self._is_ready

    def _digest(self, name: str, data: bytes) -> bytes:
        digest = hashlib.sha256(b"%d %d " % (len(self._place), len(name)) + self._place + name.encode())
        digest.update(data)
        return digest.digest()

    def _note_added(self, size_bytes: int) -> bool:
        """Count an entry. Returns whether so much was added since the last count that entries have to go."""
        fd = os.open(self._root / "added", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            is_new = os.fstat(fd).st_size == 0
            os.write(fd, bytes(_blocks(size_bytes)))
            return is_new or os.fstat(fd).st_size * _BLOCK_BYTES > self._limit_bytes // _SLACK
        finally:
            os.close(fd)

    def _evict(self) -> None:
        """Remove what was not used for longest, of all repositories. Two runs may do it at once."""
        with suppress(OSError):
            os.truncate(self._root / "added", 1)
        entries = sorted(self._entries())
        excess = sum(size_bytes for _, size_bytes, _ in entries) - self._limit_bytes
        if excess <= 0:
            return
        excess += self._limit_bytes // _SLACK
        for _, size_bytes, path in entries:
            if excess <= 0:
                return
            with suppress(OSError):
                os.unlink(path)
            excess -= size_bytes

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """When each file was last used, and the room that it takes; what a killed run left half written is among
        them."""
        for directory in list(os.scandir(self._root)):
            if not directory.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError), os.scandir(directory) as files:
                for file in files:
                    with suppress(OSError):
                        status = file.stat(follow_symlinks=False)
                        yield status.st_mtime, _blocks(status.st_size) * _BLOCK_BYTES, file.path


def _write(path: Path, *parts: bytes) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.writelines(parts)
        draft.rename(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def _blocks(size_bytes: int) -> int:
    return max(1, -(-size_bytes // _BLOCK_BYTES))


def _file_name(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:_NAME_CHARS]
