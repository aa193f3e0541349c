"""What `volback.toml` says, read and checked. Frozen; who acts on it (operations, notify, scheduling) only reads it.

    Config
      repositories[name]   Repository      url, credentials, environment for its store alone
      jobs[name]           Job             valid ones: all that they refer to exists
      broken[name]         BrokenJob       jobs that cannot run, with what is wrong and whom to notify
      notifications[name]  Notification    whom to notify, when, how
      metrics              Metrics         a Prometheus textfile
      problems             every Problem of every file
      warnings             what is not a problem but should be changed

Times are seconds, sizes bytes. A `Secret` is read (file, command) only when its `reveal` is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from volback.config.places import Place, Problem
from volback.config.secrets import Secret
from volback.policy.hooks import Hook
from volback.policy.keep import KeepRules
from volback.policy.packing import HALF
from volback.policy.quiesce import Quiesce

IoClass = Literal["idle", "best-effort"]
Outcome = Literal["success", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository by name. Its credentials and environment apply to its own store only."""

    name: str
    url: str
    place: Place
    """Of its url."""
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    """By key: the kind of store defines which keys are allowed."""
    environment: Mapping[str, Secret] = field(default_factory=dict)
    """Variables for this repository, such as VOLBACK_S3_REGION or VOLBACK_REPO_ACCESS."""
    identity: Secret | None = None
    """Of an encrypted repository: an identity file, of the repository or of a person with a key."""
    passphrase: Secret | None = None
    """Of one of its keys."""
    recipient: str | None = None
    """For whom the repository must be encrypted; None: for whom it was at the first use."""
    default: bool | None = None
    """Whether commands use it that name none; None: if it is the only one."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a job backs up; besides these, what carries the label `volback.job=NAME`."""

    volumes: tuple[str, ...] = ()
    all: bool = False
    labels: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    anonymous: bool = False
    """Of all: also anonymous volumes that no container uses."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a job may use; None is unlimited."""

    cpus: float | None = None
    memory_bytes: int | None = None
    io_class: IoClass | None = None
    bandwidth_bytes_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `repositories` has one name at least: into the first it writes, into the others it copies."""

    name: str
    repositories: tuple[str, ...]
    sources: Sources = Sources()
    excludes: tuple[str, ...] = ()
    level: int = 3
    tags: tuple[str, ...] = ()
    shrink_ratio: float | None = None
    """A backup of less than this part of the one before is suspicious; 0: none is; None: as the settings say."""
    full: bool = False
    full_every_s: float | None = None
    """None: every one after the first is an increment."""
    reread: bool = False
    reread_every_s: float | None = None
    ignore_inode: bool = False
    ignore_ctime: bool = False
    quiesce: Quiesce | None = None
    """None: labels decide, else nothing is stopped."""
    live_wanted: bool = False
    """Whether containers may write to a volume while it is read: then nobody is warned of it."""
    two_pass: bool | None = None
    """None: where that is cheap."""
    stop_timeout_s: float | None = None
    hooks_pre: tuple[Hook, ...] = ()
    hooks_post: tuple[Hook, ...] = ()
    keep: KeepRules | None = None
    grace_s: int | None = None
    """How long what nobody needs stays condemned in a repository that other machines may use; None: a day."""
    repack: bool = True
    """Whether space is freed of which other backups use a part."""
    max_repack_bytes: int | None = None
    """So much is copied for that in each run; None: without a limit."""
    repack_below: float = HALF
    """Objects of which less than this part is used are repacked."""
    verify_parts: int | None = None
    """Of so many parts of the stored data each run reads and checks one, another one each day; None: none."""
    create: bool = False
    """Whether a repository that does not exist yet is made."""
    reencrypt: bool = False
    """Whether copies are stored as their repository is: for its identity, or in clear."""
    schedule: str | None = None
    """A cron expression of five fields, or one of @hourly, @daily, ..."""
    timezone: str | None = None
    """A name of the time zone database; None is the machine's own."""
    jitter_s: float = 0.0
    wait_s: float = 0.0
    """How long to wait for a volume's lock."""
    limits: JobLimits = JobLimits()
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokenJob:
    """A job that cannot run as it is written."""

    name: str
    problems: tuple[Problem, ...]
    notify: tuple[str, ...] | None
    """Whom to notify; None where that cannot be read either: then everybody."""


@dataclass(frozen=True, slots=True)
class Notification:
    """Whom to notify of a run that ended in one of `on`. The ping gets a signal for every run, and for its start."""

    name: str
    urls: tuple[Secret, ...] = ()
    """Each for apprise; a secret that is read from a file or a command may hold several, one a line."""
    on: tuple[Outcome, ...] = ("failure", "warning")
    title: str | None = None
    """Templates; None is volback's default."""
    body: str | None = None
    ping: Secret | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    """Of the templates, by key."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """A textfile for Prometheus' node exporter."""

    textfile: Path


@dataclass(frozen=True, slots=True)
class Config:
    """All files, merged."""

    files: tuple[Path, ...] = ()
    repositories: Mapping[str, Repository] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    broken: Mapping[str, BrokenJob] = field(default_factory=dict)
    notifications: Mapping[str, Notification] = field(default_factory=dict)
    metrics: Metrics | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    shown: Mapping[str, object] = field(default_factory=dict)
    """The effective configuration as TOML would have it, defaults included and secrets hidden."""
