"""Machine: what is shown of the engine, the repository itself, its keys, and what is set up."""

from typing import Annotated, Any, TypedDict

from msgspec import Meta

from volback.cli.documents.common import BackupAge, Utc


class Initialised(TypedDict):
    """`init`."""

    url: str
    id: str
    format: int
    made: Annotated[bool, Meta(description="False where it was there.")]
    recipient: str | None


class Adopted(TypedDict):
    """`adopt`."""

    host: str
    engine_id: str
    adopted: list[str]


class User(TypedDict):
    """A container that uses a volume."""

    name: str
    state: str
    writable: bool


class Volume(TypedDict):
    """One volume of the engine."""

    name: str
    driver: str
    size_bytes: int | None
    containers: list[User]
    last_backup: BackupAge | None
    project: str | None


class Volumes(TypedDict):
    """`volumes`."""

    volumes: list[Volume]


class VersionOf(TypedDict):
    """`version`."""

    version: str
    format: int
    python: str


class CheckOf(TypedDict):
    """What one check found."""

    name: str
    status: str
    text: str
    hint: str | None
    facts: dict[str, str | int | float]


class Diagnosis(TypedDict):
    """`doctor`."""

    checks: list[CheckOf]


class Recovered(TypedDict):
    """`recover`."""

    resumed: list[str]
    rescaled: list[str]


class Notified(TypedDict):
    """`notify`."""

    told: list[str]
    failed: list[str]


class CompletionScript(TypedDict):
    """`completion`."""

    shell: str
    script: str


class PluginFile(TypedDict):
    """`plugin install`, `plugin remove`."""

    file: str


class KeyOf(TypedDict):
    """`key add`, `key remove`, `key passwd`; one of `key list`."""

    name: str
    kind: str | None
    recipients: list[str]
    opens: list[str]
    made_at: Utc | None


class KeyList(TypedDict):
    """`key list`."""

    recipient: str
    keys: list[KeyOf]


class KeySheet(TypedDict):
    """`key export`."""

    file: str
    recipient: str


class Rotated(TypedDict):
    """`key rotate`."""

    recipient: str
    past: list[str]
    rewritten: list[str]
    left: list[str]


class HostKey(TypedDict):
    """`key host`."""

    key: str


class Trusted(TypedDict):
    """`key trust`."""

    host: str
    key: str


class Pinned(TypedDict):
    """`key pin`."""

    recipient: str


class ConfigFiles(TypedDict):
    """The files that are read."""

    files: list[str]


class ConfigProblem(TypedDict):
    """One thing wrong in the configuration."""

    file: str
    line: int | None
    key: str | None
    message: str


class ConfigChecked(ConfigFiles):
    """`config check`."""

    problems: list[ConfigProblem]


class ConfigShown(ConfigFiles):
    """`config show`."""

    config: Annotated[dict[str, Any], Meta(description="As in volback.toml; secrets are hidden.")]


class DraftedJob(TypedDict):
    """A job of the first volback.toml."""

    project: str | None
    volumes: list[str]
    databases: list[str]


class ConfigDraft(TypedDict):
    """`config init`; `text` is null where it was written to `file`."""

    file: str | None
    jobs: list[DraftedJob]
    text: str | None
