"""The age format, version 1 (C2SP specification): a header that wraps a file key, then pieces of 64 KiB.

Each piece is sealed by itself with its number and whether it is the last, so any of them is opened without the others,
and none is moved, dropped or added unnoticed. Recipients are X25519 keys, or one passphrase (scrypt).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from volback.archive.age_keys import Identity, Recipient
from volback.errors import FormatError, IdentityNeeded, IntegrityError

PIECE_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 16
HEADER_BYTES: Final = 184
"""From the first byte to the first piece, nonce included, where there is one X25519 recipient."""
HEADER_MAX_BYTES: Final = 64 * 1024
WORK_FACTOR: Final = 18
WORK_FACTOR_MAX: Final = 22
"""As in the program age: 2^22 takes 4 GiB of memory; a hostile file may ask for more."""

_VERSION = b"age-encryption.org/v1"
_LABEL = b"age-encryption.org/v1/"
_FILE_KEY_BYTES = 16
_WRAPPED_BYTES = _FILE_KEY_BYTES + TAG_BYTES
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


def stored_size(plain_bytes: int) -> int:
    """The size of an age file for one X25519 recipient that holds so many bytes."""
    return HEADER_BYTES + plain_bytes + TAG_BYTES * max(1, -(-plain_bytes // PIECE_BYTES))


def plain_size(stored_bytes: int) -> int:
    """The inverse of `stored_size`. Raises IntegrityError for a size that no such file has."""
    payload = stored_bytes - HEADER_BYTES
    plain = payload - TAG_BYTES * max(1, -(-payload // (PIECE_BYTES + TAG_BYTES)))
    if plain < 0 or stored_size(plain) != stored_bytes:
        raise IntegrityError(f"an age file of {stored_bytes} bytes is cut")
    return plain


def encrypt(
    chunks: Iterable[bytes | bytearray | memoryview],
    recipients: Sequence[Recipient] = (),
    *,
    passphrase: str | None = None,
    random: Random = os.urandom,
    work_factor: int = WORK_FACTOR,
) -> Generator[bytes, None, None]:
    """Yield an age file of what `chunks` hold, for the recipients, or for a passphrase where there is one."""
    file_key, nonce = random(_FILE_KEY_BYTES), random(NONCE_BYTES)
    if passphrase is not None:
        stanzas = [_wrap_scrypt(file_key, passphrase, random(16), work_factor)]
    else:
        stanzas = [_wrap_x25519(file_key, recipient, random(32)) for recipient in recipients]
    if not stanzas:
        raise ValueError("there is no recipient")
    covered = b"\n".join([_VERSION, *map(_stanza_text, stanzas), b"---"])
    yield covered + b" " + _b64(_mac(file_key, covered)) + b"\n" + nonce
    pieces = Pieces(file_key, nonce)
    number, kept = 0, bytearray()
    for chunk in chunks:
        kept += chunk
        whole = (len(kept) - 1) // PIECE_BYTES  # the last piece is full rather than empty
        for start in range(0, whole * PIECE_BYTES, PIECE_BYTES):
            yield pieces.seal(number, bytes(kept[start : start + PIECE_BYTES]), is_last=False)
            number += 1
        del kept[: max(0, whole) * PIECE_BYTES]
    yield pieces.seal(number, bytes(kept), is_last=True)


def decrypt(
    chunks: Iterable[bytes], identities: Sequence[Identity] = (), *, passphrase: str | None = None, what: str = "it"
) -> Generator[bytes, None, None]:
    """Yield what an age file holds, each piece once it is checked. `what` names it in errors.

    Raises FormatError, IntegrityError, and IdentityNeeded where neither an identity nor the passphrase opens it.
    """
    source, kept = iter(chunks), bytearray()
    while len(kept) < HEADER_MAX_BYTES + NONCE_BYTES and (chunk := next(source, None)) is not None:
        kept += chunk
    header = read_header(bytes(kept[:HEADER_MAX_BYTES]), what)
    file_key = file_key_of(header, identities, passphrase=passphrase, what=what)
    pieces = Pieces(file_key, bytes(kept[header.size_bytes : header.size_bytes + NONCE_BYTES]), what)
    del kept[: header.size_bytes + NONCE_BYTES]
    number, size = 0, PIECE_BYTES + TAG_BYTES
    for chunk in source:
        while len(kept) > size:
            yield pieces.open(number, bytes(kept[:size]), is_last=False)
            del kept[:size]
            number += 1
        kept += chunk
    while len(kept) > size:
        yield pieces.open(number, bytes(kept[:size]), is_last=False)
        del kept[:size]
        number += 1
    yield pieces.open(number, bytes(kept), is_last=True)


class Pieces:
    """Seals and opens the pieces of one file, in any order."""

    def __init__(self, file_key: bytes, nonce: bytes, what: str = "it") -> None:
        if len(nonce) != NONCE_BYTES:
            raise IntegrityError(f"{what} is cut within its header")
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
        self._what = what

    def seal(self, number: int, data: bytes, *, is_last: bool) -> bytes:
        """One piece as it is stored."""
        return self._cipher.encrypt(_piece_nonce(number, is_last), data, None)

    def open(self, number: int, data: bytes, *, is_last: bool) -> bytes:
        """What a stored piece holds. Raises IntegrityError for anything but that piece of that file."""
        try:
            plain = self._cipher.decrypt(_piece_nonce(number, is_last), data, None)
        except InvalidTag:
            raise IntegrityError(f"{self._what} is damaged or cut: piece {number} cannot be decrypted") from None
        if is_last and not plain and number:
            raise IntegrityError(f"{self._what} is damaged: its last piece is empty")
        return plain


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
    header: Header, identities: Sequence[Identity] = (), *, passphrase: str | None = None, what: str = "it"
) -> bytes:
    """The file key; the header's MAC is then proven. Raises IdentityNeeded, FormatError, IntegrityError."""
    try:
        file_key = _unwrapped(header, identities, passphrase)
    except ValueError as exc:
        raise FormatError(f"{what} has a header that is not one of age: {exc}") from None
    if file_key is None:
        tried = "this passphrase is wrong" if header.has_passphrase and passphrase else "no available identity opens it"
        raise IdentityNeeded(f"{what} is encrypted: {tried}", "name the file of one with --identity")
    if not hmac.compare_digest(_mac(file_key, header.covered), header.mac):
        raise IntegrityError(f"{what} is damaged: its header was changed")
    return file_key


