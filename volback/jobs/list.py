"""List: each job of the configuration with its last run, its next one, and those that were missed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from volback.config.model import Config, Job
from volback.config.times import missed_runs, next_run, zone_of
from volback.errors import LockedError
from volback.jobs.locks import job_lock
from volback.state.history import JobRun, note_dead_runs, read_history

GRACE_S = 3600.0
"""A due run that has not begun is missed after this time plus its jitter."""


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One job."""

    name: str
    schedule: str | None
    problem: str | None
    """Why it cannot run as it is written."""
    runs: list[JobRun]
    """The last ones, the oldest first."""
    next_at: datetime | None
    missed: list[datetime]
    """When it was due since its last run began, and did not begin."""

    @property
    def last(self) -> JobRun | None:
        """The last run, also one that was skipped."""
        return self.runs[-1] if self.runs else None


def list_jobs(config: Config, state: Path, *, now: datetime) -> list[ListedJob]:
    """Every job, by name. Raises StoreError for a state that cannot be read."""
    valid = [listed_job(job, _history(state, job.name), now) for job in config.jobs.values()]
    broken = [
        ListedJob(job.name, None, str(job.problems[0]), _history(state, job.name), None, [])
        for job in config.broken.values()
    ]
    return sorted(valid + broken, key=lambda job: job.name)


def _history(state: Path, job: str) -> list[JobRun]:
    """The job's runs; one that is recorded as running, but does not hold the job's lock, has died."""
    runs = read_history(state, job)
    if any(run.status == "running" for run in runs):
        with suppress(LockedError), job_lock(state, job):
            note_dead_runs(state, job)
            return read_history(state, job)
    return runs


def listed_job(job: Job, runs: list[JobRun], now: datetime) -> ListedJob:
    """One valid job, as its runs show it."""
    if job.schedule is None:
        return ListedJob(job.name, None, None, runs, None, [])
    zone = zone_of(job.timezone)
    begun = [datetime.fromisoformat(run.started_at) for run in runs if run.status != "skipped"]
    due = missed_runs(job.schedule, zone, max(begun), now) if begun else []
    missed = [time for time in due if (now - time).total_seconds() > GRACE_S + job.jitter_s]
    return ListedJob(job.name, job.schedule, None, runs, next_run(job.schedule, zone, now), missed)
