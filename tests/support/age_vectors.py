"""Test vectors of the age specification: C2SP CCTV, directory age/testdata (0BSD, CC0-1.0 or Unlicense).

Each vector there is made of known secrets and a fixed stream of randomness. Here they are made again from these facts,
as no package has the collection; of those whose SHA-256 is known, it is compared. The pieces of large payloads hold
other bytes than there. Vectors of armour are not made: armour is refused as a whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from volback.archive import bech32
from volback.archive.primitives import cipher, derived, public_of, shared, stretched

Expected = Literal["success", "header failure", "HMAC failure", "no match", "payload failure"]

FILE_KEY = b"YELLOW SUBMARINE"
LONG_FILE_KEY = b"A LONGER YELLOW SUBMARINE"
TEST_IDENTITY = bech32.decode("AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0")[1]
PIECE = 64 * 1024
_RANDOMNESS = b"TEST RANDOMNESS TEST RANDOMNESS!"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass
class Vector:
    """One vector while it is made; `data` is the age file."""

    name: str
    data: bytearray = field(default_factory=bytearray)
    expected: Expected = "success"
    file_key: bytes = FILE_KEY
    payload: bytes = b""
    identities: list[bytes] = field(default_factory=list)
    passphrases: list[str] = field(default_factory=list)
    comment: str = ""
    _counter: int = 0
    _stream_key: bytes = b""

    def __post_init__(self) -> None:
        self._stream = Cipher(algorithms.ChaCha20(_RANDOMNESS, bytes(16)), mode=None).encryptor()

    def random(self, size: int) -> bytes:
        return self._stream.update(bytes(size))

    def line(self, text: str | bytes) -> None:
        self.data += (text.encode("latin-1") if isinstance(text, str) else text) + b"\n"

    def unread_line(self) -> str:
        lines = self.data[:-1].split(b"\n")
        del self.data[-len(lines[-1]) - 1 :]
        return lines[-1].decode("latin-1")

    def version(self, text: str = "v1") -> None:
        self.line(f"age-encryption.org/{text}")

    def arguments(self, *words: str) -> None:
        self.line(" ".join(["->", *words]))

    def body(self, data: bytes) -> None:
        while True:
            self.line(b64(data[:48]))
            if len(data) < 48:
                return
            data = data[48:]

    def x25519(self, identity: bytes = TEST_IDENTITY, *, is_known: bool = True, share: bytes | None = None) -> None:
        """A stanza for an identity, which the vector names where it is known."""
        if is_known:
            self.identities.append(identity)
        public = public_of(self.random(32)) if share is None else share
        self.arguments("X25519", b64(public))
        try:
            secret = shared(identity, public[:32].ljust(32, b"\0"))
        except ValueError:
            secret = bytes(32)
        key = derived(secret, public + public_of(identity), b"age-encryption.org/v1/X25519")
        self.body(cipher(key).encrypt(bytes(12), self.file_key, None))

    def scrypt(
        self, passphrase: str = "password", work_factor: int = 10, *, is_known: bool = True, salt_bytes: int = 16
    ) -> None:
        if is_known:
            self.passphrases.append(passphrase)
        salt = self.random(salt_bytes)
        self.arguments("scrypt", *filter(None, [b64(salt)]), str(work_factor))
        key = stretched(passphrase.encode(), b"age-encryption.org/v1/scrypt" + salt, work_factor)
        self.body(cipher(key).encrypt(bytes(12), self.file_key, None))

    def mac_line(self) -> str:
        mac = hmac.digest(derived(self.file_key, b"", b"header"), bytes(self.data) + b"---", hashlib.sha256)
        return f"--- {b64(mac)}"

    def mac(self) -> None:
        self.line(self.mac_line())

    def nonce(self, data: bytes | None = None) -> None:
        nonce = self.random(16) if data is None else data
        self._stream_key = derived(self.file_key, nonce, b"payload")
        self.data += nonce

    def piece(self, plain: bytes, *, is_last: bool = False) -> None:
        self.payload += plain
        nonce = self._counter.to_bytes(11, "big") + bytes([is_last])
        self._counter += 1
        self.data += cipher(self._stream_key).encrypt(nonce, plain, None)

    def end(self, plain: bytes = b"age") -> None:
        self.nonce()
        self.piece(plain, is_last=True)

    @property
    def whole(self) -> bytes:
        """As the collection has it: what is known of it, then the age file."""
        lines = [f"expect: {self.expected}"]
        if self.expected == "success":
            lines.append(f"payload: {hashlib.sha256(self.payload).hexdigest()}")
        lines.append(f"file key: {self.file_key.hex()}")
        lines += [f"identity: {bech32.encode('age-secret-key-', identity).upper()}" for identity in self.identities]
        lines += [f"passphrase: {passphrase}" for passphrase in self.passphrases]
        lines += [f"comment: {self.comment}"] * bool(self.comment)
        return "\n".join([*lines, "", ""]).encode() + bytes(self.data)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def not_canonical(text: str) -> str:
    """Another encoding of the same bytes: the bits that are left over are not zero."""
    return text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) + 1]
