"""Moves: what is shown of restoring, moving and copying."""

from typing import Annotated, TypedDict

from msgspec import Meta

from volback.cli.documents.common import BackupName, Compared, LeftOut, Requests


class RestoredVolume(TypedDict):
    """One restored volume or directory."""

    volume: str
    files: int
    raw_bytes: int
    proven: bool
    backup: BackupName
    safety_backup: BackupName | None
    signed_by: str | None
    certified: bool


class Restored(RestoredVolume):
    """`restore` of one backup."""

    requests: Requests | None


class PlannedRestore(TypedDict):
    """One restore that was not made."""

    volume: str
    backup: BackupName
    files: int
    raw_bytes: int
    exists: bool


class ChosenSet(TypedDict):
    """Which set several volumes come from."""

    project: str | None
    set: str | None
    whole: bool


class FilesBack(TypedDict):
    """The compose files of the set; `directory` is null where they are not written."""

    backup: BackupName
    directory: str | None
    paths: list[str]
    start: Annotated[str | None, Meta(description="The command that starts the project.")]


class SetFacts(ChosenSet):
    """What is known of several volumes together."""

    as_project: str | None
    compose_files: FilesBack | None


class RestorePlan(SetFacts):
    """`restore --dry-run`."""

    planned: list[PlannedRestore]
    requests: Requests | None


class RestoredSet(SetFacts):
    """`restore` of several volumes."""

    restored: list[RestoredVolume]
    not_restored: list[str]
    requests: Requests | None


class Pass(TypedDict):
    """One pass of a move."""

    live: Annotated[bool, Meta(description="Whether containers ran meanwhile.")]
    raw_bytes: int
    sent_bytes: int
    duration_s: float


class Passes(TypedDict):
    """What each pass has brought, and what became of lost connections."""

    passes: int
    each_pass: list[Pass]
    retries: int
    resumed: bool


class Moved(TypedDict):
    """`clone` of one volume."""

    source: str
    volume: str
    files: int
    raw_bytes: int
    sockets_skipped: int
    consistency: str
    containers: list[str]
    proven: bool
    proof: Compared | None
    duration_s: float


class ClonedProject(TypedDict):
    """`clone --project`."""

    cloned: list[Moved]
    not_cloned: list[str]


class LeftStopped(TypedDict):
    """A container that stays stopped, with the restart policy that it had."""

    name: str
    restart_policy: str | None


Sides = TypedDict("Sides", {"from": str, "to": str})
"""Two engines."""


class MoreOfOne(Sides, Passes):
    """What `migrate` of one volume shows beside what `clone` shows."""

    sent_bytes: int
    downtime_s: Annotated[float | None, Meta(description="Null where no container was stopped.")]
    left_stopped: list[LeftStopped]
    safety_backup: BackupName | None
    source_removed: bool


class Migrated(Moved, MoreOfOne):
    """`migrate` of one volume."""


class MigratedVolume(Moved, Passes):
    """One volume of several."""

    kind: str
    sent_bytes: int
    was_there: Annotated[bool, Meta(description="An earlier run has moved it, and nothing was sent.")]
    safety_backup: BackupName | None
    source_removed: bool


class FilesAlong(TypedDict):
    """The compose files that can be read here; `directory` is null where they are not copied."""

    directory: str | None
    paths: list[str]


class MigratedSet(Sides):
    """`migrate` of several volumes."""

    project: str | None
    moved: list[MigratedVolume]
    not_moved: list[str]
    downtime_s: float | None
    left_stopped: list[LeftStopped]
    left_scaled_to_0: list[str]
    running_again: list[str]
    left_out: list[LeftOut]
    compose_files: FilesAlong | None
    start: str | None


class Exported(TypedDict):
    """`export`."""

    backup: BackupName
    file: str
    size_bytes: int


class Imported(TypedDict):
    """`import`."""

    volume: str
    files: int
    raw_bytes: int
    compression: str | None


class Copied(TypedDict):
    """`copy`."""

    copied: list[BackupName]
    skipped: list[BackupName]
    requests: Requests | None
