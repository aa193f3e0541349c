"""The catalog of a repository: what makes it, commits a backup, and finds one.

A backup exists if and only if its manifest does, so the manifest is written last and removed first.
Operations call this with any store; locks between runs are the caller's task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from volback.catalog.check import check_manifest, check_repository
from volback.catalog.condemned import GRACE_S
from volback.catalog.kept import Keeping, not_kept
from volback.catalog.keys import REPOSITORY_KEY, BackupKey
from volback.catalog.model import AGE, FORMAT, Manifest, RepositoryEncryption, RepositoryInfo
from volback.catalog.objects import Kept, Objects
from volback.catalog.private import Cipher, closed
from volback.catalog.reference import Reference
from volback.catalog.revised import Revised
from volback.catalog.sealed import IsSigned, Signer, open_document, proven_signer, read_document, seal_document
from volback.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    NotFoundError,
    StoreError,
    StoreUnreachable,
    UsageError,
    cleaning_up,
)
from volback.latest import created_at, is_future, is_safety_copy

log = logging.getLogger(__name__)

_NAMED_AT_MOST = 5


class Catalog(Revised, Keeping):
    """The backups of one repository. Every method may raise StoreError or StoreUnreachable."""

    def __init__(
        self,
        objects: Objects,
        kept: Kept | None = None,
        *,
        signer: Callable[[], Signer] | None = None,
        is_signed: IsSigned | None = None,
        cipher: Cipher | None = None,
        is_encrypted: bool | None = None,
    ) -> None:
        """`signer` is asked for at the first commit: manifests are then signed; with a `cipher` their private part is
        encrypted. The others are as in a listing."""
        super().__init__(objects, kept, is_signed=is_signed, is_encrypted=is_encrypted)
        self._signer = signer
        self._is_signed = is_signed
        self._cipher = cipher

    def info(self) -> RepositoryInfo:
        """Read the repository's own document. Raises NotFoundError where there is no repository, FormatError."""
        return self.load_info()[0]

    def load_info(self) -> tuple[RepositoryInfo, bytes]:
        """Read the repository's own document, and the bytes that hold it. Raises as `info`."""
        try:
            data = read_document(self._objects, REPOSITORY_KEY)
        except NotFoundError as exc:
            raise NotFoundError("no repository here", "check --repo; a new one is made by `volback init`") from exc
        return info_of(data, self._is_signed), data

    def ensure_repository(
        self,
        new_uuid: Callable[[], str],
        encryption: RepositoryEncryption | None = None,
        authority: Signer | None = None,
    ) -> RepositoryInfo:
        """Read the repository's document, or make one, signed by its authority; if two create it at the same time, both
        return the same document."""
        try:
            return self.info()
        except NotFoundError:
            made = new_info(new_uuid(), encryption)
        try:
            self._objects.put(REPOSITORY_KEY, [seal_document(made, authority)], if_absent=True)
        except ConflictError:
            log.debug("another run made the repository first")
        return self.info()

    def commit(
        self, manifest: Manifest, *, document: bytes | None = None, kept_by: Iterable[Manifest] | None = None
    ) -> None:
        """Commit the backup, or a later revision of it, by writing its manifest; `document` is the manifest's bytes,
        where another repository has them.

        `kept_by` are manifests that reference what this one uses: while they are there, nobody deletes it. None means
        that of its parent, as it is now. Raises IntegrityError if an object that it names is not stored with that
        size, or if what it uses is not kept any more, ConflictError if the id is taken.
        """
        key = manifest.key
        check_manifest(manifest, key)
        keepers = self._parent_of(manifest) if kept_by is None else list(kept_by)
        self.keep(manifest, keepers)
        self._check_stored(manifest.data_key, manifest.data.size_bytes)
        self._check_stored(manifest.index_key, manifest.index.size_bytes)
        for used in manifest.uses:
            self.check_used(manifest.key_of(used), used.size_bytes)
        if document is None:
            unsigned = msgspec.structs.replace(manifest, signed_by=msgspec.UNSET)
            unsigned = unsigned if self._cipher is None else closed(unsigned, self._cipher)
            document = seal_document(unsigned, None if self._signer is None else self._signer())
        self._objects.put(manifest.manifest_key, [document], if_absent=True)
        self._withdraw_unkept(manifest, keepers)

    def _parent_of(self, manifest: Manifest) -> list[Manifest]:
        if not (manifest.uses and manifest.parent):
            return []
        try:
            return [self.read(BackupKey(manifest.host, manifest.volume, manifest.parent))]
        except NotFoundError as exc:
            if self.is_shared:
                return []
            raise not_kept(manifest.parent) from exc

    def _withdraw_unkept(self, manifest: Manifest, keepers: list[Manifest]) -> None:
        """In a shared repository another machine may have seen the backup, so nothing of it is deleted at once; and a
        later revision may be the only one, as another machine has removed the one before."""
        try:
            self.check_kept(manifest, keepers)
        except IntegrityError:
            if self.is_shared and manifest.revision > 1:
                raise
            with cleaning_up(f"{manifest.manifest_key} stays, and what it uses may be missing"):
                if self.is_shared:
                    self.condemn([manifest.data_key, manifest.index_key], GRACE_S)
                self._objects.delete(manifest.manifest_key)
            raise

    def find(self, reference: Reference, default_host: str, *, now: datetime) -> Manifest:
        """Return the backup that `reference` names; the latest where it names none.

        Raises NotFoundError, UsageError if the id prefix is ambiguous, FormatError if that very backup's manifest
        is damaged: an older one is never used instead without a request. Backups from the future are logged.
        """
        host = reference.host or default_host
        keys = self.backups(host, reference.volume)
        if not keys:
            raise self._no_backup(reference, host)
        if not reference.id_prefix:
            return self._latest(reference, host, keys, now)
        wanted = [key for key in keys if key.id.startswith(reference.id_prefix)]
        if not wanted:
            raise NotFoundError(f"no backup {_name(reference, host)}", f"its backups are {_ids(keys)}")
        if len(wanted) > 1:
            raise UsageError(
                f"{_name(reference, host)} matches {len(wanted)} backups: {_ids(wanted)}",
                "give more characters of the id",
            )
        return self._read_chosen(wanted[0], keys)

    def newest(
        self, keys: Sequence[BackupKey], *, now: datetime, counts: Callable[[Manifest], bool] = lambda _: True
    ) -> BackupKey | None:
        """Which of one volume's backups (oldest first) that count is the latest; None where none is.

        One that cannot be read is taken for it. Raises StoreUnreachable.
        """
        for key in reversed(_not_future(keys, now)):
            try:
                found = self.read(key)
                if counts(found) and not is_safety_copy(found.tags):
                    return key
            except NotFoundError:
                log.debug("%s was removed meanwhile", key.prefix)
            except StoreUnreachable:
                raise
            except (IntegrityError, StoreError):
                return key
        return None

    def _check_stored(self, key: str, expected_bytes: int) -> None:
        try:
            size_bytes = self._objects.stat(key).size_bytes
        except NotFoundError as exc:
            raise IntegrityError(f"backup not committed: {key} is not in store", "run the backup again") from exc
        if size_bytes != expected_bytes:
            message = f"backup not committed: {key} has {size_bytes} bytes in store, not {expected_bytes}"
            raise IntegrityError(message, "run the backup again")

    def _latest(self, reference: Reference, host: str, keys: list[BackupKey], now: datetime) -> Manifest:
        for key in reversed(_not_future(keys, now)):
            manifest = self._read_chosen(key, keys)
            if not is_safety_copy(manifest.tags):
                for warning in future_warnings(keys, now):
                    log.warning("%s", warning)
                return manifest
        raise NotFoundError(
            f"no backup of {reference.volume} on host {host} is the latest: those there are, are safety copies"
            " or from the future",
            f"name one by its id: {_name(reference, host)}@ID, of {_ids(keys)}",
        )

    def _read_chosen(self, key: BackupKey, keys: list[BackupKey]) -> Manifest:
        try:
            return self.read(key)
        except FormatError as exc:
            before = [other for other in keys if other < key]
            older = Reference(key.host, key.volume, before[-1].id) if before else None
            hints = [exc.hint, f"the backup before it is {older}" if older else None]
            raise FormatError(exc.message, "; ".join(filter(None, hints)) or None) from exc

    def _no_backup(self, reference: Reference, host: str) -> NotFoundError:
        message = f"no backup of {reference.volume} on host {host}"
        hosts = sorted({key.host for key in self.backups(volume=reference.volume)})
        if hosts:
            other = Reference(hosts[0], reference.volume, reference.id_prefix)
            return NotFoundError(message, f"there are some of {', '.join(hosts)}: say {other}")
        return NotFoundError(message, "volback list --all-hosts shows every backup")


