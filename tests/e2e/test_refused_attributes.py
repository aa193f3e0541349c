"""Attributes that the filesystem of a target refuses: named, all else restored and proven, on real filesystems."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.disks import loop_device, make_ext4, mounted
from tests.support.engine import Volback

ACL, BIG = "system.posix_acl_access", "user.big"


def acl(user: int) -> bytes:
    """An ACL that lets one more user read (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 4, user), (4, 4, nobody), (16, 4, nobody), (32, 4, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def source(run_volback: Volback, volume_factory: Callable[..., str]) -> str:
    """A volume with an ACL and an attribute that needs more room than a block of 1 KiB, backed up."""

    def fill(root: Path) -> None:
        (root / "share").mkdir()
        for name in ("share/one", "share/two"):
            (root / name).write_text(name)
            os.setxattr(root / name, BIG, b"x" * 3000)
        os.setxattr(root / "share" / "one", ACL, acl(1234))
        os.link(root / "share" / "one", root / "second-name")
        (root / "plain").write_text("plain")
        os.setxattr(root / "plain", "user.small", b"yes")

    name = volume_factory("source", fill=fill)
    run_volback("backup", name)
    return name


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[str]:
    """A block device with a filesystem on which all attributes of a file have room in 1 KiB."""
    with loop_device(make_ext4(tmp_path / "image", 8_000_000)) as device:
        yield device


@pytest.fixture
def no_attributes(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that has neither ACLs nor other attributes."""
    with mounted(tmp_path / "ramfs", "-t", "ramfs", "volback-test") as path:
        yield path


def as_options(**options: str) -> list[str]:
    return [f"--driver-opt={key}={value}" for key, value in options.items()]


def test_a_large_attribute_that_has_no_room_is_named_and_all_else_is_restored(
    run_volback: Volback, source: str, small_blocks: str, volume_name: Callable[..., str], tmp_path: Path
) -> None:
    copy = volume_name("copy")
    options = as_options(type="ext4", device=small_blocks)
    done = run_volback("restore", source, "--as", copy, *options, "--prove", "--json", check_exit=3).json
    unset, rest = done["warnings"]
    assert unset == f"attribute {BIG} could not be set on 2 files (No space left on device): second-name, share/two"
    assert rest == f"volume '{copy}' equals the backup but for these attributes"
    assert done["result"]["proven"] is False
    with mounted(tmp_path / "found", small_blocks) as root:
        assert (root / "share" / "two").read_text() == "share/two"
        assert os.getxattr(root / "share" / "one", ACL) == acl(1234)
        assert os.getxattr(root / "plain", "user.small") == b"yes"
        (root / "plain").write_text("damaged")
    assert "differs  plain" in run_volback("prove", source, copy, check_exit=7).stdout


def test_a_filesystem_without_attributes_takes_all_else_in_place_too(
    run_volback: Volback, source: str, volume_factory: Callable[..., str], no_attributes: Path
) -> None:
    bound = volume_factory("bound", driver_opts={"type": "none", "o": "bind", "device": str(no_attributes)})
    (no_attributes / "before").write_text("before")
    done = run_volback("restore", source, "--as", bound, "--replace", "--prove", "--json", check_exit=3).json
    acl_unset = f"attribute {ACL} could not be set on 1 file (Operation not supported): second-name"
    assert acl_unset in done["warnings"]
    assert "attribute user.small could not be set on 1 file (Operation not supported): plain" in done["warnings"]
    assert (no_attributes / "share" / "one").read_text() == "share/one"
    found = run_volback("prove", source, bound, "--json", check_exit=7).json["result"]
    assert (found["different"], found["missing"], found["extra"]) == (["plain", "second-name", "share/two"], [], [])
    run_volback("restore", done["result"]["safety_backup"], "--replace", "--prove")
    assert [path.name for path in no_attributes.iterdir()] == ["before"]


def test_a_safety_copy_with_such_attributes_can_be_restored(
    run_volback: Volback, source: str, volume_path: Callable[[str], Path], no_attributes: Path
) -> None:
    (volume_path(source) / "plain").write_text("newer")
    safety = run_volback("restore", source, "--replace", "--json").json["result"]["safety_backup"]
    run_volback("restore", safety, "--to", no_attributes, check_exit=3)
    assert (no_attributes / "plain").read_text() == "newer"
