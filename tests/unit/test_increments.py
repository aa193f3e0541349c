"""An increment is held against a full backup of the same state: the composed stream is equal, and so is the digest."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.stored import FIRST, SECOND, store_backup, store_increment
from volback.archive.plan import Plan, PlannedUnit
from volback.catalog.keys import INDEX_NAME
from volback.catalog.model import Manifest
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent, Comparing
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

FULL = "20261124T160254Z-ffff"
Change = Callable[[Path], object]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def make_tree(tmp_path: Path) -> Path:
    """Some groups of small files, a large file, links, an extended attribute. A sparse file's header
    has tar's process number in it, which only in a helper container is always 1."""
    root, dice = tmp_path / "tree", random.Random(11)
    for directory in ("a", "b/deep", "c"):
        (root / directory).mkdir(parents=True)
        for number in range(60):
            (root / directory / f"file-{number:02}").write_bytes(dice.randbytes(dice.choice([0, 10, 3000, 40_000])))
    (root / "database").write_bytes(dice.randbytes(3 * MIB + 5000))
    (root / "log").write_bytes(dice.randbytes(MIB + 100_000))
    (root / "medium").write_bytes(dice.randbytes(300_000))
    os.link(root / "a/file-01", root / "c/again")
    os.symlink("a/file-01", root / "link")
    os.setxattr(root / "a/file-02", "user.mark", b"one")
    return root


def _read(root: Path) -> Callable[[Plan, Callable[[PlannedUnit], bool]], Iterable[bytes]]:
    return lambda plan, wanted: [read(root, plan, wanted)]


def store_both(root: Path, change: Change, *, reread: bool = False) -> tuple[MemoryStore, Manifest, Manifest]:
    """Back up, change the tree, back up again as an increment, and as a full backup."""
    store = MemoryStore("test")
    first = store_backup(store, FIRST, plan_of(root), [read(root, plan_of(root))])
    change(root)
    plan = plan_of(root)
    increment = store_increment(store, SECOND, plan, _read(root), first, reread=reread)
    full = store_backup(store, FULL, plan, [read(root, plan)])
    return store, increment, full


def stream_of(store: MemoryStore, manifest: Manifest) -> bytes:
    return b"".join(map(bytes, OpenBackup(store, manifest).stream()))


def _nothing(_root: Path) -> None:
    pass


def _grow_log(root: Path) -> None:
    with (root / "log").open("ab") as file:
        file.write(random.Random(5).randbytes(10_000))


def _write_in_place(root: Path) -> None:
    """The size stays."""
    with (root / "database").open("r+b") as file:
        file.seek(MIB + 12_345)
        file.write(b"changed")


def _touch_back(root: Path) -> None:
    """New content of the same size, and the time put back: only the ctime shows it."""
    path = root / "b/deep/file-03"
    before = path.stat()
    path.write_bytes(bytes(len(path.read_bytes())) or b"now it has some")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _link(root: Path) -> None:
    os.link(root / "a/file-05", root / "b/deep/another name")


def _swap_types(root: Path) -> None:
    (root / "medium").unlink()
    (root / "medium").mkdir()
    (root / "link").unlink()
    (root / "link").write_bytes(b"a file now")


def _set_acl(root: Path) -> None:
    # A default ACL as the kernel keeps it: version 2, then user::rwx, user:1234:r--, group::r-x, mask::rwx, other::---.
    entries = [(1, 7, -1), (2, 4, 1234), (4, 5, -1), (0x10, 7, -1), (0x20, 0, -1)]
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + id_.to_bytes(4, "little", signed=True)
        for tag, mode, id_ in entries
    )
    os.setxattr(root / "a", "system.posix_acl_default", value)


