"""Local copies of indexes: an increment's own and the runs that it uses are read once; a damaged copy is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.archive import plan_of, read
from tests.support.counting import CountingStore
from tests.support.stored import FIRST, SECOND, store_backup, store_increment
from volback.catalog.keys import INDEX_NAME
from volback.catalog.model import Manifest
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.state.cache import Cache
from volback.store.memory import MemoryStore


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore("far", parallel_reads=3))


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", "here", limit_bytes=1 << 24)


@pytest.fixture
def increment(store: CountingStore, tmp_path: Path) -> Manifest:
    root = tmp_path / "tree"
    for directory in range(30):
        (root / f"{directory:02}").mkdir(parents=True)
        for number in range(40):
            (root / f"{directory:02}" / f"{number}").write_bytes(os.urandom(2_000))
    plan = plan_of(root)
    first = store_backup(store, FIRST, plan, [read(root, plan)])
    for directory in (7, 21):
        (root / f"{directory:02}" / "3").write_bytes(b"changed")
    plan = plan_of(root)
    made = store_increment(store, SECOND, plan, lambda plan, wanted: [read(root, plan, wanted)], first)
    store.reads.clear()
    return made


def index_reads(store: CountingStore) -> list[str]:
    return [entry.key for entry in store.reads if entry.key.endswith(INDEX_NAME)]


def test_an_index_is_read_once(store: CountingStore, increment: Manifest, kept: Cache) -> None:
    plain = list(OpenBackup(store, increment).members())
    assert len(set(index_reads(store))) == 2
    assert len(index_reads(store)) > 2, "it uses several runs of the first one's"
    store.reads.clear()
    assert list(OpenBackup(store, increment, kept=kept).members()) == plain
    assert index_reads(store)
    store.reads.clear()
    assert list(OpenBackup(store, increment, kept=kept).members()) == plain
    assert index_reads(store) == []


def test_damaged_copies_are_read_again(
    store: CountingStore, increment: Manifest, kept: Cache, tmp_path: Path
) -> None:  # fmt: skip
    plain = list(OpenBackup(store, increment, kept=kept).members())
    for entry in (tmp_path / "cache").glob("*/*"):
        data = bytearray(entry.read_bytes())
        data[-1] ^= 1
        entry.write_bytes(data)
    assert list(OpenBackup(store, increment, kept=kept).members()) == plain


def test_without_copies_the_repositorys_own_damage_is_found(
    store: CountingStore, increment: Manifest, kept: Cache
) -> None:  # fmt: skip
    plain = list(OpenBackup(store, increment, kept=kept).members())
    key = next(stored.key for stored in store.list() if FIRST in stored.key and stored.key.endswith(INDEX_NAME))
    store.put(key, [bytes(len(b"".join(store.open(key))))])
    assert list(OpenBackup(store, increment, kept=kept).members()) == plain
    with pytest.raises(IntegrityError, match="is damaged"):
        OpenBackup(store, increment)
