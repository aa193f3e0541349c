"""Schedules: when jobs run next, and who runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from volback.errors import UsageError, VolbackError
from volback.jobs.model import Config
from volback.jobs.times import next_run, zone_of
from volback.operations.configuring import open_config
from volback.operations.scheduler import Plan, check
from volback.operations.scheduling import kinds_present, open_scheduler, sound_entries


@dataclass(frozen=True, slots=True)
class JobTimes:
    """A job's times."""

    job: str
    schedule: str
    timezone: str | None
    next_at: datetime | None
    run_by: str | None
    """The file that has it run, or `scheduler`; None: nothing does."""


def job_times(config: Config, state: Path, root: Path, *, now: datetime, of_user: bool = False) -> list[JobTimes]:
    """Return the times of each job that has a schedule."""
    run_by: dict[str, str] = {}
    for kind in kinds_present(root):
        run_by |= open_scheduler(kind, root, of_user=of_user).installed()
    entries = sound_entries(config)
    if _is_at_work(state, now):
        run_by |= {entry.job: "scheduler" for entry in entries if entry.job not in run_by}
    return [
        JobTimes(
            entry.job, entry.schedule, entry.timezone,
            next_run(entry.schedule, zone_of(entry.timezone), now), run_by.get(entry.job),
        )
        for entry in entries
    ]  # fmt: skip


def read_plan(named: Sequence[str]) -> Plan:
    """What the configuration has the scheduler do. Raises UsageError where there is nothing to do."""
    config = open_config(named)
    entries, broken = sound_entries(config), {name: str(job.problems[0]) for name, job in config.broken.items()}
    if not entries and not broken:
        raise UsageError("no job has a schedule", 'give one a time, like schedule = "30 2 * * *"')
    return Plan(entries, broken)


def _is_at_work(state: Path, now: datetime) -> bool:
    try:
        check(state, now)
    except VolbackError:
        return False
    return True
