"""Large trees for benchmarks, made from a seed as fast as the disk takes them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024
POOL_BYTES = 16 * MIB
TABLES = 256
FILES_PER_DIRECTORY = 60


def make_mixed_tree(root: Path, files: int, size_bytes: int, seed: int = 1) -> None:
    """Many files, most of them small and some large, `size_bytes` in all; zstd -3 makes 2 to 3 of 1 of it."""
    dice = random.Random(seed)
    content = content_source(dice)
    for number, size in enumerate(_sizes(dice, files, size_bytes)):
        directory = root / f"d{number // FILES_PER_DIRECTORY % 37:02}" / f"s{number // FILES_PER_DIRECTORY:05}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True, exist_ok=True)
        write(directory / f"f{number:06}", size, content)


def make_tiny_tree(root: Path, files: int, seed: int = 1) -> None:
    """`files` files of at most 300 bytes."""
    dice = random.Random(seed)
    content = content_source(dice)
    for number in range(files):
        directory = root / f"d{number // 10_000:03}" / f"s{number // 200:05}"
        if number % 200 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        write(directory / f"f{number:07}", dice.randrange(300), content)


def make_big_files(root: Path, count: int, size_bytes: int, seed: int = 1) -> None:
    """`count` files of `size_bytes` each."""
    root.mkdir(parents=True, exist_ok=True)
    content = content_source(random.Random(seed))
    for number in range(count):
        write(root / f"big-{number:03}", size_bytes, content)


def write(path: Path, size: int, content: Callable[[int], bytes]) -> None:
    with open(path, "wb", buffering=0) as file:
        while size > 0:
            size -= file.write(content(min(size, MIB)))


def _sizes(dice: random.Random, files: int, size_bytes: int) -> list[int]:
    """Log-normal like the files of a machine: the median is about a fifth of the mean."""
    raw = [math.exp(dice.gauss(0, 1.8)) for _ in range(files)]
    scale = size_bytes / sum(raw)
    return [int(size * scale) for size in raw]


def content_source(dice: random.Random) -> Callable[[int], bytes]:
    """Slices of a pool, its byte values permuted: as compressible as the pool, yet no two slices share a block.

    A mere slice would come again and again, and a program that finds what it has seen would store next to nothing.
    """
    pool = _pool(dice)
    tables = [bytes(dice.sample(range(256), 256)) for _ in range(TABLES)]

    def content(size: int) -> bytes:
        start = dice.randrange(len(pool) - size)
        return pool[start : start + size].translate(dice.choice(tables))

    return content


def _pool(dice: random.Random) -> bytes:
    """Runs of text, of records, and of what does not compress."""
    words = [dice.randbytes(dice.randrange(1, 6)).hex().encode() for _ in range(4000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    parts = bytearray()
    while len(parts) < POOL_BYTES:
        kind = dice.random()
        if kind < 0.6:
            parts += b" ".join(dice.choices(words, weights, k=6000))
        elif kind < 0.75:
            parts += b"".join(b"%08d\x00\x00\x00%s\x00" % (number, dice.randbytes(4)) for number in range(2000))
        else:
            parts += dice.randbytes(12 * 1024)
    return bytes(parts[:POOL_BYTES])
