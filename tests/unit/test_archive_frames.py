"""Frames copied into a new data object, and an index that names their new places: nothing but the places changes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.stored import FIRST, HOST, SECOND, VOLUME
from tests.unit.test_increments import make_tree, store_both, stream_of
from volback.archive import ranges
from volback.archive.frames import CopiedFrames, MovedIndex, UsedFrames
from volback.archive.parent import begins_of
from volback.catalog.keys import INDEX_NAME, BackupKey
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.units import Frame, Piece
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

NEW = "20261121T160254Z-bbbb"
"""Sorts before both: what is packed anew may lie below any of the backups that use it."""


@pytest.fixture
def both(tmp_path: Path) -> tuple[MemoryStore, Manifest]:
    """An increment, and the full backup from which it takes most of its data."""

    def change(root: Path) -> None:
        (root / "a/file-07").write_bytes(b"new" * 20_000)
        shutil.rmtree(root / "c")

    store, second, _ = store_both(make_tree(tmp_path), change)
    return store, second


def _slices(backup: OpenBackup, copied: CopiedFrames) -> Iterator[ranges.Slice]:
    """What lies in the data object of the first backup."""
    for unit in backup.units():
        for item in ranges.whole(unit.pieces):
            if item.piece.frame.backup == FIRST:
                copied.place(item.piece.frame)
                yield item


def _is_moved(frame: Frame) -> bool:
    return frame.backup == FIRST


def _moved(piece: Piece, copied: CopiedFrames) -> Piece:
    return piece._replace(frame=copied.place(piece.frame)) if _is_moved(piece.frame) else piece


def _packed(store: MemoryStore, second: Manifest) -> tuple[CopiedFrames, Manifest]:
    """The increment, once what it uses of the first backup's data lies in a new object."""
    backup, copied = OpenBackup(store, second), CopiedFrames(NEW)
    store.put(BackupKey(HOST, VOLUME, NEW).increment, map(bytes, copied.data(backup.unsealed(_slices(backup, copied)))))
    index = MovedIndex(SECOND)
    for reused in begins_of(backup.segments):
        index.add_moved(
            reused, _is_moved, lambda unit: unit._replace(pieces=[_moved(one, copied) for one in unit.pieces])
        )
    assert index.stream_digest() == second.digest
    stored = index.end()
    store.put(second.key.index, stored.buffers)
    data = copied.digest()
    use = UsedObject(id=NEW, name="data.zst", size_bytes=data.size_bytes, used_bytes=index.frames.used[NEW])
    others = [used for used in second.uses if used.name == INDEX_NAME and used.id in stored.used]
    made = msgspec.structs.replace(
        second, index=stored.digest, index_table_bytes=stored.table_bytes, uses=[use, *others]
    )
    return copied, made


def test_the_backup_is_the_same_once_its_frames_have_moved(both: tuple[MemoryStore, Manifest]) -> None:
    store, second = both
    before = stream_of(store, second)
    copied, made = _packed(store, second)
    store.delete(BackupKey(HOST, VOLUME, FIRST).data)
    assert stream_of(store, made) == before
    [data] = [used for used in made.uses if used.name != INDEX_NAME]
    stored = b"".join(store.open(BackupKey(HOST, VOLUME, NEW).increment))
    assert copied.digest().sha256 == hashlib.sha256(stored).hexdigest()
    [was] = [used for used in second.uses if used.name != INDEX_NAME]
    assert was.used_bytes == data.used_bytes == data.size_bytes == len(stored) < was.size_bytes


def test_lines_whose_frames_did_not_move_stay_where_they_are(both: tuple[MemoryStore, Manifest]) -> None:
    store, second = both
    backup, index = OpenBackup(store, second), MovedIndex(SECOND)
    for reused in begins_of(backup.segments):
        index.add_moved(reused, lambda frame: False, lambda unit: pytest.fail("a line was decoded"))
    stored = index.end()
    assert (stored.digest, stored.table_bytes) == (second.index, second.index_table_bytes)
    assert (index.frames.used, index.reused_bytes) == (
        {used.id: used.used_bytes for used in second.uses if used.name != INDEX_NAME}, second.reused_bytes,
    )  # fmt: skip


def test_a_frame_is_written_once_however_many_slices_of_it_are_wanted(both: tuple[MemoryStore, Manifest]) -> None:
    store, second = both
    backup, copied = OpenBackup(store, second), CopiedFrames(NEW)

    def slices() -> Iterator[ranges.Slice]:
        for _ in range(2):
            yield from _slices(backup, copied)

    written = sum(len(part) for part in copied.data(backup.unsealed(slices())))
    assert written == copied.stored_bytes == sum(u.used_bytes for u in second.uses if u.name != INDEX_NAME)


def test_a_damaged_frame_ends_the_new_object(both: tuple[MemoryStore, Manifest]) -> None:
    store, second = both
    key = BackupKey(HOST, VOLUME, FIRST).data
    data = bytearray(b"".join(store.open(key)))
    data[len(data) // 2] ^= 1
    store.put(key, [bytes(data)])
    backup, copied = OpenBackup(store, second), CopiedFrames(NEW)
    with pytest.raises(IntegrityError, match=r"is damaged: .*/data\.tar\.zst, frame at"):
        store.put("host/new", map(bytes, copied.data(backup.unsealed(_slices(backup, copied)))))
    assert "host/new" not in {info.key for info in store.list()}


def test_used_frames_are_counted_once() -> None:
    frames = UsedFrames(SECOND)
    for frame in (Frame(FIRST, 0, 10, 20), Frame(SECOND, 0, 5, 9), Frame(FIRST, 0, 10, 20), Frame(FIRST, 10, 1, 2)):
        frames.note(frame)
    assert (frames.own_bytes, frames.used) == (5, {FIRST: 11})
