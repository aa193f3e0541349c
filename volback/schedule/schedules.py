"""Schedules: when jobs run next, when they last ran, which runs were missed, and who runs them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from volback.config.model import Config
from volback.errors import UsageError, VolbackError
from volback.jobs.list import ListedJob, list_jobs
from volback.jobs.open_config import open_config
from volback.schedule.install import kinds_present, open_scheduler
from volback.schedule.scheduler import Plan, check
from volback.schedule.table import valid_entries
from volback.state.history import JobRun, note_run, read_history


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job that has a schedule."""

    listed: ListedJob
    schedule: str
    timezone: str | None
    run_by: str | None
    """The file by which it is run, or `scheduler`; None: nothing runs it."""

    @property
    def last(self) -> JobRun | None:
        """Its last run that began."""
        return _last(self.listed.runs)


def scheduled_jobs(config: Config, state: Path, root: Path, *, now: datetime, of_user: bool) -> list[ScheduledJob]:
    """Return each job that has a schedule and can run, by name. Raises StoreError for a state that cannot be read."""
    entries = {entry.job: entry for entry in valid_entries(config)}
    run_by = _in_foreground(config, state, now) | _installed(root, of_user=of_user)
    return [
        ScheduledJob(job, entries[job.name].schedule, entries[job.name].timezone, run_by.get(job.name))
        for job in list_jobs(config, state, now=now)
        if job.name in entries
    ]


def runners(config: Config, state: Path, *, now: datetime) -> dict[str, str]:
    """By job: who runs it at its times, as far as this user can see. See `ScheduledJob.run_by`."""
    found = _in_foreground(config, state, now)
    for of_user in (True, False):
        with suppress(VolbackError):  # there may be no such scheduler for this user
            found |= _installed(Path("/"), of_user=of_user)
    return found


def read_plan(named: Sequence[str]) -> Plan:
    """What the configuration tells the scheduler to do. Raises UsageError where there is nothing to do."""
    config = open_config(named)
    entries, broken = valid_entries(config), {name: str(job.problems[0]) for name, job in config.broken.items()}
    if not entries and not broken:
        raise UsageError("no job has a schedule", 'give one a time, like schedule = "30 2 * * *"')
    return Plan(entries, broken)


def last_start(state: Path, job: str) -> datetime | None:
    """Return when the job's last run began, None if it never did. Raises StoreError."""
    last = _last(read_history(state, job))
    return datetime.fromisoformat(last.started_at) if last else None


def note_skipped(state: Path, job: str, due: datetime) -> None:
    """Record in the job's history that a run did not begin because the run before it was in progress. Raises
    StoreError."""
    at = due.astimezone(UTC).isoformat(timespec="seconds")
    why = "the run before it was still at work"
    note_run(state, job, JobRun(id=secrets.token_hex(8), started_at=at, ended_at=at, status="skipped", error=why))


def _last(runs: list[JobRun]) -> JobRun | None:
    return next((run for run in reversed(runs) if run.status != "skipped"), None)


def _in_foreground(config: Config, state: Path, now: datetime) -> dict[str, str]:
    return dict.fromkeys((entry.job for entry in valid_entries(config)), "scheduler") if _is_at_work(state, now) else {}


def _installed(root: Path, *, of_user: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in kinds_present(root):
        found |= open_scheduler(kind, root, of_user=of_user).installed()
    return found


def _is_at_work(state: Path, now: datetime) -> bool:
    try:
        check(state, now)
    except VolbackError:
        return False
    return True
