"""Unchanged: what a scan's inodes and times say on each filesystem. Pure rules, for the comparison with a parent.

A file that changes gets another ctime, unless the clock that stamps it still says the same: so a file that had changed
shortly before the parent's scan, or after it, is read again, whatever its times say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

SETTLING_NS = 2_000_000_000
"""Time stamps are rounded down: to a tick of up to 10 ms, to 1 s (ext4 with inodes of 128 bytes), to 2 s (FAT)."""

_LOCAL = frozenset(
    {
        "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs3",
        "overlay", "ramfs", "reiserfs", "tmpfs", "ubifs", "vfat", "xfs", "zfs",
    }
)  # fmt: skip
"""Stamped by the clock of the kernel that mounts them. Not those of clusters (gfs2, ocfs2), where other hosts write."""

_WITHOUT_INODES = frozenset({"cifs.noserverino", "smb3.noserverino", "vboxsf"})
"""Inodes are numbered when they are first looked at: by cifs where the server's numbers are not used (mount.cifs(8),
`noserverino`; the kernel also changes to that by itself, "Autodisabling the use of server inode numbers"), and by
vboxsf (fs/vboxsf/utils.c, an idr)."""

_WITHOUT_CTIMES = frozenset({"exfat", "fuse.rclone", "fuse.sshfs", "msdos", "vfat"})
"""Neither inodes nor ctimes are stored, and a ctime is the mtime, or the present time until the inode is evicted: FAT
and exFAT (fs/fat, fs/exfat: iunique(); kernel commit 0f9d148167c5, before which FAT said the time of creation), sshfs
(sshfs.c; restic issue 1631), rclone mount (cmd/mount/file.go; rclone issue 9830)."""

_FUSE_WITH_INODES = frozenset(
    {"fuse.ceph", "fuse.ceph-fuse", "fuse.fuse-overlayfs", "fuse.glusterfs", "fuse.juicefs", "fuse.mergerfs"}
)
"""FUSE filesystems that keep their inode numbers. libfuse numbers files in the order in which they are looked at unless
the filesystem asks otherwise (`use_ino` in fuse.h)."""


_NEVER_SETTLED = frozenset({"ramfs", "tmpfs"})
"""Pages are never written out, so that a store through a mapping (mmap) does not change the times (mm/shmem.c has no
page_mkwrite): every file is read again."""


class ScanFacts(Protocol):
    """What is kept of an earlier scan: when it began, the newest ctime that it saw, and of which filesystem it was."""

    @property
    def started_ns(self) -> int: ...
    @property
    def newest_ns(self) -> int: ...
    @property
    def filesystem(self) -> str: ...


class Ignored(NamedTuple):
    """What is not compared."""

    inode: bool
    ctime: bool


def is_settled(newest_ns: int, scan: ScanFacts, filesystem: str) -> bool:
    """Whether a change after `scan` would have given another ctime than `newest_ns`, the newest one of a unit in it.

    `filesystem`: that of the present scan. Where a file server stamps, the newest ctime that the scan saw is the only
    time by the server's clock that is known: that clock may be behind.
    """
    if filesystem != scan.filesystem or filesystem in _NEVER_SETTLED:
        return False
    known_ns = scan.started_ns if filesystem in _LOCAL else min(scan.started_ns, scan.newest_ns)
    return newest_ns + SETTLING_NS <= known_ns


def ignored(filesystem: str) -> Ignored:
    """What of a file is not compared on a filesystem, as it changes there while the file does not.

    Only what is known to be so: what is compared in vain costs reading, what is ignored in vain can cost data.
    """
    if filesystem in _WITHOUT_CTIMES:
        return Ignored(inode=True, ctime=True)
    is_fuse = filesystem == "fuse" or filesystem.startswith("fuse.")
    return Ignored(
        inode=filesystem in _WITHOUT_INODES or (is_fuse and filesystem not in _FUSE_WITH_INODES), ctime=False
    )


def is_known_below(filesystem: str, mounted: Collection[str]) -> bool:
    """Whether the rules for a root's filesystem are right for the files of those that are mounted below it, too.

    They are where each is stamped by this kernel's clock whenever a file changes, and nothing of it is invented.
    """
    return {filesystem, *mounted} <= _LOCAL - _WITHOUT_CTIMES - _NEVER_SETTLED
