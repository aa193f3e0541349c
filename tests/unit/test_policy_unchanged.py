"""Whether an earlier scan can be relied on: ctimes that are old enough, and inodes that a filesystem keeps."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from volback.policy.unchanged import ignored, is_known_below, is_settled

S = 1_000_000_000


@dataclass(frozen=True)
class _Scan:
    started_ns: int
    newest_ns: int
    filesystem: str


@pytest.mark.parametrize(
    ("newest", "settled"),
    [(98 * S, True), (98 * S + 1, False), (100 * S, False), (200 * S, False), (-5 * S, True), (0, True)],
)
def test_a_ctime_is_settled_two_seconds_before_the_scan(newest: int, *, settled: bool) -> None:
    """Later ones, also those of a clock that was set back, are not."""
    assert is_settled(newest, _Scan(100 * S, 300 * S, "ext4"), "ext4") is settled


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "zfs", "overlay", "f2fs", "vfat"])
def test_the_newest_ctime_does_not_matter_where_the_engines_kernel_stamps(filesystem: str) -> None:
    """A volume in which nothing was written for a year is settled as a whole."""
    assert is_settled(5 * S, _Scan(100 * S, 5 * S, filesystem), filesystem)


@pytest.mark.parametrize("filesystem", ["nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse.glusterfs", "ceph", "gfs2", ""])
def test_a_file_servers_clock_may_be_behind(filesystem: str) -> None:
    """It is half an hour behind here: what was written at the time of the scan has that stamp."""
    behind = _Scan(started_ns=3600 * S, newest_ns=1800 * S, filesystem=filesystem)
    assert not is_settled(1800 * S, behind, filesystem)
    assert not is_settled(1798 * S + 1, behind, filesystem)
    assert is_settled(1798 * S, behind, filesystem)


def test_a_file_servers_clock_may_be_ahead() -> None:
    ahead = _Scan(started_ns=1800 * S, newest_ns=3600 * S, filesystem="nfs4")
    assert not is_settled(1799 * S, ahead, "nfs4")
    assert is_settled(1798 * S, ahead, "nfs4")


@pytest.mark.parametrize("filesystem", ["ramfs", "tmpfs"])
def test_nothing_is_settled_where_pages_are_never_written_out(filesystem: str) -> None:
    assert not is_settled(0, _Scan(100 * S, 100 * S, filesystem), filesystem)


def test_nothing_is_settled_on_another_filesystem() -> None:
    assert not is_settled(0, _Scan(100 * S, 100 * S, "ext4"), "xfs")


@pytest.mark.parametrize(
    ("filesystem", "expected"),
    [
        ("ext4", (False, False)),
        ("nfs4", (False, False)),
        ("cifs", (False, False)),
        ("cifs.noserverino", (True, False)),
        ("smb3.noserverino", (True, False)),
        ("vboxsf", (True, False)),
        ("virtiofs", (False, False)),
        ("9p", (False, False)),
        ("fuse", (True, False)),
        ("fuse.s3fs", (True, False)),
        ("fuse.sshfs", (True, True)),
        ("fuse.rclone", (True, True)),
        ("fuse.glusterfs", (False, False)),
        ("fuseblk", (False, False)),
        ("vfat", (True, True)),
        ("", (False, False)),
        ("unheard-of", (False, False)),
    ],
)
def test_what_a_filesystem_invents_is_ignored(filesystem: str, expected: tuple[bool, bool]) -> None:
    assert ignored(filesystem) == expected


@pytest.mark.parametrize(
    ("filesystem", "mounted", "expected"),
    [
        ("ext4", [], True),
        ("btrfs", ["ext4", "xfs"], True),
        ("ext4", ["tmpfs"], False),
        ("ext4", ["xfs", "nfs4"], False),
        ("ext4", ["vfat"], False),
        ("nfs4", ["ext4"], False),
        ("fuse.sshfs", [], False),
        ("nfs4", ["nfs4"], False),
    ],
)
def test_what_is_mounted_below_is_compared_where_this_kernel_stamps_it(
    filesystem: str, mounted: list[str], *, expected: bool
) -> None:
    assert is_known_below(filesystem, mounted) is expected
