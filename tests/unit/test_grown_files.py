"""A large file of which a part changes each night: its index line costs what changed, and every reader takes it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.encrypted import encrypted_copy, own_file
from tests.support.nights import context, id_of, key_of, remove, stream_of
from tests.support.stored import HOST, VOLUME, commit_next
from tests.unit.test_rescue import _rescue
from volback.archive.blocks import BLOCK_BYTES
from volback.archive.segments import AFTER_BYTES
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.context import Context, open_engine, open_repository
from volback.context.repository import Repository
from volback.operations.check import check
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.diff import diff_backups
from volback.operations.open_backup import OpenBackup
from volback.operations.repack import repack
from volback.operations.repack_plan import Packing
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

NIGHTS, GREW = 4, 300_000


class Grown:
    """A repository with the backups of a log that grows, and of a database of which pages change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ctx = context(directory)
        self.store = LocalStore(directory / "repository")
        self.repository = Repository(self.store, lambda: HOST, self.ctx.now)
        self.streams: list[bytes] = []

    def of(self, night: int) -> Manifest:
        return Catalog(self.store).read(key_of(night))

    def copy(self, directory: Path) -> Grown:
        """One that may be changed."""
        shutil.copytree(self.directory / "repository", directory / "repository")
        other = Grown(directory)
        other.streams = self.streams
        return other


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    made, dice = Grown(tmp_path_factory.mktemp("grown")), random.Random(1)
    Catalog(made.store).ensure_repository(lambda: "a" * 32)
    root = made.directory / "volume"
    root.mkdir()
    (root / "small").write_bytes(b"small")
    (root / "database").write_bytes(dice.randbytes(26 * MIB))
    (root / "log").write_bytes(dice.randbytes(26 * MIB))
    for night in range(NIGHTS):
        if night:
            with (root / "log").open("ab") as log, (root / "database").open("r+b") as database:
                log.write(dice.randbytes(GREW))
                database.seek(night * MIB + 100_000)
                database.write(dice.randbytes(8192))
        commit_next(made.ctx, made.repository, id_of(night), root)
        made.streams.append(read(root, plan_of(root)))
    yield made
    shutil.rmtree(made.directory)


def test_an_increment_stores_what_changed_and_two_blocks_a_file(grown: Grown) -> None:
    assert all(segment.dictionary is None for segment in OpenBackup(grown.store, grown.of(0)).segments)
    assert grown.of(0).index.size_bytes > 2 * AFTER_BYTES * 3 // 4
    for night in range(1, NIGHTS):
        manifest = grown.of(night)
        assert manifest.index.size_bytes < grown.of(0).index.size_bytes // 6
        assert manifest.stored_bytes + manifest.index.size_bytes < GREW + 4 * BLOCK_BYTES
        backup = OpenBackup(grown.store, manifest)
        assert {one.dictionary.backup for one in backup.segments if one.dictionary} == {id_of(0)}
        assert [used.id for used in manifest.uses if used.is_index] == [id_of(0)]


def test_every_night_is_what_it_was(grown: Grown) -> None:
    for night, stream in enumerate(grown.streams):
        assert stream_of(grown.store, grown.of(night)) == stream
    assert verify(grown.ctx, grown.repository, [], data=True).damaged == []
    assert check(grown.repository).findings == ()
    compared = diff_backups(grown.repository, f"{VOLUME}@{id_of(1)}", f"{VOLUME}@{id_of(2)}")
    assert [item.path for item in compared.found if item.path] == [b"database", b"log"]


def test_an_index_that_is_a_dictionary_stays_until_it_is_repacked(grown: Grown, tmp_path: Path) -> None:
    copy = grown.copy(tmp_path)
    remove(copy.repository, [0, 1])
    assert (tmp_path / "repository" / key_of(0).index).exists()
    assert stream_of(copy.store, copy.of(3)) == grown.streams[3]
    result = repack(copy.ctx, open_engine(copy.ctx), copy.repository, Packing(below=0.999))
    assert result.errors == ()
    assert not (tmp_path / "repository" / key_of(0).index).exists()
    for night in (2, 3):
        assert stream_of(copy.store, copy.of(night)) == grown.streams[night]
    assert check(copy.repository).findings == ()
    remove(copy.repository, [2])
    assert stream_of(copy.store, copy.of(3)) == grown.streams[3]


def test_a_damaged_dictionary_is_named(grown: Grown, tmp_path: Path) -> None:
    copy = grown.copy(tmp_path)
    path = tmp_path / "repository" / key_of(0).index
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    [damage] = verify(copy.ctx, copy.repository, [f"{VOLUME}@{id_of(2)}"], data=False).damaged
    assert damage.message == f"backup {copy.of(2).name} is damaged: the index of {id_of(0)} is not what it was"


def test_a_copy_is_complete(grown: Grown, tmp_path: Path) -> None:
    Catalog(LocalStore(tmp_path / "target")).ensure_repository(lambda: "f" * 32)
    ctx = Context(Settings(str(tmp_path / "target"), tmp_path / "state", host=HOST))
    target = open_repository(ctx)
    prepare_target(ctx, grown.repository, target)
    for night in (1, 3):
        [item] = plan_copies(grown.repository, target, [f"{VOLUME}@{id_of(night)}"])
        assert copy_backup(ctx, grown.repository, target, item).done == "copied"
    for night in (1, 3):
        manifest = target.catalog.read(key_of(night))
        assert stream_of(target.store, manifest) == grown.streams[night]
    assert check(target).findings == ()


@pytest.mark.programs
def test_docs_rescue_reads_it(grown: Grown, tmp_path: Path) -> None:
    done = _rescue(grown.directory / "repository", f"{HOST}/{VOLUME}@{id_of(3)}")
    assert (done.returncode, done.stdout == grown.streams[3]) == (0, True), done.stderr
    encrypted_copy(grown.directory / "repository", LocalStore(tmp_path / "encrypted"))
    done = _rescue(tmp_path / "encrypted", f"{HOST}/{VOLUME}@{id_of(3)}", own_file(tmp_path))
    assert (done.returncode, done.stdout == grown.streams[3]) == (0, True), done.stderr
