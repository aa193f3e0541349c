"""Ed25519 keys: a host signs its manifests with one; one is derived from a repository's identity, to certify hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from volback.archive.age_keys import Identity

SECRET_BYTES = 32
_AUTHORITY = b"volback/v1/authority"


@dataclass(frozen=True)
class SigningKey:
    """A private key; `repr` gives nothing of it."""

    secret: bytes = field(repr=False)

    @classmethod
    def new(cls, random: Callable[[int], bytes] = os.urandom) -> SigningKey:
        """A new one, of the system's randomness."""
        return cls(random(SECRET_BYTES))

    @cached_property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes; the same data has the same one."""
        return Ed25519PrivateKey.from_private_bytes(self.secret).sign(data)


def authority_of(identity: Identity) -> SigningKey:
    """The key with which the holder of a repository's identity signs: derived from it, so there is no other secret."""
    return SigningKey(HKDF(SHA256(), SECRET_BYTES, b"", _AUTHORITY).derive(identity.secret))


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the owner of that public key has signed `data`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
