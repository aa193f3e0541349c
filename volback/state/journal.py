"""Journal: what a run has begun and not finished, as typed entries, each bound to its engine or its repository.

An entry is on disk before the thing that it names is created. After a crash it says what was left, and where: only a
run on that engine, or on that repository, may act on it and drop it. Any other run only reports it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from volback.errors import FormatError
from volback.policy.hooks import Hook

Kind = Literal[
    "backup", "quiesce", "restore", "import", "copy", "remove", "prove", "diff", "doctor", "clone", "migrate"
]  # fmt: skip
"""What a run does; `remove` is `prune` too, `quiesce` is what stops containers for a set of backups."""


class OnEngine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry about something on one engine."""

    engine: str
    """The engine's id. Empty where it is not known: in entries of earlier versions."""
    host: str = ""
    """The name of the engine's host, for people."""

    @property
    def where(self) -> str:
        """The engine, in words."""
        if not self.engine:
            return "on an unknown engine"
        return f"on the engine of host {self.host}" if self.host else f"on engine {self.engine}"


class InRepository(msgspec.Struct, frozen=True, kw_only=True):
    """An entry about a backup in one repository."""

    repository: str
    """Its URL."""
    repository_id: str = ""
    """Empty where it was not known, and in journals of earlier versions."""
    prefix: str
    """The prefix of the backup's objects: `HOST/VOLUME/ID/`."""

    @property
    def where(self) -> str:
        """The repository, in words."""
        return f"in {self.repository}"


class NewBackup(InRepository, frozen=True, tag="new-backup", kw_only=True):
    """A backup that is not committed yet, or that is being removed."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"half-made backup {self.prefix.rstrip('/')}"


class Reading(InRepository, frozen=True, tag="reading", kw_only=True):
    """A backup that is being restored: `prune` does not remove it. It has no meaning once the process has ended."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"backup {self.prefix.rstrip('/')}"


class NewVolume(OnEngine, frozen=False, tag="new-volume", kw_only=True):  # type: ignore[misc]  # msgspec allows it
    """A volume that a restore or an import fills; it carries the run's id in a label."""

    name: str
    was_empty: bool = False
    """Whether it was looked into after it was made, and nothing was in it: a storage may be older than its volume."""
    made_by: str = ""
    """The id of the run that made it, which is in its label, where another run has gone on with it."""
    source_engine: str = ""
    """The id of the engine that has the volume which is copied into it; empty where none is."""
    source: str = ""
    """The name of that volume."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"half-restored volume {self.name!r}"


class NewDirectory(OnEngine, frozen=False, tag="new-directory", kw_only=True):  # type: ignore[misc]  # as above
    """A directory of the engine's host that a restore or a move made. It has no label: what is left is reported, and
    stays."""

    path: str
    birth: str = ""
    """Its inode and time of birth, by which a move that goes on knows it; empty where they are not known."""
    source_engine: str = ""
    """The id of the engine from which a directory is copied into it; empty where a backup is restored."""
    source: str = ""
    """The path of that directory."""
    was_there: bool = False
    """Whether it was there before: then an error empties it, and it is not removed."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"half-restored directory {self.path}"


class NewFile(OnEngine, frozen=True, tag="new-file", kw_only=True):
    """The part of a file of the engine's host that a move or a restore writes, under a name of its own."""

    path: str

    @property
    def what(self) -> str:
        """It, in words."""
        return f"part of a file {self.path}"


class Replacing(OnEngine, frozen=True, tag="replacing", kw_only=True):
    """A volume that is being replaced in place."""

    volume: str
    repository: str = ""
    """The URL of the repository that holds the safety backup."""
    safety_backup: str | None = None
    """The reference of the backup of the volume's former content."""
    backup: str = ""
    """The reference of the backup that is restored; empty in entries of earlier versions."""
    paths: list[str] = []
    """Those of a part; empty: all of it."""
    is_copied_into: bool = False
    """Whether another volume is copied into it, and no backup restored."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"half-replaced volume {self.volume!r}"


class HeldContainer(OnEngine, frozen=False, tag="held-container", kw_only=True, eq=False):  # type: ignore[misc]  # msgspec allows it
    """A container that a run stops or pauses. The entry is on disk before that is done, so that the container is
    started again whatever happens."""

    id: str
    name: str
    how: Literal["stop", "pause"]
    phase: Literal["planned", "stopping", "held"] = "planned"
    """`stopping`: the engine may be stopping it even if the run is dead: a container that runs now may stop in a
    moment."""
    grace_s: int = 10
    since: float = 0.0
    """When the stopping began, in seconds since 1970."""
    needs: list[str] = []
    """Ids of others of the journal that have to run, and to be healthy, before it."""
    replica: tuple[str, str, str] | None = None
    """Its compose project, service and number: a container that is made in its place has the same."""
    owner: str = ""
    """The scheduler's unit of work that it belongs to, in words: only that scheduler starts it."""
    restart_policy: tuple[str, int] | None = None
    """The one that it had, if the run has set it to `no`: it gets it back when it runs again."""
    stays: bool = False
    """Whether its volume is on another engine now: nobody starts it any more."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"{'stopped' if self.how == 'stop' else 'paused'} container {self.name!r}"


class HeldTask(msgspec.Struct, frozen=True, kw_only=True):
    """A container that a service had on this engine; it does not come back, another one takes its place."""

    id: str
    name: str
    mounts: list[tuple[str, str, str, bool]]
    """Kind, source, path, and whether it is writable: runs that start meanwhile know the service's volumes by them."""


