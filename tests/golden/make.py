"""Makes the golden repository of format 1 - once; what is committed beside this file is never changed.

    python -m tests.golden.make DIRECTORY      (root, Linux; needs GNU tar, find, unshare)

A full backup of a small odd tree, and two increments over it, the second with a renamed directory.
Clock, ids, inodes and change times are fixed. Frames may come out different under another zstd; what they hold may not.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.archive import scan, scan_fields
from volback.archive import tar
from volback.archive.blocks import CUT
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cutter
from volback.archive.parent import EarlierBackup, Parent, begins_of
from volback.archive.plan import Plan, make_plan
from volback.archive.record import Recorder
from volback.archive.seal import seal
from volback.catalog.keys import BackupKey
from volback.catalog.model import FORMAT, Manifest, ScanFacts, Source
from volback.catalog.repository import Catalog
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent
from volback.progress import Silent
from volback.store.local import LocalStore

HOST, VOLUME = "golden-host", "golden"
FULL, INCREMENT = "20260102T030405Z-0001", "20260103T030405Z-0002"
SECOND_INCREMENT = "20260104T030405Z-0003"
MIB = 1024 * 1024
_CTIME = re.compile(rb"\d+\.\d{10}\0")


def make_repository(directory: Path) -> dict[str, Any]:
    """Make the repository in `directory`; return what a reader must find in it."""
    store = LocalStore(directory)
    catalog = Catalog(store)
    catalog.ensure_repository(lambda: "0123456789abcdef0123456789abcdef")
    with tempfile.TemporaryDirectory(prefix="volback-golden-") as temporary:
        root = Path(temporary) / "tree"
        root.mkdir()
        make_tree(root)
        made = {FULL: _back_up(store, catalog, root, FULL)}
        change_tree(root)
        made[INCREMENT] = _back_up(store, catalog, root, INCREMENT, parent=FULL)
        (root / "b").rename(root / "renamed")
        _set_times(os.fsencode(root))
        made[SECOND_INCREMENT] = _back_up(store, catalog, root, SECOND_INCREMENT, parent=INCREMENT)
    return made | {"objects": _objects(directory)}


def make_tree(root: Path) -> None:
    """Every type of entry, odd names, hard links in three directories, holes, and a file of its own unit."""
    top = os.fsencode(root)
    for name in (b"a", b"a/deep", b"b", b"z \xff", b"n" * 200):
        os.mkdir(top + b"/" + name)
    contents = {
        b"a/deep/name": b"a hard link's data, three names\n",
        b"a/empty": b"",
        b"a/not-utf8-\xe9\xff": b"latin-1\n",
        b"a/new\nline": b"new line\n",
        b"b/unicode-\xc3\xa9": b"unicode\n",
        b"n" * 200 + b"/" + b"m" * 120: b"long path\n",
        b"large": _blocks(),
    }
    for path, content in contents.items():
        _write(top + b"/" + path, content)
    for path in (b"b/again", b"z \xff/and again"):
        os.link(top + b"/a/deep/name", top + b"/" + path)
    with open(top + b"/sparse", "wb") as file:
        file.truncate(3 * MIB)
        for offset in (0, MIB, 2 * MIB + 8192):
            os.pwrite(file.fileno(), b"an island in a hole\n", offset)
    os.symlink(b"../a/deep/name", top + b"/b/symlink")
    os.symlink(b"nowhere \xff", top + b"/dangling")
    os.link(top + b"/dangling", top + b"/z \xff/dangling too", follow_symlinks=False)
    os.mkfifo(top + b"/fifo")
    os.mknod(top + b"/device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(top + b"/a/empty", "user.attribute", b"binary \0\n\xff")
    os.chown(top + b"/a", 1000, 3_000_000)
    os.chmod(top + b"/a", 0o3751)
    os.chmod(top + b"/a/empty", 0o4640)
    _set_times(top)


def change_tree(root: Path) -> None:
    """One block of the large file, one small file more, one less."""
    top = os.fsencode(root)
    with open(top + b"/large", "r+b") as file:
        file.seek(MIB + 5)
        file.write(b"changed")
    _write(top + b"/b/new", b"new since the first backup\n")
    os.unlink(top + b"/a/new\nline")
    _set_times(top)


def _blocks() -> bytes:
    """2.5 MiB that compress to nothing, each block different."""
    dice = random.Random(1)
    return b"".join(dice.randbytes(1024) * 512 for _ in range(5))


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)


def _set_times(top: bytes) -> None:
    for number, path in enumerate([*_paths(top), b""]):
        second = 1_767_000_000 + number if number else -1  # the first one before 1970
        os.utime(top + b"/" + path, ns=(0, second * 10**9 + 123_456_789), follow_symlinks=False)


def _paths(top: bytes) -> list[bytes]:
    found = (os.path.join(where, name) for where, below, files in os.walk(top) for name in below + files)
    return sorted(os.path.relpath(path, top) for path in found)


def _back_up(
    store: LocalStore, catalog: Catalog, root: Path, backup_id: str, *, parent: str | None = None
) -> dict[str, Any]:
    """Store one backup of the tree; with a parent, only what is new."""
    key = BackupKey(HOST, VOLUME, backup_id)
    plan = make_plan([_scan(root)])
    chosen = ChosenParent()
    compared = Parent()
    if parent is not None:
        chosen.backup = OpenBackup(store, catalog.load(BackupKey(HOST, VOLUME, parent))[0])
        # Change times are fixed, so all that has the parent's other facts would be taken for unchanged: it is read.
        compared = EarlierBackup(begins_of(chosen.backup.segments), plan, lambda _: True, reread=True)
    stream = _read(root, plan)
    cutter, recorder = Cutter(plan, compared), Recorder(backup_id, Silent())
    sealed = seal(cutter.cut([stream]), ZstdCodec(), in_stream_order=parent is None)
    store.put(key.data if parent is None else key.increment, recorder.hashed(recorder.data(sealed, compared)))
    index = recorder.index()
    store.put(key.index, index.buffers)
    day = backup_id[6:8]
    catalog.commit(
        Manifest(
            format=FORMAT, id=backup_id, host=HOST, volume=VOLUME,
            kind="full" if parent is None else "incremental", parent=parent,
            uses=list(chosen.uses(recorder.used, index.used)), cut=CUT,
            scan=ScanFacts(started_ns=1_767_000_100_000_000_000, newest_ns=plan.newest_ns, filesystem="ext4"),
            engine_id="GOLD:ENGI:NEID",
            source=Source(kind="volume", name=VOLUME, options={"type": "none"}, labels={"com.example.key": "value"}),
            started_at=f"2026-01-{day}T03:04:05Z", ended_at=f"2026-01-{day}T03:04:06Z",
            consistency="paused", containers=["one", "two"],
            files=cutter.report.members, raw_bytes=cutter.report.raw_bytes, stored_bytes=recorder.stored_bytes,
            reused_bytes=recorder.reused_bytes, sockets_skipped=1, excludes=["*.tmp"],
            data=recorder.data_digest(), index=index.digest, index_table_bytes=index.table_bytes,
            digest=recorder.stream_digest(), warnings=["a warning"], tags=["golden"], volback="0.1.0",
        )
    )  # fmt: skip
    return {"stream_sha256": hashlib.sha256(stream).hexdigest(), "members": list(_members(root, plan))}


def _scan(root: Path) -> bytes:
    """What find says, with inodes numbered from 1 and change times of 2026."""
    records, facts = scan_fields(scan(root))
    inodes: dict[bytes, bytes] = {}
    for at in sorted(range(len(records)), key=records.__getitem__):
        before, _, numbers = records[at].rpartition(b"/")
        inode, rest = numbers.split(b" ", 1)
        inode = inodes.setdefault(inode, b"%d" % (len(inodes) + 1))
        records[at] = b"%s/%s %s" % (before, inode, _CTIME.sub(b"1767000000.0000000000\0", rest))
    return b"".join([*facts, *records]) + tar.SCAN_END.encode()


def _read(root: Path, plan: Plan) -> bytes:
    """tar is PID 1, as in a helper: a sparse member's header holds it."""
    command = ["unshare", "--pid", "--fork", *tar.CREATE, "--files-from=-", "--file=-"]
    return subprocess.run(command, cwd=root, input=b"".join(plan.names()), capture_output=True, check=True).stdout


def _members(root: Path, plan: Plan) -> Iterator[list[Any]]:
    """What the kernel says of each entry: path, type, size, mtime_ns, mode, uid, gid, digest or link target."""
    for number in range(len(plan.records)):
        path = plan.entry(number).path
        full = os.fsencode(root) + b"/" + path
        status = os.lstat(full)
        holds = ""
        if stat.S_ISREG(status.st_mode):
            with open(full, "rb") as file:
                holds = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            holds = os.readlink(full).decode("latin-1")
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        kind = plan.entry(number).type
        mode = stat.S_IMODE(status.st_mode)
        yield [path.decode("latin-1"), kind, size, status.st_mtime_ns, mode, status.st_uid, status.st_gid, holds]


def _objects(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    expected = make_repository(target / "format-1")
    (target / "format-1.json").write_text(json.dumps(expected, indent=1) + "\n")
