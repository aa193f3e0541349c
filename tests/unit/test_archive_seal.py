"""Sealing and opening frames, and which stored bytes are fetched for what is wanted of them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.archive import ranges
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cut, RawFrame, Reused, UnitEnd
from volback.archive.parent import known_frames
from volback.archive.seal import SealedFrame, in_order, seal, unseal
from volback.catalog.model import Frame, Unit
from volback.errors import IntegrityError

ID = "20261123T160254Z-3f9c"
OLDER = "20261122T160254Z-aaaa"
CODEC = ZstdCodec()
CONTENTS = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=12)


def _sealed(contents: list[bytes]) -> tuple[bytes, list[Frame]]:
    """A data object and its frames."""
    cuts = [RawFrame([memoryview(content[:7]), memoryview(content[7:])]) for content in contents]
    data, frames = b"", []
    for item in seal(cuts, CODEC, threads=2):
        assert isinstance(item, SealedFrame)
        frames.append(Frame(ID, len(data), len(item.stored), item.raw_bytes, item.sha256))
        data += item.stored
    return data, frames


def test_unit_ends_stay_between_their_frames() -> None:
    cuts: list[Cut] = [
        RawFrame([memoryview(bytes(10**6))]),
        UnitEnd("group", []),
        RawFrame([memoryview(b"x")]),
        UnitEnd("end", []),
    ]
    assert [type(item) for item in seal(cuts, CODEC)] == [SealedFrame, UnitEnd, SealedFrame, UnitEnd]


class _CountingCodec(ZstdCodec):
    """Remembers what it sealed."""

    def __init__(self) -> None:
        super().__init__()
        self.sealed: list[bytes] = []

    def seal(self, raw: bytes | memoryview) -> bytes:
        self.sealed.append(bytes(raw))
        return super().seal(raw)


@settings(deadline=None)
@given(CONTENTS, st.data())
def test_a_known_frame_is_neither_compressed_nor_stored(contents: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.sets(st.sampled_from(contents)))
    frames = {
        content: Frame(OLDER, number, 1, len(content), hashlib.sha256(content).hexdigest())
        for number, content in enumerate(old)
    }
    codec = _CountingCodec()
    known = known_frames([Unit("file", list(frames.values()), [])])
    cuts = [cut for content in contents for cut in (RawFrame([memoryview(content)]), UnitEnd("group", []))]
    found = list(seal(cuts, codec, known=known, threads=3))
    assert sorted(codec.sealed) == sorted(content for content in contents if content not in old)
    assert [type(item) for item in found[1::2]] == [UnitEnd] * len(contents)
    for content, item in zip(contents, found[::2], strict=True):
        if content in old:
            assert item == Reused(frames[content])
        else:
            assert isinstance(item, SealedFrame)
            assert item.sha256 == hashlib.sha256(content).hexdigest()


def test_what_is_reused_passes_through_in_its_place() -> None:
    frame = Frame(OLDER, 5, 7, 9, hashlib.sha256(b"x").hexdigest())
    cuts: list[Cut] = [RawFrame([memoryview(bytes(10**6))]), Reused(frame), UnitEnd("file", []), Reused(frame)]
    codec = _CountingCodec()
    first, *others = seal(cuts, codec)
    assert isinstance(first, SealedFrame)
    assert others == cuts[1:]
    assert codec.sealed == [bytes(10**6)]


@pytest.mark.parametrize("lie", [{"raw_bytes": 8}, {"sha256": hashlib.sha256(b"y").hexdigest()}])
def test_a_known_frame_that_is_not_this_one_is_not_taken(lie: dict[str, Any]) -> None:
    """The parent's index may be damaged: a frame of another size or digest would spoil this backup too."""
    frame = Frame(OLDER, 0, 1, 7, hashlib.sha256(b"content").hexdigest())._replace(**lie)
    (item,) = seal([RawFrame([memoryview(b"content")])], CODEC, known=lambda _: frame)
    assert isinstance(item, SealedFrame)


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
        item.before + part[item.start : item.stop] for item, part in unseal(ranges.fetch(wanted, open_range), CODEC)
    )
    assert got == (b"B" + raw[start:stop] if start < stop else b"")
    assert len(fetched) <= 1, "neighbours are one range"
    assert unit.raw_bytes == len(raw)


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
    opened = list(
        unseal(ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]])), CODEC)
    )
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
    opened = unseal(
        ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]])), CODEC
    )
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