class HeldService(OnEngine, frozen=False, tag="held-service", kw_only=True, eq=False):  # type: ignore[misc]  # msgspec allows it
    """A swarm service that a run scales to 0. The entry is on disk before that is done, so that the service is scaled
    back whatever happens."""

    id: str
    name: str
    node: str
    """The id of the engine's node."""
    phase: Literal["planned", "stopping", "held"] = "planned"
    """`stopping`: the swarm may have been asked, and may still do it even if the run is dead."""
    version: int = 0
    """Of the service, when the scaling began."""
    replicas: int = 0
    """How many it is to have again."""
    running: int = 0
    """How many tasks ran."""
    containers: list[HeldTask] = []
    stays: bool = False
    """As of a container."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"scaled-down service {self.name!r}"


class PendingHook(OnEngine, frozen=True, tag="pending-hook", kw_only=True):
    """A command to be run in a container once that runs again."""

    hook: Hook
    service: str = ""
    """The id of the swarm service that its container belongs to: another container may have taken the place of that
    one."""

    @property
    def what(self) -> str:
        """It, in words; not the command itself, which may hold a password."""
        return f"command to be run in container {self.hook.container!r}"


Entry = NewBackup | Reading | NewVolume | NewDirectory | NewFile | Replacing | HeldContainer | HeldService | PendingHook

Quiescing = HeldContainer | HeldService | PendingHook

_E = TypeVar(
    "_E", NewBackup, Reading, NewVolume, NewDirectory, NewFile, Replacing, HeldContainer, HeldService, PendingHook
)


class Journal(msgspec.Struct, kw_only=True):
    """What one run has begun and not finished."""

    pid: int
    kind: Kind
    subject: str = ""
    """What the run works on, for people who read the file."""
    entries: list[Entry] = []
    """Containers in the order in which they are stopped; they run again in the opposite one."""

    def of(self, kind: type[_E]) -> list[_E]:
        """The entries of that type, in their order."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def drop(self, *entries: Entry) -> None:
        """Remove these entries, by identity."""
        dropped = {id(entry) for entry in entries}
        self.entries = [entry for entry in self.entries if id(entry) not in dropped]

    @property
    def is_open(self) -> bool:
        """Whether something is left to do, or to remember."""
        return any(not isinstance(entry, Reading) for entry in self.entries)

    @property
    def held(self) -> list[HeldContainer | HeldService]:
        """What is to run again."""
        found = [entry for entry in self.entries if isinstance(entry, HeldContainer | HeldService)]
        return [entry for entry in found if not entry.stays]

    @property
    def quiescing(self) -> list[Quiescing]:
        """What is to run again, and commands to be run in it then."""
        return [entry for entry in self.entries if isinstance(entry, HeldContainer | HeldService | PendingHook)]


def encode_journal(journal: Journal) -> bytes:
    """The journal as its file holds it."""
    return msgspec.json.encode(journal)


def decode_journal(data: bytes) -> Journal:
    """Read a journal's file, also one of a version before entries had types. Raises FormatError."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as exc:
        try:
            return _typed(_untyped_decoder.decode(data))
        except msgspec.DecodeError:
            raise FormatError(f"a journal that this version cannot read: {exc}") from exc


class _Untyped(msgspec.Struct, kw_only=True):
    """A journal as versions before entries had types wrote it. A run that they left may need recovery."""

    pid: int
    command: str
    repository: str | None = None
    prefixes: list[str] = []
    reading: list[str] = []
    engine: str | None = None
    """Only written where there are containers or hooks."""
    containers: list[dict[str, Any]] = []
    hooks: list[Hook] = []
    volumes: list[str] = []
    directories: list[str] = []
    replacing: dict[str, str] = {}


def _typed(old: _Untyped) -> Journal:
    """Raises msgspec.ValidationError."""
    kind = msgspec.convert(old.command.partition(" ")[0], Kind)
    repository, engine = old.repository or "", old.engine or ""
    entries: list[Entry] = [
        *(NewBackup(repository=repository, prefix=prefix) for prefix in old.prefixes),
        *(Reading(repository=repository, prefix=prefix) for prefix in old.reading),
        *(NewVolume(engine=engine, name=name) for name in old.volumes),
        *(NewDirectory(engine=engine, path=path) for path in old.directories),
        *(
            Replacing(engine=engine, volume=volume, repository=repository, safety_backup=safety or None)
            for volume, safety in old.replacing.items()
        ),
        *(msgspec.convert({**fields, "engine": engine}, HeldContainer) for fields in old.containers),
        *(PendingHook(engine=engine, hook=hook) for hook in old.hooks),
    ]
    return Journal(pid=old.pid, kind=kind, subject=old.command.partition(" ")[2], entries=entries)


# Made here and not at the first call: msgspec crashes where two threads make the first decoder of a type at once.
_decoder = msgspec.json.Decoder(Journal)
_untyped_decoder = msgspec.json.Decoder(_Untyped)
