"""What is compared before a volume is moved: its files, as find sees them, with what was found of the target."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of
from volback.engine.connect import EngineInfo
from volback.errors import EngineError
from volback.moving.checks import check_before, room_for
from volback.moving.look import Ids, Look

HERE = EngineInfo("web1", "id-1", "28.5", "1.51", "x86_64", "/var/lib/docker", "6.1")
THERE = replace(HERE, name="web2", id="id-2")
BLOCK = 4096
ROOMY = Look("", "ext4", BLOCK, 10**12, 10**9)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """1 MiB in a file, ten files of a byte, and a hole of 1 GiB."""
    (tmp_path / "large").write_bytes(os.urandom(MIB))
    for number in range(10):
        (tmp_path / f"small-{number}").write_bytes(b"x")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    os.link(tmp_path / "large", tmp_path / "large-too")
    return tmp_path


def checked(tree: Path, look: Look, target: EngineInfo = THERE, drop: tuple[str, ...] = ()) -> list[str]:
    return check_before(plan_of(tree), look, name="db", source=HERE, target=target, drop=drop)


def refused(tree: Path, look: Look) -> EngineError:
    with pytest.raises(EngineError) as raised:
        checked(tree, look)
    assert raised.value.hint
    return raised.value


def test_what_files_take_is_counted_in_blocks_and_without_holes(tree: Path) -> None:
    room = room_for(plan_of(tree), BLOCK)
    assert MIB + 10 * BLOCK <= room.size_bytes <= MIB + 11 * BLOCK
    assert room.inodes == 12, "those that are certainly needed: a file with several names is left out"


def test_with_enough_room_nothing_is_said(tree: Path) -> None:
    assert checked(tree, ROOMY) == []
    assert checked(tree, replace(ROOMY, free_bytes=MIB + 20 * BLOCK, free_inodes=20)) == []
    assert checked(tree, replace(ROOMY, free_bytes=None, free_inodes=None)) == []


def test_too_small_a_disk_is_refused_with_figures(tree: Path) -> None:
    error = refused(tree, replace(ROOMY, free_bytes=MIB // 2))
    assert (
        error.message
        == "volume 'db' does not fit: it takes 1.0 MiB, and on the ext4 of host web2 there are 512.0 KiB free"
    )
    error = refused(tree, replace(ROOMY, free_inodes=7))
    assert error.message.startswith("volume 'db' does not fit: it holds 12 files, and on the ext4 of host web2")
    assert error.message.endswith("there is room for 7 more")


def test_a_filesystem_that_compresses_is_only_warned_of(tree: Path) -> None:
    (warning,) = checked(tree, replace(ROOMY, filesystem="btrfs", free_bytes=MIB // 2))
    assert warning.startswith("volume 'db' does not fit: ")
    assert warning.endswith("unless it is compressed there")


def test_attributes_that_the_target_refuses_are_named_unless_they_are_dropped(tree: Path) -> None:
    look = replace(ROOMY, filesystem="ramfs", refuses=frozenset({"xattr", "acl"}))
    (warning,) = checked(tree, look)
    assert warning == (
        "the ramfs of host web2 takes no ACLs or extended attributes: files that have some will differ; --drop"
        " acl,xattr leaves them out"
    )
    (warning,) = checked(tree, look, drop=("acl",))
    assert "takes no extended attributes" in warning
    assert checked(tree, look, drop=("acl", "xattr")) == []


def test_clocks_that_differ_are_said(tree: Path) -> None:
    for ahead_s, word in ((7200.0, "ahead of"), (-7200.0, "behind")):
        (warning,) = checked(tree, ROOMY, replace(THERE, clock_ahead_s=ahead_s))
        assert warning == f"the clock of host web2 is 2 h 0 min {word} that of host web1; files keep their times"
    assert checked(tree, ROOMY, replace(THERE, clock_ahead_s=5.0)) == []
    assert checked(tree, ROOMY, replace(HERE, clock_ahead_s=7200.0)) == [], "one engine has one clock"


def test_owners_outside_the_user_namespace_are_named(tree: Path) -> None:
    mine = os.getuid(), os.getgid()
    inside = Ids(((mine[0], 1),)), Ids(((mine[1], 1),))
    assert checked(tree, replace(ROOMY, uids=inside[0], gids=inside[1])) == []
    error = refused(tree, replace(ROOMY, uids=Ids(((mine[0] + 1, 65536),)), gids=inside[1]))
    assert error.message.startswith(
        "volume 'db' cannot be the same on host web2, whose engine runs in a user namespace: . (user "
    )
    assert f"(group {mine[1]})" in refused(tree, replace(ROOMY, uids=inside[0], gids=Ids(((7, 1),)))).message


@pytest.mark.parametrize(("id_", "exists"), [(0, False), (1, True), (10, True), (11, False), (100, True)])
def test_an_id_exists_where_a_range_has_it(id_: int, exists: bool) -> None:
    assert Ids(((1, 10), (100, 1))).has(id_) is exists
