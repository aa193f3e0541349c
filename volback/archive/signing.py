"""Ed25519 keys: a host signs its manifests with one; one is derived from a repository's identity, to certify hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from volback.archive.age_keys import Identity
from volback.archive.primitives import derived, is_signed, signature, verifying_key
from volback.catalog.sealed import Signature

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
        return verifying_key(self.secret)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes; the same data has the same one."""
        return signature(self.secret, data)


def authority_of(identity: Identity) -> SigningKey:
    """The key with which the holder of a repository's identity signs: derived from it, so there is no other secret."""
    return SigningKey(derived(identity.secret, b"", _AUTHORITY))


def is_signed_by(public: bytes, found: Signature | None) -> bool:
    """Whether a document that was read has a signature, and it is one of the owner of that public key."""
    return found is not None and found.public == public and is_signed(public, found.signature, found.covered)
