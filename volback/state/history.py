"""History: the results of each job's last runs, in a small file for each job that is replaced by rename.

A run is recorded when it begins. One that is still recorded as running although its process has ended was killed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from volback.durable import write_whole
from volback.state.files import usable

Status = Literal["running", "success", "warning", "failure", "skipped", "died"]

_KEPT = 50


class JobRun(msgspec.Struct, kw_only=True):
    """One run of a job; times as RFC 3339 in UTC."""

    id: str
    started_at: str
    ended_at: str | None = None
    status: Status = "running"
    exit_code: int | None = None
    error: str | None = None
    """The first and worst."""
    volumes: int = 0
    """Volumes that were backed up."""
    host: str = ""
    """The host under which its backups are filed, where that was known."""
    raw_bytes: int = 0
    stored_bytes: int = 0


class History(msgspec.Struct):
    """A job's last runs, the oldest first."""

    runs: list[JobRun] = []


def read_history(state: Path, job: str) -> list[JobRun]:
    """The job's last runs, the oldest first; none where it never ran. A damaged file counts as an empty one."""
    path = _path(state, job)
    with usable(path):
        try:
            return msgspec.json.decode(path.read_bytes(), type=History).runs
        except (FileNotFoundError, msgspec.DecodeError):
            return []


def note_run(state: Path, job: str, run: JobRun) -> None:
    """Add the run, or replace its record."""
    with _alone(state, job):
        runs = [known for known in read_history(state, job) if known.id != run.id]
        _write(state, job, [*runs, run])


def note_dead_runs(state: Path, job: str) -> list[JobRun]:
    """Record and return the runs that never ended; the caller holds the job's lock, so none of them can be running."""
    with _alone(state, job):
        runs = read_history(state, job)
        dead = [run for run in runs if run.status == "running"]
        for run in dead:
            run.status, run.error = "died", "it was killed, or the machine went down"
        if dead:
            _write(state, job, runs)
    return dead


def _write(state: Path, job: str, runs: list[JobRun]) -> None:
    write_whole(_path(state, job), msgspec.json.encode(History(runs[-_KEPT:])))


def _path(state: Path, job: str) -> Path:
    return state / "jobs" / f"{quote(job, safe='')}.json"


@contextmanager
def _alone(state: Path, job: str) -> Iterator[None]:
    """One writer at a time; each needs only a moment."""
    path = _path(state, job).with_suffix(".lock")
    with usable(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
