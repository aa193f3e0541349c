"""A repository: its store, its catalog, who may read it, and what this machine remembers of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import cached_property

from volback.archive.age_keys import Identity, Recipient
from volback.archive.primitives import is_signed
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.keys import REPOSITORY_KEY, BackupKey
from volback.catalog.model import Manifest, RepositoryInfo
from volback.catalog.objects import Kept, KeptNothing
from volback.catalog.private import opened
from volback.catalog.reference import Reference
from volback.catalog.repository import Catalog
from volback.context.naming import one_named
from volback.encryption.keyring import Keyring
from volback.encryption.pinning import check_recipient, pin
from volback.encryption.sources import NO_SOURCES, Sources
from volback.encryption.store import EncryptedStore, Encryption, holds_encrypted
from volback.errors import (
    EngineUnreachable,
    FormatError,
    NoRepository,
    NotFoundError,
    StoreDenied,
    StoreError,
    UnknownRequirement,
    UsageError,
)
from volback.state.damaged import note_damaged
from volback.state.documents import keep_document, kept_document
from volback.state.host_key import host_secret
from volback.state.journal import InRepository
from volback.state.memory import Memory
from volback.state.newest import newest_seen, note_newest
from volback.state.pinned import pinned
from volback.store.base import Store

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Repository:
    """One repository: its store, its catalog, and the lookup of backups by reference. Opened when it is first used."""

    def __init__(
        self,
        store: Store,
        own_host: Callable[[], str],
        now: Callable[[], datetime] = _now,
        *,
        memory: Memory | None = None,
        name: str | None = None,
        sources: Sources = NO_SOURCES,
    ) -> None:
        """`own_host` gives the name under which backups of the current engine are filed. Raises EngineUnreachable.

        Without `memory` whatever repository is there is used. `name` is what `--repo` takes; None is the store's URL.
        """
        self.stored = store
        """Its objects as they are stored."""
        self.store = EncryptedStore(store, lambda: self.encryption)
        """Its objects in clear: they are encrypted where the repository is."""
        self.sources = sources
        """Where its identities and passphrases come from."""
        self.now = now
        self._own_host = own_host
        self._memory = memory
        self._name = name or store.url

    def size_of(self, key: str) -> int:
        """The stored size of an object; -1 where it does not exist. Raises StoreError."""
        try:
            return self.store.stat(key).size_bytes
        except NotFoundError:
            return -1

    @cached_property
    def info(self) -> RepositoryInfo:
        """The repository's own document, without which nothing is written; this machine keeps a copy.

        Raises NoRepository where it is not there, or is not the one that was there before, RecipientChanged where it
        is encrypted for somebody else than before; FormatError.
        """
        info, document = self._admitted
        if (memory := self._memory) is not None:
            check_recipient(memory.state, info, memory.recipient, self.store.url, self.stored)
            keep_document(memory.state, info.id, document)
        return info

    def check_remembered(self, info: RepositoryInfo) -> None:
        """Raises as `info` would with that document: where this machine remembers another id, or another recipient."""
        self._admit(info)
        if (memory := self._memory) is not None:
            check_recipient(memory.state, info, memory.recipient, self.store.url, self.stored)

    @cached_property
    def _admitted(self) -> tuple[RepositoryInfo, bytes]:
        found = self._document()
        if found is None:
            raise self._missing()
        self._admit(found[0])
        return found

    def _admit(self, info: RepositoryInfo) -> None:
        if self._memory is not None and not self._memory.admits(info.id):
            raise NoRepository(
                f"repository {self.store.url} is another one than before: its id is {info.id}, and was"
                f" {' or '.join(self.expected)}",
                "is another disk mounted there? to use this one from now on, repeat the command with"
                " --accept-repository",
            )

    @cached_property
    def encryption(self) -> Encryption | None:
        """How its objects are encrypted; None where they are not. Raises as `info`, but for a lost document.

        Without its document nothing is written; who reads must then have the repository's own identity.
        """
        try:
            stated = self.info.encryption
        except (NoRepository, FormatError) as exc:
            if isinstance(exc, UnknownRequirement) or (isinstance(exc, NoRepository) and self._document() is not None):
                raise
            return Encryption(None, self.keyring) if holds_encrypted(self.stored) else None
        if stated is None:
            return None
        recipients = [stated.recipient, *stated.past]
        return Encryption(_recipient(stated.recipient), self._keyring(recipients), len(recipients))

    @cached_property
    def keyring(self) -> Keyring:
        """Gives all that can be opened, as where its own document is lost."""
        return self._keyring([])

    def _keyring(self, recipients: list[str]) -> Keyring:
        return Keyring(self.stored, recipients, self.sources, what=f"repository {self.store.url}")

    @property
    def recipients(self) -> list[str]:
        """For whom it is encrypted: the current recipient, then earlier ones. Raises UsageError where it is not."""
        stated = self.info.encryption
        if stated is None:
            hint = "that is decided when one is made: volback init --encrypt"
            raise UsageError(f"repository {self.store.url} is not encrypted, so it has no keys", hint)
        return [stated.recipient, *stated.past]

    def identities(self) -> list[Identity]:
        """Its identities. Raises IdentityNeeded, UsageError where it is in clear."""
        _ = self.recipients
        return [] if self.encryption is None else list(self.encryption.identities())

    def pin(self, recipient: str) -> None:
        """Encrypt for that recipient from now on, which must be the repository's. With a given identity its authority
        is proven, and pinned too: later rotations are followed. Raises UsageError, IdentityNeeded."""
        if self._memory is None:
            return
        found = self._keyring([recipient])() if self.has_identities else []
        authority = authority_of(found[0]).public.hex() if found else None
        pin(
            self._memory.state,
            self._admitted[0],
            recipient,
            self._memory.recipient,
            self.store.url,
            authority=authority,
        )

    @property
    def authority(self) -> bytes | None:
        """The public key with which who holds its identity signs, as far as this machine can prove that without asking
        anybody. Raises IdentityNeeded where a given identity is not its own."""
        if self.encryption is None:
            return None
        if self.has_identities:
            return authority_of(self.encryption.identities()[0]).public
        known = None if self._memory is None else pinned(self._memory.state, self.id)
        return None if known is None or known.authority is None else bytes.fromhex(known.authority)

    @property
    def has_identities(self) -> bool:
        """Whether identities were given: what is encrypted can be shown, and nobody has to be asked."""
        return bool(self.sources.identities)

    def shown(self, manifest: Manifest) -> Manifest:
        """The manifest for people: with its private part where identities were given. Raises as `opened`."""
        return self.opened(manifest) if self.has_identities else manifest

    def opened(self, manifest: Manifest) -> Manifest:
        """The manifest with its private part. Raises IdentityNeeded, IntegrityError."""
        return opened(manifest, self.encryption) if self.encryption and manifest.is_closed else manifest

    @cached_property
    def catalog(self) -> Catalog:
        """Its backups. They can be read without the repository's own document. Raises as `info`, but for that."""
        try:
            is_encrypted = self.info.encryption is not None
        except UnknownRequirement:
            raise
        except FormatError as exc:
            log.debug("backups are read without the repository's own document: %s", exc.message)
        except NoRepository:
            if self._document() is not None or not Catalog(self.store).backups():
                raise
            log.warning("repository %s has lost its volback.json: `volback repair` puts it back", self.store.url)
        else:
            if not is_encrypted:
                return Catalog(self.store, self._copies, is_encrypted=False)
            return Catalog(
                self.store,
                self._copies,
                signer=None if self._memory is None else self._host_key,
                is_signed=is_signed,
                cipher=self.encryption,
                is_encrypted=True,
            )
        was_encrypted = self.encryption is not None or self._had_recipient
        return Catalog(
            self.store,
            self._copies,
            is_signed=is_signed if was_encrypted else None,
            is_encrypted=True if was_encrypted else None,
        )

    @property
    def _had_recipient(self) -> bool:
        """Whether a repository that was here was encrypted, as far as this machine remembers."""
        if self._memory is None:
            return False
        found = (pinned(self._memory.state, id) for id in self.expected)
        return any(pin is not None and pin.recipient for pin in found)

    def _host_key(self) -> SigningKey:
        """The key with which this machine signs. Raises StoreError."""
        assert self._memory is not None
        return SigningKey(host_secret(self._memory.state))

    @cached_property
    def kept(self) -> Kept:
        """Local copies of indexes; none of what is encrypted, as they would be in clear."""
        return KeptNothing() if self.encryption else self._copies

    @cached_property
    def _copies(self) -> Kept:
        """Local copies of what never changes there: of a repository that has an id, and is read over a network."""
        if self._memory is None or self.store.parallel_reads < 2 or not self.id:
            return KeptNothing()
        return self._memory.kept(self.id)

    def note_damaged(
        self, manifest: Manifest, found: Collection[tuple[str, int]], *, read: Collection[str] = ()
    ) -> None:
        """Remember the frames that a reader of that backup found damaged: the next backup of the volume takes nothing
        from them. Of backups in `read`, whose data was read whole, what was known before is forgotten."""
        if self._memory is None:
            return
        try:
            note_damaged(self._memory.state, self.id, manifest.host, manifest.volume, found=found, read=read)
        except StoreError as exc:
            log.warning("the next backup will not know what is damaged: %s", exc.message)

    @property
    def expected(self) -> list[str]:
        """The ids that repositories had here, as far as this machine remembers."""
        return [] if self._memory is None else self._memory.ids

    @property
    def kept_documents(self) -> list[bytes]:
        """Copies of the documents that repositories had here, as far as this machine has them."""
        if self._memory is None:
            return []
        return [kept for id in self._memory.ids if (kept := kept_document(self._memory.state, id)) is not None]

    def forget_document(self) -> None:
        """Let all be read again that its own document decides: it was put back."""
        for name in ("info", "_admitted", "encryption", "catalog", "kept", "_copies"):
            self.__dict__.pop(name, None)

    @property
    def id(self) -> str:
        """Its id; empty where it has none that can be read. Raises StoreUnreachable where the store does not answer."""
        try:
            return self.info.id
        except (NoRepository, FormatError, StoreDenied) as exc:
            log.debug("the id of %s is not known: %s", self.store.url, exc.message)
            return ""

    def has(self, entry: InRepository) -> bool:
        """Whether an entry of a journal is about this repository: by the ids, or where one is not known by the URLs."""
        if entry.repository_id and self.id:
            return entry.repository_id == self.id
        return entry.repository == self.store.url

    def _document(self) -> tuple[RepositoryInfo, bytes] | None:
        try:
            return Catalog(self.store, is_signed=is_signed).load_info()
        except NotFoundError:
            return None

    def _missing(self) -> NoRepository:
        found = self.store.holds()
        there = "it is empty or does not exist" if found is None else f"it holds {found!r} and no volback.json"
        known = f"; its id was {' or '.join(self.expected)}" if self.expected else ""
        option = " --accept-repository" if self.expected else ""
        new = f"volback init --repo {self._name}{option}" if found is None else "choose an empty place"
        hint = f"is the path right and mounted? to make one: {new}"
        if found is not None and self.expected and Catalog(self.stored).backups():
            hint = "its backups are there: volback repair puts back what is lost"
        return NoRepository(f"no repository in {self.store.url}: {there}{known}", hint)

    @cached_property
    def host(self) -> str:
        """The host that a reference without a host refers to.

        Without an engine (after a disaster) it is the repository's only host. Raises EngineUnreachable where there
        are several.
        """
        try:
            return self._own_host()
        except EngineUnreachable as exc:
            hosts = {key.host for key in self.catalog.backups()}
            if len(hosts) == 1:
                return hosts.pop()
            if not hosts:
                raise NotFoundError("no backup in the repository", "check --repo") from exc
            raise EngineUnreachable(
                exc.message, f"name the host, like HOST/VOLUME; the hosts are {', '.join(sorted(hosts))}"
            ) from exc

    def find(self, reference: str) -> Manifest:
        """Return the backup that people mean by `reference`: see `volback/context/naming.py`."""
        parsed = one_named(self, reference)
        found = self.catalog.find(parsed, parsed.host or self.host, now=self.now())
        if not parsed.id_prefix:
            self.notice_newest(found)
        return found

    def notice_newest(self, backup: Manifest, *, is_new: bool = False) -> None:
        """Compare the newest backup of a volume with the newest one that this machine has seen, and remember it.

        Who can write to an encrypted repository can make no backup in the name of a host, but can put back an old
        state. `is_new` says that the backup was made just now.
        """
        if self._memory is None or self.encryption is None:
            return
        state, place = self._memory.state, (self.id, backup.host, backup.volume)
        seen = newest_seen(state, *place)
        if seen is not None and (is_new or seen > backup.id) and not self._has_backup(backup, seen):
            log.warning(
                "backup %s, which this machine has seen, is gone: it was removed elsewhere, or an old state of the"
                " repository was put back", Reference(backup.host, backup.volume, seen),
            )  # fmt: skip
        if is_new or seen is None or seen < backup.id:
            note_newest(state, *place, backup.id)

    def forget_newest(self, keys: Iterable[BackupKey]) -> None:
        """Backups are removed on purpose, so nobody has to be warned that they are gone."""
        if self._memory is None or self.encryption is None:
            return
        for key in keys:
            if newest_seen(self._memory.state, self.id, key.host, key.volume) == key.id:
                note_newest(self._memory.state, self.id, key.host, key.volume, None)

    def _has_backup(self, backup: Manifest, id: str) -> bool:
        return self.catalog.exists(BackupKey(backup.host, backup.volume, id))


def _recipient(text: str) -> Recipient:
    """Raises FormatError: who reads it has not typed it."""
    try:
        return Recipient.parse(text)
    except UsageError as exc:
        raise FormatError(f"{REPOSITORY_KEY} holds no valid recipient: {exc.message}") from exc
