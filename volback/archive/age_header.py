"""The header of an age file: it wraps the file key for each recipient, and its MAC proves it. Used by age.py only.

Recipients are X25519 keys, or one passphrase (scrypt).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from volback.archive import primitives
from volback.archive.age_keys import Identity, Recipient
from volback.archive.primitives import cipher, derived, unsealed
from volback.errors import FormatError, IdentityNeeded, IntegrityError, VolbackError

TAG_BYTES: Final = 16
FILE_KEY_BYTES: Final = 16
WORK_FACTOR: Final = 18
WORK_FACTOR_MAX: Final = 20
"""For a person's own file: 2^20 takes 1 GiB of memory. The program age writes 18, and reads up to 22: 4 GiB. A file of
a repository, which others can write, may have no more than those that volback makes."""

_VERSION = b"age-encryption.org/v1"
_LABEL = b"age-encryption.org/v1/"
_WRAPPED_BYTES = FILE_KEY_BYTES + TAG_BYTES
_LINE_CHARS = 64
_ARGUMENT = re.compile(rb"[!-~]+")

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Stanza:
    """One way to the file key: its kind and arguments, and the file key as it is wrapped."""

    kind: str
    arguments: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A header as it was read; nothing of it is proven before `file_key_of` has checked its MAC."""

    stanzas: tuple[Stanza, ...]
    covered: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    size_bytes: int
    """Without the nonce that follows."""

    @property
    def has_passphrase(self) -> bool:
        """Whether a passphrase opens it."""
        return any(stanza.kind == "scrypt" for stanza in self.stanzas)


def make_header(
    file_key: bytes, recipients: Sequence[Recipient], passphrase: str | None, random: Random, work_factor: int
) -> bytes:
    """A header for the recipients, or for a passphrase where there is one; without the nonce that follows."""
    if passphrase is not None:
        stanzas = [_wrap_scrypt(file_key, passphrase, random(16), work_factor)]
    else:
        stanzas = [_wrap_x25519(file_key, recipient, random(32)) for recipient in recipients]
    if not stanzas:
        raise ValueError("there is no recipient")
    covered = b"\n".join([_VERSION, *map(_stanza_text, stanzas), b"---"])
    return covered + b" " + _b64(_mac(file_key, covered)) + b"\n"


def read_header(data: bytes, what: str = "it") -> Header:
    """Read the header at the beginning of `data`. Raises FormatError."""
    if data.startswith(b"-----BEGIN AGE"):
        raise FormatError(f"{what} is armoured, which is not supported", "decode it with the program age")
    lines, stanzas, at = data.split(b"\n"), list[Stanza](), 1
    if lines[0] != _VERSION:
        raise FormatError(f"{what} is not an age file of version 1")
    try:
        while lines[at].startswith(b"-> "):
            stanza, at = _read_stanza(lines, at)
            stanzas.append(stanza)
        mark, _, mac = lines[at].partition(b" ")
        if mark != b"---" or not stanzas or at + 1 == len(lines) or len(_unb64(mac)) != 32:
            raise ValueError("it does not end in a MAC")
    except (ValueError, IndexError) as exc:
        raise FormatError(f"{what} has a header that is not one of age: {exc}") from None
    covered = b"\n".join(lines[:at]) + b"\n---"
    return Header(tuple(stanzas), covered, _unb64(mac), len(covered) + len(mac) + 2)


def file_key_of(
    header: Header,
    identities: Sequence[Identity] = (),
    *,
    passphrase: str | None = None,
    what: str = "it",
    work_factor_max: int = WORK_FACTOR_MAX,
) -> bytes:
    """The file key; the header's MAC is then proven. Raises IdentityNeeded, FormatError, IntegrityError."""
    try:
        file_key = _unwrapped(header, identities, passphrase, work_factor_max)
    except ValueError as exc:
        raise FormatError(f"{what} has a header that is not one of age: {exc}") from None
    if file_key is None:
        tried = "this passphrase is wrong" if header.has_passphrase and passphrase else "no available identity opens it"
        raise IdentityNeeded(f"{what} is encrypted: {tried}", "name the file of one with --identity")
    if not hmac.compare_digest(_mac(file_key, header.covered), header.mac):
        raise IntegrityError(f"{what} is damaged: its header was changed")
    return file_key


