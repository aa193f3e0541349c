"""Where identities and passphrases come from: files, commands, the environment, a person at a terminal.

Each is read when it is first needed, and never shown.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from volback.config.secrets import Secret, read_file
from volback.errors import UsageError

log = logging.getLogger(__name__)

_FILE_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text that is secret, and what names its place in errors."""

    what: str
    read: Callable[[], bytes] = field(repr=False)
    """Raises UsageError."""


Ask = Callable[[str], str]
"""Asks a person for a passphrase, with the text that says which."""


@dataclass(frozen=True, slots=True)
class Sources:
    """In the order in which they are tried: identities, then passphrases, then the question."""

    identities: tuple[SecretText, ...] = ()
    passphrases: tuple[SecretText, ...] = ()
    ask: Ask | None = None
    """None where nobody can answer."""

    def before(self, later: Sources) -> Sources:
        """These, then those of `later`."""
        return Sources(
            (*self.identities, *later.identities), (*self.passphrases, *later.passphrases), self.ask or later.ask
        )


NO_SOURCES = Sources()
"""None: what is encrypted stays closed."""


def identity_file(path: Path) -> SecretText:
    """A file of identities, encrypted with a passphrase or not."""
    return SecretText(str(path), lambda: read_private(path))


def passphrase_file(path: Path) -> SecretText:
    """A file that holds a passphrase."""
    return SecretText(str(path), lambda: read_private(path))


def secret_text(secret: Secret) -> SecretText:
    """What the configuration names."""
    if secret.file is not None:
        return SecretText(str(secret.file), lambda: read_private(secret.file or Path()))
    return SecretText(str(secret.place), lambda: secret.reveal().encode())


def passphrase_in(text: SecretText) -> str:
    """The passphrase: the first line, as other programs read such files. Raises UsageError."""
    try:
        passphrase = text.read().decode().split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError(f"the passphrase of {text.what} is not UTF-8") from None
    if not passphrase:
        raise UsageError(f"the passphrase of {text.what} is empty")
    return passphrase


def read_private(path: Path) -> bytes:
    """Read a file that others should not read; that they can is a warning. Raises UsageError."""
    data, mode = _read(path, "an identity or a passphrase")
    if mode & 0o077 and stat.S_ISREG(mode):
        log.warning("%s holds a secret, and other users of this machine can read it: chmod 600 %s", path, path)
    return data


def read_recipients_file(path: Path) -> str:
    """Read a file of public keys. Raises UsageError."""
    data, _ = _read(path, "recipients of age")
    return data.decode(errors="replace")


def _read(path: Path, what: str) -> tuple[bytes, int]:
    """What a file holds, and its mode."""
    try:
        data, mode = read_file(path, _FILE_MAX_BYTES)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "there is a NUL in its name"
        raise UsageError(f"{path} cannot be read: {why}", f"it should hold {what}") from None
    if len(data) > _FILE_MAX_BYTES:
        raise UsageError(f"{path} is larger than {_FILE_MAX_BYTES} bytes", f"it should hold {what}")
    return data, mode
