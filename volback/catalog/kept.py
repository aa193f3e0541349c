"""Kept: whether all that a new manifest references stays, while other runs and other machines remove backups.

A keeper is a manifest that references what the new one uses. Who removes it lists all manifests after that, and before
anything is deleted. So as long as the keepers are there after the new manifest was written, that is seen, and all
stays. If one is gone, what it kept is lost on a local filesystem, where data is deleted at once. In a repository that
other machines may use, it is condemned, and stays if the new manifest comes early enough. The same is so of the new
backup's own objects, which look like those of a dead run if they were written long ago.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from volback.catalog.condemned import Condemned, are_usable
from volback.catalog.listing import key_of
from volback.catalog.model import Manifest
from volback.catalog.space import Space
from volback.errors import IntegrityError, NotFoundError, StoreDenied, cleaning_up

log = logging.getLogger(__name__)


class Keeping(Space):
    """What keeps the objects of a backup that is being committed."""

    def renew_all(self, manifest: Manifest) -> None:
        """Let what is condemned of all that it references stay for another grace time: it will be put, or used."""
        self.renew(self.known_condemned(manifest.host, manifest.volume), manifest.references)

    def keep(self, manifest: Manifest, keepers: Iterable[Manifest]) -> None:
        """To be called before it is known that all is stored, and the manifest written: what is condemned stays for
        another grace time.

        Raises IntegrityError if something is deleted, or may be deleted now; also if the revision is gone that the
        manifest replaces: the backup was removed, or another machine was faster. Once the manifest is written, it stays
        all the same: who has seen both revisions removes the earlier one.
        """
        keepers = list(keepers)
        for keeper in keepers:
            if keeper.id == manifest.id and not self._is_stored(keeper.manifest_key):
                raise not_kept(keeper.id)
        condemned = self.known_condemned(manifest.host, manifest.volume)
        if needed := self._unkept(manifest, keepers).intersection(condemned):
            _raise_if(self.renew(condemned, needed))
            renewed = condemned[min(needed)][0]
            _raise_if(list(self.being_deleted(manifest.host, manifest.volume, needed, renewed)))

    def check_kept(self, manifest: Manifest, keepers: Iterable[Manifest]) -> None:
        """To be called when the manifest is written. Raises IntegrityError where a removal may not have seen it."""
        unkept = self._unkept(manifest, keepers)
        condemned = self.known_condemned(manifest.host, manifest.volume)
        if names := unkept.intersection(condemned):
            try:
                written_at = self._objects.stat(manifest.manifest_key).modified_at
            except NotFoundError as exc:
                if self.exists(manifest.key):
                    return  # it was repacked already: who did it has found all that it needs
                raise not_kept(manifest.id) from exc
            _raise_if([name for name in names if not are_usable(condemned[name], written_at)])
        # Where everything is deleted at once, only a failed copy of the same backup deletes its own objects: who copies
        # puts them there once more.
        own = set() if self.is_shared else {manifest.data_key, manifest.index_key}
        sizes = [item for item in manifest.sizes.items() if item[0] in unkept - own]
        self._each(lambda item: self.check_used(*item), sizes)
        self._lift(condemned, manifest.references)

    def check_used(self, key: str, expected_bytes: int) -> None:
        """Raises IntegrityError unless the object is there at its size."""
        try:
            size_bytes = self._objects.stat(key).size_bytes
        except NotFoundError:
            size_bytes = -1
        if size_bytes != expected_bytes:
            what = "was removed meanwhile" if size_bytes < 0 else f"has {size_bytes} bytes now, not {expected_bytes}"
            raise IntegrityError(f"backup not committed: it needs {key}, which {what}", "run the backup again")

    def _unkept(self, manifest: Manifest, keepers: Iterable[Manifest]) -> set[str]:
        """What it references and no keeper does now. Raises IntegrityError where that is deleted at once."""
        left = set(manifest.references)
        for keeper in keepers:
            names = left.intersection(keeper.references)
            if self._is_there(keeper, names, but=manifest):
                left -= names
            elif not self.is_shared:
                raise not_kept(keeper.id)
        return left

    def _is_there(self, keeper: Manifest, names: set[str], *, but: Manifest) -> bool:
        """Whether a keeper is there, or a later revision that keeps these objects too, other than the new manifest."""
        if self._is_stored(keeper.manifest_key):
            return True
        try:
            newest = self.read(key_of(keeper))
        except (NotFoundError, IntegrityError):
            return False
        return newest.manifest_key != but.manifest_key and names.issubset(newest.references)

    def _is_stored(self, key: str) -> bool:
        try:
            self._objects.stat(key)
        except NotFoundError:
            return False
        return True

    def known_condemned(self, host: str, volume: str) -> Condemned:
        """What is condemned of a volume; nothing where a key may not list."""
        try:
            return self.condemned(host, volume)
        except StoreDenied as exc:
            log.debug("what is condemned is not known: %s", exc.message)
            return {}

    def _lift(self, condemned: Condemned, names: Iterable[str]) -> None:
        """Of what is referenced now. A prune does it too, so it does not matter if this fails."""
        with cleaning_up("what is referenced stays condemned until the next prune"):
            try:
                self.lift(one for name in names for one in condemned.get(name, ()))
            except StoreDenied as exc:
                log.debug("%s", exc.message)


def not_kept(id_: str) -> IntegrityError:
    """That what a backup keeps is kept no longer."""
    message = f"backup not committed: it needs what {id_} uses, and that was removed meanwhile"
    return IntegrityError(message, "run the backup again")


def _raise_if(late: list[str]) -> None:
    if late:
        others = f" and {len(late) - 1} more" if len(late) > 1 else ""
        raise IntegrityError(
            f"backup not committed: another machine condemned {min(late)}{others}, and may be deleting it by now",
            "run the backup again; prune with a --grace that is longer than a backup takes",
        )
