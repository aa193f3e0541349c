"""Runs: one directory for each running volback, with a lock that dies with its process, and a journal.

What crashed runs left (helper containers, half-made backups and volumes) is found through its journal and removed by
the next run on the same engine or repository, or by `doctor --fix`; a run whose lock is held is never touched.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from volback.durable import sync_directory, write_whole
from volback.errors import FormatError, Interrupted, LockedError, StoreError, cleaning_up
from volback.interrupts import deferred_signals
from volback.state.files import private_directory, usable
from volback.state.journal import Entry, InRepository, Journal, Kind, NewBackup, Reading, decode_journal, encode_journal
from volback.state.locks import is_locked, lock_file

log = logging.getLogger(__name__)

_NEW = ".new-"
_NEW_MAX_AGE_S = 3600.0
_TURNS = threading.RLock()


class RecordedRun:
    """A run as recorded in its directory."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self.id = directory.name
        self.directory = directory
        self.journal = journal
        self._writing = threading.RLock()
        """Held while the journal changes and is written: containers are stopped in several threads."""

    def write_journal(self) -> None:
        """Write the journal to disk, completely or not at all. Raises StoreError."""
        with self._writing:
            _write_journal(self.directory, self.journal)

    def drop(self, *entries: Entry) -> None:
        """Remove entries of which nothing is left. Where the disk refuses that (full), it is logged.

        If the run is killed then, the entries in the file are looked for once more, and not found.
        """
        if not entries:
            return
        try:
            with self._writing:
                self.journal.drop(*entries)
                self.write_journal()
        except StoreError as exc:
            names = ", ".join(entry.what for entry in entries)
            log.warning("the journal still names what is finished (%s): %s", names, exc.message)


