"""Whether a directory lies on a filesystem of this machine alone, by statfs. Used by store.local."""

from __future__ import annotations

import ctypes
import os

_LOCAL = {
    0xEF53: "ext2, ext3, ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x3434: "nilfs2",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
}
"""The `f_type` of filesystems that one machine mounts at a time (statfs(2), linux/magic.h). A filesystem that is not
here (NFS, CIFS, 9p, Ceph, FUSE, one that is new) counts as one that other machines use: that is slower, never wrong."""
_STATFS_WORDS = 64
"""More than the structure has on any machine; its first word is `f_type`."""


def is_local_filesystem(path: str) -> bool:
    """Whether the filesystem of `path`, or of the lowest directory above it that exists, is used by this machine
    alone; False where the system does not say."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return _type_of(path) in _LOCAL


def _type_of(path: str) -> int | None:
    """Python has no statfs: os.statvfs does not say which filesystem it is."""
    answer = (ctypes.c_long * _STATFS_WORDS)()
    try:
        status: int = ctypes.CDLL(None).statfs(os.fsencode(path), answer)
    except (AttributeError, OSError):
        return None
    return None if status else answer[0] & 0xFFFFFFFF