def _unwrapped(
    header: Header, identities: Sequence[Identity], passphrase: str | None, work_factor_max: int
) -> bytes | None:
    if header.has_passphrase:
        if len(header.stanzas) > 1:
            raise ValueError("a passphrase stands beside other recipients")
        return None if passphrase is None else _unwrap_scrypt(header.stanzas[0], passphrase, work_factor_max)
    for stanza in header.stanzas:
        if stanza.kind == "X25519":
            for identity in identities:
                file_key = _unwrap_x25519(stanza, identity)
                if file_key is not None:
                    return file_key
    return None


def _wrap_x25519(file_key: bytes, recipient: Recipient, secret: bytes) -> Stanza:
    share = primitives.public_of(secret)
    shared = primitives.shared(secret, recipient.public)
    key = derived(shared, share + recipient.public, _LABEL + b"X25519")
    return Stanza("X25519", (_b64(share).decode(),), _sealed(key, file_key))


def _unwrap_x25519(stanza: Stanza, identity: Identity) -> bytes | None:
    share = _unb64(stanza.arguments[0].encode()) if len(stanza.arguments) == 1 else b""
    if len(share) != 32 or len(stanza.body) != _WRAPPED_BYTES:
        raise ValueError("an X25519 stanza is not valid")
    shared = primitives.shared(identity.secret, share)
    key = derived(shared, share + identity.recipient.public, _LABEL + b"X25519")
    return _opened(key, stanza.body)


def _wrap_scrypt(file_key: bytes, passphrase: str, salt: bytes, work_factor: int) -> Stanza:
    key = _stretched(passphrase, salt, work_factor)
    return Stanza("scrypt", (_b64(salt).decode(), str(work_factor)), _sealed(key, file_key))


def _unwrap_scrypt(stanza: Stanza, passphrase: str, work_factor_max: int) -> bytes | None:
    if len(stanza.arguments) != 2 or not re.fullmatch(r"[1-9][0-9]?", stanza.arguments[1]):
        raise ValueError("a scrypt stanza is not valid")
    salt, work_factor = _unb64(stanza.arguments[0].encode()), int(stanza.arguments[1])
    if len(salt) != 16 or len(stanza.body) != _WRAPPED_BYTES:
        raise ValueError("a scrypt stanza is not valid")
    if work_factor > work_factor_max:
        raise ValueError(f"its scrypt work factor is {work_factor}, and more than {work_factor_max} is not accepted")
    return _opened(_stretched(passphrase, salt, work_factor), stanza.body)


def _stretched(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    try:
        return primitives.stretched(passphrase.encode(), _LABEL + b"scrypt" + salt, work_factor)
    except MemoryError:
        needed = f"{2**work_factor // 1024} MiB of memory"
        raise VolbackError(f"a passphrase with a scrypt work factor of {work_factor} takes {needed}") from None


def _sealed(key: bytes, file_key: bytes) -> bytes:
    return cipher(key).encrypt(bytes(12), file_key, None)


def _opened(key: bytes, body: bytes) -> bytes | None:
    return unsealed(cipher(key), bytes(12), body)


def _mac(file_key: bytes, covered: bytes) -> bytes:
    return hmac.digest(derived(file_key, b"", b"header"), covered, hashlib.sha256)


def _stanza_text(stanza: Stanza) -> bytes:
    body = _b64(stanza.body)
    lines = [body[start : start + _LINE_CHARS] for start in range(0, len(body) + 1, _LINE_CHARS)]
    return b"\n".join([" ".join(["->", stanza.kind, *stanza.arguments]).encode(), *lines])


def _read_stanza(lines: list[bytes], at: int) -> tuple[Stanza, int]:
    """The stanza that begins in a line, and the line after it. Raises ValueError, IndexError."""
    words = lines[at].split(b" ")[1:]
    if not all(_ARGUMENT.fullmatch(word) for word in words):
        raise ValueError("a stanza's first line is not valid")
    body, at = [lines[at + 1]], at + 1
    while len(lines[at]) == _LINE_CHARS:
        at += 1
        body.append(lines[at])
    if len(lines[at]) > _LINE_CHARS:
        raise ValueError("a line of a stanza is too long")
    kind, *arguments = (word.decode() for word in words)
    return Stanza(kind, tuple(arguments), _unb64(b"".join(body))), at + 1


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    """Raises ValueError for all but the one way in which the data is encoded."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None
    if _b64(data) != text:
        raise ValueError("it is not base64 without padding")
    return data
