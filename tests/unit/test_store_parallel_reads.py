"""How many ranges of a store are read at once: what the store itself says, also through its wrappers."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.support.counting import CountingStore
from tests.unit.test_golden import FORMAT_1, FULL
from volback.archive.ranges import whole
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.catalog.units import DIGEST_BYTES, Frame, Piece
from volback.operations.open_backup import OpenBackup
from volback.store.base import Store
from volback.store.faults import FaultStore
from volback.store.limit import LimitStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

FAR = 1 << 20
"""Frames that lie so far apart are in ranges of their own."""


class WatchedStore(LocalStore):
    """A store in a directory that notes which threads read it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.readers: set[str] = set()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        self.readers.add(threading.current_thread().name)
        return super().open(key, start=start, length=length)


@pytest.fixture
def watched(tmp_path: Path) -> WatchedStore:
    shutil.copytree(FORMAT_1, tmp_path / "repository")
    data = tmp_path / "repository" / BackupKey("golden-host", "golden", FULL).data
    os.truncate(data, 8 * FAR)
    return WatchedStore(tmp_path / "repository")


def read_frames(store: Store) -> None:
    backup = OpenBackup(store, Catalog(store).read(BackupKey("golden-host", "golden", FULL)))
    pieces = [Piece(Frame(FULL, number * FAR, 100, 1), 0, [1], bytes(DIGEST_BYTES)) for number in range(8)]
    assert len(list(backup.fetch(whole(pieces)))) == 8


def test_a_directory_is_read_in_the_callers_thread(watched: WatchedStore) -> None:
    read_frames(watched)
    assert watched.readers == {threading.current_thread().name}


def test_a_directory_with_a_bandwidth_limit_is_read_in_the_callers_thread(watched: WatchedStore) -> None:
    read_frames(LimitStore(watched, 1e9))
    assert watched.readers == {threading.current_thread().name}


@pytest.mark.parametrize("wrap", [lambda store: LimitStore(store, 1e9), FaultStore, CountingStore])
@pytest.mark.parametrize("parallel_reads", [1, 7])
def test_a_wrapper_says_what_the_store_within_it_says(wrap: Callable[[Store], Store], parallel_reads: int) -> None:
    assert wrap(MemoryStore("inner", parallel_reads=parallel_reads)).parallel_reads == parallel_reads


@pytest.mark.parametrize("wrap", [lambda store: LimitStore(store, 1e9), FaultStore, CountingStore])
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_wrapper_says_whether_the_store_within_it_is_shared(wrap: Callable[[Store], Store], is_shared: bool) -> None:
    assert wrap(MemoryStore("inner", is_shared=is_shared)).is_shared == is_shared
