"""Backups: what is shown of making, listing, comparing and checking them."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from volback.cli.documents.common import BackupName, Key, LeftOut, Requests, Utc


class Stored(Key):
    """One backup."""

    kind: Literal["full", "incremental"]
    files: int
    raw_bytes: Annotated[int, Meta(description="The tar stream that was read.")]
    stored_bytes: Annotated[int, Meta(description="The compressed data that the backup added to the repository.")]
    shared_bytes: Annotated[int, Meta(description="Stored bytes of earlier backups that it needs.")]
    reused_bytes: Annotated[int, Meta(description="The part of the tar stream that these hold.")]
    duration_s: float
    consistency: str
    digest: str


class Made(Stored):
    """One backup that was made just now."""

    passes: int
    unused_bytes: Annotated[int, Meta(description="Of what was stored: what a second pass replaced.")]
    resumed_bytes: Annotated[int, Meta(description="Of what was stored: what a killed backup had stored.")]


class FilesKept(TypedDict):
    """The backup of a project's compose files."""

    volume: str
    id: str
    paths: list[str]


class BackedUp(TypedDict):
    """`backup`."""

    backups: list[Made]
    compose_files: FilesKept | None
    left_out: list[LeftOut]
    downtime_s: Annotated[dict[str, float], Meta(description="By container: how long it was stopped or paused.")]
    requests: Requests | None


class PlannedBackup(TypedDict):
    """One backup that would be made."""

    volume: str
    files: int
    raw_bytes: int
    excluded: int
    sockets_skipped: int


class BackupPlan(TypedDict):
    """`backup --dry-run`."""

    planned: list[PlannedBackup]
    left_out: list[LeftOut]


class Noted(TypedDict):
    """What is said of a backup, at first and later."""

    tags: list[str]
    held: bool
    held_at: Utc | None
    verified_at: Utc | None
    proven_at: Utc | None


class SetOf(TypedDict):
    """The set to which a backup belongs."""

    id: str
    project: str | None
    volumes: list[str]


class Listed(Stored, Noted):
    """One backup as `list` shows it."""

    created_at: Utc
    set: SetOf | None
    note: str | None
    signed_by: str | None
    certified: Annotated[bool | None, Meta(description="Null where it is not known, as in a repository in clear.")]


class DamagedBackup(Key):
    """A backup whose manifest is not readable."""

    error: str


class BackupList(TypedDict):
    """`list`."""

    backups: list[Listed]
    damaged: list[DamagedBackup]


class NotedBackup(Key, Noted):
    """A backup of which something was said."""


class NotedBackups(TypedDict):
    """`hold`, `release`, `note`, `tag add`, `tag remove`."""

    backups: list[NotedBackup]


class Source(TypedDict):
    """What was backed up; secrets are masked."""

    kind: str
    name: str
    driver: str
    options: dict[str, str]
    labels: dict[str, str]


class Used(TypedDict):
    """An object of another backup that this one needs."""

    id: str
    name: str
    size_bytes: int
    used_bytes: int


class Shown(TypedDict):
    """`show`."""

    backup: Listed
    ended_at: Utc
    source: Source
    engine_id: str
    containers: list[str]
    sockets_skipped: int
    excludes: list[str]
    parent: str | None
    depends_on: list[str]
    uses: list[Used]
    data_bytes: int
    index_bytes: int
    encryption: str | None
    format: int
    volback: str
    warnings: list[str]


class Entry(TypedDict):
    """One file of a backup."""

    path: Annotated[str, Meta(description="For people: bytes that are not UTF-8 are escaped.")]
    path_base64: Annotated[str | None, Meta(description="The bytes of a path that is not UTF-8.")]
    type: str
    size_bytes: int
    mode: Annotated[str, Meta(description="Octal: 0644.")]
    uid: int
    gid: int
    mtime_ns: int
    link: str | None


class Entries(TypedDict):
    """`ls`."""

    backup: BackupName
    entries: list[Entry]


class Difference(TypedDict):
    """One path that differs."""

    path: str
    path_base64: str | None
    kind: Literal["added", "removed", "changed", "unclear"]
    changes: list[str]
    unclear: Annotated[str | None, Meta(description="What may differ, and was not compared: content or attributes.")]
    before: Entry | None
    after: Entry | None


class Totals(TypedDict):
    """How much differs."""

    added: int
    added_bytes: int
    removed: int
    removed_bytes: int
    changed: int
    changed_from_bytes: int
    changed_to_bytes: int
    unclear: int


class Differences(TypedDict):
    """`diff`."""

    before: BackupName
    after: str
    after_kind: str
    differences: list[Difference]
    totals: Totals


class Version(TypedDict):
    """One content of one path, and the backups that have it, oldest first."""

    host: str
    volume: str
    backups: list[str]
    entry: Entry


class Versions(TypedDict):
    """`find`."""

    versions: list[Version]


class Epoch(TypedDict):
    """What a path was in backups that follow one another; `entry` is null where it was not there."""

    backups: list[str]
    changes: list[str]
    entry: Entry | None


class PathHistory(TypedDict):
    """`history`."""

    path: str
    states: list[Epoch]


class BackupUsage(Key):
    """What a backup takes."""

    stored_bytes: int
    frees_bytes: Annotated[int | None, Meta(description="What its removal alone would free.")]
    needed_by: list[str]


class VolumeUsage(TypedDict):
    """What the backups of a volume take."""

    host: str
    volume: str
    stored_bytes: int
    condemned_bytes: int


class Usage(TypedDict):
    """`du`."""

    backups: list[BackupUsage]
    volumes: list[VolumeUsage]
    stored_bytes: int


class Damage(TypedDict):
    """What is damaged of a backup."""

    backup: BackupName
    object: str
    paths: list[str] | None


class SignedBy(TypedDict):
    """Who signed the backups that were checked."""

    certified: int | None
    others: dict[str, str | None]


class Verified(TypedDict):
    """`verify`."""

    checked: int
    damaged: list[Damage]
    subset: str | None
    signed: SignedBy | None


class Finding(TypedDict):
    """An object that is not as needed, or that nobody needs."""

    kind: str
    object: str
    message: str
    backups: list[BackupName]
    wrong: bool


class CheckedObjects(TypedDict):
    """What `check` found."""

    backups: int
    objects: int
    unreferenced_bytes: int
    findings: list[Finding]


class Checked(CheckedObjects):
    """`check`."""

    requests: Requests | None


class PutBack(TypedDict):
    """The volback.json that was put back."""

    id: str
    recipient: str | None
    is_copy: Annotated[bool, Meta(description="Whether it is this machine's copy; else it was made anew.")]


class Healed(TypedDict):
    """A backup that takes from elsewhere what is damaged."""

    backup: BackupName
    revision: int
    paths: list[str]


class Lost(TypedDict):
    """A backup of which something cannot be rebuilt."""

    backup: BackupName
    message: str
    paths: list[str] | None


class RepairedObjects(TypedDict):
    """What `repair` did, or would do."""

    document: PutBack | None
    backups: int
    rebuilt: list[str]
    lifted: list[str]
    healed: list[Healed]
    lost: list[Lost]


class Repaired(RepairedObjects):
    """`repair`."""

    dry_run: bool
    requests: Requests | None
