"""The listing of a repository: which backups exist, with their manifests. Reads alone.

A manifest that cannot be read hides no other. What lies there besides, and its removal, is in volback/catalog/space.py;
what commits and finds backups in volback/catalog/repository.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from volback.ahead import read_ahead
from volback.catalog.keys import (
    NOTES_NAME,
    BackupKey,
    host_prefix,
    parse_backup_key,
    parse_manifest_key,
    short_name,
    volume_prefix,
)
from volback.catalog.manifests import Fetched, Manifests
from volback.catalog.model import Manifest
from volback.catalog.notes import AllNotes
from volback.catalog.objects import Kept, KeptNothing, Objects, StoredObject
from volback.catalog.sealed import IsSigned
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable, VolbackError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DamagedManifest:
    """A revision of a manifest that exists but cannot be read, and why; `key` is its key. Where no other one can be
    read, it stands for the backup."""

    key: str
    host: str
    volume: str
    id: str
    error: VolbackError


Found = Manifest | DamagedManifest


def key_of(found: Found) -> BackupKey:
    """The key of its backup."""
    return BackupKey(found.host, found.volume, found.id)


class Listing:
    """Lists the backups of one repository. Every method may raise StoreError or StoreUnreachable."""

    def __init__(
        self,
        objects: Objects,
        kept: Kept | None = None,
        *,
        is_signed: IsSigned | None = None,
        is_encrypted: bool | None = None,
    ) -> None:
        """`kept` is where copies of manifests are kept; None keeps none. Without `is_signed` the signatures of what is
        read count for nothing. A manifest that is not as `is_encrypted` says is refused; None accepts both."""
        self._objects = objects
        self._manifests = Manifests(objects, kept or KeptNothing(), is_signed, is_encrypted=is_encrypted)
        self.notes = AllNotes(objects, kept, at_once=self.at_once)
        """The notes beside the manifests."""

    @property
    def at_once(self) -> int:
        """How many documents are best read at once; 1: in the caller's thread."""
        return self._manifests.at_once

    def backups(self, host: str | None = None, volume: str | None = None) -> list[BackupKey]:
        """Which backups exist, by host, volume and id (oldest first); reads no manifest."""
        return _highest(self._listed(host, volume))

    def manifests(
        self,
        host: str | None = None,
        volume: str | None = None,
        *,
        cached: bool = False,
        beside: list[StoredObject] | None = None,
    ) -> Generator[Found, None, None]:
        """Yield every backup's manifest, by host, volume and id; one that cannot be read does not hide the others.

        Of several revisions it is the highest valid one.

        With `cached`, a local copy is used where the listing still shows the object of which it was made: for looking
        only. Who proves (verify) or deletes (prune, remove) reads what is in the repository now. Documents of a
        distant store are read ahead, in threads; close the generator to stop early, and no thread is left. `beside`
        gets the notes that the listing shows: see `AllNotes.listed`.
        """

        listed = self._listed(host, volume, beside)
        there = dict(listed)
        newest = [(key, there[key]) for key in _highest(listed)]
        with closing(self._read_all(newest, cached=cached)) as found:
            for fetched, one in found:
                if isinstance(one, Manifest):
                    yield one
                elif (current := self._current(fetched.key, one)) is not None:
                    yield current

    def revisions(self, host: str | None = None, volume: str | None = None) -> Generator[Found, None, None]:
        """Yield every revision of every manifest, by host, volume, id and revision: what any of them lists is needed
        while it is there. One that is removed meanwhile is left out."""
        with closing(self._read_all(self._listed(host, volume), cached=False)) as found:
            yield from (one for _, one in found if one is not None)

    def read(self, key: BackupKey) -> Manifest:
        """Read one manifest. Raises NotFoundError, FormatError."""
        return self.load(key)[0]

    def load(self, key: BackupKey) -> tuple[Manifest, bytes]:
        """Read the highest valid revision of a manifest, with the bytes that hold it: fields of a later version are
        only in these. One request where the key comes from a listing.

        Raises NotFoundError, FormatError.
        """
        if key.revision is None:
            return self._newest(key)
        try:
            return self._manifests.load(key)
        except NotFoundError:
            return self._newest(key)
        except IntegrityError as exc:
            return self._newest(key, exc)

    def exists(self, key: BackupKey) -> bool:
        """Whether that backup is there, in any revision."""
        return any(parse_manifest_key(stored.key) == key for stored in self._objects.list(key.prefix))

    def _read_all(
        self, listed: Iterable[tuple[BackupKey, StoredObject]], *, cached: bool
    ) -> Generator[tuple[Fetched, Found | None], None, None]:
        """Read these revisions; None is one that is not there any more."""

        def fetch(item: tuple[BackupKey, StoredObject], stop: threading.Event) -> Fetched:
            return self._manifests.fetch(*item, cached=cached, stop=stop)

        with closing(read_ahead(fetch, listed, ahead=self.at_once)) as documents:
            for fetched in documents:
                try:
                    yield fetched, self._manifests.opened(fetched)
                except NotFoundError:
                    yield fetched, None
                except StoreUnreachable:
                    raise
                except (IntegrityError, StoreError) as exc:
                    yield fetched, damaged(fetched.key, exc)

    def _current(self, key: BackupKey, found: DamagedManifest | None) -> Found | None:
        """What counts of a backup whose highest revision could not be read, or is not there any more."""
        damage = found.error if found else None
        if damage is not None and not isinstance(damage, IntegrityError):
            return found
        try:
            return self._newest(key, damage)[0]
        except NotFoundError:
            log.debug("%s was removed while the backups were listed", key.prefix)
            return None
        except StoreUnreachable:
            raise
        except (IntegrityError, StoreError) as exc:
            return found or damaged(key, exc)

    def _newest(self, key: BackupKey, damage: IntegrityError | None = None) -> tuple[Manifest, bytes]:
        """The highest revision that can be read, by a listing of this backup; `damage` is why that of `key` cannot.

        Raises NotFoundError, FormatError.
        """
        failed = None if damage is None else key.revision
        for one in self._revisions_of(key):
            if one.revision == failed:
                continue
            try:
                found = self._manifests.load(one)
            except NotFoundError:
                log.debug("%s was removed meanwhile", one.listed_manifest)
            except IntegrityError as exc:
                damage = damage or exc
            else:
                if damage is not None:
                    log.warning("%s; an earlier revision of it is used", damage.message)
                return found
        raise damage or NotFoundError(f"{key.prefix} holds no backup")

    def _revisions_of(self, key: BackupKey) -> Iterator[BackupKey]:
        """The revisions of one backup, the highest first, and then those that were written meanwhile: a lower one is
        removed once a higher one is there."""
        seen = set[int]()
        for _ in range(2):
            there = [one for stored in self._objects.list(key.prefix) if (one := parse_manifest_key(stored.key))]
            new = [one for one in there if _revision(one) not in seen]
            yield from sorted(new, key=_revision, reverse=True)
            seen.update(map(_revision, new))

    def _listed(
        self, host: str | None, volume: str | None, beside: list[StoredObject] | None = None
    ) -> list[tuple[BackupKey, StoredObject]]:
        """Every revision of every manifest, by host, volume, id and revision, as the store lists it."""
        wanted = None if volume is None else short_name(volume)
        stored_there = self._objects.list(prefix_of(host, volume))
        if beside is not None:
            stored_there = _noting(stored_there, beside, wanted)
        found = ((parse_manifest_key(stored.key), stored) for stored in stored_there)
        there = [(key, stored) for key, stored in found if key and wanted in {None, key.volume}]
        return sorted(there, key=lambda pair: (pair[0], _revision(pair[0])))


