"""Trees for tests: the odd one holds all that a backup must keep; the bulk ones are for benchmarks. Needs root.

    python -m tests.support.tree odd ROOT
    python -m tests.support.tree mixed ROOT FILES BYTES
    python -m tests.support.tree tiny ROOT FILES
    python -m tests.support.tree big ROOT COUNT BYTES
    python -m tests.support.tree compare ROOT ROOT

Everything comes from a seed: the same call makes the same tree.
"""

from __future__ import annotations

import os
import random
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.bulk import make_big_files, make_mixed_tree, make_tiny_tree
from tests.support.fingerprint import Entry, differences, fingerprint

__all__ = [
    "Entry",
    "differences",
    "fingerprint",
    "make_big_files",
    "make_deep_path",
    "make_mixed_tree",
    "make_odd_tree",
    "make_tiny_tree",
]

MIB = 1024 * 1024
GIB = 1024 * MIB

SIZES = (0, 1, 511, 512, 513, 1023, 4096, 10_240, 65_537, MIB - 1, MIB, MIB + 1, 5 * MIB)

NAMES = (
    b"latin1-caf\xe9",
    b"\xff\xfe\xfd",
    b"half \xc3",
    "nfc-\u00e9".encode(),
    "nfd-e\u0301".encode(),
    "emoji-\U0001f433".encode(),
    b"new\nline",
    b"\nleads-with-newline",
    b"ends-with-newline\n",
    b"tab\tname",
    b"return\rname",
    b"back\\nslash",
    b"octal\\101",
    b"ends-with-backslash\\",
    b"single'quote",
    b'double"quote',
    b"back`tick`",
    b"-rf",
    b"--help",
    b"--checkpoint-action=exec=false",
    b"-",
    b" leading space",
    b"trailing space ",
    b" ",
    b"...",
    b"..hidden",
    b"*?[a-z]{x,y}",
    b"~",
    b"~root",
    b"#hash#",
    b"$HOME $(true) ${x}",
    b"semi;colon & pipe | less < more >",
    b"percent%d%s%00",
    b"equal=sign",
    b"colon:name",
    b"bell\x07 escape\x1b[31m delete\x7f",
    b"\x01",
    b"@LongLink",
    b"PaxHeaders",
    b"GNUSparseFile.0",
    b"file.tar.zst",
    b"n" * 99,
    b"n" * 100,
    b"n" * 101,
    b"n" * 255,
    b"\xe9" * 255,
)

# Sorted by parts `sort/a/b` comes before `sort/a-b`; sorted as whole paths it comes after.
SORT_TRAPS = (b"a-b", b"a.b", b"a/b", b"a/b/c", b"a/b-c", b"a0", b"aa/b", b"A/b")

MODES = (0o000, 0o111, 0o222, 0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6755, 0o7777)
DIRECTORY_MODES = (0o000, 0o300, 0o500, 0o700, 0o755, 0o777, 0o1777, 0o2775, 0o3777, 0o4755, 0o7755)
# 2,097,151 is the last id that fits a ustar header; the last one is the greatest that Linux has.
OWNERS = ((0, 0), (1, 2), (999, 999), (65_534, 65_534), (100_000, 0), (2_097_151, 2_097_152), (4_294_967_294, 5))

CAP_NET_BIND_SERVICE = 1 << 10
CAP_NET_RAW = 1 << 13


def make_odd_tree(root: Path, seed: int = 1, *, deep: bool = True) -> None:
    """Fill the empty directory `root` with some 600 odd entries; `deep` adds paths over 4,096 bytes."""
    dice = random.Random(seed)
    with _inside(root):
        _make_sizes(dice)
        _make_names(dice)
        _make_nested(dice)
        _make_owners_and_modes()
        _make_symlinks()
        _make_hard_links(dice)
        _make_sparse(dice)
        _make_special_files()
        _make_xattrs(dice)
        _make_acls()
        _make_capabilities()
        if deep:
            make_deep_path(Path("deep"))
        os.chown(".", 33, 44)
        os.chmod(".", 0o2751)
        os.setxattr(".", "user.on-the-root", b"yes")
        os.setxattr(".", "system.posix_acl_access", _acl(7, 5, 1, users={1000: 4}))
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _set_times(descriptor, dice)
    finally:
        os.close(descriptor)


