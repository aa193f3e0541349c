"""Runs: one directory for each running volback, with a lock that dies with its process, and a journal.

What a crashed run left (helper containers, half-made backups and volumes) is found through its journal
and removed by the next run or by `doctor --fix`; a run whose lock is held is never touched.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from volback.errors import LockedError, StoreError
from volback.interrupts import deferred_signals

_LOCK_POLL_S = 0.1
_NEW = ".new-"
_NEW_MAX_AGE_S = 3600.0


class Held(msgspec.Struct, kw_only=True):
    """A container that a run stops or pauses. Written before that is done, so that it runs again whatever happens."""

    id: str
    name: str
    how: Literal["stop", "pause"]
    phase: Literal["planned", "stopping", "held"] = "planned"
    """`stopping`: the engine may be at it even when the run is dead, so that what runs now may be down in a moment."""
    grace_s: int = 10
    since: float = 0.0
    """When the stopping began, in seconds since 1970."""
    needs: list[str] = []
    """Ids of others of the journal that have to run, and to be healthy, before it."""


class PendingHook(msgspec.Struct, kw_only=True):
    """A command that has to be run in a container once that runs again."""

    container: str
    command: str
    user: str | None = None
    timeout_s: float = 600.0


class Journal(msgspec.Struct, kw_only=True):
    """What a run has begun and not ended. Written (fsync) before the thing itself is made."""

    pid: int
    command: str = ""
    repository: str | None = None
    prefixes: list[str] = []
    """Backups (`HOST/VOLUME/ID/`) in `repository` that are not committed yet."""
    reading: list[str] = []
    """Backups in `repository` that are being restored: `prune` leaves them alone."""
    engine: str | None = None
    """Id of the engine that the containers are on."""
    containers: list[Held] = []
    """In the order in which they are stopped; they run again in the opposite one."""
    hooks: list[PendingHook] = []
    """To be run when the containers run again."""
    volumes: list[str] = []
    """Volumes that a restore creates; they carry the run's id in a label (RESTORE_LABEL)."""
    directories: list[str] = []
    """Directories of the engine's host that a restore makes. No label marks them: what is left is named, and stays."""
    replacing: dict[str, str] = {}
    """Volume being replaced in place: the reference of the backup that holds what it was."""

    @property
    def is_open(self) -> bool:
        """Whether something is left to be done, or to be remembered."""
        return bool(
            self.containers or self.hooks or self.prefixes or self.volumes or self.directories or self.replacing
        )


