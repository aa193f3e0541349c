"""Manifests: read from the repository or from local copies, several at once, and checked. Used by the catalog."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import msgspec

from volback.catalog.check import check_manifest
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.objects import Kept, Objects, StoredObject, name_of_copy
from volback.catalog.sealed import DOCUMENT_MAX_BYTES, IsSigned, open_document, proven_signer, read_document
from volback.errors import FormatError, IntegrityError, NotFoundError, StoreError, StoreUnreachable, VolbackError

_DOCUMENTS_FOR_EACH_RANGE = 8
"""A document takes little memory and one round trip, so more are read at once than large ranges: 32 of a bucket."""
_AHEAD_MAX_BYTES = 256 * 1024
"""Of a document that is read ahead; one that is larger is read by itself, so that 32 hostile ones cost no memory."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The document of a manifest, not checked yet, or why it cannot be read; `name` is that of its local copy."""

    key: BackupKey
    """With the revision."""
    name: str
    document: bytes | VolbackError
    is_copy: bool = False
    is_cut: bool = False
    """Whether it is larger than what is read ahead."""


class Manifests:
    """Reads the manifests of one repository. Every method may raise StoreError or StoreUnreachable."""

    def __init__(
        self, objects: Objects, kept: Kept, is_signed: IsSigned | None, *, is_encrypted: bool | None = None
    ) -> None:
        """`is_encrypted` says whether the repository is; None where that is not known."""
        self._objects = objects
        self._kept = kept
        self._is_signed = is_signed
        self._is_encrypted = is_encrypted

    @property
    def at_once(self) -> int:
        """How many documents are best read at once; 1: in the caller's thread."""
        ranges = self._objects.parallel_reads
        return ranges if ranges < 2 else ranges * _DOCUMENTS_FOR_EACH_RANGE

    def load(self, key: BackupKey) -> tuple[Manifest, bytes]:
        """Read that revision of a manifest (the first where the key has none), with the bytes that hold it.

        Raises NotFoundError, FormatError.
        """
        document = read_document(self._objects, key.listed_manifest)
        return self._manifest(document, key), document

    def fetch(self, key: BackupKey, stored: StoredObject, *, cached: bool, stop: threading.Event) -> Fetched:
        """Read one manifest's document; an error that is about this one alone is returned."""
        name = name_of_copy(stored)
        if cached and (document := self._kept.get(name)) is not None:
            return Fetched(key, name, document, is_copy=True)
        try:
            limit = _AHEAD_MAX_BYTES if self.at_once > 1 else DOCUMENT_MAX_BYTES
            document = b"" if stop.is_set() else read_document(self._objects, key.listed_manifest, limit)
        except StoreUnreachable:
            raise
        except (NotFoundError, IntegrityError, StoreError) as exc:
            return Fetched(key, name, exc)
        return Fetched(key, name, document, is_cut=len(document) > limit)

    def opened(self, fetched: Fetched) -> Manifest:
        """Raises as `read`."""
        if isinstance(fetched.document, VolbackError):
            raise fetched.document
        if fetched.is_cut:
            return self.load(fetched.key)[0]
        try:
            manifest = self._manifest(fetched.document, fetched.key)
        except FormatError:
            if not fetched.is_copy:
                raise
            return self.load(fetched.key)[0]  # what is in the repository decides
        if not fetched.is_copy:
            self._kept.put(fetched.name, fetched.document)
        return manifest

    def _manifest(self, document: bytes, key: BackupKey) -> Manifest:
        """Raises FormatError, also for a signature that is not that of its key."""
        what = f"manifest {key.listed_manifest}"
        manifest = check_manifest(open_document(document, Manifest, what), key)
        if self._is_encrypted is not None and manifest.is_closed != self._is_encrypted:
            both = ("encrypted", "in clear") if manifest.is_closed else ("in clear", "encrypted")
            raise FormatError(f"{what} is {both[0]}, and the repository is {both[1]}")
        return msgspec.structs.replace(manifest, signed_by=proven_signer(document, self._is_signed, what))
