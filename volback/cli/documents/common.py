"""Common: the frame of every document, and what several commands show."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

Utc = Annotated[str, Meta(description="A time of UTC: 2026-11-24T16:02:54Z.")]
ZonedTime = Annotated[str, Meta(description="A time with its zone: 2026-11-24T16:02:54+01:00.")]
BackupName = Annotated[str, Meta(description="HOST/VOLUME@ID.")]


class Error(TypedDict):
    """Why a command failed."""

    kind: str
    message: str
    hint: str | None
    exit_code: int


class Document(TypedDict):
    """What a command writes with --json. One that failed in a part has both `result` and `error`."""

    schema: Literal[1]
    command: Annotated[str, Meta(description="Empty where the command line names none.")]
    ok: bool
    result: NotRequired[dict[str, Any]]
    warnings: NotRequired[Annotated[list[str], Meta(description="All that is shown as a warning without --json.")]]
    error: NotRequired[Error]


class LogLine(TypedDict):
    """One line of --log-format json. What follows `message` belongs to lines that tell of it."""

    time: ZonedTime
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    logger: str
    message: str
    kind: NotRequired[Annotated[str, Meta(description="Of an error.")]]
    hint: NotRequired[str | None]
    exit_code: NotRequired[int]
    volume: NotRequired[str]
    backup: NotRequired[str]
    files: NotRequired[int]
    raw_bytes: NotRequired[int]
    stored_bytes: NotRequired[int]
    duration_s: NotRequired[float]
    target: NotRequired[Annotated[str, Meta(description="The repository that a backup was copied to.")]]
    job: NotRequired[str]
    status: NotRequired[str]
    volumes: NotRequired[int]
    backups: NotRequired[int]


class Requests(TypedDict):
    """What was sent to a bucket, each try counted."""

    total: int
    get: int
    head: int
    list: int
    put: Annotated[int, Meta(description="Also the parts of an object, and what begins and ends one.")]
    delete: int
    sent_bytes: int
    received_bytes: int


class LeftOut(TypedDict):
    """What of a project is not taken along."""

    path: str
    why: str


class BackupAge(TypedDict):
    """The last good backup of a volume."""

    id: str
    age_s: float | None


class Key(TypedDict):
    """A backup, by its parts."""

    id: str
    host: str
    volume: str


class Compared(TypedDict):
    """What `prove` found, by paths."""

    identical: bool
    different: list[str]
    missing: Annotated[list[str], Meta(description="In the backup, not in the volume.")]
    extra: Annotated[list[str], Meta(description="In the volume, not in the backup.")]
    lacking: Annotated[
        dict[str, list[str]],
        Meta(description="Attributes that a restore could not set, and the files that are equal but for them."),
    ]
