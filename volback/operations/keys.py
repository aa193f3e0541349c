"""Keys: who can decrypt a repository. Each key file holds the repository's identities, for persons or a passphrase.

Adding and changing one needs an identity; listing and removing none. Nothing here prints, asks, or reads a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from volback.archive.age import decrypt, encrypt
from volback.archive.age_header import WORK_FACTOR, read_header
from volback.archive.age_keys import Identity, Recipient
from volback.archive.signing import authority_of, is_signed_by
from volback.catalog.key_files import (
    KeyKind,
    KeyNote,
    check_name,
    delete_key,
    file_key,
    key_names,
    no_such_key,
    note_key,
    read_key_file,
    read_note,
    write_key,
    write_note,
)
from volback.catalog.objects import Objects
from volback.catalog.sealed import signature_of
from volback.context.repository import Repository
from volback.errors import ConflictError, FormatError, IdentityNeeded, NotFoundError, UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """For whom a key file is: the recipients of persons, or who knows a passphrase."""

    recipients: tuple[Recipient, ...] = ()
    passphrase: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> KeyKind:
        return "recipients" if self.passphrase is None else "passphrase"


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as the note beside it says."""

    name: str
    kind: KeyKind | None
    """None where no note can be read: the key file alone shows only whether it has a passphrase."""
    recipients: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    """The recipients of the repository whose identities it holds."""
    made_at: str | None = None