def make_deep_path(top: Path, *, levels: int = 24) -> None:
    """Make nested directories whose path passes 4,096 bytes, with a file, its hard link and a symlink at the bottom."""
    top.mkdir()
    with _inside(top):
        for level in range(levels):
            name = f"{level:02}-".ljust(200, "d")
            os.mkdir(name)
            os.chdir(name)
        _write("bottom", b"below 4,096 bytes of path\n")
        os.link("bottom", "bottom-again")
        os.symlink("bottom", "bottom-link")


@contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """Names are then short, relative and need no joining of bytes with text."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o022)
    os.chdir(directory)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)
        os.umask(mask)


def _write(name: bytes | str, content: bytes, mode: int = 0o644) -> None:
    with open(name, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)


def _make_sizes(dice: random.Random) -> None:
    os.mkdir("sizes")
    for size in SIZES:
        _write(f"sizes/random-{size}", dice.randbytes(size))
    _write("sizes/zeros-3000000", bytes(3_000_000))
    words = [dice.randbytes(4).hex() for _ in range(500)]
    _write("sizes/text", " ".join(dice.choices(words, k=350_000)).encode())
    os.mkdir("many")
    for number in range(200):
        _write(f"many/{number}", b"%d\n" % number * dice.randrange(40))


def _make_names(dice: random.Random) -> None:
    os.mkdir("names")
    for name in NAMES:
        _write(b"names/" + name, dice.randbytes(20))
        directory = b"names/dir-" + name[:240]
        os.mkdir(directory)
        _write(directory + b"/" + name, name)
    os.mkdir("sort")
    for path in SORT_TRAPS:
        if b"/" in path:
            os.makedirs(b"sort/" + os.path.dirname(path), exist_ok=True)
        os.mkdir(b"sort/" + path) if path == b"a/b" else _write(b"sort/" + path, path)


def _make_nested(dice: random.Random) -> None:
    """Paths around the 100 and 255 bytes where tar's headers change their form, and empty directories."""
    os.makedirs("nested/empty/also-empty")
    for length in (99, 100, 101, 154, 155, 156, 255, 256, 257, 1000, 3000):
        path = "nested"
        while len(path) < length - 60:
            path += "/" + "p" * 49
        os.makedirs(path, exist_ok=True)
        _write(path + "/" + "f" * (length - len(path) - 1), dice.randbytes(30))


def _make_owners_and_modes() -> None:
    os.mkdir("modes")
    for number, mode in enumerate(MODES):
        _write(f"modes/file-{mode:04o}", b"%o" % mode)
        os.chown(f"modes/file-{mode:04o}", *OWNERS[number % len(OWNERS)])
        os.chmod(f"modes/file-{mode:04o}", mode)  # after the chown, which takes setuid and setgid away
    for number, mode in enumerate(DIRECTORY_MODES):
        name = f"modes/dir-{mode:04o}"
        os.mkdir(name)
        _write(name + "/inside", b"inside")
        os.chown(name, *OWNERS[number % len(OWNERS)])
        os.chmod(name, mode)


def _make_symlinks() -> None:
    os.mkdir("symlinks")
    targets = {
        b"relative": b"../sizes/text",
        b"dangling": b"no/such/file",
        b"absolute": b"/etc/passwd",
        b"escaping": b"../../../../../../etc/shadow",
        b"itself": b"itself",
        b"directory": b"../nested",
        b"not-utf8-\xe9": b"target-\xff\xfe",
        b"newline": b"one\ntwo",
        b"spaces": b" a b ",
        b"length-99": b"t" * 99,
        b"length-100": b"t" * 100,
        b"length-101": b"t" * 101,
        b"length-4000": (b"t" * 99 + b"/") * 40,
    }
    for number, (name, target) in enumerate(targets.items()):
        os.symlink(target, b"symlinks/" + name)
        os.lchown(b"symlinks/" + name, *OWNERS[number % len(OWNERS)])


