"""Keeping: what is shown of removing backups, of jobs, and of how all stands."""

from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

from volback.cli.documents.backups import Made
from volback.cli.documents.common import BackupAge, BackupName, Error, Key, Requests, Utc, ZonedTime


class Removed(TypedDict):
    """`remove`."""

    removed: list[BackupName]
    freed_bytes: int
    condemned_bytes: Annotated[int, Meta(description="What a prune after `until` frees.")]
    until: Utc | None


class Judged(Key):
    """One backup, and which keep rules keep it."""

    created_at: Utc | None
    tags: list[str]
    bytes: Annotated[int, Meta(description="All its objects: what its removal frees.")]
    reasons: list[str]
    damaged: bool


class HalfMade(Key):
    """What a crashed run left in the repository."""

    bytes: int
    uploads: int
    condemned: bool


class Left(TypedDict):
    """What the next prune goes on with."""

    backups: int
    objects: int
    bytes: int


class Locked(TypedDict):
    """An object that the bucket does not let go yet."""

    key: str
    until: Utc | None


class Condemned(TypedDict):
    """What of a volume is freed later."""

    host: str
    volume: str
    objects: int
    bytes: int
    until: Utc | None


class RepackedVolume(TypedDict):
    """A volume of which something was repacked, or could not be freed."""

    host: str
    volume: str
    objects: int
    written_bytes: int
    freed_bytes: int
    condemned_bytes: int
    unused_bytes: int
    why: str | None


class Group(TypedDict):
    """The backups of a volume, counted."""

    host: str
    volume: str
    kept: int
    removed: int
    freed_bytes: int


class PrunedRepository(TypedDict):
    """What was removed of one repository, and what stays."""

    kept: list[Judged]
    removed: list[Judged]
    half_made: list[HalfMade]
    freed_bytes: int
    still_used_bytes: int
    left: Left
    condemned_bytes: int
    locked: list[Locked]
    condemned: list[Condemned]
    repacked: list[RepackedVolume]
    groups: list[Group]
    dry_run: bool


class PrunedForJob(PrunedRepository):
    """One repository of a job."""

    repository: str


class PruneFrame(TypedDict):
    """What `prune` shows beside that."""

    requests: Requests | None
    job: str | None
    repositories: list[PrunedForJob]


class Pruned(PrunedRepository, PruneFrame):
    """`prune`."""


class Repacked(TypedDict):
    """`repack`."""

    repacked: list[RepackedVolume]
    dry_run: bool
    requests: Requests | None


class PlannedVolume(TypedDict):
    """A volume that a job would back up."""

    volume: str
    files: int
    raw_bytes: int


class FailedVolume(TypedDict):
    """A volume of a job that was not backed up."""

    volume: str
    error: str | None


class JobDone(TypedDict):
    """One run of a job."""

    job: str
    status: str
    exit_code: int
    started_at: ZonedTime
    ended_at: ZonedTime
    duration_s: float
    set: str | None
    backups: list[Made]
    planned: Annotated[list[PlannedVolume], Meta(description="With --dry-run.")]
    to_remove: Annotated[list[str], Meta(description="With --dry-run: what no keep rule would keep.")]
    to_free_bytes: int
    failed: list[FailedVolume]
    copied: list[str]
    removed: list[str]
    errors: list[Error]
    warnings: list[str]
    notices: list[str]


class JobsDone(TypedDict):
    """`run`."""

    jobs: list[JobDone]


class Job(TypedDict):
    """A job, and who runs it at its times."""

    job: str
    schedule: str | None
    problem: str | None
    next_at: ZonedTime | None
    missed: list[ZonedTime]
    run_by: str | None


class RunOfJob(TypedDict):
    """An earlier run."""

    id: str
    started_at: ZonedTime
    ended_at: Annotated[ZonedTime | None, Meta(description="Null of a run that goes on, or was killed.")]
    status: str
    exit_code: int | None
    error: str | None
    volumes: int
    raw_bytes: int
    stored_bytes: int


class JobWithRuns(Job):
    """A job, and its last runs."""

    runs: list[RunOfJob]


class JobList(TypedDict):
    """`jobs`."""

    jobs: list[JobWithRuns]


class JobStanding(Job):
    """A job, and how it ended last."""

    last_at: ZonedTime | None
    last_status: str | None


class Problem(TypedDict):
    """What is wrong or late."""

    kind: str
    subject: str
    message: str
    hint: str | None


class VolumeStanding(TypedDict):
    """A volume of a job, or one with backups."""

    volume: str
    job: str | None
    repository: str
    last_backup: BackupAge | None
    raw_bytes: int | None
    late: bool
    missed: int
    verified_at: Utc | None
    proven_at: Utc | None


class RepositoryStanding(TypedDict):
    """A repository."""

    name: str | None
    url: str
    backups: int
    size_bytes: int | None
    free_bytes: int | None
    error: str | None


class HeldContainer(TypedDict):
    """A container that a run holds stopped or paused."""

    name: str
    run: str
    left: Annotated[bool, Meta(description="Whether that run is gone: volback recover starts it.")]


class Standing(TypedDict):
    """`status`."""

    problems: list[Problem]
    jobs: list[JobStanding]
    volumes: list[VolumeStanding]
    repositories: list[RepositoryStanding]
    held: list[HeldContainer]
    unprotected: Annotated[list[str], Meta(description="Volumes that have neither a job nor a backup.")]


class ScheduledJob(TypedDict):
    """A job, and who runs it when."""

    job: str
    schedule: str | None
    timezone: str | None
    next_at: ZonedTime | None
    last_at: ZonedTime | None
    last_status: str | None
    missed: list[ZonedTime]
    run_by: str | None


class Schedule(TypedDict):
    """`schedule show`."""

    jobs: list[ScheduledJob]


class ScheduleInstalled(TypedDict):
    """`schedule install`."""

    kind: str
    written: list[str]
    unchanged: list[str]
    removed: list[str]


class ScheduleRemoved(TypedDict):
    """`schedule remove`."""

    removed: list[str]


class SchedulerEnded(TypedDict):
    """`scheduler`; with --check `age_s`, else `signal`."""

    age_s: NotRequired[float]
    signal: NotRequired[int]