CHANGES: list[Change] = [
    _nothing,
    _grow_log,
    _write_in_place,
    _touch_back,
    lambda root: os.utime(root / "a/file-07", ns=(1, 1)),
    lambda root: (root / "a/file-07").chmod(0o4711),
    lambda root: os.setxattr(root / "a/file-02", "user.mark", b"two"),
    _set_acl,
    _link,
    lambda root: (root / "c/again").unlink(),
    lambda root: (root / "a").rename(root / "renamed"),
    lambda root: (root / "b/deep").rename(root / "deep"),
    _swap_types,
    lambda root: shutil.rmtree(root / "a"),
    lambda root: (root / "b/new").write_bytes(b"new"),
    lambda root: (root / "0 first").write_bytes(random.Random(9).randbytes(700_000)),
    lambda root: shutil.copy2(root / "database", root / "copy"),
    lambda root: os.truncate(root / "database", MIB + 1),
    lambda root: os.truncate(root / "database", 100),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
@pytest.mark.parametrize("reread", [False, True], ids=["", "reread"])
def test_an_increment_is_what_a_full_backup_is(tree: Path, change: Change, reread: bool) -> None:
    store, increment, full = store_both(tree, change, reread=reread)
    assert increment.digest == full.digest
    assert (increment.files, increment.raw_bytes) == (full.files, full.raw_bytes)
    assert stream_of(store, increment) == stream_of(store, full)
    assert list(OpenBackup(store, increment).members()) == list(OpenBackup(store, full).members())


@pytest.mark.parametrize(
    ("change", "at_most"),
    [
        (_nothing, 100),
        (_grow_log, 10_000 + 2 * 80_000),
        (_write_in_place, 100_000),
        (lambda root: os.utime(root / "a/file-07", ns=(1, 1)), 1000),
        (lambda root: (root / "a").rename(root / "renamed"), 20_000),
        (lambda root: (root / "b/new").write_bytes(b"new"), 5000),
        (lambda root: shutil.copy2(root / "database", root / "copy"), 5000),
    ],
)
def test_only_what_is_new_is_stored(tree: Path, change: Change, at_most: int) -> None:
    _, increment, full = store_both(tree, change)
    assert increment.stored_bytes <= at_most
    assert increment.reused_bytes + 200_000 + at_most > full.raw_bytes


def test_a_volume_on_another_disk_is_read_again_and_stores_nothing_twice(tree: Path, tmp_path: Path) -> None:
    """Inodes and ctimes are new."""
    store = MemoryStore("test")
    first = store_backup(store, FIRST, plan_of(tree), [read(tree, plan_of(tree))])
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-a", tree, moved], check=True)
    plan = plan_of(moved)
    increment = store_increment(store, SECOND, plan, _read(moved), first)
    assert increment.digest == store_backup(store, FULL, plan, [read(moved, plan)]).digest == first.digest
    assert increment.stored_bytes < 100


def test_an_unchanged_night_takes_the_index_as_it_is(tree: Path) -> None:
    _, increment, full = store_both(tree, _nothing)
    assert increment.index.size_bytes == increment.index_table_bytes < 300 < full.index.size_bytes
    assert [(used.id, used.name) for used in increment.uses] == [(FIRST, "data.tar.zst"), (FIRST, "index.jsonl.zst")]


def test_a_long_chain_is_what_a_full_backup_is(tree: Path) -> None:
    """Each night something else changes; the index of the last one comes from many objects."""
    store, dice = MemoryStore("test"), random.Random(3)
    last = store_backup(store, "20260101T000000Z-0000", plan_of(tree), [read(tree, plan_of(tree))])
    for night in range(1, 41):
        directory = tree / dice.choice(["a", "b/deep", "c"])
        (directory / f"file-{dice.randrange(60):02}").write_bytes(dice.randbytes(dice.randrange(5000)))
        with (tree / "database").open("r+b") as file:
            file.seek(dice.randrange(3 * MIB))
            file.write(b"changed")
        plan = plan_of(tree)
        last = store_increment(store, f"20260102T{night:06}Z-0000", plan, _read(tree), last)
    full = store_backup(store, FULL, plan, [read(tree, plan)])
    assert last.digest == full.digest
    assert stream_of(store, last) == stream_of(store, full)
    assert len({used.id for used in last.uses if used.name == "index.jsonl.zst"}) <= 16


def test_data_that_the_manifest_does_not_name_is_not_built_upon(tree: Path) -> None:
    """Whoever edits a manifest can take an object from its list; the index still names it."""
    store, increment, _ = store_both(tree, _grow_log)
    forged = msgspec.structs.replace(increment, uses=[used for used in increment.uses if used.name == INDEX_NAME])
    chosen, plan = ChosenParent(OpenBackup(store, forged)), plan_of(tree)
    parent = chosen.compared(plan, Comparing())
    assert all(map(parent.is_read, plan.units))
    assert chosen.backup is None
    assert chosen.warnings == [
        f"everything was read and stored: backup {SECOND} cannot be built upon: "
        f"its index names data of backup {FIRST}, which its manifest does not"
    ]
