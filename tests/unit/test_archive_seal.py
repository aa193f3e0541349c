"""Sealing and opening frames, and which stored bytes are fetched for what is wanted of them."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.archive import ranges
from volback.archive.cut import RawFrame, UnitEnd
from volback.archive.seal import Compressor, SealedFrame, decompress, in_order, open_frame, seal, unseal
from volback.catalog.model import FRAME_MAX_BYTES, Frame, Unit
from volback.errors import IntegrityError

ID = "20261123T160254Z-3f9c"
OLDER = "20261122T160254Z-aaaa"
CONTENTS = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=12)


def _sealed(contents: list[bytes]) -> tuple[bytes, list[Frame]]:
    """A data object and its frames."""
    cuts = [RawFrame([memoryview(content[:7]), memoryview(content[7:])]) for content in contents]
    data, frames = b"", []
    for item in seal(cuts, threads=2):
        assert isinstance(item, SealedFrame)
        frames.append(Frame(ID, len(data), len(item.stored), item.raw_bytes, item.sha256))
        data += item.stored
    return data, frames


@settings(deadline=None)
@given(CONTENTS)
def test_frames_open_to_what_was_sealed_and_joined_are_one_zstd_file(contents: list[bytes]) -> None:
    data, frames = _sealed(contents)
    assert [open_frame(frame, data[frame.offset :][: frame.stored_bytes]) for frame in frames] == contents
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == b"".join(contents)


def test_zstd_itself_reads_the_frames() -> None:
    data, _ = _sealed([b"one", b"", b"two" * 100_000])
    assert (
        subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == b"one" + b"two" * 100_000
    )


def test_unit_ends_stay_between_their_frames() -> None:
    cuts = [
        RawFrame([memoryview(bytes(10**6))]),
        UnitEnd("group", []),
        RawFrame([memoryview(b"x")]),
        UnitEnd("end", []),
    ]
    assert [type(item) for item in seal(cuts)] == [SealedFrame, UnitEnd, SealedFrame, UnitEnd]


def test_every_flipped_byte_and_every_shorter_frame_is_refused() -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    refused = 0
    for at in range(len(data)):
        for bit in range(8):
            try:
                raw = open_frame(frame, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            except IntegrityError:
                refused += 1
            else:  # a bit that means nothing to zstd, of which there are few: what comes out is right
                assert raw == b"some content " * 20
        with pytest.raises(IntegrityError, match="cut short"):
            open_frame(frame, data[:at])
    assert refused > 7.5 * len(data)


@pytest.mark.parametrize(
    "change",
    [
        {"raw_bytes": 259},
        {"raw_bytes": 261},
        {"raw_bytes": FRAME_MAX_BYTES + 1},
        {"sha256": hashlib.sha256(b"other").hexdigest()},
        {"stored_bytes": 1},
    ],
)
def test_frame_that_is_not_what_the_index_says_is_refused(change: dict[str, int]) -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    with pytest.raises(IntegrityError):
        open_frame(frame._replace(**change), data)


def test_frame_that_holds_far_more_than_it_says_costs_nothing() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * 1024 * 1024))
    honest = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(IntegrityError, match="damaged"):
        open_frame(Frame(ID, 0, len(bomb), 1000, honest), bomb)


def test_two_frames_where_one_must_be_are_refused() -> None:
    data, frames = _sealed([b"one", b"two"])
    both = frames[0]._replace(stored_bytes=len(data))
    with pytest.raises(IntegrityError):
        open_frame(both, data)


@given(st.lists(st.binary(max_size=500), max_size=10))
def test_index_compresses_and_comes_back(parts: list[bytes]) -> None:
    compressor = Compressor()
    for part in parts:
        compressor.feed(part)
    stored = b"".join(compressor.end())
    assert b"".join(decompress(stored, what="index")) == b"".join(parts)


def test_damaged_index_is_named() -> None:
    compressor = Compressor()
    compressor.feed(b"line\n" * 1000)
    stored = bytearray(b"".join(compressor.end()))
    stored[len(stored) // 2] ^= 0x40
    with pytest.raises(IntegrityError, match="index of volume"):
        list(decompress(bytes(stored), what="index of volume"))


@settings(deadline=None)
@given(CONTENTS, st.data())
def test_any_part_of_a_unit_is_cut_out_of_its_frames(contents: list[bytes], data: st.DataObject) -> None:
    stored, frames = _sealed(contents)
    unit, raw = Unit("group", frames, []), b"".join(contents)
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    fetched: list[tuple[int, int]] = []

    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        fetched.append((offset, length))
        yield stored[offset : offset + length]

    wanted = list(ranges.part(unit, start, stop, before=b"B"))
    got = b"".join(
        item.before + part[item.start : item.stop] for item, part in unseal(ranges.fetch(wanted, open_range))
    )
    assert got == (b"B" + raw[start:stop] if start < stop else b"")
    assert len(fetched) <= 1, "neighbours are one range"
    assert ranges.unit_bytes(unit) == len(raw)


def _opened(asked: list[tuple[str, int, int]], size: int = 10**9) -> Callable[[str, int, int], Iterator[bytes]]:
    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        asked.append((backup, offset, length))
        yield bytes(max(0, min(length, size - offset)))

    return open_range


def test_ranges_join_neighbours_up_to_16_mib_and_never_across_backups_or_gaps() -> None:
    mib = 1024 * 1024
    frames = [Frame(ID, number * mib, mib, mib, "") for number in range(40)]
    frames += [Frame(ID, 50 * mib, mib, mib, ""), Frame(OLDER, 51 * mib, mib, mib, "")]
    asked: list[tuple[str, int, int]] = []
    found = [(item.frame, len(stored)) for item, stored in ranges.fetch(ranges.whole(frames), _opened(asked))]
    assert found == [(frame, mib) for frame in frames]
    assert asked == [
        (ID, 0, 16 * mib), (ID, 16 * mib, 16 * mib), (ID, 32 * mib, 8 * mib), (ID, 50 * mib, mib),
        (OLDER, 51 * mib, mib),
    ]  # fmt: skip


def test_what_the_data_object_lacks_arrives_short() -> None:
    frames = [Frame(ID, 0, 10, 10, ""), Frame(ID, 10, 10, 10, ""), Frame(ID, 20, 10, 10, "")]
    found = [len(stored) for _, stored in ranges.fetch(ranges.whole(frames), _opened([], size=15))]
    assert found == [10, 5, 0]


def test_neighbouring_members_of_one_frame_are_opened_once() -> None:
    """A directory of a thousand small files lies in one frame: that is decompressed once, not a thousand times."""
    content = b"".join(b"%04d" % number for number in range(1000))
    stored, (frame,) = _sealed([content])
    unit = Unit("group", [frame], [])
    wanted = [item for number in range(1000) for item in ranges.part(unit, number * 4, number * 4 + 4)]
    opened = list(unseal(ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]]))))
    assert len(opened) == 1
    assert b"".join(item.before + raw[item.start : item.stop] for item, raw in opened) == content


def test_what_comes_from_no_frame_keeps_its_place() -> None:
    stored, (frame,) = _sealed([b"abcdef"])
    wanted = [
        ranges.Slice(frame, 0, 2),
        ranges.Slice(frame, 2, 3, b"<"),
        ranges.Slice(frame, 0, 0, b">"),
        ranges.Slice(frame, 0, 1),
        ranges.Slice(frame, 4, 6),
    ]
    opened = unseal(ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]])))
    assert b"".join(item.before + raw[item.start : item.stop] for item, raw in opened) == b"ab<c>aef"


def test_order_is_kept_and_work_is_bounded() -> None:
    lock, running, most, taken = threading.Lock(), 0, 0, 0

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 if number % 7 else 0.02)
        with lock:
            running -= 1
        return number

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield number

    results = in_order(work, items(), threads=3)
    assert next(results) == 0
    assert taken <= 4 * 3 + 2
    assert list(results) == list(range(1, 200))
    assert 1 < most <= 3


def test_an_error_of_the_work_or_of_the_source_comes_out_where_it_lies() -> None:
    def fails_at_five(number: int) -> int:
        if number == 5:
            raise IntegrityError("five")
        return number

    results = in_order(fails_at_five, range(100), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(IntegrityError, match="five"):
        next(results)

    def source() -> Iterator[int]:
        yield 1
        raise IntegrityError("source")

    with pytest.raises(IntegrityError, match="source"):
        list(in_order(fails_at_five, source()))
