"""Runs: one directory for each running volback, with a lock that dies with its process, and a journal.

What a crashed run left (helper containers, half-made backups and volumes) is found through its journal
and removed by the next run or by `doctor --fix`; a run whose lock is held is never touched.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from volback.errors import LockedError, StoreError
from volback.interrupts import held_back


class Journal(msgspec.Struct, kw_only=True):
    """What a run has begun and not ended. Written (fsync) before the thing itself is made."""

    pid: int
    command: str = ""
    repository: str | None = None
    prefixes: list[str] = []
    """Backups (`HOST/VOLUME/ID/`) in `repository` that are not committed yet."""
    engine: str | None = None
    volumes: list[str] = []
    """Volumes that a restore creates; they carry the run's id in the label `volback.restore`."""
    replacing: dict[str, str] = {}
    """Volume being replaced in place: the reference of the backup that holds what it was."""


class Run:
    """A running command's directory; a context manager that removes it when all has been cleaned up."""

    def __init__(self, state: Path, command: str) -> None:
        self.id = secrets.token_hex(8)
        self.directory = _private(state / "runs") / self.id
        self.journal = Journal(pid=os.getpid(), command=command)
        self._lock: int | None = None

    def __enter__(self) -> Run:
        try:
            with held_back(), _refused(self.directory):
                self.directory.mkdir(mode=0o711)
                self.directory.chmod(0o711)
                self._lock = _lock_file(self.directory / "lock")
                self.write_journal()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with held_back():
            self._end()

    def _end(self) -> None:
        if not (self.journal.prefixes or self.journal.volumes or self.journal.replacing):
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def write_journal(self) -> None:
        """Put the journal on disk, whole or not at all."""
        with _refused(self.directory):
            part = self.directory / "journal.part"
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, msgspec.json.encode(self.journal))
                os.fsync(fd)
            finally:
                os.close(fd)
            part.rename(self.directory / "journal.json")
            _sync(self.directory)

    def scratch(self, name: str) -> Path:
        """Return the path for a directory of that name inside the run's own, unguessable and not yet made."""
        return self.directory / f"{name}-{secrets.token_hex(8)}"


class DeadRun(msgspec.Struct, frozen=True):
    """A run whose process is gone."""

    id: str
    directory: Path
    journal: Journal | None
    """None where not even the journal was written."""

    def forget(self) -> None:
        """Remove its directory: all that it began has been cleaned up."""
        shutil.rmtree(self.directory)


@contextmanager
def dead_runs(state: Path) -> Iterator[list[DeadRun]]:
    """Hold every run whose lock is free, so that two sweeps do not share one."""
    held: list[int] = []
    found: list[DeadRun] = []
    runs = state / "runs"
    try:
        for directory in sorted(runs.iterdir()) if runs.is_dir() else []:
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
    runs = state / "runs"
    alive: list[str] = []
    for directory in runs.iterdir() if runs.is_dir() else []:
        try:
            os.close(_lock_file(directory / "lock"))
        except LockedError:
            alive.append(directory.name)
        except StoreError:
            continue  # it ended this moment
    return alive


def live_prefixes(state: Path, repository: str) -> set[str]:
    """Places in that repository (`HOST/VOLUME/ID/`) that runs whose process lives have begun to write to."""
    journals = (_read_journal(state / "runs" / run / "journal.json") for run in live_runs(state))
    return {
        prefix for journal in journals if journal and journal.repository == repository for prefix in journal.prefixes
    }


@contextmanager
def lock(state: Path, name: str, what: str) -> Iterator[None]:
    """Hold the lock of that name; it is free again when the process ends, however it ends.

    Raises LockedError, which says `what` is locked, if another process has it.
    """
    fd = _lock_file(_private(state / "locks") / name.replace("/", "%2F")[:200], what)
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
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


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
