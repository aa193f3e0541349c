"""Usage: what each backup takes, and what removing it would free, from manifests and one listing alone.

An object stays as long as any manifest references it: what removing a backup frees are the objects that no other one
uses. Several that are removed together free more than each of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from volback.catalog.keys import BackupKey, parse_backup_key, parse_condemned_key, volume_prefix
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference
from volback.catalog.references import references_of
from volback.context.repository import Repository
from volback.errors import VolbackError
from volback.operations.groups import Found, Group, grouped


@dataclass(frozen=True, slots=True)
class BackupUsage:
    """One backup."""

    key: BackupKey
    stored_bytes: int
    """Of all objects of its own."""
    frees_bytes: int | None
    """Of the objects that nobody needs once it is removed, alone. None where another manifest of the volume
    cannot be read: what that backup uses is not known, and nothing is removed."""
    needed_by: list[str]
    """Ids of the backups that use objects of it."""
    error: VolbackError | None
    """Why its manifest cannot be read."""

    @property
    def name(self) -> str:
        """Its full name."""
        return str(Reference(self.key.host, self.key.volume, self.key.id))


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """One volume."""

    host: str
    volume: str
    backups: list[BackupUsage]
    """Those that were named."""
    backups_there: int
    """How many there are."""
    stored_bytes: int
    """Of all that lies there, backups that were not completed too."""
    condemned_bytes: int = 0
    """Of these, what a prune frees later."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Volumes, and the whole repository."""

    volumes: list[VolumeUsage]
    stored_bytes: int
    """Of the whole repository, all hosts and its own documents."""


def usage(repository: Repository, references: list[str], *, all_hosts: bool = False) -> Usage:
    """Measure the named backups, or those of the named volumes, or all of this host, or of every host.

    Raises NotFoundError for a reference that names none.
    """
    stored: dict[str, dict[str, int]] = {}
    for item in repository.store.list():
        stored.setdefault("/".join(item.key.split("/")[:2]), {})[item.key] = item.size_bytes
    volumes = [
        _of_volume(group, stored.get(volume_prefix(group.host, group.volume).removesuffix("/"), {}))
        for group in grouped(repository, references, all_hosts=all_hosts)
    ]
    return Usage(volumes, sum(sum(sizes.values()) for sizes in stored.values()))


def _of_volume(group: Group, sizes: Mapping[str, int]) -> VolumeUsage:
    backups = group.backups
    own: dict[str, list[str]] = {backup.id: [] for backup in backups}
    for name in sizes:
        key = parse_backup_key(name)
        if key is not None and key.id in own:
            own[key.id].append(name)
    users = _users(own, backups)
    alone: dict[str, int] = dict.fromkeys(own, 0)
    for name, ids in users.items():
        if len(ids) == 1:
            alone[next(iter(ids))] += sizes.get(name, 0)
    unreadable = {backup.id for backup in backups if isinstance(backup, DamagedManifest)}
    measured = [
        BackupUsage(
            BackupKey(group.host, group.volume, backup.id),
            sum(sizes[name] for name in own[backup.id]),
            None if unreadable - {backup.id} else alone[backup.id],
            sorted(set().union(*(users[name] for name in own[backup.id])) - {backup.id}),
            backup.error if isinstance(backup, DamagedManifest) else None,
        )
        for backup in group.wanted
    ]
    waiting = {found[0] for name in sizes if (found := parse_condemned_key(name))} - users.keys()
    condemned_bytes = sum(sizes.get(name, 0) for name in waiting)
    return VolumeUsage(group.host, group.volume, measured, len(backups), sum(sizes.values()), condemned_bytes)


def _users(own: Mapping[str, list[str]], backups: list[Found]) -> dict[str, set[str]]:
    """Ids of the backups that use each object, the backup that it belongs to among them."""
    users = {name: {id_} for id_, names in own.items() for name in names}
    for name, ids in references_of(one for one in backups if isinstance(one, Manifest)).users.items():
        users.setdefault(name, set()).update(key.id for key in ids)
    return users
