"""An independent witness: what a tree is, read through the kernel alone; no tar, no volback.

Directories are walked by file descriptor, so paths beyond the kernel's 4,096 bytes are seen too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK_BYTES = 64 * 1024
ZEROS = bytes(BLOCK_BYTES)
LETTERS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
    stat.S_IFSOCK: "s",
}


class Entry(NamedTuple):
    """All that a backup must keep of one path. Sizes of directories are the filesystem's own business."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    """Every attribute that can be listed: user, system.posix_acl_*, security.capability."""
    content: str
    """SHA-256 over (offset, block) of the blocks that are not all zero: the same whatever the holes."""
    holes: tuple[tuple[int, int], ...]
    """The data extents as (start, end), by SEEK_DATA and SEEK_HOLE."""
    first_name: bytes
    """Of several names of one inode the first; empty where there is but one name in the tree."""


def fingerprint(root: Path | str | bytes) -> dict[bytes, Entry]:
    """Every entry of `root` by its path (the root itself is empty) in path order; sockets are left out."""
    entries: dict[bytes, Entry] = {}
    names: dict[tuple[int, int], list[bytes]] = {}
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path, entry, inode in _walk(descriptor, b""):
            entries[path] = entry
            if inode:
                names.setdefault(inode, []).append(path)
    finally:
        os.close(descriptor)
    for group in names.values():
        for path in group if len(group) > 1 else ():
            entries[path] = entries[path]._replace(first_name=group[0])
    return entries


def differences(before: dict[bytes, Entry], after: dict[bytes, Entry], *, holes: bool = True) -> list[str]:
    """One line for each path that is missing, extra, or differs in a field; `holes=False` across filesystems."""
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            lines.append(f"{_short(path)}: missing")
        elif path not in before:
            lines.append(f"{_short(path)}: extra")
        else:
            lines += [
                f"{_short(path)}: {field} was {_short(old)}, is {_short(new)}"
                for field, old, new in zip(Entry._fields, before[path], after[path], strict=True)
                if old != new and (holes or field != "holes")
            ]
    return lines


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]} ({len(text)} characters)"


def _walk(directory: int, path: bytes) -> Iterator[tuple[bytes, Entry, tuple[int, int] | None]]:
    yield path, _entry(directory, b".", os.fstat(directory)), None
    with os.scandir(directory) as found:
        names = sorted(os.fsencode(item.name) for item in found)
    for name in names:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        child_path = path + b"/" + name if path else name
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                yield from _walk(child, child_path)
            finally:
                os.close(child)
        elif not stat.S_ISSOCK(status.st_mode):
            yield child_path, _entry(directory, name, status), (status.st_dev, status.st_ino)


def _entry(directory: int, name: bytes, status: os.stat_result) -> Entry:
    letter = LETTERS[stat.S_IFMT(status.st_mode)]
    content, extents = _content(directory, name) if letter == "f" else ("", ())
    return Entry(
        type=letter,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=0 if letter == "d" else status.st_size,
        mtime_ns=status.st_mtime_ns,
        rdev=status.st_rdev,
        target=os.readlink(name, dir_fd=directory) if letter == "l" else b"",
        xattrs=_xattrs(directory, name),
        content=content,
        holes=extents,
        first_name=b"",
    )


def _xattrs(directory: int, name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    # There is no listxattrat; the descriptor's name under /proc keeps the path short.
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    names = os.listxattr(path, follow_symlinks=False)
    return tuple(sorted((os.fsencode(key), os.getxattr(path, key, follow_symlinks=False)) for key in names))


def _content(directory: int, name: bytes) -> tuple[str, tuple[tuple[int, int], ...]]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        extents = tuple(_extents(descriptor))
        digest = hashlib.sha256()
        following = 0
        for start, end in extents:
            # An extent may begin inside a block that the one before it ended in: no block counts twice.
            offset = max(following, start - start % BLOCK_BYTES)
            following = _digest_blocks(descriptor, offset, end, digest)
        return digest.hexdigest(), extents
    finally:
        os.close(descriptor)


def _digest_blocks(descriptor: int, offset: int, end: int, digest: hashlib._Hash) -> int:
    while offset < end:
        block = os.pread(descriptor, BLOCK_BYTES, offset)
        if block != ZEROS[: len(block)]:
            digest.update(offset.to_bytes(8, "big") + block)
        offset += BLOCK_BYTES
    return offset


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    end = 0
    size = os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end
