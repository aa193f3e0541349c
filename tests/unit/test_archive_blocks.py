"""How data is cut into extents: pinned, as what is stored today is compared with what is cut in ten years."""

from __future__ import annotations

import hashlib
import random

import pytest

from volback.archive.blocks import BLOCK_BYTES, CUT, WHOLE_BYTES, Blocks, _scale

MIB = 1024 * 1024
# seed and size: how many extents, the first ones, and a digest of all sizes
VECTORS: dict[tuple[int, int], tuple[int, list[int], str]] = {
    (1, 81_920): (1, [81920], "7dd1f893002ad9fa"),
    (1, 81_921): (2, [65536, 16385], "b28b4c54b5267fd6"),
    (1, 300_000): (5, [65536, 73530, 65536, 75355, 20043], "c472bf5cb4b41a8d"),
    (2, 1_000_000): (17, [65536, 65536, 17151, 65536, 17164, 65536], "91bf2db6c3da5a0c"),
    (3, 5_000_000): (84, [65536, 65536, 65536, 22335, 76655, 65536], "8d43a48661a36c51"),
}


def _data(seed: int, size: int) -> bytes:
    """The same on every machine: SHA-256 in counter mode."""
    blocks = (hashlib.sha256(b"%d %d" % (seed, number)).digest() for number in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def _cut(data: bytes, section: int | None = None) -> list[int]:
    """Cut as the cutter does, in sections."""
    blocks, at, begin, sizes = Blocks(len(data)), 0, 0, list[int]()
    step = section or blocks.section_bytes
    while at < len(data):
        at = min(at + step, len(data))
        found = blocks.sizes(memoryview(data)[begin:at], is_last=at == len(data))
        begin += sum(found)
        sizes += found
    return sizes


@pytest.mark.parametrize(("seed", "size"), VECTORS)
def test_the_cut_is_the_one_that_its_name_stands_for(seed: int, size: int) -> None:
    sizes = _cut(_data(seed, size))
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]
    assert CUT == "fastcdc-128k-64k"
    assert (len(sizes), sizes[:6], digest) == VECTORS[seed, size]


def test_zeros_have_no_anchors() -> None:
    assert set(_cut(bytes(2_000_000))) == {BLOCK_BYTES, 2_000_000 % BLOCK_BYTES}


@pytest.mark.parametrize("section", [700_000, 1_500_001, 4 * MIB])
def test_sections_do_not_show_in_the_cut(section: int) -> None:
    data = _data(4, 7_000_000)
    assert _cut(data, section) == _cut(data)


@pytest.mark.parametrize("size", [1, 511, WHOLE_BYTES - 1, WHOLE_BYTES])
def test_a_small_file_is_one_extent(size: int) -> None:
    assert _cut(_data(5, size)) == [size]


@pytest.mark.parametrize("size", [WHOLE_BYTES + 1, 200_000, 3 * MIB + 17])
def test_every_byte_is_in_one_extent_and_no_extent_is_tiny(size: int) -> None:
    sizes = _cut(_data(6, size))
    assert sum(sizes) == size
    assert max(sizes) < BLOCK_BYTES + BLOCK_BYTES // 4
    assert min(sizes[:-1]) >= BLOCK_BYTES // 4


def test_an_inserted_row_and_a_changed_page_change_little() -> None:
    data = _data(7, 8 * MIB)
    before = set(_extents(data))
    inserted = data[: 3 * MIB] + b"a row" + data[3 * MIB :]
    assert sum(map(len, set(_extents(inserted)) - before)) < 600_000
    page = random.Random(8).randrange(0, 8 * MIB, 8192)
    changed = data[:page] + bytes(8192) + data[page + 8192 :]
    assert sum(map(len, set(_extents(changed)) - before)) < 300_000


def _extents(data: bytes) -> list[bytes]:
    at, found = 0, []
    for size in _cut(data):
        found.append(data[at : at + size])
        at += size
    return found


def test_giant_files_are_cut_into_larger_blocks() -> None:
    """So that their index stays small: two million extents at most."""
    gib = 1024**3
    assert [_scale(size) for size in (1, 128 * gib, 128 * gib + 1, 256 * gib, 1024 * gib)] == [1, 1, 2, 2, 8]
    data = _data(9, 6 * MIB)
    sizes = Blocks(512 * gib).sizes(memoryview(data), is_last=False)
    assert sizes
    assert max(sizes) <= 4 * BLOCK_BYTES + BLOCK_BYTES
    assert set(sizes) >= {4 * BLOCK_BYTES}


def test_a_file_of_many_tebibytes_is_cut() -> None:
    """pyfastcdc takes no larger sizes than those for 2 TiB."""
    data = _data(9, 16 * MIB)
    for size in (2048 * 1024**3 + 1, 2**62):
        sizes = Blocks(size).sizes(memoryview(data), is_last=True)
        assert sum(sizes) == len(data)
