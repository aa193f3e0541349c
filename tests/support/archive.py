"""Streams of the real find and tar for tests of the archive room, and trees that hypothesis makes up."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from volback.archive import tar
from volback.archive.cut import CutReport, Cutter, RawFrame, UnitEnd
from volback.archive.parent import Reused
from volback.archive.plan import Plan, PlannedUnit, make_plan
from volback.catalog.units import Unit

MIB = 1024 * 1024
END = tar.SCAN_END.encode()
DEVICE = 2049
"""Of the root in records and facts that are made here."""
SIZES = (0, 1, 511, 512, 513, 5000, 200_000, MIB - 1, MIB, MIB + 1, 2 * MIB + 700_000)
NAMES = st.sampled_from(
    [b"a", b"b", b"a-b", b"a b", b"\xff", b"new\nline", b"n" * 101, b"m" * 255, "é".encode(), b"..."]
)
BUFFERS = st.lists(st.sampled_from([1, 7, 511, 512, 513, 4096, 100_000, 4 * MIB]), min_size=1, max_size=5)
"""Sizes of the buffers in which a stream comes, for `pieces`."""
KINDS = st.sampled_from("fffffdlphhSxs" + ("c" if os.geteuid() == 0 else ""))
"""Devices are for root to make."""


class Made(NamedTuple):
    """One entry to make: where, what (find's letter; h hard link, S sparse, x with xattrs), how much."""

    parts: list[bytes]
    kind: str
    size: int


TREES = st.lists(
    st.builds(
        Made, st.lists(NAMES, min_size=1, max_size=3), KINDS, st.sampled_from(SIZES[:7]) | st.sampled_from(SIZES)
    ),
    max_size=12,
)


class CutUnit(NamedTuple):
    """What the cutter gave for one unit, its frames as bytes, and the extents of each."""

    end: UnitEnd
    frames: list[bytes]
    sizes: list[list[int]]

    @property
    def extents(self) -> list[bytes]:
        """The bytes of each extent."""
        raw, at, found = b"".join(self.frames), 0, []
        for size in (size for sizes in self.sizes for size in sizes):
            found.append(raw[at : at + size])
            at += size
        return found


def record(
    path: bytes, *, kind: str = "f", mode: int = 0o644, size: int = 1000, mtime: str = "1700000000.1234567890",
    ctime: str = "1700000000.0000000000", inode: int = 1, links: int = 1, link: bytes = b"", device: int = DEVICE,
    blocks: int | None = None,
) -> bytes:  # fmt: skip
    """One record as find writes it; times with ten digits behind the point."""
    tail = f"{inode} {links:2} {kind} {size:10} {ctime:>21}\0{device}{'' if blocks is None else f' {blocks}'}\0"
    return b"%s//%o 0 0 %s/%s/%s" % (path, mode, mtime.encode(), link, tail.encode())


def scan_facts(
    *, mounts: str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw", directory: str = "/volume", clock: str = "1790000000.0",
    device: int = DEVICE,
) -> bytes:  # fmt: skip
    """What comes before the records: a clock's time with up to ten digits behind the point."""
    whole, _, part = clock.partition(".")
    return f"{mounts}\n\0{directory}\n\0{whole}.{part:0<10} 5\x001.0000000000 {device}\0".encode()


def scan_fields(scanned: bytes) -> tuple[list[bytes], list[bytes]]:
    """The records and, without the end, what comes before them: in pieces that `b"".join` puts together again."""
    fields = scanned.removesuffix(END).split(b"\0")[:-1]
    facts = [field + b"\0" for field in fields[:4]]
    return [b"%s\0%s\0" % pair for pair in zip(fields[4::2], fields[5::2], strict=True)], facts


def scan(root: Path) -> bytes:
    """What the helper's find says of `root`, the end mark included."""
    done = subprocess.run(tar.FIND, cwd=root, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout + END


def read(root: Path, plan: Plan, wanted: Callable[[PlannedUnit], bool] | None = None) -> bytes:
    """The tar stream of `plan`, or of its wanted units; files may have vanished meanwhile.

    It ends as a stored one does, in records of 10 KiB: what a helper's tar pads beyond that is not kept.
    """
    command = [*tar.CREATE, "--blocking-factor=20", "--files-from=-", "--file=-"]
    names = b"".join(plan.names(wanted))
    done = subprocess.run(command, cwd=root, input=names, capture_output=True, check=False, env={"LC_ALL": "C"})
    assert not tar.read_warnings(done.stderr)[1], done.stderr
    return done.stdout


def plan_of(root: Path) -> Plan:
    return make_plan([scan(root)])


def cut(plan: Plan, buffers: Iterable[bytes]) -> tuple[list[CutUnit], CutReport]:
    """Cut a stream to its end."""
    cutter = Cutter(plan)
    units: list[CutUnit] = []
    frames: list[bytes] = []
    sizes: list[list[int]] = []
    for item in cutter.cut(buffers):
        assert not isinstance(item, Reused), "nothing is reused where nothing is known"
        if isinstance(item, RawFrame):
            frames.append(b"".join(item.pieces))
            assert sum(item.sizes) == len(frames[-1])
            sizes.append(item.sizes)
        else:
            units.append(CutUnit(item, frames, sizes))
            frames, sizes = [], []
    assert frames == []
    return units, cutter.report


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` in buffers of these sizes, over and over; single bytes only where that is quick."""
    at, number = 0, 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        if len(data) > 100_000:
            size *= 997
        yield data[at : at + size]
        at, number = at + size, number + 1


@contextmanager
def made(tree: list[Made]) -> Iterator[Path]:
    """A directory that holds the tree; entries that cannot be (below a file or symlink, there already) are left out."""
    with tempfile.TemporaryDirectory(prefix="volback-test-") as directory:
        root = os.fsencode(directory)
        regular: list[bytes] = []
        for number, entry in enumerate(tree):
            path = b"/".join([root, *entry.parts])
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if not os.path.lexists(path):
                    _make(path, entry, regular, random.Random(number))
            except (FileExistsError, NotADirectoryError, FileNotFoundError):
                continue
        yield Path(directory)


def _make(path: bytes, entry: Made, regular: list[bytes], dice: random.Random) -> None:
    if entry.kind == "d":
        os.mkdir(path)
    elif entry.kind == "l":
        os.symlink(dice.choice([b"target", b"t" * 150, b"\xfe\nodd"]), path)
        regular.append(path)
    elif entry.kind == "h" and regular:
        os.link(dice.choice(regular), path, follow_symlinks=False)
    elif entry.kind in "pcs":
        types = {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "s": stat.S_IFSOCK}
        os.mknod(path, 0o600 | types[entry.kind], os.makedev(1, 3))
    else:
        _write(path, entry, dice)
        regular.append(path)


def _write(path: bytes, entry: Made, dice: random.Random) -> None:
    with open(path, "wb") as file:
        if entry.kind == "S":
            file.seek(entry.size * 5)
        file.write(dice.randbytes(entry.size))
        file.truncate()
    if entry.kind == "x":
        for number in range(20):
            os.setxattr(path, f"user.attribute-{number}", dice.randbytes(60))


def raw_of(unit: CutUnit) -> bytes:
    return b"".join(unit.frames)


def without_pieces(unit: CutUnit) -> Unit:
    return Unit(unit.end.kind, [], unit.end.members)
