"""Revised: what repacking leaves behind, and its removal: manifests that have a successor, objects that nobody needs.

A killed repack leaves both, and new objects that no manifest names yet. Locks between runs are the caller's task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from volback.catalog.condemned import GRACE_S
from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, Found, key_of
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.references import References, references_of
from volback.catalog.space import Removed, Space, is_document, is_whole, sizes_of


class Revised(Space):
    """Removes what new revisions replace. Every method may raise StoreError or StoreUnreachable."""

    def drop_revisions(self, replaced: Sequence[Manifest], removed: Removed, *, grace_s: int = GRACE_S) -> None:
        """Delete these manifests of one volume, each of which has a successor, and what nobody needs then.

        In a shared repository that is condemned for that time. Raises IntegrityError, and deletes nothing, where a
        manifest of the volume cannot be read.
        """
        if not replaced:
            return
        host, volume = replaced[0].host, replaced[0].volume
        names = {one.manifest_key for one in replaced}
        found = list(self.revisions(host, volume))
        references_of(found).check_known(f"what {host}/{volume} has stored")
        if self.is_shared:  # as in a removal
            left = references_of(one for one in found if isinstance(one, Manifest) and one.manifest_key not in names)
            freed = self._freed(replaced, self.holdings(host, volume), left)
            self.condemn(freed, grace_s, removed.condemned.append)
            self._delete(sorted(names), removed.locked, removed.note)
            return
        self._delete(sorted(names), removed.locked, removed.note)
        # What was committed meanwhile is listed now, or sees that its keeper is gone.
        held = self.holdings(host, volume)
        left = self.references(host, volume)
        left.check_known(f"what {host}/{volume} has stored")
        self._delete(self._freed(replaced, held, left), removed.locked, removed.note)

    def _freed(
        self, replaced: Iterable[Manifest], held: Mapping[BackupKey, Iterable[StoredObject]], left: References
    ) -> list[str]:
        """What only those manifests have needed."""
        names = {name for one in replaced for name in one.references}
        return sorted(names.intersection(sizes_of(held)).difference(left.users))

    def end_repack(
        self, host: str, volume: str, found: Sequence[Found], removed: Removed, *, grace_s: int = GRACE_S
    ) -> bool:
        """Remove what a killed repack has left of a volume; `found` are all revisions of its manifests. Returns whether
        there was anything.

        Raises IntegrityError where a manifest cannot be read.
        """
        held, condemned, _ = self.survey(host, volume)
        sizes = sizes_of(held)
        replaced, strays = superseded(found, sizes), self.strays(held, references_of(found))
        if not replaced and not set(strays).difference(condemned):
            return False
        self.drop_revisions(replaced, removed, grace_s=grace_s)
        self.remove_strays(host, volume, removed, grace_s=grace_s)
        return True

    def strays(self, held: Mapping[BackupKey, Iterable[StoredObject]], needs: References) -> list[str]:
        """Return the objects beside manifests that none of the volume needs: a killed repack has left them."""
        whole = [stored for key, objects in held.items() if is_whole(key, objects) for stored in objects]
        return [stored.key for stored in whole if not is_document(stored.key) and stored.key not in needs.users]

    def remove_strays(self, host: str, volume: str, removed: Removed, *, grace_s: int = GRACE_S) -> None:
        """Delete the strays of a volume; in a shared repository they are condemned. Another machine that repacks the
        volume now lets its own ones stay when it commits (volback/catalog/kept.py).

        Raises IntegrityError where a manifest of the volume cannot be read.
        """
        held, condemned, _ = self.survey(host, volume)
        needs = self.references(host, volume)  # read after the listing, which shows nothing of what comes meanwhile
        needs.check_known(f"what a repack of {host}/{volume} has left")
        strays = self.strays(held, needs)
        if self.is_shared:
            self.condemn((name for name in strays if name not in condemned), grace_s, removed.condemned.append)
        else:
            self._delete(strays, removed.locked, removed.note)


def superseded(found: Iterable[Found], sizes: Mapping[str, int]) -> list[Manifest]:
    """Return the revisions that have a successor which is complete, among all of one volume, in order; `sizes` has all
    objects there."""
    revisions: dict[BackupKey, list[Found]] = {}
    for one in found:
        revisions.setdefault(key_of(one), []).append(one)
    return [one for of_backup in revisions.values() for one in _replaced(of_backup, sizes)]


def _replaced(revisions: list[Found], sizes: Mapping[str, int]) -> list[Manifest]:
    *earlier, last = revisions
    if isinstance(last, DamagedManifest) or any(sizes.get(name) != size for name, size in last.sizes.items()):
        return []
    return [one for one in earlier if isinstance(one, Manifest)]
