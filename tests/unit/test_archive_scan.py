"""The scan: when and of which filesystem it was, and a unit's fingerprint, which every change of a file changes."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.archive import END, MIB, plan_of, record, scan, scan_facts
from tests.support.disks import make_ext4, mounted
from volback.archive import tar
from volback.archive.plan import Plan, make_plan
from volback.archive.scan import Scan
from volback.errors import EngineError

ROOT = scan_facts() + record(b"", kind="d")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One unit of small files, then one of a large file with two names."""
    root = tmp_path / "tree"
    (root / "directory").mkdir(parents=True)
    (root / "directory" / "inner").write_bytes(b"inner")
    (root / "file").write_bytes(b"content")
    (root / "link").symlink_to("/some//where/")
    (root / "x-large").write_bytes(os.urandom(MIB + 200_000))
    (root / "x-large-too").hardlink_to(root / "x-large")
    _tick(tmp_path)
    return root


def _tick(tmp_path: Path) -> None:
    """Let the clock that stamps files step, so that what follows has another time than what was before."""
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        before = os.stat(file.name).st_ctime_ns
        while os.stat(file.name).st_ctime_ns == before:
            os.utime(file.name)


def _fingerprints(plan: Plan, *, ignore_inode: bool = False, ignore_ctime: bool = False) -> list[str]:
    return [plan.fingerprint(unit, ignore_inode=ignore_inode, ignore_ctime=ignore_ctime) for unit in plan.units]


