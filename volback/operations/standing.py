"""Standing: how a repository stands - its size and free space, and of each volume the last good backup, and when a
backup of it was last verified and proven.

One listing, and for each volume the manifest of its newest backup: those before it are read only where that one is
damaged, or does not count. Notes are read of the newest few that have some.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from volback.ahead import read_ahead
from volback.catalog.faults import faults_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference
from volback.catalog.space import is_whole
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable, VolbackError
from volback.latest import created_at, is_future, is_safety_copy
from volback.operations.lines import Lines

LITTLE_SPACE_BYTES = 1024**3
_NOTES_OF = 8
"""So many of a volume's newest backups with notes are looked at."""


@dataclass(frozen=True, slots=True)
class VolumeStanding:
    """One volume of the host."""

    volume: str
    last: BackupKey | None
    """The newest good backup of this engine that is not a safety copy."""
    raw_bytes: int | None = None
    """Of that one."""
    backups: int = 0
    problems: tuple[str, ...] = ()
    """Why newer ones are not good."""
    verified_at: str | None = None
    proven_at: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One repository. Where it cannot be read, `error` says why, and nothing else is known."""

    url: str
    name: str | None = None
    backups: int = 0
    """Of all hosts."""
    size_bytes: int | None = None
    """Of all its objects that belong to backups."""
    free_bytes: int | None = None
    """None: it has no known limit."""
    volumes: Mapping[str, VolumeStanding] = field(default_factory=dict)
    error: VolbackError | None = None

    @property
    def has_little_space(self) -> bool:
        """Whether the next backups may find no room."""
        return self.free_bytes is not None and self.free_bytes < LITTLE_SPACE_BYTES


def standing(
    repository: Repository, *, host: str | None, engine_id: str | None, name: str | None = None
) -> Standing:  # fmt: skip
    """How the repository stands, with the volumes of that host; of any, where it is not known. Raises nothing for one
    that cannot be read."""
    url = repository.store.url
    try:
        held, _, _ = repository.catalog.survey()
        whole = [key for key, stored in held.items() if is_whole(key, stored)]
        sizes = {one.key: one.size_bytes for stored in held.values() for one in stored}
        of_volume: dict[str, list[BackupKey]] = {}
        for key in whole:
            if host is None or key.host == host:
                of_volume.setdefault(key.volume, []).append(key)
        looking = _Looking(repository, held, sizes, engine_id)
        with closing(read_ahead(looking.volume, of_volume.values(), ahead=repository.catalog.at_once)) as found:
            volumes = {one.volume: one for one in found}
        free = repository.store.free_bytes()
    except VolbackError as exc:
        return Standing(url, name, error=exc)
    return Standing(url, name, len(whole), sum(sizes.values()), free, volumes)


class _Looking:
    def __init__(
        self,
        repository: Repository,
        held: Mapping[BackupKey, list[StoredObject]],
        sizes: Mapping[str, int],
        engine_id: str | None,
    ) -> None:
        self._repository = repository
        self._held = held
        self._sizes = sizes
        self._counts = (lambda _: True) if engine_id is None else Lines(repository).counts(engine_id)

    def volume(self, keys: list[BackupKey], stop: threading.Event) -> VolumeStanding:
        """One volume, of its backups, oldest first. Raises StoreUnreachable."""
        problems: list[str] = []
        last: Manifest | None = None
        for key in reversed(keys):
            if stop.is_set():
                break
            last = self._good(key, problems)
            if last is not None:
                break
        verified, proven = self._noted(keys)
        return VolumeStanding(
            keys[0].volume,
            None if last is None else last.key,
            None if last is None else last.raw_bytes,
            len(keys),
            tuple(problems),
            verified,
            proven,
        )

    def _good(self, key: BackupKey, problems: list[str]) -> Manifest | None:
        """The backup, if it counts and is good; why it is not good is added."""
        name = Reference(key.host, key.volume, key.id)
        if is_future(created_at(key.id), self._repository.now()):
            problems.append(f"backup {name} is from the future: the clock that made it was wrong, or this one is")
            return None
        try:
            found = self._repository.catalog.read(key)
        except NotFoundError:
            return None  # removed just now
        except StoreUnreachable:
            raise
        except (IntegrityError, StoreError) as exc:
            problems.append(f"backup {name} cannot be read: {exc.message}")
            return None
        if is_safety_copy(found.tags) or not self._counts(found):
            return None
        fault = next(faults_of(found, lambda object_key: self._sizes.get(object_key, -1)), None)
        if fault is None:
            return found
        problems.append(f"backup {name} is damaged: {fault.message}")
        return None

    def _noted(self, keys: list[BackupKey]) -> tuple[str | None, str | None]:
        """When a backup of the volume was last verified, and proven."""
        with_notes = (
            one for key in reversed(keys) for one in self._held[key] if one.key == key.notes
        )  # fmt: skip
        notes = self._repository.catalog.notes.listed(islice(with_notes, _NOTES_OF), cached=True).values()
        verified = [one.fields.verified_at for one in notes if one.fields.verified_at is not None]
        proven = [one.fields.proven_at for one in notes if one.fields.proven_at is not None]
        return max(verified, default=None), max(proven, default=None)
