"""Increments of a real volume: each is what a full backup of the same state is, and each damage is named."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, EngineSession, Volback, remove_volume
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import struck
from tests.support.library import Library, open_from, open_library
from tests.support.repository import manifest_of
from tests.support.s3 import S3Server
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.operations.backup import BackupOptions, backup
from volback.operations.contents import read_file
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.export import export
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import Comparing
from volback.operations.prove import Comparison, prove
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import volume_source
from volback.operations.verify import verify
from volback.policy.unchanged import SETTLING_NS
from volback.settings import Settings
from volback.store.base import Store
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

MIB = 1024 * 1024
IDENTICAL = Comparison([], [], [])
DATABASE = "database"


def _fill(root: Path) -> None:
    """A database of several frames, groups of small files, a sparse file, links, attributes."""
    dice = random.Random(7)
    for directory in ("a", "b/deep", "c"):
        (root / directory).mkdir(parents=True)
        for number in range(150):
            (root / directory / f"file-{number:03}").write_bytes(dice.randbytes(dice.choice([0, 10, 3000, 12_000])))
    (root / DATABASE).write_bytes(dice.randbytes(4 * MIB + 5000))
    (root / "log").write_bytes(dice.randbytes(MIB + 100_000))
    with (root / "sparse").open("wb") as file:
        for at in (0, 3 * MIB, 9 * MIB):
            os.pwrite(file.fileno(), dice.randbytes(100_000), at)
        file.truncate(20 * MIB)
    os.link(root / "a/file-001", root / "c/again")
    os.symlink("a/file-001", root / "link")
    os.setxattr(root / "a/file-002", "user.mark", b"one")
    os.setxattr(root / DATABASE, "user.mark", b"one")


def _settle(root: Path) -> None:
    """Wait until no ctime is so recent that its file must be read again."""
    newest = max(os.lstat(os.path.join(where, name)).st_ctime_ns for where, _, names in os.walk(root) for name in names)
    while time.time_ns() < newest + SETTLING_NS + 100_000_000:
        time.sleep(0.05)


@dataclass
class Chain:
    """A volume that is changed, its chain of increments, and beside it, full backups of the same states."""

    library: Library
    name: str
    root: Path
    full: Library
    """On a repository of its own, so that the chain goes on."""

    def back_up(self) -> Manifest:
        return _back_up(self.library, self.name)

    def back_up_whole(self) -> Manifest:
        return _back_up(self.full, self.name, full=True)


def _back_up(library: Library, name: str, *, full: bool = False) -> Manifest:
    options = BackupOptions(comparing=Comparing(full=full))
    result = backup(*library, volume_source(library.engine, name), options)
    assert (result.manifest.warnings, result.incomplete) == ([], False)
    return result.manifest


@pytest.fixture(scope="module")
def chain(engine: EngineSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Its first backup has been made, of files that have settled."""
    directory = tmp_path_factory.mktemp("chain")
    library = open_library(engine, directory)
    name = engine.client.volumes.create(engine.new_name("chain"), labels=engine.labels).name
    root = Path(engine.client.volumes.get(name).attrs["Mountpoint"])
    _fill(root)
    _settle(root)
    made = Chain(library, name, root, library.on(LocalStore(directory / "full")))
    made.back_up()
    yield made
    remove_volume(engine.client, name)


def _tar(library: Library, manifest: Manifest, *, zstd: bool = False) -> bytes:
    opened = OpenBackup(library.repository.store, manifest)
    return b"".join(map(bytes, export(library.ctx, opened, "zstd" if zstd else "tar")))


def _grow_log(root: Path) -> None:
    with (root / "log").open("ab") as file:
        file.write(random.Random(5).randbytes(30_000))


def _write_back_in_time(root: Path) -> None:
    """In place, and the mtime is put back: only the ctime shows it."""
    before = (root / DATABASE).stat()
    with (root / DATABASE).open("r+b") as file:
        file.seek(MIB + 12_345)
        file.write(os.urandom(100))
    os.utime(root / DATABASE, ns=(before.st_atime_ns, before.st_mtime_ns))


def _write_into_hole(root: Path) -> None:
    with (root / "sparse").open("r+b") as file:
        file.seek(6 * MIB)
        file.write(os.urandom(50_000))


