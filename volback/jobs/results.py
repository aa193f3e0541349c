"""Results: the result of one run of a job, as it is shown, recorded in the history, and reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from volback.errors import EXIT_DONE, EXIT_WARNINGS, Failure, Interrupted, VolbackError, failures
from volback.measures import count, human_duration, human_size
from volback.notify.report import Report, VolumeReport
from volback.operations.backup import BackupResult, DryRun
from volback.state.history import JobRun

JobStatus = Literal["success", "warning", "failure", "skipped"]


@dataclass(frozen=True, slots=True)
class JobResult:
    """One finished run of a job; also one that did not begin."""

    job: str
    run_id: str
    status: JobStatus
    started_at: datetime
    ended_at: datetime
    set_id: str | None = None
    backups: list[BackupResult] = field(default_factory=list)
    planned: list[DryRun] = field(default_factory=list)
    """Of a dry run."""
    to_remove: list[str] = field(default_factory=list)
    """Of a dry run: full names of backups that no keep rule would keep after it, and where."""
    to_free_bytes: int = 0
    volumes: tuple[VolumeReport, ...] = ()
    copied: list[str] = field(default_factory=list)
    """Full names of backups, and the target: `web1/db@20261124T... -> s3://...`."""
    removed: list[str] = field(default_factory=list)
    """Full names of backups that no keep rule kept, and where."""
    errors: list[VolbackError] = field(default_factory=list)
    """The worst first."""
    interrupted: Interrupted | None = None
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """For information only: for example, that a container could write while a volume was read."""

    @property
    def failures(self) -> list[Failure]:
        """All that made it fail, the worst first."""
        return failures(self.interrupted, self.errors)

    @property
    def exit_code(self) -> int:
        """Of the worst failure; else whether there are warnings."""
        if self.failures:
            return self.failures[0].exit_code
        return EXIT_WARNINGS if self.status == "warning" else EXIT_DONE

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return max(0.0, (self.ended_at - self.started_at).total_seconds())

    @property
    def raw_bytes(self) -> int:
        """Read from the volumes."""
        return sum(made.manifest.raw_bytes for made in self.backups)

    @property
    def stored_bytes(self) -> int:
        """Put into the first repository."""
        return sum(made.manifest.stored_bytes for made in self.backups)


def summary_line(result: JobResult) -> str:
    """`nightly: 3 volumes, 1.2 GiB read, 40.0 MiB stored in 12.0 s; 2 backups removed`."""
    if result.status == "skipped":
        return f"{result.job}: skipped: {result.failures[0].message}"
    failed = "FAILED: " if result.failures else ""
    good, all_ = len(result.backups), len(result.volumes)
    if not all_:
        return f"{result.job}: {failed}no volume backed up in {human_duration(result.duration_s)}"
    volumes = f"{'' if good == all_ else f'{good} of '}{all_:,} volume{'' if all_ == 1 else 's'}"
    sizes = f"{human_size(result.raw_bytes)} read, {human_size(result.stored_bytes)} stored"
    done = f"{result.job}: {failed}{volumes}, {sizes} in {human_duration(result.duration_s)}"
    also = {"copied": len(result.copied), "removed": len(result.removed)}
    return "; ".join([done, *(f"{count(number, 'backup')} {word}" for word, number in also.items() if number)])


def facts_of(result: JobResult) -> dict[str, object]:
    """The summary for machines that read the log."""
    return {
        "job": result.job,
        "status": result.status,
        "exit_code": result.exit_code,
        "duration_s": result.duration_s,
        "volumes": len(result.volumes),
        "backups": len(result.backups),
        "raw_bytes": result.raw_bytes,
        "stored_bytes": result.stored_bytes,
    }


def report_of(result: JobResult, host: str, log_tail: str) -> Report:
    """The run as it is reported. A skipped run is reported as a failure: its backups were not made."""
    return Report(
        job=result.job,
        host=host,
        status="failure" if result.failures or result.status == "skipped" else result.status,
        started_at=result.started_at,
        ended_at=result.ended_at,
        volumes=result.volumes,
        errors=tuple(error.message for error in result.failures),
        warnings=tuple(result.warnings),
        log_tail=log_tail,
        run_id=result.run_id,
    )


def noted(result: JobResult, host: str) -> JobRun:
    """The run for the history."""
    return JobRun(
        id=result.run_id,
        started_at=iso(result.started_at),
        ended_at=iso(result.ended_at),
        status=result.status,
        exit_code=result.exit_code,
        error=result.failures[0].message if result.failures else None,
        host=host,
        volumes=len(result.backups),
        raw_bytes=result.raw_bytes,
        stored_bytes=result.stored_bytes,
    )


def iso(time: datetime) -> str:
    """A time as the history stores it."""
    return time.isoformat(timespec="milliseconds")
