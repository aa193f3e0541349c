"""Sealing extents into frames, and which stored bytes are fetched for what is wanted of them."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.archive import ranges
from volback.archive import seal as sealing
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cut, RawFrame, UnitEnd
from volback.archive.lookup import KnownExtent, Place, no_extent
from volback.archive.seal import ALONE_BYTES, PACK_BYTES, Extents, NewFrame, NewPlace, in_order, seal, unseal
from volback.catalog.units import DIGEST_BYTES, Frame, Piece, Unit
from volback.errors import DamagedFrame, IntegrityError
from volback.workers import Workers

ID = "20261123T160254Z-3f9c"
OLDER = "20261122T160254Z-aaaa"
CODEC = ZstdCodec()
CONTENTS = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=12)


def _raw(contents: list[bytes], known: KnownExtent = no_extent) -> RawFrame:
    """A raw frame that comes in odd pieces."""
    raw = b"".join(contents)
    return RawFrame([memoryview(raw[:7]), memoryview(raw[7:])], [len(content) for content in contents], known)


def _sealed(contents: list[bytes]) -> tuple[bytes, list[Piece]]:
    """A data object with one frame for each extent, and these as pieces."""
    data, pieces = b"", []
    for content in contents:
        stored = CODEC.seal(content)
        frame = Frame(ID, len(data), len(stored), len(content))
        pieces.append(Piece(frame, 0, [len(content)], hashlib.sha256(content).digest()))
        data += stored
    return data, pieces


def _frames_of(items: list[object]) -> list[bytes]:
    return [CODEC.unseal(item.stored, item.raw_bytes) for item in items if isinstance(item, NewFrame)]


def _contents_of(items: list[object], old: dict[Frame, bytes]) -> list[bytes]:
    """The bytes of each extent, from where its place says."""
    found = []
    for item in items:
        if isinstance(item, Extents):
            places = item.places
            if isinstance(places, NewFrame):
                starts = [sum(item.sizes[:number]) for number in range(len(item.sizes))]
                places = [NewPlace(places, start) for start in starts]
            for size, digest, place in zip(item.sizes, item.digests, places, strict=True):
                if isinstance(place, Place):
                    raw = old[place.frame]
                else:
                    raw = CODEC.unseal(place.frame.stored, place.frame.raw_bytes)
                found.append(raw[place.start : place.start + size])
                assert hashlib.sha256(found[-1]).digest() == digest
    return found


def test_unit_ends_stay_between_their_extents() -> None:
    cuts: list[Cut] = [_raw([bytes(ALONE_BYTES)]), UnitEnd("group", []), _raw([b"x" * 9]), UnitEnd("end", [])]
    found = list(seal(cuts, CODEC))
    assert [type(item) for item in found] == [NewFrame, Extents, UnitEnd, Extents, UnitEnd, NewFrame]


class _CountingCodec(ZstdCodec):
    """Remembers what it sealed."""

    def __init__(self) -> None:
        super().__init__()
        self.sealed: list[bytes] = []

    def seal(self, raw: bytes | memoryview) -> bytes:
        self.sealed.append(bytes(raw))
        return super().seal(raw)


@settings(deadline=None)
@given(st.lists(CONTENTS, min_size=1, max_size=5), st.data())
def test_a_known_extent_is_neither_compressed_nor_stored(units: list[list[bytes]], data: st.DataObject) -> None:
    old = data.draw(st.sets(st.sampled_from([content for unit in units for content in unit])))
    frames = {Frame(OLDER, number, 1, 3 + len(content)): b"..." + content for number, content in enumerate(old)}
    places = {hashlib.sha256(raw[3:]).digest(): Place(frame, 3) for frame, raw in frames.items()}
    codec = _CountingCodec()
    cuts = [cut for unit in units for cut in (_raw(unit, places.get), UnitEnd("group", []))]
    found = list[object](seal(cuts, codec, in_stream_order=False, threads=3))
    contents = [content for unit in units for content in unit]
    assert b"".join(codec.sealed) == b"".join(content for content in contents if content not in old)
    assert _contents_of(found, frames) == contents


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from([1, 5000, 300_000, 700_000]), min_size=1, max_size=5), max_size=8))
def test_the_frames_of_a_full_backup_are_the_stream(sizes: list[list[int]]) -> None:
    """Whether they stand alone or were packed."""
    units = [[bytes([number]) * size for number, size in enumerate(unit)] for unit in sizes]
    found = list[object](seal([_raw(unit) for unit in units], CODEC, threads=2))
    assert b"".join(_frames_of(found)) == b"".join(map(b"".join, units))
    assert _contents_of(found, {}) == [content for unit in units for content in unit]


def test_what_is_new_of_several_units_is_packed_into_one_frame() -> None:
    known = {hashlib.sha256(b"old").digest(): Place(Frame(OLDER, 0, 1, 3), 0)}
    cuts: list[Cut] = []
    for number in range(100):
        cuts += [_raw([b"old", b"new %d" % number], known.get), UnitEnd("group", [])]
    found = list[object](seal(cuts, CODEC, in_stream_order=False))
    assert _frames_of(found) == [b"".join(b"new %d" % number for number in range(100))]


def test_a_packed_frame_is_closed_once_it_is_full() -> None:
    size = 300_000
    cuts = [RawFrame([memoryview(bytes([number]) * size)], [size]) for number in range(20)]
    frames = _frames_of(list(seal(cuts, CODEC)))
    assert all(PACK_BYTES <= len(frame) < PACK_BYTES + size for frame in frames[:-1])
    assert sum(map(len, frames)) == 20 * size


def test_frames_of_an_increment_are_smaller() -> None:
    """A restore of a deep one holds a frame of each."""
    size = 20_000
    cuts: list[Cut] = []
    for number in range(100):
        cuts += [_raw([bytes([number]) * size]), UnitEnd("group", [])]
    frames = _frames_of(list(seal(cuts, CODEC, in_stream_order=False)))
    assert [512 * 1024 <= len(frame) < 512 * 1024 + size for frame in frames] == [True] * 3 + [False]
    assert b"".join(frames) == b"".join(bytes([number]) * size for number in range(100))


def test_units_do_not_wait_without_end_for_a_frame_that_is_being_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small extent is new, and thousands after it are known: the frame is sealed although it is not full."""
    monkeypatch.setattr(sealing, "_WAITING_EXTENTS_MAX", 50)
    known = {hashlib.sha256(b"old").digest(): Place(Frame(OLDER, 0, 1, 3), 0)}
    cuts = [_raw([b"new"], known.get), *[_raw([b"old"] * 10, known.get) for _ in range(100)]]
    found = list(seal(cuts, CODEC, in_stream_order=False))
    assert [type(item) for item in found].index(NewFrame) < 10