def damaged(key: BackupKey, error: VolbackError) -> DamagedManifest:
    """The revision of that key, which cannot be read."""
    return DamagedManifest(key.listed_manifest, key.host, key.volume, key.id, error)


def current(found: Iterable[Found]) -> list[Found]:
    """Of all revisions of some backups, in order, the one of each that counts: the highest valid one, or if none is
    valid, the highest."""
    chosen: dict[BackupKey, Found] = {}
    for one in found:
        key = key_of(one)
        if isinstance(one, Manifest) or not isinstance(chosen.get(key), Manifest):
            chosen[key] = one
    return list(chosen.values())


def _highest(listed: Iterable[tuple[BackupKey, StoredObject]]) -> list[BackupKey]:
    """The key of each backup, with its highest revision."""
    return list({BackupKey(key.host, key.volume, key.id): key for key, _ in listed}.values())


def _revision(key: BackupKey) -> int:
    return key.revision or 1


def _noting(stored: Iterable[StoredObject], beside: list[StoredObject], volume: str | None) -> Iterator[StoredObject]:
    """All that is stored; the notes of that volume, or of all, are kept as well."""
    for one in stored:
        if one.key.endswith("/" + NOTES_NAME) and (key := parse_backup_key(one.key)) and volume in {None, key.volume}:
            beside.append(one)
        yield one


def prefix_of(host: str | None, volume: str | None) -> str:
    if host is None:
        return ""
    return host_prefix(host) if volume is None else volume_prefix(host, volume)