class Keys:
    """The keys of one repository. Every method may raise StoreError or StoreUnreachable."""

    def __init__(
        self,
        objects: Objects,
        recipients: Sequence[str],
        identities: Callable[[], list[Identity]],
        now: Callable[[], datetime],
        *,
        work_factor: int = WORK_FACTOR,
        authority: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """`recipients` are the repository's, the current one first; `identities` is its keyring; `authority` gives the
        public key that has signed the notes, None where it is not known."""
        self._objects = objects
        self._recipients = list(recipients)
        self._identities = identities
        self._now = now
        self._work_factor = work_factor
        self._authority = authority

    def all(self) -> list[Key]:
        """All keys by name; needs no identity. A note that somebody else has written counts for nothing."""
        authority = self._authority()
        return [self._key(name, authority) for name in key_names(self._objects)]

    def unlock(self) -> Identity:
        """The repository's current identity. Raises IdentityNeeded."""
        found = self._identities()
        if str(found[0].recipient) != self._recipients[0]:
            raise IdentityNeeded(
                "the repository was rotated, and only an earlier identity is available",
                "name the file of the current one, or of a person with a key, with --identity",
            )
        return found[0]

    def add(self, name: str, holder: Holder) -> Key:
        """Add a key. Raises ConflictError where the name is taken, IdentityNeeded."""
        check_name(name)
        if name in key_names(self._objects):
            raise ConflictError(f"there is a key {name!r} already", "choose another name, or remove it first")
        return self._write(name, holder, self._all_identities(), replace=False)

    def remove(self, name: str) -> Key:
        """Remove a key; needs no identity. Raises NotFoundError, ConflictError for the last one."""
        keys = {key.name: key for key in self.all()}
        key = keys.pop(check_name(name), None)
        if key is None:
            raise no_such_key(self._objects, name)
        if not any(self._recipients[0] in other.opens for other in keys.values()):
            raise ConflictError(
                f"key {name!r} is the last one that opens the repository: without it, all backups are lost",
                "add another one first: volback key add NAME",
            )
        delete_key(self._objects, name)
        return key

    def change_passphrase(self, name: str, passphrase: str) -> Key:
        """Encrypt a key with another passphrase. Raises NotFoundError, UsageError for one that has none."""
        self.check_has_passphrase(name)
        return self._write(name, Holder(passphrase=passphrase), self._all_identities(), replace=True)

    def check_has_passphrase(self, name: str) -> None:
        """Raises NotFoundError where there is no such key, UsageError where it is for recipients."""
        if not read_header(read_key_file(self._objects, name), file_key(name)).has_passphrase:
            hint = f"remove it, and add another one: volback key remove {name}"
            raise UsageError(f"key {name!r} is for recipients, so it has no passphrase", hint)

    def holders(self, passphrases: Callable[[str], Iterable[str]]) -> dict[str, Holder | None]:
        """For each key, for whom it is, as it must be known to write it anew; None where that is unknown.

        `passphrases(name)` are those to try for a key that has one. A note counts if it is signed by who holds the
        current identity: who can only write to the repository must not get a new identity by changing one.
        """
        authority = authority_of(self.unlock()).public
        return {name: self._holder(name, authority, passphrases) for name in key_names(self._objects)}

    def rewrite(self, holders: Mapping[str, Holder], identities: Sequence[Identity]) -> None:
        """Write keys anew, with these identities; the notes are signed by who holds the current one."""
        for name, holder in holders.items():
            self._write(name, holder, identities, replace=True)

    def proven(self) -> list[str]:
        """The keys whose notes are signed by who holds the current identity. Raises IdentityNeeded."""
        authority = authority_of(self.unlock()).public
        return [name for name in key_names(self._objects) if self._key(name, authority).kind is not None]

    def sign_notes(self, names: Iterable[str], identity: Identity) -> None:
        """Sign the notes of keys by who holds `identity`."""
        for name in names:
            if (found := read_note(self._objects, name)) is not None:
                write_note(self._objects, found[0], authority_of(identity))

    def _key(self, name: str, authority: bytes | None) -> Key:
        try:
            found = read_note(self._objects, name)
        except FormatError as exc:
            log.warning("%s", exc.message)
            found = None
        if found is None:
            return Key(name, None)
        if authority is not None and not is_signed_by(authority, signature_of(found[1])):
            log.warning("%s was not written by who holds the identity: for whom key %s is, is not known",
                        note_key(name), name)  # fmt: skip
            return Key(name, None)
        return _key_of(found[0])

    def _all_identities(self) -> list[Identity]:
        """Every identity of the repository: a key that lacks an earlier one could not read older backups."""
        self.unlock()
        found = self._identities()
        if len(found) < len(self._recipients):
            missing = ", ".join(self._recipients[len(found) :])
            log.warning("earlier identities of the repository are not available: %s", missing)
        return found

    def _write(self, name: str, holder: Holder, identities: Sequence[Identity], *, replace: bool) -> Key:
        note = _note(name, holder, identities, self._now())
        data = _key_file(name, holder, identities, self._now(), self._work_factor)
        write_key(self._objects, note, data, authority_of(self.unlock()), replace=replace)
        return _key_of(note)

    def _holder(self, name: str, authority: bytes, passphrases: Callable[[str], Iterable[str]]) -> Holder | None:
        try:
            found = read_note(self._objects, name)
        except FormatError as exc:
            log.warning("%s", exc.message)
            return None
        if found is None or not is_signed_by(authority, signature_of(found[1])):
            return None
        if found[0].kind == "recipients":
            return Holder(tuple(map(Recipient.parse, found[0].recipients)))
        return self._known_passphrase(name, passphrases(name))

    def _known_passphrase(self, name: str, passphrases: Iterable[str]) -> Holder | None:
        try:
            data = read_key_file(self._objects, name)
        except NotFoundError:
            return None
        for passphrase in passphrases:
            try:
                for _ in decrypt([data], passphrase=passphrase, what=file_key(name), work_factor_max=WORK_FACTOR):
                    pass
            except IdentityNeeded:
                continue
            return Holder(passphrase=passphrase)
        return None


def keys_of(repository: Repository, *, work_factor: int = WORK_FACTOR) -> Keys:
    """The keys of a repository. Raises UsageError where it is in clear."""
    return Keys(
        repository.stored,
        repository.recipients,
        repository.identities,
        repository.now,
        work_factor=work_factor,
        authority=lambda: repository.authority,
    )


def first_key(
    objects: Objects, identity: Identity, name: str, holder: Holder, *, now: datetime, work_factor: int = WORK_FACTOR
) -> None:
    """Write the key with which a repository begins. Raises ConflictError where there is one of that name."""
    note, data = _note(name, holder, [identity], now), _key_file(name, holder, [identity], now, work_factor)
    write_key(objects, note, data, authority_of(identity))


def identity_text(identities: Sequence[Identity], now: datetime) -> str:
    """An identity file, as the program age reads it."""
    lines = [f"# identity of a volback repository, written {now:%Y-%m-%d %H:%M} UTC; the current one is the first"]
    for identity in identities:
        lines += [f"# recipient: {identity.recipient}", str(identity)]
    return "\n".join([*lines, ""])


def _key_of(note: KeyNote) -> Key:
    return Key(note.name, note.kind, tuple(note.recipients), tuple(note.opens), note.made_at)


def _note(name: str, holder: Holder, identities: Sequence[Identity], now: datetime) -> KeyNote:
    return KeyNote(
        name=name,
        kind=holder.kind,
        recipients=list(map(str, holder.recipients)),
        opens=[str(identity.recipient) for identity in identities],
        made_at=now.isoformat(timespec="seconds"),
    )


def _key_file(name: str, holder: Holder, identities: Sequence[Identity], now: datetime, work_factor: int) -> bytes:
    """Raises UsageError where it would be for nobody."""
    if holder.passphrase is None and not holder.recipients:
        raise UsageError(f"key {name!r} is for nobody", "name a recipient, or give a passphrase")
    text = identity_text(identities, now).encode()
    return b"".join(encrypt([text], holder.recipients, passphrase=holder.passphrase, work_factor=work_factor))