def info_of(document: bytes, is_signed: IsSigned | None) -> RepositoryInfo:
    """What the document of a repository says. Raises FormatError, also for a signature that is not that of its key."""
    info = check_repository(open_document(document, RepositoryInfo, REPOSITORY_KEY), REPOSITORY_KEY)
    return msgspec.structs.replace(info, signed_by=proven_signer(document, is_signed, REPOSITORY_KEY))


def new_info(id: str, encryption: RepositoryEncryption | None) -> RepositoryInfo:
    """The document of a repository with that id. Raises FormatError where it would not be valid."""
    requires = [] if encryption is None else [AGE]
    made = RepositoryInfo(format=FORMAT, id=id, requires=requires, encryption=encryption)
    return check_repository(made, REPOSITORY_KEY)


def future_warnings(keys: Iterable[BackupKey], now: datetime) -> list[str]:
    """One line for each backup whose time is ahead of this clock: it is not the latest until then."""
    return [
        f"backup {Reference(key.host, key.volume, key.id)} is from the future, so it is not the latest: the clock that"
        f" made it was wrong, or this one is ({now:%Y-%m-%d %H:%M:%S} UTC)"
        for key in keys
        if is_future(created_at(key.id), now)
    ]


def _not_future(keys: Sequence[BackupKey], now: datetime) -> list[BackupKey]:
    return [key for key in keys if not is_future(created_at(key.id), now)]


def _name(reference: Reference, host: str) -> str:
    return str(Reference(host, reference.volume, reference.id_prefix))


def _ids(keys: list[BackupKey]) -> str:
    latest = [key.id for key in keys[-_NAMED_AT_MOST:]]
    return ", ".join(latest) if len(latest) == len(keys) else f"(latest {_NAMED_AT_MOST}) {', '.join(latest)}"
