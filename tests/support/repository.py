"""Repositories of made-up backups, valid for all that reads no frame: their objects have the sizes and digests that
their manifests say, and no engine is needed to make them."""

from __future__ import annotations

import hashlib
import random
import secrets
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from tests.support.documents import MANIFEST, source_of
from volback.archive.codec import compress_lines
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ObjectDigest, SetOf, UsedObject
from volback.catalog.repository import Catalog
from volback.store.base import Store
from volback.store.local import LocalStore

IDS = [f"202611{day:02}T000000Z-aaaa" for day in range(1, 29)]


def new_repository(where: Path | Store) -> None:
    """Make a repository, as `volback init` does; one that is there stays as it is."""
    store = LocalStore(where) if isinstance(where, Path) else where
    Catalog(store).ensure_repository(lambda: secrets.token_hex(16))


def use_here(monkeypatch: pytest.MonkeyPatch, directory: Path, repository: str) -> None:
    """Let commands that run in this process use a repository of that name, on a host without an engine."""
    for name, value in {
        "VOLBACK_REPO": str(directory / repository), "VOLBACK_STATE_DIR": str(directory / "state"),
        "VOLBACK_HOSTNAME": "web1", "DOCKER_HOST": f"unix://{directory}/no.sock", "VOLBACK_CONFIG": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(directory)


def make_backup(
    store: Store,
    id: str = IDS[0],
    *,
    volume: str = "db",
    host: str = "web1",
    data_bytes: int = 3_000_000,
    depends_on: list[str] | None = None,
    set: SetOf | None = None,
    engine_id: str = MANIFEST.engine_id,
    labels: dict[str, str] | None = None,
) -> BackupKey:
    """Put a backup into the store, which becomes a repository if it is none."""
    catalog, key = Catalog(store), BackupKey(host, volume, id)
    catalog.ensure_repository(lambda: hashlib.sha256(store.url.encode()).hexdigest()[:32])
    dice = random.Random(str(key))
    data, index = dice.randbytes(data_bytes), compress_lines(dice.randbytes(5000))
    uses = [_use_of(store, BackupKey(host, volume, needed)) for needed in depends_on or []]
    source = msgspec.structs.replace(source_of(volume), labels=labels or {})
    manifest = msgspec.structs.replace(
        MANIFEST, id=id, host=host, volume=volume, source=source, kind="incremental" if uses else "full",
        data=_digest(data), index=_digest(index), stored_bytes=len(data), uses=uses, set=set, engine_id=engine_id,
        digest=hashlib.sha256(data + index).hexdigest(),
    )  # fmt: skip
    store.put(manifest.data_key, [data])
    store.put(key.index, [index])
    catalog.commit(manifest)
    return key


def _use_of(store: Store, key: BackupKey) -> UsedObject:
    """Half of that backup's data object."""
    used = manifest_of(store, key)
    size = used.data.size_bytes
    name: Literal["data.tar.zst", "data.zst"] = "data.tar.zst" if used.kind == "full" else "data.zst"
    return UsedObject(id=key.id, name=name, size_bytes=size, used_bytes=size // 2, sha256=used.data.sha256)


def objects_of(store: Store, key: BackupKey) -> dict[str, bytes]:
    """All that lies below a backup's prefix."""
    return {found.key: b"".join(store.open(found.key)) for found in store.list(key.prefix)}


def manifest_of(store: Store, key: BackupKey) -> Manifest:
    return Catalog(store).read(key)


def _digest(data: bytes) -> ObjectDigest:
    return ObjectDigest(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
