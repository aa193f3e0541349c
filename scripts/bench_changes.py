"""What the benchmark of increments reads: data from a seed, and what changes between two backups.

    python -m scripts.bench_changes make|change NAME ROOT SCALE SEED

In a process of its own, as the peak memory of a command begins at what its parent had. What is changed is written over;
nothing is removed, as a filesystem that has just removed files is slow in making new ones.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.bulk import FILES_PER_DIRECTORY, content_source, make_mixed_tree, make_tiny_tree, write

GB, MB = 1_000_000_000, 1_000_000
PAGE_BYTES, DATABASE_BYTES = 8192, 1 << 30
POSTGRES_IMAGE, POSTGRES_DIRECTORY = "volback-test-postgres:15", "/var/lib/postgresql"
Step = Callable[[Path, float, random.Random], None]


class Data(NamedTuple):
    """How data is made, and changed; both get the root, the scale and dice."""

    make: Step
    change: Step


def mixed(root: Path, scale: float, _: random.Random) -> None:
    """58,000 files of 1.3 GB."""
    make_mixed_tree(root, max(100, int(58_000 * scale)), int(1.3 * GB * scale))


def tiny(root: Path, scale: float, _: random.Random) -> None:
    """A million files of at most 300 bytes."""
    make_tiny_tree(root, max(100, int(1_000_000 * scale)))


def nothing(root: Path, scale: float, dice: random.Random) -> None:
    """No change."""


def few_directories(root: Path, _: float, dice: random.Random) -> None:
    """All files of 1 % of the directories get other content of the same size."""
    files = _files(root)
    directories = sorted({file.parent for file in files})
    chosen = set(dice.sample(directories, max(1, len(files) // 100 // FILES_PER_DIRECTORY)))
    _rewrite([file for file in files if file.parent in chosen], dice)


def anywhere(root: Path, _: float, dice: random.Random) -> None:
    """1 % of the files, chosen at random, get other content of the same size."""
    files = _files(root)
    _rewrite(dice.sample(files, max(1, len(files) // 100)), dice)


def pages(root: Path, scale: float, dice: random.Random) -> None:
    """A database file of 8 KiB pages."""
    with open(root / "database", "wb") as file:
        for number in range(int(DATABASE_BYTES * scale) // PAGE_BYTES):
            file.write(_page(number, dice))


def some_pages(root: Path, _: float, dice: random.Random) -> None:
    """1 % of the pages, in place."""
    with open(root / "database", "r+b") as file:
        count = os.fstat(file.fileno()).st_size // PAGE_BYTES
        for number in dice.sample(range(count), max(1, count // 100)):
            file.seek(number * PAGE_BYTES)
            file.write(_page(number, dice))


def _page(number: int, dice: random.Random) -> bytes:
    """A header, rows of numbers and words, and free space: a third of it does not compress."""
    rows = b"".join(b"%08d|%s|%d\n" % (number * 64 + row, dice.randbytes(40).hex().encode(), row) for row in range(64))
    return (number.to_bytes(24, "big") + rows).ljust(PAGE_BYTES, b"\0")


def dump(root: Path, scale: float, dice: random.Random) -> None:
    """An SQL dump of 500 MB."""
    size_bytes = int(500 * MB * scale)
    with open(root / "dump.sql", "wb") as file:
        number = 0
        while file.tell() < size_bytes:
            number += 1
            file.write(_row(number, dice))


def inserted_rows(root: Path, scale: float, dice: random.Random) -> None:
    """1,000 rows more, at random places: the dump is written anew, as every dump is."""
    path = root / "dump.sql"
    rows = path.read_bytes().splitlines(keepends=True)
    for number in range(max(1, int(1000 * scale))):
        rows[dice.randrange(len(rows))] += _row(-number, dice)
    path.write_bytes(b"".join(rows))


def _row(number: int, dice: random.Random) -> bytes:
    words = dice.randbytes(12).hex().encode()
    return b"INSERT INTO customer VALUES (%d,'%s','%s@example.org',%d);\n" % (
        number, words, words[:9], dice.randrange(10**6),
    )  # fmt: skip


def log(root: Path, scale: float, dice: random.Random) -> None:
    """A log of 200 MB."""
    _append(root / "log", int(200 * MB * scale), dice)


def grown_log(root: Path, scale: float, dice: random.Random) -> None:
    """5 MB more."""
    _append(root / "log", int(5 * MB * scale), dice)


def _append(path: Path, size_bytes: int, dice: random.Random) -> None:
    """Random bytes, which do not compress, so that bytes stored are bytes kept."""
    with open(path, "ab") as file:
        while size_bytes > 0:
            size_bytes -= file.write(dice.randbytes(min(size_bytes, 1 << 20)))


def postgres(root: Path, scale: float, _: random.Random) -> None:
    """The data directory of pgbench's tables, 150 MB, after a regular end."""
    os.chown(root, 999, 999)
    with _postgres(root) as run:
        run("pgbench", "--initialize", "--quiet", "--scale", str(max(1, int(10 * scale))), "postgres")
        run("psql", "--quiet", "--command", "CHECKPOINT")


def pgbench(root: Path, scale: float, _: random.Random) -> None:
    """10,000 transactions, which change half of the pages; nearly as much is new in the write-ahead log."""
    _transact(root, int(2500 * scale))


def short_pgbench(root: Path, scale: float, _: random.Random) -> None:
    """300 transactions, which change 2 % of the pages."""
    _transact(root, int(75 * scale))


def _transact(root: Path, count: int) -> None:
    """So many transactions of each of four clients."""
    with _postgres(root) as run:
        run("pgbench", "--client", "4", "--transactions", str(max(1, count)), "postgres")
        run("psql", "--quiet", "--command", "CHECKPOINT")


@contextmanager
def _postgres(root: Path) -> Iterator[Callable[..., None]]:
    name = f"volback-bench-postgres-{os.getpid()}"
    volume = f"{root}:{POSTGRES_DIRECTORY}"
    _quietly(
        "docker", "run", "--detach", "--rm", "--stop-signal", "SIGINT", "--name", name, "-v", volume, POSTGRES_IMAGE
    )
    try:
        while subprocess.run(["docker", "exec", name, "pg_isready", "--quiet"], check=False).returncode:
            time.sleep(0.1)
        yield lambda *command: _quietly("docker", "exec", name, *command)
    finally:
        _quietly("docker", "stop", "--time", "120", name)


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


DATA = {
    "unchanged": Data(mixed, nothing),
    "few-directories": Data(mixed, few_directories),
    "anywhere": Data(mixed, anywhere),
    "pages": Data(pages, some_pages),
    "postgres": Data(postgres, pgbench),
    "postgres-short": Data(postgres, short_pgbench),
    "dump": Data(dump, inserted_rows),
    "log": Data(log, grown_log),
    "deep": Data(mixed, anywhere),
    "million": Data(tiny, nothing),
    "two-pass": Data(mixed, anywhere),
}


def _files(root: Path) -> list[Path]:
    return sorted(Path(top, name) for top, _, names in os.walk(root) for name in names)


def _rewrite(files: list[Path], dice: random.Random) -> None:
    content = content_source(dice)
    for file in files:
        write(file, file.stat().st_size, content)


def main() -> None:
    """Make or change one kind of data."""
    action, name, root, scale, seed = sys.argv[1:]
    step: Step = getattr(DATA[name], action)
    step(Path(root), float(scale), random.Random(f"{action} {seed}"))  # a change brings no bytes that are there already
    os.sync()


if __name__ == "__main__":
    main()