def test_a_small_extent_does_not_hold_the_buffer_that_it_comes_from() -> None:
    """A buffer has 4 MiB, an extent may have a few bytes."""
    cleared = 0

    def cuts() -> Iterator[Cut]:
        nonlocal cleared
        for _ in range(400):
            buffer = bytearray(10_000)
            yield RawFrame([memoryview(buffer)[:9]], [9])
            before.append(buffer)
            for held in before[:-300]:  # those that are not in flight
                held.clear()  # BufferError while a view of it exists
                cleared += 1

    before: list[bytearray] = []
    found = list(seal(cuts(), CODEC, in_stream_order=False, threads=2))
    assert [type(item) for item in found] == [Extents] * 400 + [NewFrame]
    assert cleared


@settings(deadline=None)
@given(CONTENTS, st.data())
def test_any_part_of_a_unit_is_cut_out_of_its_frames(contents: list[bytes], data: st.DataObject) -> None:
    stored, pieces = _sealed(contents)
    unit, raw = Unit("group", pieces, []), b"".join(contents)
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, len(raw)))
    fetched: list[tuple[int, int]] = []

    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        fetched.append((offset, length))
        yield stored[offset : offset + length]

    wanted = list(ranges.part(unit, start, stop, before=b"B"))
    got = b"".join(item.slice.before + part for item, part in unseal(ranges.fetch(wanted, open_range), CODEC))
    assert got == (b"B" + raw[start:stop] if start < stop else b"")
    assert len(fetched) <= 1, "neighbours are one range"
    assert unit.raw_bytes == len(raw)


def _opened(asked: list[tuple[str, int, int]], size: int = 10**9) -> Callable[[str, int, int], Iterator[bytes]]:
    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        asked.append((backup, offset, length))
        yield bytes(max(0, min(length, size - offset)))

    return open_range


def _whole(frames: list[Frame]) -> Iterator[ranges.Slice]:
    return ranges.whole(Piece(frame, 0, [frame.raw_bytes], bytes(DIGEST_BYTES)) for frame in frames)


def test_ranges_join_neighbours_up_to_16_mib_and_never_across_backups_or_gaps() -> None:
    mib = 1024 * 1024
    frames = [Frame(ID, number * mib, mib, mib) for number in range(40)]
    frames += [Frame(ID, 50 * mib, mib, mib), Frame(OLDER, 51 * mib, mib, mib)]
    asked: list[tuple[str, int, int]] = []
    found = [(item.frame.frame, len(item.frame.stored)) for item in ranges.fetch(_whole(frames), _opened(asked))]
    assert found == [(frame, mib) for frame in frames]
    assert asked == [
        (ID, 0, 16 * mib), (ID, 16 * mib, 16 * mib), (ID, 32 * mib, 8 * mib), (ID, 50 * mib, mib),
        (OLDER, 51 * mib, mib),
    ]  # fmt: skip