def _rewrite(root: Path) -> None:
    status = (root / "file").stat()
    (root / "file").write_bytes(b"CONTENT")
    os.utime(root / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(root: Path) -> None:
    shutil.copy2(root / "file", root / "new")
    (root / "new").rename(root / "file")


def _set_acl(root: Path) -> None:
    """Of the same mode as before: u::rw- u:1234:r-- g::r-- m::r-- o::r--, as linux/posix_acl_xattr.h has it."""
    (root / "file").chmod(0o644)
    nobody = 0xFFFF_FFFF
    entries = [(1, 6, nobody), (2, 4, 1234), (4, 4, nobody), (16, 4, nobody), (32, 4, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(root / "file", "system.posix_acl_access", acl)


def _punch(root: Path) -> None:
    status = (root / "x-large").stat()
    subprocess.run(["fallocate", "-p", "-o", "65536", "-l", "131072", root / "x-large"], check=True)
    os.utime(root / "x-large", ns=(status.st_atime_ns, status.st_mtime_ns))


def _become_a_directory(root: Path) -> None:
    (root / "file").unlink()
    (root / "file").mkdir()


def _retarget(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("/some/where//")


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "content, with the size and mtime of before": (_rewrite, 0),
    "mtime alone": (lambda root: os.utime(root / "file", (1, 1)), 0),
    "mode": (lambda root: (root / "file").chmod(0o600), 0),
    "owner, to itself": (lambda root: os.chown(root / "file", os.getuid(), os.getgid()), 0),
    "an extended attribute": (lambda root: os.setxattr(root / "file", "user.attribute", b"value"), 0),
    "an ACL": (_set_acl, 0),
    "a name more, of a small file": (lambda root: (root / "name").hardlink_to(root / "file"), 0),
    "a name more, outside of the volume": (lambda root: (root.parent / "name").hardlink_to(root / "file"), 0),
    "a name less, of a large file": (lambda root: (root / "x-large-too").unlink(), 1),
    "another name": (lambda root: (root / "file").rename(root / "elif"), 0),
    "another name of a directory": (lambda root: (root / "directory").rename(root / "dir"), 0),
    "type": (_become_a_directory, 0),
    "target of a symlink": (_retarget, 0),
    "inode": (_replace, 0),
    "holes": (_punch, 1),
}


def test_an_unchanged_volume_has_the_same_fingerprints(tree: Path) -> None:
    plan, again = plan_of(tree), plan_of(tree)
    assert _fingerprints(plan) == _fingerprints(again)
    assert [unit.kind for unit in plan.units] == ["group", "file"]
    assert len(set(_fingerprints(plan))) == 2
    assert all(len(fingerprint) == 43 for fingerprint in _fingerprints(plan))


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_the_fingerprint(tree: Path, change: str) -> None:
    make, number = CHANGES[change]
    before = plan_of(tree)
    make(tree)
    after = plan_of(tree)
    assert _fingerprints(before)[number] not in _fingerprints(after)


def test_what_is_ignored_does_not_count_and_the_rest_does(tree: Path) -> None:
    os.utime(tree, (1, 1))
    before = plan_of(tree)
    _replace(tree)
    os.utime(tree, (1, 1))
    copied = plan_of(tree)
    assert copied.entry(3).path == b"file"
    assert copied.entry(3).inode != before.entry(3).inode
    assert _fingerprints(before, ignore_inode=True) != _fingerprints(copied, ignore_inode=True)
    assert _fingerprints(before, ignore_ctime=True) != _fingerprints(copied, ignore_ctime=True)
    both = _fingerprints(before, ignore_inode=True, ignore_ctime=True)
    assert both == _fingerprints(copied, ignore_inode=True, ignore_ctime=True)
    (tree / "file").chmod(0o600)
    assert both != _fingerprints(plan_of(tree), ignore_inode=True, ignore_ctime=True)


def test_fingerprints_of_different_options_are_different(tree: Path) -> None:
    plan = plan_of(tree)
    options = [(inode, ctime) for inode in (False, True) for ctime in (False, True)]
    made = {plan.fingerprint(plan.units[0], ignore_inode=inode, ignore_ctime=ctime) for inode, ctime in options}
    assert len(made) == 4


def test_files_of_other_filesystems_have_no_fingerprint_where_they_are_always_read() -> None:
    """They are stamped by another clock, so the newest time is that of the root's."""
    below = [record(b"m/x", size=2 * MIB, device=7, ctime="1800000000.0000000000", mtime="1800000000.0000000000")]
    plan = make_plan([ROOT, *below, record(b"z", size=2 * MIB, ctime="1750000000.0000000000"), END])
    assert plan.newest_ns == 1_750_000_000 * 10**9
    whole = [plan.scan_of(unit)[0] for unit in plan.units]
    plan.reads_mounted = True
    assert [plan.scan_of(unit)[0] for unit in plan.units] == [whole[0], "", whole[2]]
    plan.ignore_ctime = True
    assert plan.newest_stamp_ns() == 1_700_000_000_123_456_789


def test_devices_and_blocks_do_not_count(tmp_path: Path) -> None:
    def plan(device: int, other: int, blocks: int) -> Plan:
        facts = scan_facts(device=device)
        mounted = [record(b"m", kind="d", device=other), record(b"m/x", device=other)]
        large = record(b"z", size=2 * MIB, blocks=blocks, device=device)
        return make_plan([facts, record(b"", kind="d", device=device), *mounted, large, END])

    first, second = plan(2049, 60, 4096), plan(66, 2049, 1024)
    assert _fingerprints(first) == _fingerprints(second)
    assert [first.entry(number).device for number in range(4)] == [0, 1, 1, 0]
    assert first.total_bytes - second.total_bytes == 3072 * 512


def test_a_file_that_moves_to_another_filesystem_counts() -> None:
    here = make_plan([ROOT, record(b"x"), END])
    there = make_plan([ROOT, record(b"x", device=77), END])
    assert _fingerprints(here) != _fingerprints(there)
    assert _fingerprints(here, ignore_inode=True) == _fingerprints(there, ignore_inode=True)


def test_names_of_one_inode_number_on_two_filesystems_are_two_files() -> None:
    names = [(b"a", 2049), (b"m/a", 77), (b"m/b", 77), (b"n/a", 78), (b"n/b", 78), (b"z", 2049)]
    records = [record(name, inode=5, links=2, device=device) for name, device in names]
    plan = make_plan([ROOT, *records, END])
    entries = [plan.entry(number) for number in range(1, 7)]
    assert [(entry.path, entry.device) for entry in entries] == [
        (b"a", 0), (b"z", 0), (b"m/a", 1), (b"m/b", 1), (b"n/a", 2), (b"n/b", 2)
    ]  # fmt: skip


def test_newest_ctimes_are_those_of_the_files(tree: Path) -> None:
    (tree / "directory" / "inner").chmod(0o600)
    plan = plan_of(tree)
    small = [tree, *(path for path in tree.rglob("*") if not path.name.startswith("x"))]
    assert plan.newest_ctime_ns(plan.units[0]) == max(path.lstat().st_ctime_ns for path in small)
    assert plan.newest_mtime_ns(plan.units[0]) == max(path.lstat().st_mtime_ns for path in small)
    assert plan.newest_ctime_ns(plan.units[1]) == (tree / "x-large").stat().st_ctime_ns
    assert plan.newest_ns == max(map(plan.newest_ctime_ns, plan.units))


@pytest.mark.parametrize(
    "times",
    [
        ["-5.1000000000", "3.0000000000"],
        ["-500.0000000000", "3.9999999990"],
        ["-5.0000000000", "-6.9999999990"],
        ["9999999999.0000000000", "10000000000.0000000000"],
        ["-9223372036854775808.0000000000", "1.0000000000"],
        ["9223372036854775807.0000000000", "1.0000000000"],
    ],
)
def test_newest_ctime_is_right_for_times_of_any_width(times: list[str]) -> None:
    plan = make_plan([scan_facts(), record(b"", kind="d", ctime=times[0]), record(b"x", ctime=times[1]), END])
    assert plan.newest_ns == max(plan.entry(0).ctime_ns, plan.entry(1).ctime_ns)


@pytest.mark.parametrize("ctime", ["1.0000000000", "99999999999.0000000000", "-9223372036854775808.0000000000"])
@pytest.mark.parametrize("size", [5, 10**10 - 1, 10**10, 2**63 - 1])
@pytest.mark.parametrize("links", [1, 2, 10, 101, 2**32 - 1])
def test_numbers_of_any_width_are_read(ctime: str, size: int, links: int) -> None:
    kinds = ["f", "l", "s", "p", "d"]
    records = [
        record(kind.encode(), kind=kind, size=size, links=links, inode=number, ctime=ctime)
        for number, kind in enumerate(kinds)
    ]
    plan = make_plan([ROOT, *records, END])
    assert plan.sockets == 1
    assert plan.odd == []
    assert [(unit.kind, list(plan.paths(unit))) for unit in plan.units] == (
        [("group", [b"", b"d"]), ("file", [b"f"]), ("group", [b"l", b"p"])]
        if size > 5
        else [("group", [b"", b"d", b"f", b"l", b"p"])]
    )
    entry = next(plan.entry(number) for number in range(5) if plan.entry(number).path == b"f")
    assert (entry.size_bytes, entry.links) == (size, links)


def test_a_scan_says_when_it_began(tmp_path: Path) -> None:
    """By the clock that stamps files; a second scan says its own time."""
    root = tmp_path / "root"
    root.mkdir()
    for _ in range(2):
        (tmp_path / "before").write_bytes(b"")
        plan = plan_of(root)
        _tick(tmp_path)
        (tmp_path / "after").write_bytes(b"")
        assert (tmp_path / "before").stat().st_mtime_ns <= plan.started_ns < (tmp_path / "after").stat().st_mtime_ns


def test_a_scan_says_which_filesystem_it_is_of(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert plan_of(tmp_path).filesystem in {line.partition(" - ")[2].split()[0] for line in mounts}


MOUNTS = r"""20 1 8:1 / / rw,relatime shared:1 - overlay overlay rw
21 20 0:5 / /proc rw - proc proc rw
30 20 8:2 /volumes/x/_data /volume rw master:1 - ext4 /dev/sdb rw
31 20 8:2 / /volume2 rw - xfs /dev/sdc rw
32 30 0:44 / /volume/far rw - fuse.sshfs me@there:/ rw
33 30 0:45 / /volume/a\040b\134c rw - nfs4 server:/a rw
34 30 0:46 / /auto rw - autofs systemd-1 rw
35 34 0:47 / /auto rw - cifs //server/share rw,vers=3.1.1,serverino,actimeo=1
36 34 0:48 / /auto/numbered rw - cifs //server/share rw,vers=3.1.1,actimeo=1"""


@pytest.mark.parametrize(
    ("directory", "filesystem"),
    [
        ("/volume", "ext4"),
        ("/volume/farther", "ext4"),
        ("/volume/far", "fuse.sshfs"),
        ("/volume/far/below", "fuse.sshfs"),
        ("/volume2/x", "xfs"),
        ("/volume/a b\\c", "nfs4"),
        ("/auto", "cifs"),
        ("/auto/numbered", "cifs.noserverino"),
        ("/", "overlay"),
        ("/volume3\n", "overlay"),
    ],
)
def test_filesystem_is_that_of_the_nearest_mount(directory: str, filesystem: str) -> None:
    plan = make_plan([scan_facts(mounts=MOUNTS, directory=directory), record(b"", kind="d"), END])
    assert plan.filesystem == filesystem


def test_a_scan_says_which_filesystems_are_mounted_below() -> None:
    def below(directory: str) -> frozenset[str]:
        return make_plan([scan_facts(mounts=MOUNTS, directory=directory), record(b"", kind="d"), END]).mounted

    assert below("/volume") == {"fuse.sshfs", "nfs4"}
    assert below("/volume2") == below("/vol") == frozenset()
    assert below("/auto") == {"cifs.noserverino"}


def test_a_sparse_file_counts_with_what_it_occupies(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10 * 1024 * MIB)
        file.write(b"x")
    assert plan_of(tmp_path).total_bytes < MIB


def test_groups_do_not_depend_on_blocks() -> None:
    """Of a file that has just been written, some filesystems say the blocks only later."""

    def units(blocks: int) -> object:
        records = [record(b"%d" % number, size=50_000, inode=number, blocks=blocks) for number in range(100)]
        return make_plan([ROOT, *records, END]).units

    assert units(0) == units(104)


@pytest.mark.parametrize(
    "facts",
    [
        b"\0\0\0\0",
        scan_facts(clock="x"),
        scan_facts(mounts="1 2 3 - ext4"),
        scan_facts().replace(b"2049", b""),
        scan_facts().replace(b"\0", b"", 1),
    ],
)
def test_facts_that_are_garbled_are_refused(facts: bytes) -> None:
    with pytest.raises(EngineError, match="garbled"):
        make_plan([facts, record(b"", kind="d"), END])


def test_a_scan_that_ends_in_its_facts_is_cut_off(tmp_path: Path) -> None:
    said = scan(tmp_path)
    for size in (0, 10, said.index(b"\0") + 3, said.rindex(b"//")):
        with pytest.raises(EngineError, match="cut off"):
            list(Scan([said[:size]]).records())


def test_a_store_through_a_mapping_after_the_scan_changes_a_ctime() -> None:
    """The kernel sets no time when a page is written to that was written to before, and is not written out yet: with
    `FIND` alone this is what happens. Not on a tmpfs, whose pages are never written out."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        _assert_a_later_store_shows(Path(name), Path(name))


@pytest.mark.root
def test_a_store_through_a_mapping_below_a_mount_point_after_the_scan_changes_a_ctime(tmp_path: Path) -> None:
    """Of whatever name: the kernel writes some characters as octal numbers."""
    (tmp_path / "scanned").mkdir()
    image = make_ext4(tmp_path / "image", 4 * MIB)
    with mounted(tmp_path / "scanned" / "a new\nmount", "-o", "loop", image) as below:
        _assert_a_later_store_shows(tmp_path / "scanned", below)


def _assert_a_later_store_shows(scanned: Path, directory: Path) -> None:
    with (directory / "mapped").open("w+b") as file:
        file.write(bytes(8192))
        file.flush()
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 8192) as mapped:
            mapped[0] = 1
            done = subprocess.run(tar.SYNC_AND_FIND, cwd=scanned, capture_output=True, check=True)
            plan = make_plan([done.stdout + tar.SCAN_END.encode()])
            _tick(directory)
            mapped[1] = 2
            assert os.fstat(file.fileno()).st_ctime_ns > plan.newest_ns
