"""What one small file of a large encrypted backup costs: its index, its frame, and the pieces that hold these."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.archive import plan_of, read
from tests.support.counting import CountingStore, Read
from tests.support.encrypted import encrypted_copy, own_file
from tests.support.stored import FIRST, store_backup
from volback.archive.age import HEADER_BYTES, PIECE_BYTES, SEALED_BYTES
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.encryption.sources import Sources, identity_file
from volback.operations import contents
from volback.store.base import Store, Wrapper
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

SMALL = b"one small file\n" * 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, BackupKey]:
    """20 MB in large files and small ones, encrypted."""
    place = tmp_path_factory.mktemp("reads")
    root, clear, store = place / "tree", place / "clear", MemoryStore("test")
    for number in range(10):
        directory = root / f"directory-{number}"
        directory.mkdir(parents=True)
        (directory / "large").write_bytes(random.Random(number).randbytes(2_000_000))
        for small in range(20):
            (directory / f"small-{small}").write_bytes(SMALL if (number, small) == (6, 7) else b"%d" % small)
    manifest = store_backup(LocalStore(clear), FIRST, plan_of(root), [read(root, plan_of(root))])
    Catalog(LocalStore(clear)).ensure_repository(lambda: "c" * 32)
    Catalog(LocalStore(clear)).commit(manifest)
    (key,) = encrypted_copy(clear, store)
    return store, key


def reads_of(store: CountingStore, name: str) -> list[Read]:
    return [one for one in store.reads if one.key.endswith(name)]


class _Threads(Wrapper):
    """Notes in which threads data is read."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.names: set[str] = set()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        if "/data." in key:
            self.names.add(threading.current_thread().name.partition("_")[0])
        return self._inner.open(key, start=start, length=length)


def test_what_is_encrypted_is_decrypted_in_threads(made: tuple[MemoryStore, BackupKey], tmp_path: Path) -> None:
    """In those that decompress: who uses one range need not wait for the next one to be decrypted."""
    store, key = _Threads(made[0]), made[1]
    where = Repository(store, lambda: key.host, sources=Sources((identity_file(own_file(tmp_path)),)))
    opened = contents.open_backup(where, f"{key.volume}@{key.id}")
    assert sum(map(len, opened.stream())) == opened.manifest.raw_bytes
    assert store.names == {"frames"}


def test_one_small_file_costs_its_index_its_frame_and_their_pieces(
    made: tuple[MemoryStore, BackupKey], tmp_path: Path
) -> None:
    store, key = CountingStore(made[0]), made[1]
    where = Repository(store, lambda: key.host, sources=Sources((identity_file(own_file(tmp_path)),)))
    opened = contents.open_backup(where, f"{key.volume}@{key.id}")
    assert b"".join(contents.read_file(opened, b"directory-6/small-7")) == SMALL
    index, data = reads_of(store, "index.jsonl.zst.age"), reads_of(store, "data.tar.zst.age")
    assert sum(one.taken_bytes for one in index) <= made[0].stat(f"{key.index}.age").size_bytes
    assert len(index) == 1
    header, *frames = sorted(data, key=lambda one: one.start)
    assert (header.start, header.length) == (0, HEADER_BYTES)
    unit, _ = opened.find(b"directory-6/small-7")
    (frame,) = {piece.frame for piece in unit.pieces}
    assert 1 <= len(frames) <= 2, "its header, then its bytes"
    (range_read,) = set(frames)
    assert range_read.start > HEADER_BYTES
    assert range_read.taken_bytes <= frame.stored_bytes * SEALED_BYTES // PIECE_BYTES + 2 * SEALED_BYTES
    others = [one for one in store.reads if one not in (*index, *data)]
    assert {one.key.rpartition("/")[2] for one in others} <= {"volback.json", "manifest.json", "notes.json"}
    whole = made[0].stat(f"{key.data}.age").size_bytes
    assert whole > 19_000_000
    assert sum(one.taken_bytes for one in store.reads) < whole / 8
