"""The witness must see every difference that it is asked about: otherwise the tests that trust it cannot fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tree import Entry, differences, fingerprint, make_mixed_tree, make_odd_tree

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    make_odd_tree(root)
    return root


def test_the_odd_tree_holds_each_kind_of_entry(odd: Path) -> None:
    entries = fingerprint(odd)
    assert {entry.type for entry in entries.values()} == set("fdlpbc")
    assert len(entries) > 500
    assert max(map(len, entries)) > 4096
    assert any(b"\n" in path for path in entries)
    assert sum(bool(entry.first_name) for entry in entries.values()) >= 15
    assert any(entry.mtime_ns < 0 for entry in entries.values())
    assert any(entry.mtime_ns % 1000 for entry in entries.values() if entry.type == "l")
    kept = {key for entry in entries.values() for key, _ in entry.xattrs}
    assert kept >= {b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability", b"user.binary"}


def test_the_sparse_file_has_its_three_islands(odd: Path) -> None:
    entry = fingerprint(odd)[b"sparse/three-islands-10GiB"]
    assert entry.size == 10 * 2**30
    assert [start for start, _ in entry.holes] == [4 * 2**20, 5 * 2**30, 9 * 2**30 + 4096]


def test_what_is_made_twice_from_one_seed_is_the_same(odd: Path, tmp_path: Path) -> None:
    make_odd_tree(tmp_path)
    assert differences(fingerprint(odd), fingerprint(tmp_path)) == []


def test_another_seed_makes_another_tree(odd: Path, tmp_path: Path) -> None:
    make_odd_tree(tmp_path, seed=2)
    assert differences(fingerprint(odd), fingerprint(tmp_path))


def _keep_time(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def changed(path: Path) -> None:
        before = path.lstat().st_mtime_ns
        change(path)
        os.utime(path, ns=(0, before), follow_symlinks=False)

    return changed


def _overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)


def _replace_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")
    os.lchown(path, 0, 0)


def _separate(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def _fill_hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(65536))


@pytest.mark.parametrize(
    ("field", "name", "change"),
    [
        ("mode", "many/1", lambda path: path.chmod(0o600)),
        ("uid", "many/2", lambda path: os.chown(path, 7, -1)),
        ("gid", "many/3", lambda path: os.chown(path, -1, 7)),
        ("mtime_ns", "many/4", lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))),
        ("mtime_ns", "nested", lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))),
        ("content", "sizes/random-1048577", _keep_time(_overwrite)),
        ("size", "sizes/random-513", _keep_time(lambda path: os.truncate(path, 512))),
        ("target", "symlinks/relative", _keep_time(_replace_link)),
        ("xattrs", "xattrs/all", lambda path: os.setxattr(path, "user.text", b"other")),
        ("xattrs", "acls/fifo", lambda path: os.removexattr(path, "system.posix_acl_access")),
        ("xattrs", "capabilities/raw", lambda path: os.removexattr(path, "security.capability")),
        ("first_name", "links/zz/small", _separate),
        ("holes", "sparse/all-hole", _keep_time(_fill_hole)),
    ],
)
def test_one_change_is_seen_in_its_field(odd: Path, field: str, name: str, change: Callable[[Path], object]) -> None:
    before = fingerprint(odd)
    change(odd / name)
    lines = differences(before, fingerprint(odd))
    assert any(line.startswith(f"{os.fsencode(name)!r}: {field} was ") for line in lines), lines


def test_missing_and_extra_paths_are_named() -> None:
    entry = Entry("f", 0o644, 0, 0, 0, 0, 0, b"", (), "", (), b"")
    assert differences({b"a": entry, b"b": entry}, {b"b": entry, b"c": entry}) == ["b'a': missing", "b'c': extra"]


def test_the_mixed_tree_has_the_files_and_bytes_asked_for(tmp_path: Path) -> None:
    make_mixed_tree(tmp_path, 500, 10_000_000)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert len(sizes) == 500
    assert 9_990_000 <= sum(sizes) <= 10_000_000
