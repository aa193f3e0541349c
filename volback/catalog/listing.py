"""The listing of a repository: which backups exist, with their manifests. Reads alone.

A manifest that cannot be read hides no other. What lies there besides, and its removal, is in volback/catalog/space.py;
what commits and finds backups in volback/catalog/repository.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey, host_prefix, parse_manifest_key, short_name, volume_prefix
from volback.catalog.manifests import Fetched, IsSigned, Manifests
from volback.catalog.model import Manifest
from volback.catalog.objects import Kept, KeptNothing, Objects, StoredObject
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable, VolbackError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DamagedManifest:
    """A backup whose manifest exists but cannot be read, and why; `key` is the manifest's."""

    key: str
    host: str
    volume: str
    id: str
    error: VolbackError


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

    @property
    def at_once(self) -> int:
        """How many documents are best read at once; 1: in the caller's thread."""
        return self._manifests.at_once

    def backups(self, host: str | None = None, volume: str | None = None) -> list[BackupKey]:
        """Which backups exist, by host, volume and id (oldest first); reads no manifest."""
        return [key for key, _ in self._listed(host, volume)]

    def manifests(
        self, host: str | None = None, volume: str | None = None, *, cached: bool = False
    ) -> Generator[Manifest | DamagedManifest, None, None]:
        """Yield every backup's manifest, by host, volume and id; one that cannot be read does not hide the others.

        With `cached`, a local copy is used where the listing still shows the object of which it was made: for looking
        only. Who proves (verify) or deletes (prune, remove) reads what is in the repository now. Documents of a
        distant store are read ahead, in threads; close the generator to stop early, and no thread is left.
        """

        def fetch(item: tuple[BackupKey, StoredObject], stop: threading.Event) -> Fetched:
            return self._manifests.fetch(*item, cached=cached, stop=stop)

        with closing(read_ahead(fetch, self._listed(host, volume), ahead=self.at_once)) as documents:
            for fetched in documents:
                key = fetched.key
                try:
                    yield self._manifests.opened(fetched)
                except NotFoundError:
                    log.debug("%s was removed while the backups were listed", key.manifest)
                except StoreUnreachable:
                    raise
                except (IntegrityError, StoreError) as exc:
                    yield DamagedManifest(key.manifest, key.host, key.volume, key.id, exc)

    def read(self, key: BackupKey) -> Manifest:
        """Read one manifest. Raises NotFoundError, FormatError."""
        return self.load(key)[0]

    def load(self, key: BackupKey) -> tuple[Manifest, bytes]:
        """Read one manifest, with the bytes that hold it: fields of a later version are only in these.

        Raises NotFoundError, FormatError.
        """
        return self._manifests.load(key)

    def _listed(self, host: str | None, volume: str | None) -> list[tuple[BackupKey, StoredObject]]:
        """The backups that exist, by host, volume and id, with their manifests as the store lists them."""
        wanted = None if volume is None else short_name(volume)
        found = ((parse_manifest_key(stored.key), stored) for stored in self._objects.list(prefix_of(host, volume)))
        there = [(key, stored) for key, stored in found if key and wanted in {None, key.volume}]
        return sorted(there, key=lambda pair: pair[0])


def prefix_of(host: str | None, volume: str | None) -> str:
    if host is None:
        return ""
    return host_prefix(host) if volume is None else volume_prefix(host, volume)
