"""The space of a repository: what lies there, which of it nobody needs any more, and what removes it.

A removal deletes a backup's manifest first: what is left is then no backup, and is found as litter. Locks between runs
are the caller's task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from volback.catalog.keys import BackupKey, parse_backup_key, short_name
from volback.catalog.listing import DamagedManifest, Listing, prefix_of
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference
from volback.catalog.references import References, references
from volback.errors import ConflictError, IntegrityError, UsageError


class Space(Listing):
    """What one repository holds, and its removal. Every method may raise StoreError or StoreUnreachable."""

    def holdings(self, host: str | None = None, volume: str | None = None) -> dict[BackupKey, list[StoredObject]]:
        """Return what lies below each backup's prefix, committed or not, by host, volume and id; one listing."""
        found: dict[BackupKey, list[StoredObject]] = {}
        wanted = None if volume is None else short_name(volume)
        for stored in self._objects.list(prefix_of(host, volume)):
            key = parse_backup_key(stored.key)
            if key and wanted in {None, key.volume}:
                found.setdefault(key, []).append(stored)
        return dict(sorted(found.items()))

    def references(self, host: str, volume: str) -> References:
        """Read all manifests of a volume, and return what they reference."""
        found = list(self.manifests(host, volume))
        damaged = [one for one in found if isinstance(one, DamagedManifest)]
        return references(
            (one for one in found if isinstance(one, Manifest)),
            {str(Reference(one.host, one.volume, one.id)): one.error for one in damaged},
        )

    def litter(self) -> list[str]:
        """Prefixes of what was never committed, or not removed to the end; a backup in progress is among them.

        What a manifest references is never litter, nor is what one that cannot be read could reference.
        """
        known: dict[tuple[str, str], References] = {}
        found = []
        for key, stored in self.holdings().items():
            if is_whole(key, stored):
                continue
            group = (key.host, key.volume)
            if group not in known:
                known[group] = self.references(*group)
            if not known[group].unreadable and known[group].unneeded(item.key for item in stored):
                found.append(key.prefix)
        return found

    def litter_of(self, prefix: str) -> list[StoredObject]:
        """What lies under `prefix` and is referenced by no manifest.

        Raises ConflictError if a backup is there, IntegrityError where a manifest of its volume cannot be read.
        """
        key = parse_backup_key(prefix)
        if key is None or key.prefix != prefix:
            raise UsageError(f"{prefix!r} is not a backup's prefix")
        there = list(self._objects.list(prefix))
        if is_whole(key, there):
            raise ConflictError(f"{prefix} holds a backup, not leftovers")
        if not there:
            return []  # no manifest has to be read, and nothing deleted: no right to do so is needed
        needs = self.references(key.host, key.volume)
        needs.check_known(f"what a failed run left in {prefix}")
        unneeded = set(needs.unneeded(stored.key for stored in there))
        return [stored for stored in there if stored.key in unneeded]

    def remove_litter(self, prefix: str) -> None:
        """Delete `litter_of` that prefix. Raises as it does."""
        for stored in self.litter_of(prefix):
            self._objects.delete(stored.key)

    def dependents(self, backup: Manifest | DamagedManifest) -> list[str]:
        """Ids of the backups that use frames of this one.

        Raises IntegrityError where a later manifest is damaged, so that it is unknown.
        """
        found = []
        for other in self.manifests(backup.host, backup.volume):
            if isinstance(other, Manifest) and backup.id in other.depends_on:
                found.append(other.id)
            elif isinstance(other, DamagedManifest) and other.id > backup.id:
                # Frames come from earlier backups: older backups do not matter, and the newest can always be removed.
                where = str(Reference(other.host, other.volume, other.id))
                message = f"cannot tell whether {where} needs backup {backup.id}: {other.error.message}"
                raise IntegrityError(message, other.error.hint or f"if it is lost, volback remove {where} first")
        return found

    def check_unneeded(self, backup: Manifest | DamagedManifest, *, besides: Collection[str] = ()) -> None:
        """Raises ConflictError if others than those ids depend on the backup, IntegrityError where that is unknown."""
        if dependents := [id_ for id_ in self.dependents(backup) if id_ not in besides]:
            name = Reference(backup.host, backup.volume, backup.id)
            hint = "remove those first, or all of them in one command"
            raise ConflictError(f"backup {name} is needed by {', '.join(dependents)}", hint)

    def remove(self, backup: Manifest | DamagedManifest) -> None:
        """Delete a backup. Raises as `check_unneeded`."""
        self.check_unneeded(backup)
        self.erase(BackupKey(backup.host, backup.volume, backup.id))

    def erase(self, key: BackupKey) -> None:
        """Delete a backup, its manifest first; the caller has checked whether others depend on it."""
        for first in (key.manifest, key.index, key.data):
            self._objects.delete(first)
        for stored in list(self._objects.list(key.prefix)):
            self._objects.delete(stored.key)


def is_whole(key: BackupKey, stored: Iterable[StoredObject]) -> bool:
    """Whether the manifest is among what is stored."""
    return any(item.key == key.manifest for item in stored)
