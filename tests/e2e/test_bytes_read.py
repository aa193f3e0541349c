"""How little is read: a listing reads no data, one file reads its own frames, whatever lies around it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.counting import CountingStore, Read
from tests.support.engine import EngineSession
from tests.support.library import Library, open_library
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import Manifest
from volback.catalog.sealed import DOCUMENT_MAX_BYTES
from volback.catalog.units import Frame
from volback.operations import contents
from volback.operations.backup import BackupOptions, backup
from volback.operations.open_backup import OpenBackup
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import volume_source

MIB = 1024 * 1024


class Counted:
    """The library on a backup of 40 MiB, its reads counted from now on."""

    def __init__(self, library: Library, manifest: Manifest) -> None:
        self.name = manifest.name
        self.key = manifest.key
        self.units = list(OpenBackup(library.repository.store, manifest).units())
        store = library.repository.store
        self.documents = [
            *(
                Read(key, 0, DOCUMENT_MAX_BYTES + 1, store.stat(key).size_bytes)
                for key in (REPOSITORY_KEY, self.key.manifest)
            ),
            Read(self.key.index, 0, manifest.index.size_bytes + 1, manifest.index.size_bytes),
        ]
        self.store = CountingStore(library.repository.store)
        self.library = library.on(self.store)
        self.store.reads.clear()  # of the look whether there is a repository

    def frames(self, path: bytes) -> list[Frame]:
        """Frames of the unit that holds the file, each once."""
        unit = next(unit for unit in self.units if any(member.path == path for member in unit.members))
        return list(dict.fromkeys(piece.frame for piece in unit.pieces))

    def range(self, *frames: Frame) -> Read:
        """The read of frames that lie side by side."""
        size = sum(frame.stored_bytes for frame in frames)
        return Read(self.key.data, frames[0].offset, size, size)


@pytest.fixture
def counted(engine: EngineSession, tmp_path: Path, volume_factory: Callable[..., str]) -> Counted:
    def fill(path: Path) -> None:
        for number in range(300):
            (path / f"small-{number:03}").write_bytes(os.urandom(10 * 1024))
        for number in range(9):
            (path / f"large-{number}").write_bytes(os.urandom(4 * MIB))

    library = open_library(engine, tmp_path)
    source = volume_source(library.engine, volume_factory("counted", fill=fill))
    return Counted(library, backup(*library, source, BackupOptions()).manifest)


def test_ls_reads_documents_and_the_index(counted: Counted) -> None:
    opened = contents.open_backup(counted.library.repository, counted.name)
    assert len(list(contents.members(opened))) == 310
    assert counted.store.reads == counted.documents


def test_cat_of_a_small_file_reads_its_one_frame(counted: Counted) -> None:
    opened = contents.open_backup(counted.library.repository, counted.name)
    assert len(b"".join(contents.read_file(opened, b"small-150"))) == 10 * 1024
    (frame,) = counted.frames(b"small-150")
    assert counted.store.reads[:3] == counted.documents
    assert 1 <= len(counted.store.reads[3:]) <= 2
    assert set(counted.store.reads[3:]) == {counted.range(frame)}


def test_a_large_file_comes_with_its_header_and_nothing_else_is_read(counted: Counted) -> None:
    opened = contents.open_backup(counted.library.repository, counted.name)
    assert len(b"".join(contents.read_file(opened, b"large-5"))) == 4 * MIB
    frames = counted.frames(b"large-5")
    assert len(frames) >= 4
    assert counted.store.reads[:3] == counted.documents
    reads = sorted(set(counted.store.reads[3:]), key=lambda one: one.start)
    ends = [one.start + one.taken_bytes for one in reads]
    assert reads[0].start == frames[0].offset
    assert ends[-1] == frames[-1].offset + frames[-1].stored_bytes
    assert [one.start for one in reads[1:]] == ends[:-1], "each once, side by side"


def test_restore_of_one_file_reads_its_frame_and_that_of_the_root(
    counted: Counted, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    target = volume_name("part")
    restore(*counted.library, counted.name, RestoreOptions(name=target, paths=["small-150"]))
    assert [path.name for path in volume_path(target).iterdir()] == ["small-150"]
    (frame,) = counted.frames(b"small-150")
    root = counted.frames(b"")[0]
    reads = counted.store.reads
    assert reads[:3] == counted.documents
    assert sorted(reads[3:]) == sorted({counted.range(root), counted.range(frame)})
