"""Nights: a volume's backups of some nights, each a real increment, in which files of all ages are changed."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.stored import HOST, VOLUME, commit_next
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.context import Context
from volback.context.repository import Repository
from volback.operations.open_backup import OpenBackup
from volback.settings import Settings
from volback.store.base import Store
from volback.store.memory import MemoryStore

FIRST_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def id_of(night: int) -> str:
    """The id of a night's backup."""
    return f"{FIRST_NIGHT + timedelta(days=night):%Y%m%dT%H%M%SZ}-{night:04x}"


def key_of(night: int) -> BackupKey:
    """The key of a night's backup."""
    return BackupKey(HOST, VOLUME, id_of(night))


def make_volume(root: Path, files: int) -> None:
    """Small files in some groups, and a large one, 20 KB for each file."""
    dice = random.Random(1)
    for number in range(files):
        path = root / f"d{number % 6}/f{number:03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([100, 9000, 30_000])))
    (root / "big").write_bytes(dice.randbytes(20_000 * files))


def change(root: Path, night: int, files: int) -> None:
    """What happens to the volume in a day."""
    dice = random.Random(night)
    for number in dice.sample(range(files), files // 3):
        (root / f"d{number % 6}/f{number:03}").write_bytes(dice.randbytes(dice.choice([100, 9000, 30_000])))
    with (root / "big").open("r+b") as file:
        for _ in range(3):
            file.seek(dice.randrange(18_000 * files))
            file.write(dice.randbytes(1600 * files))


def make_nights(directory: Path, store: Store, nights: int, *, files: int = 120) -> Repository:
    """Make a repository with the backups of so many nights, of a volume with so many files."""
    Catalog(store).ensure_repository(lambda: secrets.token_hex(16))
    repository = Repository(store, lambda: HOST, lambda: LATER)
    root = directory / "volume"
    root.mkdir()
    make_volume(root, files)
    for night in range(nights):
        change(root, night, files)
        commit_next(context(directory), repository, id_of(night), root)
    return repository


def context(directory: Path) -> Context:
    """Of a machine whose state is in that directory."""
    return Context(Settings("unused", directory / "state", host=HOST), now=lambda: LATER)


def stream_of(store: Store, manifest: Manifest) -> bytes:
    """The stream of a backup."""
    return b"".join(map(bytes, OpenBackup(store, manifest).stream()))


def copied(store: Store, name: str = "copy", *, parallel_reads: int = 1, is_shared: bool = False) -> MemoryStore:
    """A store with the same objects, to be changed."""
    other = MemoryStore(name, parallel_reads=parallel_reads, is_shared=is_shared)
    put_all(other, store)
    return other


def put_all(target: Store, source: Store) -> None:
    """Copy all objects."""
    for info in source.list():
        target.put(info.key, source.open(info.key))


def remove(repository: Repository, nights: Iterable[int]) -> None:
    """Remove the backups of these nights."""
    repository.catalog.remove([key_of(night) for night in nights])