def test_what_the_data_object_lacks_arrives_short() -> None:
    frames = [Frame(ID, 0, 10, 10), Frame(ID, 10, 10, 10), Frame(ID, 20, 10, 10)]
    found = [len(item.frame.stored) for item in ranges.fetch(_whole(frames), _opened([], size=15))]
    assert found == [10, 5, 0]


def test_neighbouring_members_of_one_piece_are_opened_once() -> None:
    """A directory of a thousand small files lies in one frame: that is decompressed once, not a thousand times."""
    content = b"".join(b"%04d" % number for number in range(1000))
    stored, (piece,) = _sealed([content])
    unit = Unit("group", [piece], [])
    wanted = [item for number in range(1000) for item in ranges.part(unit, number * 4, number * 4 + 4)]
    opened = list(
        unseal(ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]])), CODEC)
    )
    assert len(opened) == 1
    assert b"".join(item.slice.before + raw for item, raw in opened) == content


def test_what_comes_from_no_frame_keeps_its_place() -> None:
    stored, (piece,) = _sealed([b"abcdef"])
    wanted = [
        ranges.Slice(piece, 0, 2),
        ranges.Slice(piece, 2, 3, b"<"),
        ranges.Slice(piece, 0, 0, b">"),
        ranges.Slice(piece, 0, 1),
        ranges.Slice(piece, 4, 6),
    ]
    opened = unseal(
        ranges.fetch(wanted, lambda backup, offset, length: iter([stored[offset : offset + length]])), CODEC
    )
    assert b"".join(item.slice.before + bytes(raw) for item, raw in opened) == b"ab<c>aef"


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


def test_what_takes_no_thread_does_not_keep_threads_from_working() -> None:
    """Between two frames of a full backup lie the ends of many units."""
    both = threading.Barrier(2, timeout=60)

    def work(item: int) -> int:
        if item % 50 == 0:
            both.wait()
        return item

    def size(item: int) -> int:
        return 0 if item % 50 else PACK_BYTES

    assert list(in_order(work, range(100), threads=2, size=size)) == list(range(100))


def test_small_items_are_taken_ahead_until_they_are_as_many_bytes_as_frames() -> None:
    """Eight groups of 100 KiB do not keep two threads at work."""
    many, taken = threading.Event(), list[int]()

    def work(item: int) -> int:
        if not item:
            assert many.wait(60)
        return item

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            if number == 60:
                many.set()
            yield number

    results = in_order(work, items(), threads=2, size=lambda _: PACK_BYTES // 10)
    assert next(results) == 0
    assert 60 < len(taken) <= 2 * 4 * 10 + 2
    results.close()


def test_what_takes_no_thread_is_bounded_too() -> None:
    first, taken = threading.Event(), list[int]()

    def work(item: int) -> int:
        if not item:
            assert first.wait(60)
        return item

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            if number == 2_000:
                first.set()  # too late for the bound
            yield number

    results = in_order(work, items(), threads=2, size=lambda item: 0 if item else 1)
    threading.Timer(0.5, first.set).start()
    assert next(results) == 0
    assert len(taken) < 2_000
    assert list(results) == list(range(1, 10_000))


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


class _TurnsNoted(Workers):
    """Threads that note how often they are given something."""

    turns = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        type(self).turns += 1
        return super().submit(fn, *args, **kwargs)


def test_a_turn_of_a_thread_opens_many_slices_of_open_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that lie scattered take no turn each, and every one before a damaged one is yielded."""
    monkeypatch.setattr(sealing, "Workers", _TurnsNoted)
    raw = random.Random(3).randbytes(256 * 64)
    stored = CODEC.seal(raw)
    held = [ranges.HeldFrame(Frame(ID, number * len(stored), len(stored), len(raw))) for number in range(2)]
    for one in held:
        one.hold(memoryview(stored))
    fetched = []
    for number in range(512):
        at, one = number // 2 * 64, held[number % 2]
        content = raw[at : at + 64] if number != 400 else b"another"
        piece = Piece(one.frame, at, [64], hashlib.sha256(content).digest())
        fetched.append(ranges.Fetched(ranges.Slice(piece, 0, 64), one, number < 2))
    found = list[bytes]()
    with suppress(DamagedFrame):
        found.extend(bytes(part) for _, part in unseal(iter(fetched), CODEC))
        pytest.fail("damage was not found")
    assert found == [raw[number // 2 * 64 :][:64] for number in range(400)]
    assert _TurnsNoted.turns <= 4