def _make_hard_links(dice: random.Random) -> None:
    """Names of one inode far from one another; `zz/` holds names whose first one comes much earlier, or later.

    Not of a FIFO or device: GNU tar writes each of their names as one of its own.
    """
    for directory in ("links/a", "links/b/c", "links/zz"):
        os.makedirs(directory)
    _write("links/b/c/small", b"small, five names")
    for name in ("links/a/small-1", "links/a/small-2", "links/zz/small", b"links/zz/small-\xff\n"):
        os.link("links/b/c/small", name)
    _write("links/zz/big", dice.randbytes(MIB + 4321))
    for name in ("links/a/big", "links/b/big"):
        os.link("links/zz/big", name)
    _write("links/a/empty", b"")
    os.link("links/a/empty", "links/zz/empty")
    os.symlink("small-1", "links/a/symlink")
    os.link("links/a/symlink", "links/zz/symlink", follow_symlinks=False)
    _write("links/a/" + "l" * 200, b"long target")
    os.link("links/a/" + "l" * 200, "links/zz/to-long")


def _make_sparse(dice: random.Random) -> None:
    os.mkdir("sparse")
    island = dice.randbytes(64 * 1024)
    _write_sparse("sparse/three-islands-10GiB", 10 * GIB, {4 * MIB: island, 5 * GIB: island, 9 * GIB + 4096: island})
    _write_sparse("sparse/starts-with-hole", 3 * MIB, {3 * MIB - len(island): island})
    _write_sparse("sparse/ends-with-hole", 3 * MIB, {0: island})
    _write_sparse("sparse/odd-size", 2 * MIB + 777, {MIB: island[:5000]})
    _write_sparse("sparse/all-hole", 2 * MIB, {})
    _write_sparse("sparse/small-all-hole", 8192, {})
    _write_sparse("sparse/small", 200_000, {65_536: b"x"})
    _write_sparse("sparse/many-islands", 40 * MIB, {number * 128 * 1024: b"island" for number in range(300)})
    _write_sparse("sparse/two-names", 5 * MIB, {MIB: island})
    os.link("sparse/two-names", "sparse/two-names-again")


def _write_sparse(name: str, size: int, islands: dict[int, bytes]) -> None:
    with open(name, "wb") as file:
        file.truncate(size)
        for offset, content in islands.items():
            os.pwrite(file.fileno(), content, offset)


