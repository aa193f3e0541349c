"""Encrypted stores and repositories, for tests."""

from __future__ import annotations

from pathlib import Path

from volback.archive.age_keys import Identity
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import RepositoryEncryption
from volback.catalog.repository import Catalog
from volback.encryption.store import SUFFIX, EncryptedStore, Encryption
from volback.store.base import KEY_MAX_CHARS, Store, is_part
from volback.store.local import LocalStore

IDENTITY = Identity(bytes(range(32)))


def encrypted(inner: Store, identity: Identity = IDENTITY) -> EncryptedStore:
    """All objects of `inner` as age files for that identity, but those whose key has no room for `.age`."""
    encryption = Encryption(identity.recipient, lambda: [identity])
    return EncryptedStore(inner, lambda: encryption, covers=_has_room)


def _has_room(key: str) -> bool:
    return len(key) <= KEY_MAX_CHARS - len(SUFFIX) and is_part(key.rpartition("/")[2] + SUFFIX)


def encrypted_copy(
    directory: Path, target: Store, identity: Identity = IDENTITY, *, signer: SigningKey | None = None
) -> list[BackupKey]:
    """Make an encrypted repository in `target`, with the backups of one in clear; return their keys."""
    source, cipher = LocalStore(directory), Encryption(identity.recipient, lambda: [identity])
    stated = RepositoryEncryption(recipient=str(identity.recipient))
    Catalog(target).ensure_repository(lambda: "e" * 32, stated, authority_of(identity))
    layer = EncryptedStore(target, lambda: cipher)
    sign = None if signer is None else lambda: signer
    catalog, keys = Catalog(layer, cipher=cipher, is_encrypted=True, signer=sign), Catalog(source).backups()
    for info in source.list():
        if info.key.endswith(".zst"):
            layer.put(info.key, source.open(info.key))
    for key in keys:
        catalog.commit(Catalog(source).read(key), kept_by=[])
    return keys


def own_file(directory: Path, identity: Identity = IDENTITY) -> Path:
    """A file of the repository's own identity, for `--identity`."""
    path = directory / "own-identity.txt"
    path.write_text(f"{identity}\n")
    path.chmod(0o600)
    return path
