"""The primitives of encryption and signing, from the library `cryptography`: its only imports.

They are imported when one is first used: it takes 15 ms, which who works with a repository in clear would pay.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

Data = bytes | bytearray | memoryview


class Cipher(Protocol):
    """Authenticated encryption with one key."""

    def encrypt(self, nonce: bytes, data: Data, associated_data: None) -> bytes:
        """Return `data`, sealed."""

    def decrypt(self, nonce: bytes, data: Data, associated_data: None) -> bytes:
        """Return what was sealed; see `unsealed`."""


def cipher(key: bytes) -> Cipher:
    """ChaCha20-Poly1305 with a key of 32 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def unsealed(by: Cipher, nonce: bytes, data: Data) -> bytes | None:
    """What was sealed; None where it was sealed otherwise, or was changed."""
    return next(iter(unsealed_all(by, [(nonce, data)])), None)


def unsealed_all(by: Cipher, sealed: Iterable[tuple[bytes, Data]]) -> list[bytes]:
    """The same of many, each with its nonce, to the first one that was sealed otherwise, or was changed."""
    from cryptography.exceptions import InvalidTag

    found = list[bytes]()
    with suppress(InvalidTag):
        for nonce, data in sealed:
            found.append(by.decrypt(nonce, data, None))
    return found


def derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF with SHA-256."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, info).derive(secret)


def stretched(passphrase: bytes, salt: bytes, work_factor: int) -> bytes:
    """32 bytes of scrypt, which takes 2 ** `work_factor` KiB. Raises MemoryError."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt, 32, 2**work_factor, 8, 1).derive(passphrase)


def new_secret() -> bytes:
    """A secret key of X25519, of the system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(secret: bytes) -> bytes:
    """The public key of a secret key of X25519."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def shared(secret: bytes, public: bytes) -> bytes:
    """What the owners of two X25519 keys have in common. Raises ValueError for a point of low order."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def verifying_key(secret: bytes) -> bytes:
    """The public key of a secret key of Ed25519."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def signature(secret: bytes, data: bytes) -> bytes:
    """The signature of `data` with a secret key of Ed25519, 64 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(secret).sign(data)


def is_signed(public: bytes, made: bytes, data: bytes) -> bool:
    """Whether `made` is the signature of `data` by the owner of a public key of Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(made, data)
    except (InvalidSignature, ValueError):
        return False
    return True
