"""The result of a prune: each backup with what was decided on it, and what was freed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from volback.catalog.condemned import Locked
from volback.catalog.keys import BackupKey
from volback.catalog.listing import Found, key_of
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference
from volback.errors import Interrupted, VolbackError
from volback.latest import created_at
from volback.operations.repack import Repacked

NOT_REMOVED = "could not be removed"
"""The reason why a backup stays that no rule keeps."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One backup and what was done with it."""

    key: BackupKey
    created_at: datetime
    tags: list[str]
    stored_bytes: int
    """Of all its objects."""
    is_kept: bool
    reasons: list[str]
    damage: str | None = None
    is_readable: bool = True
    """Whether its manifest could be read."""


@dataclass(frozen=True, slots=True)
class HalfMade:
    """What exists of a backup that was never committed, and of unfinished uploads to its prefix."""

    key: BackupKey
    stored_bytes: int
    uploads: int
    is_condemned: bool = False
    """Whether it was condemned, as another machine may be making the backup: then it is removed later."""


@dataclass(frozen=True, slots=True)
class FreedOf:
    """What was freed of one volume, beside what half-made backups had."""

    host: str
    volume: str
    freed_bytes: int
    still_used_bytes: int
    """Of removed backups, and not freed: others use it."""
    left_objects: int = 0
    """Where the removal came to no end: how many objects nobody needs, and are there."""
    left_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CondemnedOf:
    """What of one volume is condemned: a later prune deletes it, unless a backup references it by then."""

    host: str
    volume: str
    objects: int
    stored_bytes: int
    until: datetime
    """When a prune may delete all of it, by the store's clock."""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was kept and removed; of a dry run, what would be. By host and volume, the newest first."""

    judged: tuple[Judged, ...]
    freed: tuple[FreedOf, ...]
    half_made: tuple[HalfMade, ...]
    """Removed ones, and condemned ones."""
    errors: tuple[VolbackError, ...]
    """One for each volume that was not pruned, or not to the end; the first is why no more of them was."""
    interrupted: Interrupted | None
    condemned: tuple[CondemnedOf, ...] = ()
    """In a repository that other machines may use too, by host and volume."""
    locked: Locked = field(default_factory=dict)
    """What an object lock keeps for now, by key."""
    notices: tuple[str, ...] = ()
    """What should be known, and is not wrong."""
    repacked: tuple[Repacked, ...] = ()
    """Volumes of which something was repacked, or could not be freed."""

    @property
    def freed_bytes(self) -> int:
        """Of all objects that were removed, but by a repack."""
        return sum(one.freed_bytes for one in self.freed) + sum(
            found.stored_bytes for found in self.half_made if not found.is_condemned
        )

    @property
    def condemned_bytes(self) -> int:
        """Of what a later prune deletes."""
        return sum(one.stored_bytes for one in self.condemned)

    @property
    def still_used_bytes(self) -> int:
        """Of removed backups, and not freed: others use it."""
        return sum(one.still_used_bytes for one in self.freed)

    @property
    def left_backups(self) -> int:
        """How many backups no rule keeps, and are there as something failed: the next prune goes on with them."""
        return sum(one.reasons == [NOT_REMOVED] for one in self.judged)

    @property
    def left_objects(self) -> int:
        """How many objects nobody needs, and are there as something failed."""
        return sum(one.left_objects for one in self.freed)

    @property
    def left_bytes(self) -> int:
        """Of these objects."""
        return sum(one.left_bytes for one in self.freed)

    @property
    def warnings(self) -> list[str]:
        """One for each damaged backup: it stays, and counts for no rule; and one for what an object lock keeps."""
        damaged = [_damage(judged) for judged in self.judged if judged.damage is not None]
        return [*damaged, *locked_warnings(self.locked)]


def judged(
    found: Found,
    stored: Iterable[StoredObject],
    is_kept: bool,
    reasons: list[str],
    damage: str | None,
    tags: list[str],
) -> Judged:
    size = sum(item.size_bytes for item in stored)
    is_readable = isinstance(found, Manifest)
    return Judged(key_of(found), created_at(found.id), tags, size, is_kept, reasons, damage, is_readable)


def locked_warnings(locked: Locked) -> list[str]:
    """At most one: what an object lock keeps, and until when, as far as that is known."""
    if not locked:
        return []
    times = [exc.until for exc in locked.values() if exc.until is not None]
    until = f"until {max(times):%Y-%m-%d %H:%M:%S} UTC" if times else "until its retention ends"
    more = f" and {len(locked) - 1} more" if len(locked) > 1 else ""
    return [f"{min(locked)}{more} stays {until}, as an object lock keeps it; a later prune removes it"]


def _damage(judged: Judged) -> str:
    name = Reference(judged.key.host, judged.key.volume, judged.key.id)
    if judged.is_readable:
        return f"backup {name} is damaged, and stays until it is removed by its name: {judged.damage}"
    return (
        f"the manifest of backup {name} cannot be read, so nothing of its volume is removed until it can be, or until"
        f" that backup is removed by its name: {judged.damage}"
    )