def _punch(root: Path, name: str, at: int, size: int) -> None:
    """FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE: the size stays."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (root / name).open("r+b") as file:
        done = libc.fallocate(file.fileno(), 3, ctypes.c_longlong(at), ctypes.c_longlong(size))
        assert done == 0, os.strerror(ctypes.get_errno())


def _set_acl(root: Path) -> None:
    subprocess.run(["setfacl", "-m", "u:1234:r", root / "b/deep/file-004"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", root / "c"], check=True)


def _link(root: Path) -> None:
    os.link(root / "a/file-005", root / "b/another name")
    os.link(root / DATABASE, root / "c/of the database")


def _unlink_first_name(root: Path) -> None:
    """The name that carries the data goes; the other one carries it then."""
    (root / "a/file-001").unlink()
    (root / "c/of the database").unlink(missing_ok=True)


def _swap_types(root: Path) -> None:
    for name in ("link", "a/file-007", "a/file-008"):
        (root / name).unlink()
    (root / "link").write_bytes(b"a file now")
    (root / "a/file-007").mkdir()
    (root / "a/file-008").symlink_to("file-009")
    os.mkfifo(root / "b/deep/file-100.fifo")


def _rename_directory(root: Path) -> None:
    (root / "b/deep").rename(root / "c/moved")


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "append": _grow_log,
    "in place, mtime put back": _write_back_in_time,
    "write into a hole": _write_into_hole,
    "punch a sparse file": lambda root: _punch(root, "sparse", 3 * MIB, 65_536),
    "punch a file": lambda root: _punch(root, DATABASE, 2 * MIB, 400_000),
    "grow by a hole": lambda root: os.truncate(root / "sparse", 25 * MIB),
    "xattr": lambda root: os.setxattr(root / "a/file-002", "user.mark", b"two"),
    "xattr of a large file": lambda root: os.setxattr(root / DATABASE, "user.mark", b"two"),
    "acl": _set_acl,
    "link": _link,
    "unlink": _unlink_first_name,
    "types": _swap_types,
    "rename": _rename_directory,
}
"""In this order, or some of them alone."""


@pytest.mark.parametrize(
    "change",
    [pytest.param(CHANGES[name], id=name, marks=[pytest.mark.long] * (at % 2)) for at, name in enumerate(CHANGES)],
)
def test_an_increment_is_what_a_full_backup_is(chain: Chain, change: Callable[[Path], object]) -> None:
    change(chain.root)
    increment, full = chain.back_up(), chain.back_up_whole()
    assert (increment.kind, full.kind) == ("incremental", "full")
    assert increment.digest == full.digest
    assert (increment.files, increment.raw_bytes) == (full.files, full.raw_bytes)
    assert _tar(chain.library, increment) == _tar(chain.full, full)
    assert increment.stored_bytes < 700_000
    opened = [
        OpenBackup(each.repository.store, made) for each, made in ((chain.library, increment), (chain.full, full))
    ]
    assert list(opened[0].members()) == list(opened[1].members())


def test_the_last_of_a_chain_restores_to_what_was_backed_up(
    chain: Chain, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    _grow_log(chain.root)
    _write_into_hole(chain.root)
    library, manifest, target = chain.library, chain.back_up(), volume_name("restored")
    assert prove(*library, manifest.name, chain.name) == IDENTICAL
    result = restore(*library, manifest.name, RestoreOptions(name=target, prove=True))
    assert result.proven
    assert differences(fingerprint(chain.root), fingerprint(volume_path(target))) == []
    opened = OpenBackup(library.repository.store, manifest)
    for path in (DATABASE, "log", "sparse", "a/file-003", "c/again"):
        assert b"".join(read_file(opened, path.encode())) == (chain.root / path).read_bytes()
    packed = tmp_path / "out.tar.zst"
    packed.write_bytes(_tar(library, manifest, zstd=True))
    plain = subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout
    assert plain == _tar(library, manifest)
    assert verify(library.ctx, library.repository, [], data=True).damaged == []


def test_an_increment_is_copied_alone_proven_and_restored_from_there(
    chain: Chain, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    _write_back_in_time(chain.root)
    manifest, there = chain.back_up(), chain.library.on(LocalStore(tmp_path / "copy"))
    _copy(chain.library, there, manifest)
    [key] = _keys(there, manifest)
    assert (key.id, there.repository.catalog.read(key).uses) == (manifest.id, [])
    assert prove(*there, manifest.name, chain.name) == IDENTICAL
    target, part = volume_name("restored"), volume_name("part")
    assert restore(*there, manifest.name, RestoreOptions(name=target, prove=True)).proven
    assert differences(fingerprint(chain.root), fingerprint(volume_path(target))) == []
    restore(*there, manifest.name, RestoreOptions(name=part, paths=["a", DATABASE]))
    assert (volume_path(part) / DATABASE).read_bytes() == (chain.root / DATABASE).read_bytes()
    assert verify(there.ctx, there.repository, [], data=True).damaged == []


def _keys(library: Library, of: Manifest) -> list[BackupKey]:
    return library.repository.catalog.backups(of.host, of.volume)


def _copy(source: Library, target: Library, manifest: Manifest) -> None:
    for item in plan_copies(source.repository, target.repository, [manifest.name]):
        assert copy_backup(source.ctx, source.repository, target.repository, item).done == "copied"
    there = target.repository.catalog.read(manifest.key)
    assert (there.id, there.digest) == (manifest.id, manifest.digest)


@pytest.mark.parametrize("server", ["rclone", pytest.param("moto", marks=pytest.mark.long)])
def test_increments_in_a_bucket(
    request: pytest.FixtureRequest, chain: Chain, server: str, monkeypatch: pytest.MonkeyPatch,
    volume_name: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """One whose data object is empty among them; what was made elsewhere is copied there alone, goes on there, and
    comes back."""
    running: S3Server = request.getfixturevalue(server)
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    with running.bucket() as bucket:
        far = Chain(chain.library.on(running.store(bucket)), chain.name, chain.root, chain.full)
        _copy(chain.library, far.library, chain.back_up())
        empty = far.back_up()
        assert (empty.kind, empty.stored_bytes, empty.data.size_bytes) == ("incremental", 0, 0)
        _grow_log(chain.root)
        increment = far.back_up()
        assert (increment.parent, increment.digest) == (empty.id, chain.back_up_whole().digest)
        assert prove(*far.library, increment.name, chain.name) == IDENTICAL
        back = chain.library.on(MemoryStore("back"))
        _copy(far.library, back, increment)
        assert _tar(back, back.repository.find(increment.name)) == _tar(far.library, increment)
        assert verify(far.library.ctx, far.library.repository, [], data=True).damaged == []
        target = volume_name("restored")
        assert restore(*far.library, increment.name, RestoreOptions(name=target, prove=True)).proven
        assert differences(fingerprint(chain.root), fingerprint(volume_path(target))) == []


@dataclass
class Commands:
    """Increments by the program, of a small volume that is changed before each."""

    run: Volback
    library: Library
    name: str
    root: Path

    def back_up(self, *, full: bool = False, check_exit: int = 0) -> Manifest:
        """Only where it warns, by the program."""
        (self.root / "changing").write_bytes(os.urandom(2000))
        if not check_exit:
            return _back_up(self.library, self.name, full=full)
        made = self.run("backup", self.name, "--json", check_exit=check_exit).json["result"]["backups"][0]
        return manifest_of(self.store, BackupKey(made["host"], made["volume"], made["id"]))

    @property
    def store(self) -> Store:
        return LocalStore(self.run.repository)

    def path(self, key: str) -> Path:
        return self.run.repository / key

    def flip(self, key: str) -> None:
        """One byte in the middle; the size stays."""
        data = bytearray(self.path(key).read_bytes())
        data[len(data) // 2] ^= 1
        self.path(key).write_bytes(data)

    def verify(self, *options: str) -> dict[str, list[str]]:
        """The damaged objects of each damaged backup."""
        found: dict[str, list[str]] = {}
        for item in self.run("verify", *options, "--json", check_exit=7).json["result"]["damaged"]:
            found.setdefault(item["backup"].partition("@")[2], []).append(item["object"])
        return found

    def assert_equal_to_a_full_one(self, increment: Manifest) -> None:
        assert increment.digest == _back_up(self.library, self.name, full=True).digest


@pytest.fixture
def commands(run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]) -> Commands:
    def fill(root: Path) -> None:
        (root / "large").write_bytes(random.Random(1).randbytes(2 * MIB))
        (root / "small").write_text("text")

    name = volume_factory("increments", fill=fill)
    library = open_from(Settings(str(run_volback.repository), run_volback.state))
    return Commands(run_volback, library, name, volume_path(name))


def test_where_the_parent_was_removed_by_hand_all_is_stored_again(commands: Commands) -> None:
    first, second = commands.back_up(), commands.back_up()
    assert (first.kind, second.kind, second.depends_on) == ("full", "incremental", [first.id])
    shutil.rmtree(commands.path(first.key.prefix))
    third = commands.back_up(check_exit=3)
    assert (third.kind, third.uses, third.parent) == ("full", [], None)
    passed_over, why = third.warnings
    assert passed_over.startswith(f"backup {second.id} cannot be built upon: {first.data_key} is missing")
    assert why == "everything was read and stored: no other is intact"
    assert commands.verify() == {second.id: [first.data_key]}
    fourth = commands.back_up()
    assert fourth.parent == third.id


def test_where_a_manifest_alone_is_lost_its_objects_stay_and_are_built_upon(commands: Commands) -> None:
    """What is lost is one state: those that use its data are whole, and go on."""
    first = commands.back_up()
    last = commands.back_up()
    assert last.depends_on == [first.id]
    commands.path(first.key.manifest).unlink()
    commands.run("prune", commands.name, "--keep-last", "1", "--older-than", "0s")
    made = commands.back_up()
    assert (made.parent, made.depends_on[0]) == (last.id, first.id)
    commands.run("verify", "--data")
    commands.assert_equal_to_a_full_one(made)


def test_of_many_backups_that_need_what_is_lost_a_few_are_named(commands: Commands) -> None:
    first, *others = [commands.back_up() for _ in range(6)]
    commands.path(first.data_key).unlink()
    last = commands.back_up(check_exit=3)
    assert last.kind == "full"
    beginnings = [f"backup {made.id} cannot be built upon: " for made in reversed(others)][:3]
    assert [warning.startswith(begin) for begin, warning in zip(beginnings, last.warnings, strict=False)] == [True] * 3
    assert last.warnings[3:] == ["3 older backups cannot either", "everything was read and stored: no other is intact"]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_data_object_that_is_missing_or_cut_is_not_built_upon(commands: Commands, cut: int) -> None:
    first, second = commands.back_up(), commands.back_up()
    data = commands.path(first.data_key)
    data.write_bytes(data.read_bytes()[: -1 if cut else 0])
    third = commands.back_up(check_exit=3)
    assert (third.kind, third.uses) == ("full", [])
    assert [warning.partition(":")[0] for warning in third.warnings] == [
        f"backup {second.id} cannot be built upon",
        f"backup {first.id} cannot be built upon",
        "everything was read and stored",
    ]
    assert commands.verify() == {first.id: [first.data_key], second.id: [first.data_key]}


def test_a_flipped_byte_is_named_with_every_backup_that_needs_it(
    commands: Commands, volume_name: Callable[..., str]
) -> None:
    first, second = commands.back_up(), commands.back_up()
    commands.flip(first.data_key)
    assert commands.run("verify", "--json").json["result"]["damaged"] == [], "sizes are right"
    assert commands.verify("--data") == {first.id: [first.data_key], second.id: [first.data_key]}
    failed = commands.run("restore", second.name, "--as", volume_name("lost"), check_exit=7)
    damage = re.escape(f"backup {second.name} is damaged: {first.data_key}")
    assert re.match(rf"error: {damage}, frame at \d+: .*\nhint: volback verify {second.name} --data ", failed.stderr)
    commands.assert_equal_to_a_full_one(second)
    commands.run("restore", commands.name, "--as", volume_name("whole"), "--prove")


@pytest.mark.parametrize("what", ["manifest", "index"])
def test_an_older_parent_is_taken_where_the_latest_is_damaged(commands: Commands, what: str) -> None:
    first, second = commands.back_up(), commands.back_up()
    commands.flip(second.key.manifest if what == "manifest" else second.key.index)
    third = commands.back_up(check_exit=3)
    assert (third.kind, third.parent, third.depends_on) == ("incremental", first.id, [first.id])
    (warning,) = third.warnings
    assert warning.startswith(f"backup {second.id} cannot be built upon: ")
    assert list(commands.verify()) == [second.id]
    commands.run("remove", second.name)
    fourth = commands.back_up()
    assert fourth.parent == third.id
    commands.assert_equal_to_a_full_one(fourth)


def test_an_index_run_of_another_backup_that_is_damaged_is_named(commands: Commands) -> None:
    """The second one's index takes segments of the first one's; the sizes are right."""
    (commands.root / "many").mkdir()
    for number in range(3000):
        (commands.root / "many" / f"{number:04}").write_bytes(b"")
    first, second = commands.back_up(), commands.back_up()
    assert first.key.index.rpartition("/")[2] in {used.name for used in second.uses}
    commands.flip(first.key.index)
    assert set(commands.verify()) == {first.id, second.id}
    assert commands.back_up(check_exit=3).kind == "full"


def test_a_clock_that_was_set_back_costs_space_alone(commands: Commands) -> None:
    """Backups from the future are not built upon; once the clock is right again, the latest one is."""
    first, second = commands.back_up(), commands.back_up()
    behind = open_from(commands.library.ctx.settings, now=lambda: datetime.now(UTC) - timedelta(days=2))
    early = [_back_up(behind, commands.name) for _ in range(2)]
    assert [made.kind for made in early] == ["full", "incremental"]
    assert early[1].parent == early[0].id < first.id
    third = commands.back_up()
    assert third.parent == second.id
    commands.assert_equal_to_a_full_one(third)
    commands.run("remove", first.name)
    commands.run("verify", "--data")


@pytest.mark.parametrize("step", ["buffer 1 of put data.zst", "before Catalog.commit"])
def test_an_increment_that_was_killed_is_cleaned_up_and_made_again(commands: Commands, step: str) -> None:
    first = commands.back_up()
    (commands.root / "changing").write_bytes(os.urandom(3 * MIB))
    assert struck(commands.run, signal.SIGKILL, step, "backup", commands.name) == -signal.SIGKILL
    assert len(list(commands.path(first.key.prefix).parent.iterdir())) == 2
    second = commands.back_up()
    assert (second.kind, second.parent) == ("incremental", first.id)
    assert Catalog(commands.store).litter() == []
    assert sorted(path.name for path in commands.path(first.key.prefix).parent.iterdir()) == [first.id, second.id]
    commands.assert_equal_to_a_full_one(second)


def test_prune_keeps_the_data_that_a_kept_increment_uses(commands: Commands) -> None:
    """As long as something of it is used; what no kept one uses goes, with the increments between."""
    first, _, third = commands.back_up(), commands.back_up(), commands.back_up()
    pruned = commands.run("prune", commands.name, "--keep-last", "1", "--json").json["result"]
    assert [made["id"] for made in pruned["kept"]] == [third.id]
    assert pruned["still_used_bytes"] > 2 * MIB
    assert sorted(path.name for path in commands.path(first.key.prefix).iterdir()) == ["data.tar.zst"]
    commands.run("verify", "--data")
    (commands.root / "large").write_bytes(os.urandom(2 * MIB))
    (commands.root / "small").write_text("other")
    fourth = commands.back_up()
    assert fourth.parent == third.id
    commands.run("prune", commands.name, "--keep-last", "1")
    commands.run("verify", "--data")
    held = {path.name for path in commands.path(first.key.prefix).parent.iterdir()}
    assert held == {fourth.id, *commands.library.repository.find(fourth.name).depends_on}
    last = commands.back_up(full=True)
    commands.run("prune", commands.name, "--keep-last", "1")
    assert [path.name for path in commands.path(first.key.prefix).parent.iterdir()] == [last.id]


def test_a_backup_whose_parents_were_removed_is_as_good_as_before(
    commands: Commands, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its index has runs of theirs, too."""
    (commands.root / "many").mkdir()
    for number in range(3000):
        (commands.root / "many" / f"{number:04}").write_bytes(b"")
    made = [commands.back_up() for _ in range(3)]
    last = made[-1]
    assert {used.name for used in last.uses} >= {"data.tar.zst", "index.jsonl.zst"}
    removed = commands.run("remove", made[0].name, made[1].name, "--json").json["result"]
    assert removed["removed"] == [made[1].name, made[0].name]
    assert removed["freed_bytes"] > 0
    commands.run("verify", "--data")
    assert prove(*commands.library, last.name, commands.name) == IDENTICAL
    elsewhere = commands.library.on(LocalStore(tmp_path / "copy"))
    _copy(commands.library, elsewhere, last)
    assert verify(elsewhere.ctx, elsewhere.repository, [], data=True).damaged == []
    for library in (commands.library, elsewhere):
        target = volume_name("restored")
        assert restore(*library, last.name, RestoreOptions(name=target, prove=True)).proven
        assert differences(fingerprint(commands.root), fingerprint(volume_path(target))) == []
    rescued = subprocess.run(
        ["python3", PROJECT / "docs/rescue.py", commands.run.repository, f"{last.host}/{last.volume}"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert rescued == _tar(commands.library, last)
    following = commands.back_up()
    assert following.parent == last.id
    commands.assert_equal_to_a_full_one(following)


@pytest.mark.parametrize("step", ["before LocalStore.delete", "after LocalStore.delete"])
def test_a_prune_that_was_killed_leaves_whole_backups_and_is_ended_by_the_next_backup(
    commands: Commands, step: str
) -> None:
    for _ in range(3):
        last = commands.back_up()
    prune = ["prune", commands.name, "--keep-last", "1"]
    assert struck(commands.run, signal.SIGKILL, step, *prune) == -signal.SIGKILL
    commands.run("verify", "--data")
    made = commands.back_up()
    assert made.parent == last.id
    assert Catalog(commands.store).litter() == []
    commands.run("verify", "--data")


def _left_after_a_removal(commands: Commands) -> Manifest:
    """A backup that uses a quarter of the large object of one that was removed."""
    first = commands.back_up()
    with open(commands.root / "large", "r+b") as file:
        file.write(os.urandom(3 * MIB // 2))
    last = commands.back_up()
    commands.run("remove", first.name)
    return last


def _assert_repacked(commands: Commands, last: Manifest, target: str, path_of: Callable[[str], Path]) -> None:
    """Nothing that is unused lies there, and the backup is what it was."""
    assert commands.run("check", "--json").json["result"]["findings"] == []
    now = Catalog(commands.store).read(last.key)
    assert (now.revision, now.digest) == (2, last.digest)
    large = list(commands.path(last.key.prefix).parent.rglob("data*.zst"))
    assert sum(path.stat().st_size for path in large) < 2.4 * MIB
    commands.run("restore", last.name, "--as", target, "--prove")
    assert differences(fingerprint(commands.root), fingerprint(path_of(target))) == []


def test_prune_repacks_what_is_used_in_part_and_it_restores_with_proof(
    commands: Commands, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    last = _left_after_a_removal(commands)
    pruned = commands.run("prune", commands.name, "--keep-last", "5", "--json").json["result"]
    assert [one["objects"] for one in pruned["repacked"]] == [1]
    _assert_repacked(commands, last, volume_name("restored"), volume_path)
    following = commands.back_up()
    assert following.parent == last.id
    commands.assert_equal_to_a_full_one(following)


@pytest.mark.parametrize(
    "step",
    [
        "after LocalStore.put",
        pytest.param("before LocalStore.delete", marks=pytest.mark.long),
        "after LocalStore.delete",
    ],
)
def test_a_repack_that_was_killed_leaves_whole_backups_and_is_ended_by_the_next(
    commands: Commands, volume_name: Callable[..., str], volume_path: Callable[[str], Path], step: str
) -> None:
    last = _left_after_a_removal(commands)
    assert struck(commands.run, signal.SIGKILL, step, "repack", commands.name) == -signal.SIGKILL
    commands.run("check")
    commands.run("verify", "--data")
    commands.run("repack", commands.name)
    _assert_repacked(commands, last, volume_name("restored"), volume_path)
