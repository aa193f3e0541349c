"""Whether another machine may use a store: all may that do not lie on a filesystem of this machine alone."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from volback.store.local import LocalStore
from volback.store.local_filesystem import is_local_filesystem
from volback.store.locate import open_store


def filesystem_of(path: Path) -> str:
    """As the kernel lists it: the mount whose mount point is the longest that `path` begins with."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    above = [fields for fields in mounts if path.is_relative_to(fields[4])]
    last = max(above, key=lambda fields: len(fields[4]))
    return last[last.index("-") + 1]


def test_a_local_filesystem_is_known_by_its_type(tmp_path: Path) -> None:
    local = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs"}
    for path in (tmp_path, Path("/dev/shm"), Path("/proc"), Path("/sys")):
        assert is_local_filesystem(str(path)) == (filesystem_of(path.resolve()) in local), path


def test_a_repository_that_is_not_made_yet_lies_where_it_will_be_made(tmp_path: Path) -> None:
    assert LocalStore(tmp_path / "not" / "made").is_shared == LocalStore(tmp_path).is_shared
    assert LocalStore(Path("/proc/not/made")).is_shared
    assert not (tmp_path / "not").exists()


def test_a_link_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "repository"
    os.symlink("/proc", link)
    assert LocalStore(link).is_shared


def test_what_the_system_does_not_say_counts_as_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([SimpleNamespace(), SimpleNamespace(statfs=lambda path, answer: -1)])
    monkeypatch.setattr("ctypes.CDLL", lambda name: next(answers))
    assert not is_local_filesystem(str(tmp_path))
    assert not is_local_filesystem(str(tmp_path))


def test_a_bucket_is_shared() -> None:
    assert open_store("s3://bucket/prefix", {}).is_shared
