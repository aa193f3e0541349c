"""The space of a repository: what lies there, which of it nobody needs any more, and what removes it.

Data and index objects of a removed backup go once no manifest that is left references them; until then they stay,
without a manifest of their own. Where other machines may use the repository, they are condemned first, and go later
(volback/catalog/condemned.py). Locks between runs are the caller's task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from volback.catalog.condemned import (
    GRACE_S,
    Condemnation,
    Condemnations,
    Locked,
    by_name,
    condemnation_of,
    unless_locked,
)
from volback.catalog.keys import BackupKey, is_deleting_key, parse_backup_key, parse_manifest_key, short_name
from volback.catalog.listing import prefix_of
from volback.catalog.objects import StoredObject
from volback.catalog.references import References, references_of
from volback.errors import ConflictError, UsageError


@dataclass(slots=True)
class Removed:
    """What a removal has deleted so far."""

    backups: list[BackupKey] = field(default_factory=list)
    """Those whose manifests are gone."""
    objects: list[str] = field(default_factory=list)
    """Keys of all objects that are gone, manifests too."""
    locked: Locked = field(default_factory=dict)
    """What an object lock keeps."""
    condemned: list[str] = field(default_factory=list)
    """Keys of the objects that a later prune deletes."""

    def note(self, name: str) -> None:
        """Note that an object is gone; from any thread."""
        self.objects.append(name)

    def note_last(self, name: str) -> None:
        """Note that the last revision of a manifest is gone; from any thread."""
        self.objects.append(name)
        if (key := parse_manifest_key(name)) is not None:
            self.backups.append(key)


class Survey(NamedTuple):
    """What a listing shows."""

    held: dict[BackupKey, list[StoredObject]]
    """What lies below each backup's prefix, committed or not, by host, volume and id."""
    condemned: dict[str, list[Condemnation]]
    """What is condemned of it, by the key of the object."""
    lists: list[StoredObject]
    """Those of what prunes are deleting, or were when they were killed."""


