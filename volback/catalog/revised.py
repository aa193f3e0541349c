"""Revised: what repacking leaves behind, and its removal: manifests that have a successor, objects that nobody needs.

A killed repack leaves both, and new objects that no manifest names yet. Locks between runs are the caller's task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, Found
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.references import References, references_of
from volback.catalog.space import Removed, Space, is_whole


class Revised(Space):
    """Removes what new revisions replace. Every method may raise StoreError or StoreUnreachable."""

    def drop_revisions(self, replaced: Sequence[Manifest], removed: Removed) -> None:
        """Delete these manifests of one volume, each of which has a successor, and what nobody needs then.

        Raises IntegrityError, and deletes nothing, where a manifest of the volume cannot be read.
        """
        if not replaced:
            return
        host, volume = replaced[0].host, replaced[0].volume
        gone = {one.manifest_key for one in replaced}
        needs = self.references(host, volume)
        needs.check_known(f"what {host}/{volume} has stored")
        self._delete(sorted(gone), removed.note)
        # As in a removal: what was committed meanwhile is listed now, or sees that its keeper is gone.
        held = self.holdings(host, volume)
        left = self.references(host, volume)
        left.check_known(f"what {host}/{volume} has stored")
        candidates = {name for one in replaced for name in one.references}
        there = {stored.key for stored in _all(held)}
        self._delete(sorted(there.intersection(candidates).difference(left.users)), removed.note)

    def end_repack(self, host: str, volume: str, found: Sequence[Found], removed: Removed) -> bool:
        """Remove what a killed repack has left of a volume; `found` are all revisions of its manifests. Returns whether
        there was anything.

        Raises IntegrityError where a manifest cannot be read.
        """
        held = self.holdings(host, volume)
        sizes = {stored.key: stored.size_bytes for stored in _all(held)}
        replaced, needs = superseded(found, sizes), references_of(found)
        if not replaced and not self.strays(held, needs):
            return False
        self.drop_revisions(replaced, removed)
        self.remove_strays(host, volume, removed)
        return True

    def strays(self, held: Mapping[BackupKey, Iterable[StoredObject]], needs: References) -> list[str]:
        """Return the objects beside manifests that none of the volume needs: a killed repack has left them."""
        whole = [stored for key, objects in held.items() if is_whole(key, objects) for stored in objects]
        return [stored.key for stored in whole if stored.key.endswith(".zst") and stored.key not in needs.users]

    def remove_strays(self, host: str, volume: str, removed: Removed) -> None:
        """Delete the strays of a volume. Raises IntegrityError where a manifest of it cannot be read."""
        held = self.holdings(host, volume)
        needs = self.references(host, volume)  # read after the listing, which shows nothing of what comes meanwhile
        needs.check_known(f"what a repack of {host}/{volume} has left")
        self._delete(self.strays(held, needs), removed.note)


def superseded(found: Iterable[Found], sizes: Mapping[str, int]) -> list[Manifest]:
    """Return the revisions that have a successor which is complete, among all of one volume, in order; `sizes` has all
    objects there."""
    revisions: dict[BackupKey, list[Found]] = {}
    for one in found:
        revisions.setdefault(BackupKey(one.host, one.volume, one.id), []).append(one)
    return [one for of_backup in revisions.values() for one in _replaced(of_backup, sizes)]


def _replaced(revisions: list[Found], sizes: Mapping[str, int]) -> list[Manifest]:
    *earlier, last = revisions
    if isinstance(last, DamagedManifest) or any(sizes.get(name) != size for name, size in last.sizes.items()):
        return []
    return [one for one in earlier if isinstance(one, Manifest)]


def _all(held: Mapping[BackupKey, Iterable[StoredObject]]) -> Iterator[StoredObject]:
    return (stored for objects in held.values() for stored in objects)
