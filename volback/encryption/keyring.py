"""The keyring: the identities of one repository, found when they are first needed.

An identity that is given may be the repository's own, or that of a person for whom a file in keys/ is encrypted. A
passphrase opens a file in keys/, or an identity file that is encrypted itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import takewhile

from volback.archive.age import decrypt
from volback.archive.age_header import WORK_FACTOR, WORK_FACTOR_MAX, read_header
from volback.archive.age_keys import Identity, parse_identities
from volback.catalog.key_files import file_key, key_names, read_key_file
from volback.catalog.objects import Objects
from volback.encryption.sources import SecretText, Sources, passphrase_in
from volback.errors import FormatError, IdentityNeeded, IntegrityError, NotFoundError, UsageError

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_AGE_FILE = b"age-encryption.org/"


class Keyring:
    """Gives the identities of a repository: the current one, and earlier ones where it was rotated.

    Safe to call from several threads: what has to be asked is asked once.
    """

    def __init__(self, objects: Objects, recipients: Sequence[str], sources: Sources, *, what: str) -> None:
        """`recipients` are the repository's, the current one first; `what` names the repository in errors.

        Without recipients, as where the repository's document is lost, all that its keys hold counts as its own, or
        where none is opened each given identity.
        """
        self._objects = objects
        self._recipients = list(recipients)
        self._sources = sources
        self._what = what
        self._found: list[Identity] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> list[Identity]:
        """The identities, in the order of the recipients.

        Raises IdentityNeeded where nothing that is available opens one, UsageError for a file that cannot be read.
        """
        with self._lock:
            if self._found is None:
                found = self._search()
                self._found = [found[recipient] for recipient in self._recipients or found if recipient in found]
            return self._found

    def _search(self) -> dict[str, Identity]:
        given = [one for text in self._sources.identities for one in self._identities_in(text)]
        found = self._own(given)
        if given and not self._recipients:
            found = self._own(self._unlocked_by(given)) or found
        elif given and self._recipients[0] not in found:
            found |= self._own(self._unlocked_by(given))
        if not found and (self._sources.passphrases or self._sources.ask):
            found = self._with_passphrases()
        if not found:
            raise self._needed()
        return found

    def _own(self, identities: Sequence[Identity]) -> dict[str, Identity]:
        """Those that are the repository's own, by their recipients."""
        every = {str(identity.recipient): identity for identity in identities}
        return {recipient: every[recipient] for recipient in self._recipients or every if recipient in every}

    def _identities_in(self, text: SecretText) -> list[Identity]:
        data = text.read()
        if not data.startswith(_AGE_FILE):
            return parse_identities(_decoded(data, text.what), text.what)
        for passphrase in self._tries(f"Passphrase of {text.what}: "):
            try:
                return _opened(data, text.what, passphrase=passphrase, work_factor_max=WORK_FACTOR_MAX)
            except IdentityNeeded:
                continue
        raise IdentityNeeded(
            f"{text.what} is encrypted itself, and no passphrase that is available opens it",
            "name a file of its passphrase with VOLBACK_PASSPHRASE_FILE",
        )

    def _unlocked_by(self, identities: Sequence[Identity]) -> list[Identity]:
        """What the keys hold that these identities of persons open."""
        found: list[Identity] = []
        for name, data in self._key_files(has_passphrase=False):
            try:
                found += _opened(data, file_key(name), identities)
            except IdentityNeeded:
                log.debug("%s is not for a given identity", file_key(name))
            except (IntegrityError, UsageError) as exc:
                log.warning("%s", exc.message)
        return found

    def _with_passphrases(self) -> dict[str, Identity]:
        """What the first passphrase opens that opens a key."""
        files = list(self._key_files(has_passphrase=True))
        if not files:
            return {}
        for passphrase in self._tries(f"Passphrase of {self._what}: "):
            for name, data in files:
                try:
                    found = self._own(_opened(data, file_key(name), passphrase=passphrase))
                except IdentityNeeded:
                    log.debug("%s has another passphrase", file_key(name))
                except (IntegrityError, UsageError) as exc:
                    log.warning("%s", exc.message)
                else:
                    if found:
                        return found
        return {}

    def _tries(self, question: str) -> Iterator[str]:
        """The passphrases that are there, each read when its turn comes, then what a person answers."""
        yield from map(passphrase_in, self._sources.passphrases)
        if self._sources.ask is not None:
            yield from takewhile(bool, (self._sources.ask(question) for _ in range(_ATTEMPTS)))

    def _key_files(self, *, has_passphrase: bool) -> Iterator[tuple[str, bytes]]:
        for name in key_names(self._objects):
            try:
                data = read_key_file(self._objects, name)
                if read_header(data, file_key(name)).has_passphrase == has_passphrase:
                    yield name, data
            except NotFoundError:
                log.debug("%s was removed meanwhile", file_key(name))
            except FormatError as exc:
                log.warning("%s", exc.message)

    def _needed(self) -> IdentityNeeded:
        """The error, which says what was tried."""
        if self._sources.passphrases:
            tried = "the passphrase is wrong: it opens none of its keys"
        elif self._sources.identities:
            tried = "no given identity is its own, or opens one of its keys"
        else:
            hint = "name its file with --identity, or set VOLBACK_PASSPHRASE_FILE"
            return IdentityNeeded(f"{self._what} is encrypted: an identity is needed", hint)
        return IdentityNeeded(f"{self._what} is encrypted: {tried}", "its keys: volback key list")


def _opened(
    data: bytes,
    what: str,
    identities: Sequence[Identity] = (),
    *,
    passphrase: str | None = None,
    work_factor_max: int = WORK_FACTOR,
) -> list[Identity]:
    """What a key file holds: whoever can write to the repository must not choose how much memory that takes."""
    opened = decrypt([data], identities, passphrase=passphrase, what=what, work_factor_max=work_factor_max)
    plain = b"".join(opened)
    return parse_identities(_decoded(plain, what), what)


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")  # as an editor of Windows may write it
    except UnicodeDecodeError:
        raise UsageError(f"{what} holds no identity: it is not a text") from None
