"""Recipients and identities of age (X25519), and the files that list them.

An error never repeats the line of an identity file, which is a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from volback.archive import bech32
from volback.archive.primitives import new_secret, public_of, shared
from volback.errors import UsageError

_RECIPIENT = "age"
_IDENTITY = "age-secret-key-"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Recipient:
    """For whom something is encrypted: a public key. As text: age1..."""

    public: bytes

    def __str__(self) -> str:
        """As in a recipients file."""
        return bech32.encode(_RECIPIENT, self.public)

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Raises UsageError."""
        if not text.startswith("age1"):
            hint = "give one that begins with age1: `age-keygen` makes it"
            raise UsageError(f"{text[:40]!r} is not a recipient of age; keys of SSH are not supported", hint)
        recipient = cls(_key(text, _RECIPIENT, f"recipient {text[:20]!r}"))
        _check_order(recipient, text)
        return recipient


@dataclass(frozen=True, slots=True)
class Identity:
    """Who can decrypt: a secret key. `str` gives the secret itself, `repr` nothing of it."""

    secret: bytes = field(repr=False)

    def __str__(self) -> str:
        """As in an identity file: AGE-SECRET-KEY-1..."""
        return bech32.encode(_IDENTITY, self.secret).upper()

    @property
    def recipient(self) -> Recipient:
        """For whom to encrypt, so that this identity can decrypt."""
        return Recipient(public_of(self.secret))

    @classmethod
    def new(cls) -> Identity:
        """A new one, of the system's randomness."""
        return cls(new_secret())

    @classmethod
    def parse(cls, text: str, what: str = "identity") -> Identity:
        """Raises UsageError; `what` names it there."""
        if text.upper().startswith("AGE-PLUGIN-"):
            raise UsageError(f"{what} is of a plugin of age, which is not supported", "use an identity of age-keygen")
        if not text.startswith("AGE-SECRET-KEY-1"):
            raise UsageError(f"{what} is not an identity of age", "one begins with AGE-SECRET-KEY-1")
        return cls(_key(text, _IDENTITY, what))


def parse_recipients(text: str, what: str = "the recipients file") -> list[Recipient]:
    """The recipients of a file: one a line, empty lines and comments between them. Raises UsageError, also for none."""
    found = [Recipient.parse(line) for _, line in _lines(text)]
    if not found:
        raise UsageError(f"{what} holds no recipient")
    return found


def parse_identities(text: str, what: str = "the identity file") -> list[Identity]:
    """The identities of a file, as `parse_recipients`."""
    if text.startswith(("age-encryption.org/", "-----BEGIN AGE")):
        raise UsageError(f"{what} is encrypted itself", "decrypt it first: age -d -o identity.txt FILE")
    found = [Identity.parse(line, f"{what}, line {number}") for number, line in _lines(text)]
    if not found:
        raise UsageError(f"{what} holds no identity")
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _check_order(recipient: Recipient, text: str) -> None:
    """Raises UsageError for a point of low order: with each key it makes the same secret, which everybody knows."""
    try:
        shared(new_secret(), recipient.public)
    except ValueError:
        raise UsageError(f"recipient {text[:20]!r} is not valid: everybody could decrypt what is made for it") from None


def _key(text: str, prefix: str, what: str) -> bytes:
    try:
        found, key = bech32.decode(text)
    except ValueError as exc:
        raise UsageError(f"{what} is not valid: {exc}") from None
    if found != prefix or len(key) != _KEY_BYTES:
        raise UsageError(f"{what} is not valid: it is of another kind or length")
    return key