def _make_special_files() -> None:
    os.mkdir("special")
    os.mkfifo("special/fifo", 0o640)
    os.mknod("special/char", 0o660 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("special/block", 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    os.mknod("special/great-minor", 0o600 | stat.S_IFCHR, os.makedev(300, 70_000))
    os.chown("special/great-minor", 12, 34)
    for name in (b"special/socket", b"special/socket-\xff"):
        os.mknod(name, 0o755 | stat.S_IFSOCK)
    os.mkdir("special/only-a-socket")
    os.mknod("special/only-a-socket/socket", 0o600 | stat.S_IFSOCK)


def _make_xattrs(dice: random.Random) -> None:
    os.mkdir("xattrs")
    attributes = {
        b"user.text": b"value",
        b"user.empty": b"",
        b"user.binary": bytes(range(256)),
        b"user.newline": b"one\ntwo\n",
        b"user.name=with=equals": b"a=b",
        b"user.name%3Dwith%percent": b"100%",
        b"user.not-utf8-\xe9": b"\xff\xfe",
        b"user.space in name": b" ",
    }
    for number, (name, value) in enumerate(attributes.items()):
        _write(f"xattrs/{number}", b"")
        os.setxattr(f"xattrs/{number}", name, value)
    _write("xattrs/all", b"all of them")
    os.mkdir("xattrs/directory")
    for name, value in attributes.items():
        os.setxattr("xattrs/all", name, value)
        os.setxattr("xattrs/directory", name, value)
    _write("xattrs/read-only", b"", mode=0o444)
    os.setxattr("xattrs/read-only", b"user.kept", b"although the mode forbids writing")
    _write("xattrs/big-file", dice.randbytes(MIB + 1))
    os.setxattr("xattrs/big-file", b"user.text", b"on a file of its own unit")
    _write("xattrs/greatest", b"")
    _set_greatest_xattr("xattrs/greatest", dice.randbytes(60_000))


def _set_greatest_xattr(name: str, value: bytes) -> None:
    """ext4 has room for one block, XFS for 64 KiB: the greatest that goes in."""
    for size in (60_000, 10_000, 4_000, 3_500, 1_000):
        try:
            os.setxattr(name, "user.greatest", value[:size])
        except OSError:
            continue
        return
    raise AssertionError("this filesystem keeps no user attribute of 1,000 bytes")


def _acl(
    owner: int, group: int, other: int, users: dict[int, int] | None = None, groups: dict[int, int] | None = None
) -> bytes:
    """A POSIX ACL as the kernel keeps it (linux/posix_acl_xattr.h): so no setfacl is needed."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, owner, nobody), *((0x02, bits, uid) for uid, bits in sorted((users or {}).items()))]
    entries += [(0x04, group, nobody), *((0x08, bits, gid) for gid, bits in sorted((groups or {}).items()))]
    if users or groups:
        entries.append((0x10, 7, nobody))
    entries.append((0x20, other, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _make_acls() -> None:
    """Default ACLs above entries that have none of their own: a restore must not let them inherit one."""
    os.mkdir("acls")
    acl = _acl(6, 4, 0, users={1000: 6, 70_000: 4}, groups={2000: 5})
    for name in ("acls/file", "acls/read-only"):
        _write(name, b"acl")
        os.setxattr(name, "system.posix_acl_access", acl)
    _write("acls/big", b"acl" * 500_000)
    os.setxattr("acls/big", "system.posix_acl_access", acl)
    os.mkfifo("acls/fifo")
    os.setxattr("acls/fifo", "system.posix_acl_access", acl)
    os.mkdir("acls/inherits")
    os.setxattr("acls/inherits", "system.posix_acl_default", _acl(7, 5, 0, users={1000: 7}))
    os.mkdir("acls/inherits/has-inherited")
    _write("acls/inherits/file-has-inherited", b"x")
    for name in ("file", "directory"):
        path = f"acls/inherits/plain-{name}"
        _write(path, b"x") if name == "file" else os.mkdir(path)
        os.removexattr(path, "system.posix_acl_access")
        os.chmod(path, 0o755)
    os.removexattr("acls/inherits/plain-directory", "system.posix_acl_default")


def _make_capabilities() -> None:
    """security.capability as linux/capability.h has it, revision 2; last, as a chown would take it away."""
    os.mkdir("capabilities")
    for name, bits in (("bind", CAP_NET_BIND_SERVICE), ("raw", CAP_NET_RAW), ("two-names", CAP_NET_RAW)):
        _write(f"capabilities/{name}", b"#!/bin/true\n", mode=0o755)
        os.chown(f"capabilities/{name}", 5, 6)
        os.setxattr(f"capabilities/{name}", "security.capability", struct.pack("<5I", 0x02000001, bits, 0, 0, 0))
    os.link("capabilities/two-names", "capabilities/two-names-again")
    _write("capabilities/big", b"\x7fELF" * (300 * 1024), mode=0o755)
    os.setxattr("capabilities/big", "security.capability", struct.pack("<5I", 0x02000001, CAP_NET_RAW, 0, 0, 0))


def _set_times(directory: int, dice: random.Random) -> None:
    """Give each entry a time of its own, what is inside before the directory; symlinks and the root too."""
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            _set_times(child, dice)
            os.close(child)
        os.utime(name, ns=(0, _some_time(dice)), dir_fd=directory, follow_symlinks=False)
    os.utime(directory, ns=(0, _some_time(dice)))


def _some_time(dice: random.Random) -> int:
    """Mostly recent; also before 1970, past 2038, at whole seconds, and at the ends of a second."""
    second = dice.choice((1_700_000_000 + dice.randrange(10**7),) * 6 + (-dice.randrange(10**9), 0, -1, 4_102_444_800))
    return second * 10**9 + dice.choice((dice.randrange(10**9),) * 4 + (0, 1, 999_999_999))


def _main(arguments: list[str]) -> None:
    command, root, *rest = arguments
    path = Path(root)
    if command == "compare":
        lines = differences(fingerprint(path), fingerprint(rest[0]))
        print("\n".join(lines) or f"identical: {len(fingerprint(path))} entries")
        sys.exit(bool(lines))
    makers: dict[str, Callable[..., None]] = {
        "odd": make_odd_tree,
        "mixed": make_mixed_tree,
        "tiny": make_tiny_tree,
        "big": make_big_files,
    }
    path.mkdir(parents=True, exist_ok=True)
    makers[command](path, *map(int, rest))


if __name__ == "__main__":
    _main(sys.argv[1:])