class Run(RecordedRun):
    """A running command's directory; a context manager that removes it when the journal is empty."""

    def __init__(self, state: Path, kind: Kind, subject: str = "") -> None:
        directory = private_directory(state / "runs") / secrets.token_hex(8)
        super().__init__(directory, Journal(pid=os.getpid(), kind=kind, subject=subject))
        self._lock: int | None = None

    @property
    def lock_fd(self) -> int:
        """The lock's descriptor: a process that inherits it keeps the run alive."""
        assert self._lock is not None
        return self._lock

    def __enter__(self) -> Run:
        try:
            with deferred_signals(), usable(self.directory):
                self._lock = self._make()
        except BaseException:
            self._end()
            raise
        return self

    def _make(self) -> int:
        """Create the directory, lock it, and only then move it to where others consider an unlocked one dead."""
        new = self.directory.with_name(f"{_NEW}{self.id}")
        new.mkdir(mode=0o711)
        fd: int | None = None
        try:
            new.chmod(0o711)
            fd = lock_file(new / "lock")
            _write_journal(new, self.journal)
            new.rename(self.directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            if fd is not None:
                os.close(fd)
            raise
        sync_directory(self.directory.parent)
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

    def note(self, *entries: Entry) -> None:
        """Write entries to disk, before what they name is created. Raises StoreError: then they are not recorded."""
        if not entries:
            return
        with deferred_signals(), self._writing:
            self.journal.entries = [*self.journal.entries, *entries]
            try:
                self.write_journal()
            except BaseException:
                self.journal.drop(*entries)
                raise

    @contextmanager
    def begun(self, entry: Entry, *, undo: Callable[[], bool] | None = None) -> Iterator[None]:
        """Keep `entry` on disk for the block that creates what it names; a block that succeeds drops it.

        If the block raises, `undo` removes what was created, and returns whether nothing is left: then the entry is
        dropped too. Without `undo`, or where that raises, the entry stays for a later run; its error is logged, and
        the block's is raised. Raises StoreError before the block.
        """
        try:
            self.note(entry)
        except Interrupted:  # it is recorded, and nothing was created yet
            self.drop(entry)
            raise
        try:
            yield
        except BaseException:
            with deferred_signals(), cleaning_up(f"{entry.what} stays until a later run removes it"):
                if undo is not None and undo():
                    self.drop(entry)
            raise
        with deferred_signals():
            self.drop(entry)

    def scratch(self, name: str) -> Path:
        """Return the path for a directory of that name inside the run's own, unguessable and not yet created."""
        return self.directory / f"{name}-{secrets.token_hex(8)}"


class DeadRun(RecordedRun):
    """A run whose process is gone."""

    def __init__(self, directory: Path, journal: Journal | None) -> None:
        """`journal` is None where it cannot be read: because a newer version wrote it, or it is damaged."""
        # Without a journal file, nothing was begun.
        super().__init__(directory, journal or Journal(pid=0, kind="doctor"))
        self.is_readable = journal is not None

    @property
    def is_open(self) -> bool:
        """Whether something of it is left, or may be."""
        return self.journal.is_open or not self.is_readable

    def forget(self) -> None:
        """Remove its directory: everything that it began has been cleaned up."""
        shutil.rmtree(self.directory)


def open_run(state: Path, run_id: str) -> DeadRun | None:
    """Return a run by its id, for the process that holds its lock; None where it does not exist any more."""
    directory = state / "runs" / run_id
    return _dead_run(directory) if directory.is_dir() else None


@contextmanager
def dead_runs(state: Path) -> Iterator[list[DeadRun]]:
    """Lock every run whose lock is free, so that two sweeps do not work on the same one.

    Threads of this process take turns: what one has locked would seem to be alive to another.
    """
    held: list[int] = []
    found: list[DeadRun] = []
    with _TURNS:
        try:
            for directory in _directories(state):
                try:
                    held.append(lock_file(directory / "lock"))
                except (LockedError, StoreError):
                    continue
                found.append(_dead_run(directory))
            yield found
        finally:
            for fd in held:
                os.close(fd)


def live_runs(state: Path) -> list[str]:
    """Ids of the runs whose process is alive."""
    return [directory.name for directory in _live_directories(state)]


def live_journals(state: Path) -> Iterator[tuple[str, Journal]]:
    """Yield id and journal of each live run: its process is alive, or the guard that finishes it."""
    for directory in _live_directories(state):
        with suppress(FileNotFoundError, FormatError):
            yield directory.name, _read_journal(directory)


def recorded_journals(state: Path) -> Iterator[tuple[str, Journal]]:
    """Yield id and journal of each run that is not over: also of those that died, and wait for `recover`."""
    for directory in _directories(state):
        with suppress(FileNotFoundError, FormatError):
            yield directory.name, _read_journal(directory)


def live_prefixes(state: Path, kind: type[NewBackup | Reading], is_here: Callable[[InRepository], bool]) -> set[str]:
    """Prefixes (`HOST/VOLUME/ID/`) in the repository of which `is_here` is true, for which live runs have entries of
    that type."""
    return {
        entry.prefix
        for _, journal in live_journals(state)
        for entry in journal.entries
        if isinstance(entry, kind) and is_here(entry)
    }


def _live_directories(state: Path) -> Iterator[Path]:
    for directory in _directories(state):
        if is_locked(directory / "lock"):
            yield directory


def _directories(state: Path) -> list[Path]:
    """The runs' directories; those whose run died while creating them are empty, and are removed when they are old."""
    runs = state / "runs"
    found = sorted(runs.iterdir()) if runs.is_dir() else []
    for new in (directory for directory in found if directory.name.startswith(_NEW)):
        with suppress(FileNotFoundError):
            if time.time() - new.stat().st_mtime > _NEW_MAX_AGE_S:
                shutil.rmtree(new, ignore_errors=True)
    return [directory for directory in found if not directory.name.startswith(_NEW)]


def _dead_run(directory: Path) -> DeadRun:
    try:
        return DeadRun(directory, _read_journal(directory))
    except FileNotFoundError:
        return DeadRun(directory, Journal(pid=0, kind="doctor"))
    except FormatError as exc:
        log.debug("%s: %s", directory, exc.message)
        return DeadRun(directory, None)


def _read_journal(directory: Path) -> Journal:
    """Raises FileNotFoundError, FormatError."""
    return decode_journal((directory / "journal.json").read_bytes())


def _write_journal(directory: Path, journal: Journal) -> None:
    with usable(directory):
        write_whole(directory / "journal.json", encode_journal(journal))
