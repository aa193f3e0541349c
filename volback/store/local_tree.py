"""The directories of a repository, opened one below the other, so that no symbolic link is ever followed.

Used by store.local and store.local_draft. A path that is checked and then used is not safe: whoever may rename in the
repository can put a link in between. So each step opens a directory in the one before, by descriptor, and objects are
used by their names in it. The root is the path that the user gave, and may be a link. No descriptor stays open.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from volback.durable import sync_descriptor, sync_directory
from volback.errors import StoreError, StoreUnreachable

_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""Enough for what is below: it needs no right to read the directory itself."""

_NO_ROOT = {
    errno.ELOOP: "a symbolic link to nothing",
    errno.ENOTDIR: "not a directory",
    errno.ENAMETOOLONG: "not a path: it is, or a name in it is, too long",
}


@dataclass(frozen=True, slots=True)
class Modes:
    """The permissions of new files and directories; None is what the umask leaves of 0600 and 0700."""

    file: int | None = None
    directory: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a directory."""

    name: str
    is_directory: bool
    is_link: bool
    info: os.stat_result | None
    """Of a regular file."""


class Tree:
    """The directories below `root`, by their keys; the root's own is empty."""

    def __init__(self, root: str, modes: Modes) -> None:
        self.root = root
        self.modes = modes

    @contextmanager
    def opened(self, directory: str, *, readable: bool = False) -> Iterator[int]:
        """A descriptor of the directory, for calls with `dir_fd`; of a `readable` one, also to list and to fsync it.

        Raises OSError, and StoreError for a link where a directory belongs.
        """
        fd = self._open(directory, _READ if readable else _PASS)
        try:
            yield fd
        finally:
            os.close(fd)

    def make(self, directory: str, made: list[str]) -> int:
        """A readable descriptor of the directory. It and those above it are made where they are missing.

        What is made is added to `made`, from the top, as absolute paths. Below the root it is not on disk before
        `sync_made`: to wait for the disk while they are empty gives a sweep time to remove them. Raises OSError,
        StoreError.
        """
        try:
            return self._open(directory, _READ)
        except FileNotFoundError:
            self._make_root(made)
        fd = self._open_root(_READ)
        path = ""
        for part in directory.split("/") if directory else ():
            path = f"{path}/{part}" if path else part
            try:
                below = self._make_below(fd, path, made)
            finally:
                os.close(fd)
            fd = below
        return fd

    def sync_made(self, made: list[str]) -> None:
        """fsync the directories that hold what `make` has made. Raises OSError."""
        for directory in {key.rpartition("/")[0]: None for path in made if (key := self._key(path))}:
            self.sync(directory)

    def remove(self, made: list[str]) -> None:
        """Remove directories that `make` has made, from the last, as far as they are empty. Raises OSError."""
        while made:
            path = made.pop()
            if key := self._key(path):
                self.remove_directory(key)
            else:
                os.rmdir(path)

    def remove_directory(self, directory: str) -> None:
        """Remove an empty directory. Raises OSError, StoreError."""
        parent, _, name = directory.rpartition("/")
        with self.opened(parent) as fd:
            os.rmdir(name, dir_fd=fd)

    def remove_empty(self, directory: str) -> str:
        """Remove the directory and those above it as far as they are empty; return the lowest that stays."""
        while directory:
            try:
                self.remove_directory(directory)
            except FileNotFoundError:
                pass
            except OSError:
                break
            directory = directory.rpartition("/")[0]
        return directory

    def sync(self, directory: str) -> None:
        """fsync the directory, unless another process has removed it. Raises OSError."""
        with suppress(FileNotFoundError), self.opened(directory, readable=True) as fd:
            sync_descriptor(fd)

    def scan(self, directory: str) -> list[Found]:
        """All names in a directory, in no order; none if there is no such directory. Raises OSError, StoreError."""
        try:
            with self.opened(directory, readable=True) as fd, os.scandir(fd) as entries:
                return [found for entry in entries if (found := _read_entry(entry))]
        except (FileNotFoundError, NotADirectoryError):
            self.check_root()
            return []

    def check_root(self) -> None:
        """Raises StoreError or OSError if the root can be used by nobody; it may be missing."""
        with suppress(FileNotFoundError):
            os.close(self._open_root(_PASS))

    def _key(self, path: str) -> str | None:
        """The key of what `make` has made; None for the root and what is above it."""
        inside = self.root.rstrip("/") + "/"
        return path[len(inside) :] if path.startswith(inside) else None

    def _open(self, directory: str, flags: int) -> int:
        parts = directory.split("/") if directory else []
        fd = self._open_root(_PASS if parts else flags)
        for number, part in enumerate(parts, 1):
            try:
                below = self._open_below(fd, part, directory, flags if number == len(parts) else _PASS)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _open_root(self, flags: int) -> int:
        try:
            return os.open(self.root, flags)
        except OSError as exc:
            code = errno.ELOOP if exc.errno == errno.ENOENT and os.path.islink(self.root) else exc.errno or 0
            if code not in _NO_ROOT:
                raise
            message = f"repository {self.root} is {_NO_ROOT[code]}"
            raise StoreUnreachable(message, "choose a directory with --repo") from exc

    def _open_below(self, fd: int, name: str, directory: str, flags: int) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=fd)
        except OSError as exc:
            if exc.errno in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK) and _is_link(name, fd):
                path = os.path.join(self.root, *_up_to(directory, name))
                raise StoreError(
                    f"repository {self.root} holds a symbolic link where a directory belongs: {path}",
                    "move the directory back to where the link is, or bind-mount it there",
                ) from exc
            raise

    def _make_below(self, fd: int, path: str, made: list[str]) -> int:
        name = path.rpartition("/")[2]
        try:
            return self._open_below(fd, name, path, _READ)
        except FileNotFoundError:
            pass
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:  # another put was faster
            return self._open_below(fd, name, path, _READ)
        made.append(os.path.join(self.root, path))
        below = self._open_below(fd, name, path, _READ)
        self._give_mode(below)
        return below

    def _make_root(self, made: list[str]) -> None:
        missing, path = [], self.root
        while not os.path.lexists(path) and path != os.path.dirname(path):
            missing.append(path)
            path = os.path.dirname(path)
        try:
            for path in reversed(missing):
                with suppress(FileExistsError):  # another put was faster
                    os.mkdir(path, 0o700)
                    made.append(path)
                    sync_directory(os.path.dirname(path), missing_ok=True)
        except OSError as exc:
            why = os.strerror(exc.errno or 0).lower()
            hint = "check the path, and that its disk is mounted, or choose another one with --repo"
            raise StoreUnreachable(f"repository {self.root} cannot be made: {why}: {path}", hint) from exc
        if missing and self.modes.directory is not None:
            with self.opened("", readable=True) as fd:
                self._give_mode(fd)

    def _give_mode(self, fd: int) -> None:
        if self.modes.directory is not None:
            set_mode(fd, self.modes.directory | (os.fstat(fd).st_mode & stat.S_ISGID))


def set_mode(fd: int, mode: int) -> None:
    """Set permissions, whatever the umask. A filesystem (vfat, SMB) may keep none and refuse it."""
    try:
        os.fchmod(fd, mode)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise


def lstat_regular(name: str, fd: int) -> os.stat_result:
    """Raises FileNotFoundError for anything but a regular file: a link, a device or a FIFO is not an object."""
    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISREG(info.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return info


def open_regular(name: str, fd: int) -> int:
    """Descriptor of a regular file. It is asked for first, as to open a device can do something by itself.

    NONBLOCK: to open a FIFO would wait. Raises FileNotFoundError for anything else.
    """
    lstat_regular(name, fd)
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _read_entry(entry: os.DirEntry[str]) -> Found | None:
    """None for what has gone since the directory was read."""
    is_directory, is_link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
    info = None
    if not (is_directory or is_link):
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
    return Found(entry.name, is_directory, is_link, info if info and stat.S_ISREG(info.st_mode) else None)


def _is_link(name: str, fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _up_to(directory: str, name: str) -> list[str]:
    """The parts of a directory's key down to the first of that name."""
    parts = directory.split("/")
    return parts[: parts.index(name) + 1]
