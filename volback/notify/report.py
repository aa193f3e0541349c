"""Report: what is reported of one run of a job. jobs/ fills it in; the rest of this package only reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Status = Literal["success", "warning", "failure"]
"""`warning` is a run that did all its work and has warnings, such as files that changed while they were read."""


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """The result of one volume of the job; a number that is not known is None."""

    name: str
    ok: bool
    error: str | None = None
    files: int | None = None
    raw_bytes: int | None = None
    stored_bytes: int | None = None
    duration_s: float | None = None
    consistency: str | None = None
    downtime_s: float | None = None
    """How long its containers were stopped or paused, the longest one's."""
    backups: int | None = None
    """How many backups of it the repository holds after the run."""
    verified_at: datetime | None = None
    """When the data of a backup of it was last read, and found intact."""
    proven_at: datetime | None = None
    """When it was last compared with a backup, and found identical."""


@dataclass(frozen=True, slots=True)
class RepositoryReport:
    """One repository of the job, after the run."""

    name: str
    size_bytes: int | None
    free_bytes: int | None
    """None: it has no known limit."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run of a job, ended."""

    job: str
    host: str
    status: Status
    started_at: datetime
    ended_at: datetime
    volumes: tuple[VolumeReport, ...] = ()
    """Empty where the run ended before it knew them: a lock not acquired in time, a bad configuration."""
    errors: tuple[str, ...] = ()
    """What failed outside of a single volume, or all of it: one line each."""
    warnings: tuple[str, ...] = ()
    log_tail: str = ""
    next_at: datetime | None = None
    """When it is due next; None without a schedule."""
    missed_runs: int | None = None
    """How often it was due before, and did not begin."""
    repositories: tuple[RepositoryReport, ...] = ()
    """Only where they are measured: for metrics."""
    run_id: str | None = None
    """A UUID: by it a monitoring service tells runs apart that overlap."""

    @property
    def duration_s(self) -> float:
        """How long the run took."""
        return max(0.0, (self.ended_at - self.started_at).total_seconds())
