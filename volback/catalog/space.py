"""The space of a repository: what lies there, which of it nobody needs any more, and what removes it.

A removal deletes manifests first. Data and index objects go once no manifest that is left references them; until then
they stay, without a manifest of their own. Locks between runs are the caller's task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey, parse_backup_key, parse_manifest_key, short_name
from volback.catalog.listing import Listing, prefix_of
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

    def note(self, name: str) -> None:
        """Note that an object is gone; from any thread."""
        self.objects.append(name)

    def note_last(self, name: str) -> None:
        """Note that the last revision of a manifest is gone; from any thread."""
        self.objects.append(name)
        if (key := parse_manifest_key(name)) is not None:
            self.backups.append(key)


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

    def remove_litter(self, prefix: str) -> list[StoredObject]:
        """Delete `litter_of` that prefix, and return it. Raises as it does."""
        litter = self.litter_of(prefix)
        for stored in litter:
            self._objects.delete(stored.key)
        return litter

    def remove(
        self, doomed: Collection[BackupKey], needs: References | None = None, removed: Removed | None = None
    ) -> None:
        """Delete backups of one volume, and what nobody needs then; `removed` says how far it came.

        `needs` is what the manifests of the volume say, if they have been read already. Raises IntegrityError, and
        deletes nothing, where another manifest of the volume cannot be read.
        """
        removed = Removed() if removed is None else removed
        host, volume = next((key.host, key.volume) for key in doomed)
        needs = self.references(host, volume) if needs is None else needs
        left = needs.without(doomed)
        left.check_known(f"what {host}/{volume} has stored")
        manifests = needs.manifests_of(doomed)
        self._delete((name for names in manifests for name in names[:-1]), removed.note)  # the highest one counts
        self._delete((name for names in manifests for name in names[-1:]), removed.note_last)
        # A backup that another machine has committed meanwhile is listed now, and keeps what it uses. One that is
        # committed after this listing sees that its parent is gone, and is withdrawn: see Catalog.commit.
        held = self.holdings(host, volume)
        left = left.joined(self._new_references(held, needs))
        left.check_known(f"what {host}/{volume} has stored")
        self._delete((stored.key for stored in freed_objects(held, doomed, needs, left)), removed.note)

    def _delete(self, names: Iterable[str], note: Callable[[str], None]) -> None:
        """Delete these objects; of a distant store several at once, so in any order. `note` gets each that is gone."""

        def delete(name: str, stop: threading.Event) -> None:
            if not stop.is_set():
                self._objects.delete(name)
                note(name)

        with closing(read_ahead(delete, names, ahead=self.at_once)) as deletions:
            for _ in deletions:
                pass

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


def manifests_in(held: Mapping[BackupKey, Iterable[StoredObject]]) -> set[str]:
    """The keys of all manifests among what is held, of any revision."""
    return {item.key for stored in held.values() for item in stored if parse_manifest_key(item.key)}


def is_whole(key: BackupKey, stored: Iterable[StoredObject]) -> bool:
    """Whether a manifest is among what is stored, of any revision."""
    return any(parse_manifest_key(item.key) == key for item in stored)