def _unwrapped(header: Header, identities: Sequence[Identity], passphrase: str | None) -> bytes | None:
    if header.has_passphrase:
        if len(header.stanzas) > 1:
            raise ValueError("a passphrase stands beside other recipients")
        return None if passphrase is None else _unwrap_scrypt(header.stanzas[0], passphrase)
    for stanza in header.stanzas:
        if stanza.kind == "X25519":
            for identity in identities:
                file_key = _unwrap_x25519(stanza, identity)
                if file_key is not None:
                    return file_key
    return None


def _wrap_x25519(file_key: bytes, recipient: Recipient, secret: bytes) -> Stanza:
    ephemeral = X25519PrivateKey.from_private_bytes(secret)
    share = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient.public))
    key = _derived(shared, share + recipient.public, _LABEL + b"X25519")
    return Stanza("X25519", (_b64(share).decode(),), _sealed(key, file_key))


def _unwrap_x25519(stanza: Stanza, identity: Identity) -> bytes | None:
    share = _unb64(stanza.arguments[0].encode()) if len(stanza.arguments) == 1 else b""
    if len(share) != 32 or len(stanza.body) != _WRAPPED_BYTES:
        raise ValueError("an X25519 stanza is not valid")
    shared = X25519PrivateKey.from_private_bytes(identity.secret).exchange(X25519PublicKey.from_public_bytes(share))
    key = _derived(shared, share + identity.recipient.public, _LABEL + b"X25519")
    return _opened(key, stanza.body)


def _wrap_scrypt(file_key: bytes, passphrase: str, salt: bytes, work_factor: int) -> Stanza:
    key = _stretched(passphrase, salt, work_factor)
    return Stanza("scrypt", (_b64(salt).decode(), str(work_factor)), _sealed(key, file_key))


def _unwrap_scrypt(stanza: Stanza, passphrase: str) -> bytes | None:
    if len(stanza.arguments) != 2 or not re.fullmatch(r"[1-9][0-9]?", stanza.arguments[1]):
        raise ValueError("a scrypt stanza is not valid")
    salt, work_factor = _unb64(stanza.arguments[0].encode()), int(stanza.arguments[1])
    if len(salt) != 16 or len(stanza.body) != _WRAPPED_BYTES:
        raise ValueError("a scrypt stanza is not valid")
    if work_factor > WORK_FACTOR_MAX:
        raise ValueError(f"its scrypt work factor is {work_factor}, and more than {WORK_FACTOR_MAX} is not accepted")
    return _opened(_stretched(passphrase, salt, work_factor), stanza.body)


def _stretched(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    return Scrypt(_LABEL + b"scrypt" + salt, 32, 2**work_factor, 8, 1).derive(passphrase.encode())


def _sealed(key: bytes, file_key: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)


def _opened(key: bytes, body: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), body, None)
    except InvalidTag:
        return None


def _derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def _mac(file_key: bytes, covered: bytes) -> bytes:
    return hmac.digest(_derived(file_key, b"", b"header"), covered, hashlib.sha256)


def _piece_nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


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