class Space(Condemnations):
    """What one repository holds, and its removal. Every method may raise StoreError or StoreUnreachable."""

    def holdings(self, host: str | None = None, volume: str | None = None) -> dict[BackupKey, list[StoredObject]]:
        """Return what lies below each backup's prefix, committed or not, by host, volume and id; one listing."""
        return self.survey(host, volume).held

    def survey(self, host: str | None = None, volume: str | None = None) -> Survey:
        """Return all that lies there; one listing."""
        found: dict[BackupKey, list[StoredObject]] = {}
        condemned, lists = list[Condemnation](), list[StoredObject]()
        wanted = None if volume is None else short_name(volume)
        for stored in self._objects.list(prefix_of(host, volume)):
            if is_deleting_key(stored.key):
                lists.append(stored)
            one = condemnation_of(stored)
            key = parse_backup_key(stored.key if one is None else one.name)
            if key is None or wanted not in {None, key.volume}:
                continue
            if one is None:
                found.setdefault(key, []).append(stored)
            else:
                condemned.append(one)
        return Survey(dict(sorted(found.items())), by_name(condemned), lists)

    def references(self, host: str, volume: str) -> References:
        """Read all manifests of a volume, and return what they reference."""
        return references_of(self.revisions(host, volume))

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
        """What lies under `prefix`, is referenced by no manifest, and is not condemned already.

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
        unneeded = set(needs.unneeded(stored.key for stored in there)).difference(self.condemned(key.host, key.volume))
        return [stored for stored in there if stored.key in unneeded]

    def remove_litter(self, prefix: str, *, at_once: bool = False, grace_s: int = GRACE_S) -> list[StoredObject]:
        """Delete `litter_of` that prefix, and return it; in a shared repository it is condemned, unless it may go
        `at_once`: nobody but the caller can have seen a backup there. Raises as it does."""
        litter = self.litter_of(prefix)
        later = [stored.key for stored in litter if self.is_shared and not at_once and not is_document(stored.key)]
        self.condemn(later, grace_s)
        for stored in litter:
            if stored.key not in later:
                self._objects.delete(stored.key)
        return litter

    def remove(
        self,
        doomed: Collection[BackupKey],
        needs: References | None = None,
        removed: Removed | None = None,
        *,
        grace_s: int = GRACE_S,
    ) -> None:
        """Delete backups of one volume, and what nobody needs then; `removed` says how far it came.

        In a shared repository, data and index objects are condemned for that time. `needs` is what the manifests of the
        volume say, if they have been read already. Raises IntegrityError, and deletes nothing, where another manifest
        of the volume cannot be read.
        """
        removed = Removed() if removed is None else removed
        host, volume = next((key.host, key.volume) for key in doomed)
        needs = self.references(host, volume) if needs is None else needs
        left = needs.without(doomed)
        left.check_known(f"what {host}/{volume} has stored")
        if self.is_shared:
            self._condemn_first(doomed, needs, removed, grace_s)
            return
        self._delete_manifests(doomed, needs, removed)
        # A backup that another machine has committed meanwhile is listed now, and keeps what it uses. One that is
        # committed after this listing sees that its parent is gone, and is withdrawn: see Catalog.commit.
        held = self.holdings(host, volume)
        left = left.joined(self._new_references(held, needs))
        left.check_known(f"what {host}/{volume} has stored")
        self._delete((stored.key for stored in freed_objects(held, doomed, needs, left)), removed.locked, removed.note)

    def _delete_manifests(self, doomed: Collection[BackupKey], needs: References, removed: Removed) -> None:
        manifests = needs.manifests_of(doomed)
        # The highest one counts, so it goes last.
        self._delete((name for names in manifests for name in names[:-1]), removed.locked, removed.note)
        self._delete((name for names in manifests for name in names[-1:]), removed.locked, removed.note_last)

    def _condemn_first(self, doomed: Collection[BackupKey], needs: References, removed: Removed, grace_s: int) -> None:
        """Condemn what is freed, then delete the manifests: what is killed in between has condemned what is referenced,
        which counts for nothing; in the other order, old condemnations would look as if they had been right."""
        host, volume = next((key.host, key.volume) for key in doomed)
        freed = list(freed_objects(self.holdings(host, volume), doomed, needs, needs.without(doomed)))
        self.condemn((one.key for one in freed if not is_document(one.key)), grace_s, removed.condemned.append)
        self._delete_manifests(doomed, needs, removed)
        others = (one.key for one in freed if is_document(one.key) and one.key not in needs.manifests)
        self._delete(others, removed.locked, removed.note)

    def _delete(self, names: Iterable[str], locked: Locked, note: Callable[[str], None]) -> None:
        """Delete these objects; of a distant store several at once, so in any order. `note` gets each that is gone,
        `locked` each that a lock keeps."""

        def delete(name: str) -> None:
            self._objects.delete(name)
            note(name)

        self._each(unless_locked(delete, locked), names)

    def references_now(
        self, host: str, volume: str, held: dict[BackupKey, list[StoredObject]], known: References | None
    ) -> References:
        """What the manifests reference that are there, as `held` lists them; those that are `known` are not read again,
        unless one of these is gone."""
        if known is None or not manifests_in(held).issuperset(known.manifests):
            return self.references(host, volume)
        return known.joined(self._new_references(held, known))

    def _new_references(self, held: dict[BackupKey, list[StoredObject]], known: References) -> References:
        """Of the manifests that are there, and were not when `known` was read; new revisions are among them."""
        there = [(key, item) for stored in held.values() for item in stored if (key := parse_manifest_key(item.key))]
        new = [(key, item) for key, item in there if item.key not in known.manifests]
        with closing(self._read_all(new, cached=False)) as found:
            return references_of(one for _, one in found if one is not None)


def freed_objects(
    held: Mapping[BackupKey, Iterable[StoredObject]], doomed: Collection[BackupKey], needs: References, left: References
) -> Iterator[StoredObject]:
    """Yield what nobody needs of a volume once these backups are removed, of what is `held` there: `left` is then left
    of `needs`. What a backup in progress has written is not among it."""
    ours = needs.freed_by(doomed)
    for key, objects in held.items():
        for stored in objects:
            if (key in doomed or stored.key in ours) and stored.key not in left.users:
                yield stored


def sizes_of(held: Mapping[BackupKey, Iterable[StoredObject]]) -> dict[str, int]:
    """The size of each object that is held, by its key."""
    return {stored.key: stored.size_bytes for objects in held.values() for stored in objects}


def manifests_in(held: Mapping[BackupKey, Iterable[StoredObject]]) -> set[str]:
    """The keys of all manifests among what is held, of any revision."""
    return {item.key for stored in held.values() for item in stored if parse_manifest_key(item.key)}


def is_document(name: str) -> bool:
    """Whether an object is a manifest, or describes one backup alone: no other backup uses it."""
    return name.endswith(".json")


def is_whole(key: BackupKey, stored: Iterable[StoredObject]) -> bool:
    """Whether a manifest is among what is stored, of any revision."""
    return any(parse_manifest_key(item.key) == key for item in stored)
