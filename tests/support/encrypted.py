"""Stores whose every object is encrypted, for tests."""

from __future__ import annotations

from volback.archive.age_keys import Identity
from volback.encryption.store import SUFFIX, EncryptedStore, Encryption
from volback.store.base import KEY_MAX_CHARS, Store, is_part

IDENTITY = Identity(bytes(range(32)))


def encrypted(inner: Store, identity: Identity = IDENTITY) -> EncryptedStore:
    """All objects of `inner` as age files for that identity, but those whose key has no room for `.age`."""
    encryption = Encryption(identity.recipient, lambda: [identity])
    return EncryptedStore(inner, lambda: encryption, covers=_has_room)


def _has_room(key: str) -> bool:
    return len(key) <= KEY_MAX_CHARS - len(SUFFIX) and is_part(key.rpartition("/")[2] + SUFFIX)