class Run:
    """A running command's directory; a context manager that removes it when all has been cleaned up."""

    def __init__(self, state: Path, command: str) -> None:
        self.id = secrets.token_hex(8)
        self.directory = _private(state / "runs") / self.id
        self.journal = Journal(pid=os.getpid(), command=command)
        self._lock: int | None = None

    @property
    def lock_fd(self) -> int:
        """The lock's descriptor: a process that inherits it keeps the run alive."""
        assert self._lock is not None
        return self._lock

    def __enter__(self) -> Run:
        try:
            with deferred_signals(), _refused(self.directory):
                self._lock = self._make()
        except BaseException:
            self._end()
            raise
        return self

    def _make(self) -> int:
        """Make the directory, lock it, and only then put it where others take what is not locked for dead."""
        new = self.directory.with_name(f"{_NEW}{self.id}")
        new.mkdir(mode=0o711)
        fd: int | None = None
        try:
            new.chmod(0o711)
            fd = _lock_file(new / "lock")
            _write_journal(new, self.journal)
            new.rename(self.directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            if fd is not None:
                os.close(fd)
            raise
        _sync(self.directory.parent)
        return fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_signals():
            self._end()

    def _end(self) -> None:
        if not self.journal.is_open:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def write_journal(self) -> None:
        """Put the journal on disk, whole or not at all."""
        _write_journal(self.directory, self.journal)

    def scratch(self, name: str) -> Path:
        """Return the path for a directory of that name inside the run's own, unguessable and not yet made."""
        return self.directory / f"{name}-{secrets.token_hex(8)}"


class DeadRun(msgspec.Struct, frozen=True):
    """A run whose process is gone."""

    id: str
    directory: Path
    journal: Journal | None
    """None where not even the journal was written."""

    def write_journal(self) -> None:
        """Note what of it is done by now."""
        assert self.journal is not None
        _write_journal(self.directory, self.journal)

    def forget(self) -> None:
        """Remove its directory: all that it began has been cleaned up."""
        shutil.rmtree(self.directory)


def open_run(state: Path, run_id: str) -> DeadRun | None:
    """Return a run by its id, for the process that holds its lock; None where it is no more."""
    directory = state / "runs" / run_id
    return DeadRun(run_id, directory, _read_journal(directory / "journal.json")) if directory.is_dir() else None


@contextmanager
def dead_runs(state: Path) -> Iterator[list[DeadRun]]:
    """Hold every run whose lock is free, so that two sweeps do not share one."""
    held: list[int] = []
    found: list[DeadRun] = []
    try:
        for directory in _directories(state):
            try:
                held.append(_lock_file(directory / "lock"))
            except (LockedError, StoreError):
                continue
            found.append(DeadRun(directory.name, directory, _read_journal(directory / "journal.json")))
        yield found
    finally:
        for fd in held:
            os.close(fd)


def live_runs(state: Path) -> list[str]:
    """Ids of the runs whose process lives."""
    return [directory.name for directory in _live_directories(state)]


def live_journals(state: Path) -> Iterator[tuple[str, Journal]]:
    """Yield id and journal of each run that lives: whose process does, or the guard that finishes for a dead one."""
    for directory in _live_directories(state):
        journal = _read_journal(directory / "journal.json")
        if journal is not None:
            yield directory.name, journal


def _live_directories(state: Path) -> Iterator[Path]:
    for directory in _directories(state):
        try:
            os.close(_lock_file(directory / "lock"))
        except LockedError:
            yield directory
        except StoreError:
            continue  # it ended this moment


def _directories(state: Path) -> list[Path]:
    """The runs' directories; those that died in their making hold nothing, and go when they are old."""
    runs = state / "runs"
    found = sorted(runs.iterdir()) if runs.is_dir() else []
    for new in (directory for directory in found if directory.name.startswith(_NEW)):
        with suppress(FileNotFoundError):
            if time.time() - new.stat().st_mtime > _NEW_MAX_AGE_S:
                shutil.rmtree(new, ignore_errors=True)
    return [directory for directory in found if not directory.name.startswith(_NEW)]


def live_prefixes(state: Path, repository: str, *, read: bool = False) -> set[str]:
    """Places in that repository (`HOST/VOLUME/ID/`) that runs whose process lives have begun to write to, or `read`."""
    journals = [journal for _, journal in live_journals(state) if journal.repository == repository]
    return {prefix for journal in journals for prefix in (journal.reading if read else journal.prefixes)}


@contextmanager
def lock(state: Path, name: str, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of that name; it is free again when the process ends, however it ends.

    Raises LockedError, which says `what` is locked, if another process still has it after `wait_s`.
    """
    path = _private(state / "locks") / name.replace("/", "%2F")[:200]
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fd = _lock_file(path, what)
            break
        except LockedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(min(_LOCK_POLL_S, wait_s))
    try:
        yield
    finally:
        os.close(fd)


def client_id(state: Path) -> str:
    """Return this client's id, made on first use: it tells our helpers from those of other machines."""
    path = _private(state) / "client-id"
    with _refused(path):
        if not path.exists():
            part = path.with_name(f"client-id.{secrets.token_hex(4)}")
            part.write_text(secrets.token_hex(16))
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another run was first; its id counts
            finally:
                part.unlink()
        return path.read_text()


def _lock_file(path: Path, what: str | None = None) -> int:
    with _refused(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace")
        os.close(fd)
        by = f" by process {holder}" if holder else ""
        raise LockedError(f"{what or path} is locked{by}", "wait until that run has ended") from None
    with suppress(OSError):  # who holds it is only for people to read, and a full disk must keep nobody from his lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def _write_journal(directory: Path, journal: Journal) -> None:
    with _refused(directory):
        write_whole(directory / "journal.json", msgspec.json.encode(journal))


def write_whole(path: Path, data: bytes) -> None:
    """Put a file on disk, whole or not at all; one writer at a time. Raises OSError."""
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
    _sync(path.parent)


def _read_journal(path: Path) -> Journal | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _private(directory: Path) -> Path:
    with _refused(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"state directory cannot be used: {path}: {exc.strerror}", "name another with VOLBACK_STATE_DIR"
        ) from exc
