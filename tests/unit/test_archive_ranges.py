"""Reading ahead: the same bytes as one read after the other, never too many at once, and nothing left behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.leftovers import Leftovers
from volback.archive import ranges
from volback.archive.codec import ZstdCodec
from volback.archive.ranges import RANGE_BYTES, fetch, whole
from volback.archive.seal import in_order
from volback.catalog.units import DIGEST_BYTES, Frame, Piece
from volback.errors import Interrupted, StoreError
from volback.store.base import Store
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

IDS = ["20261101T000000Z-aaaa", "20261102T000000Z-bbbb"]
FAR = 1 << 20
"""Frames that lie so far apart are in ranges of their own."""


class Reads:
    """Reads of a store as `fetch` makes them; counts those that are open, and remembers which were begun."""

    def __init__(self, store: Store, *, meanwhile: Callable[[int], None] = lambda _: None) -> None:
        self.store = store
        self.begun: list[int] = []
        self.open_now = 0
        self.open_most = 0
        self._meanwhile = meanwhile
        self._lock = threading.Lock()

    def open_range(self, backup: str, offset: int, length: int) -> Generator[bytes, None, None]:
        with self._lock:
            number = len(self.begun)
            self.begun.append(offset)
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
        try:
            self._meanwhile(number)
            yield from self.store.open(f"db/{backup}", start=offset, length=length)
        finally:
            with self._lock:
                self.open_now -= 1


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that holds a data object of 20 frames of 100 bytes, far apart."""
    made: Store = MemoryStore("ranges") if request.param == "memory" else LocalStore(tmp_path)
    made.put(f"db/{IDS[0]}", [bytes([number]) * FAR for number in range(20)])
    return made


def piece(frame: Frame) -> Piece:
    """One extent that fills a frame; what is not opened needs no digest."""
    return Piece(frame, 0, [frame.raw_bytes], bytes(DIGEST_BYTES))


def pieces(count: int = 20) -> list[Piece]:
    return [piece(Frame(IDS[0], number * FAR, 100, 1)) for number in range(count)]


WORKERS = ("ahead", "frames")


def test_ranges_come_in_order_and_no_more_than_allowed_are_read_at_once(store: Store, leftovers: Leftovers) -> None:
    """Four reads wait for one another, so four must be open; a fifth never is, until the first has been taken."""
    together = threading.Barrier(4)
    reads = Reads(store, meanwhile=lambda number: _wait(together) if number < 4 else None)
    with closing(fetch(whole(pieces()), reads.open_range, ahead=4)) as fetched:
        first = next(fetched)
        assert bytes(first.frame.stored) == bytes(100)
        assert sorted(reads.begun) == [number * FAR for number in range(4)], "the first is in use, three are ahead"
        rest = [bytes(item.frame.stored) for item in fetched]
    assert rest == [bytes([number]) * 100 for number in range(1, 20)]
    assert sorted(reads.begun) == [number * FAR for number in range(20)]
    assert reads.open_most == 4
    assert (reads.open_now, leftovers.threads(*WORKERS)) == (0, [])


def _wait(together: threading.Barrier) -> None:
    together.wait(timeout=30)


def test_without_reading_ahead_no_thread_is_used(store: Store) -> None:
    readers = set[str]()
    reads = Reads(store, meanwhile=lambda _: readers.add(threading.current_thread().name))
    assert len(list(fetch(whole(pieces()), reads.open_range, ahead=1))) == 20
    assert readers == {threading.current_thread().name}


def test_what_is_not_read_ahead_is_read_once_by_the_first_that_needs_it(store: Store) -> None:
    """Neighbours are read with it, and another thread that needs one of them waits."""
    begun, go_on = threading.Event(), threading.Event()

    def meanwhile(_: int) -> None:
        begun.set()
        assert go_on.wait(30)

    reads = Reads(store, meanwhile=meanwhile)
    near = [piece(Frame(IDS[0], at, 100, 1)) for at in (100, 200, 300)]
    fetched = list(fetch(whole([*near, *pieces()]), reads.open_range, ahead=0))
    assert reads.begun == []
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(lambda one: bytes(one.frame.stored), one) for one in fetched[:3]]
        assert begun.wait(30)
        assert not any(one.done() for one in found)
        go_on.set()
        assert [len(one.result()) for one in found] == [100] * 3
    assert reads.begun == [100]
    assert [bytes(one.frame.stored) for one in fetched[3:]] == [bytes([number]) * 100 for number in range(20)]


def test_of_each_backup_the_frame_that_is_in_use_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep increment goes from one to the other; what lies before it in the same one is not needed any more."""
    monkeypatch.setattr(ranges, "_KEPT_BYTES", 20)
    store.put(f"db/{IDS[1]}", [bytes(FAR)])
    other, first, second = Frame(IDS[1], 0, 100, 10), Frame(IDS[0], 0, 100, 10), Frame(IDS[0], FAR, 100, 10)
    parts = [
        Piece(frame, at, [5], bytes(DIGEST_BYTES)) for frame, at in ((other, 0), (first, 0), (second, 0), (other, 5))
    ]
    reads = Reads(store)
    assert len(list(fetch(whole(parts), reads.open_range, ahead=1))) == 4
    assert reads.begun == [0, 0, FAR]


def test_what_reading_raises_is_raised_by_each_that_needs_those_bytes(store: Store) -> None:
    def fail(_: int) -> None:
        raise StoreError("it cannot be read")

    fetched = list(fetch(whole(pieces(2)), Reads(store, meanwhile=fail).open_range, ahead=0))
    for one in [*fetched, *fetched]:
        with pytest.raises(StoreError, match="it cannot be read"):
            one.frame.open(ZstdCodec())


def test_a_single_range_is_read_without_a_thread(store: Store) -> None:
    readers = set[str]()
    reads = Reads(store, meanwhile=lambda _: readers.add(threading.current_thread().name))
    assert len(list(fetch(whole(pieces(1)), reads.open_range, ahead=4))) == 1
    assert readers == {threading.current_thread().name}


def test_who_stops_early_leaves_neither_a_thread_nor_an_open_read(store: Store, leftovers: Leftovers) -> None:
    reads = Reads(store)
    fetched = fetch(whole(pieces()), reads.open_range, ahead=4)
    next(fetched)
    next(fetched)
    fetched.close()
    assert (reads.open_now, leftovers.threads(*WORKERS)) == (0, [])
    assert len(reads.begun) <= 5


def test_a_read_that_is_under_way_ends_when_nobody_wants_it(store: Store, leftovers: Leftovers) -> None:
    """An endless read: each next buffer comes only because the one before it was taken."""
    begun = threading.Event()

    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        yield b"x" * 100
        while offset:
            begun.set()
            yield b""

    fetched = fetch(whole(pieces()), open_range, ahead=4)
    next(fetched)
    assert begun.wait(timeout=30)
    fetched.close()
    assert leftovers.threads(*WORKERS) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15), ValueError("the consumer's")])
def test_an_error_of_the_consumer_ends_the_reads(store: Store, error: BaseException, leftovers: Leftovers) -> None:
    reads = Reads(store)

    def consume(after: int = 0) -> None:
        with (
            closing(fetch(whole(pieces()), reads.open_range, ahead=4)) as fetched,
            closing(in_order(lambda pair: pair, fetched)) as taken,
        ):
            for _ in range(after):
                next(taken)
            raise error

    with pytest.raises(type(error)):
        consume()
    with pytest.raises(type(error)):
        consume(after=1)
    assert len(reads.begun) >= 2
    assert (reads.open_now, leftovers.threads(*WORKERS)) == (0, [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(2)])
def test_a_signal_does_not_wait_for_what_is_read_before_it(
    store: Store, error: BaseException, leftovers: Leftovers
) -> None:
    reads = Reads(store)

    def wanted() -> Iterator[ranges.Slice]:
        yield from whole(pieces(3))
        raise error

    with pytest.raises(type(error)):
        list(fetch(wanted(), reads.open_range, ahead=4))
    assert (reads.open_now, leftovers.threads(*WORKERS)) == (0, [])


def test_the_third_range_fails_after_the_first_two_were_given(store: Store, leftovers: Leftovers) -> None:
    """The fifth fails sooner in time, and so does what lists them: the third comes first in the stream."""
    fifth_failed = threading.Event()

    def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
        if offset == 4 * FAR:
            fifth_failed.set()
            raise StoreError("fifth")
        if offset == 2 * FAR:
            fifth_failed.wait(timeout=30)
            raise StoreError("third")
        return store.open(f"db/{backup}", start=offset, length=length)

    def wanted() -> Iterator[ranges.Slice]:
        yield from whole(pieces(7))
        raise StoreError("the eighth is not in the index")

    fetched = fetch(wanted(), open_range, ahead=6)
    assert [item.frame.frame.offset for item in islice(fetched, 2)] == [0, FAR]
    with pytest.raises(StoreError, match="third"):
        next(fetched)
    assert leftovers.threads(*WORKERS) == []


SIZES = st.lists(st.tuples(st.integers(0, 3000), st.booleans(), st.booleans()), max_size=30)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(2, 5), st.integers(0, 31), st.sampled_from([64, 5000, RANGE_BYTES]))
def test_what_is_read_ahead_is_what_is_read_in_turn(
    made: list[tuple[int, bool, bool]], ahead: int, failing: int, range_bytes: int
) -> None:
    """Frames with and without gaps, of two backups; one read may fail: the same slices, bytes and error."""
    wanted, sizes = [], dict.fromkeys(IDS, 0)
    for size, gap, older in made:
        id_ = IDS[older]
        wanted.append(Frame(id_, sizes[id_] + 7 * gap, size, size + 1))
        sizes[id_] += size + 7 * gap
    store = MemoryStore("property")
    for id_, size in sizes.items():
        store.put(f"db/{id_}", [random.Random(id_).randbytes(size)])

    def result(ahead: int) -> tuple[list[tuple[Frame, bytes]], str]:
        taken: list[tuple[Frame, bytes]] = []

        def open_range(backup: str, offset: int, length: int) -> Iterator[bytes]:
            if failing < len(wanted) and (backup, offset) == (wanted[failing].backup, wanted[failing].offset):
                raise StoreError(f"{backup} {offset}")
            return store.open(f"db/{backup}", start=offset, length=length)

        try:
            for item in fetch(whole(map(piece, wanted)), open_range, ahead=ahead):
                taken.append((item.frame.frame, bytes(item.frame.stored)))
        except StoreError as exc:
            return taken, exc.message
        return taken, ""

    leftovers, before = Leftovers(), ranges.RANGE_BYTES
    ranges.RANGE_BYTES = range_bytes
    try:
        assert result(ahead) == result(1)
    finally:
        ranges.RANGE_BYTES = before
    assert leftovers.threads(*WORKERS) == []


def test_a_frame_of_which_parts_are_wanted_here_and_there_is_read_once() -> None:
    """As in an increment, where each unit takes some extents of one frame and some of another."""
    store = MemoryStore("parts")
    for id_ in IDS:
        store.put(f"db/{id_}", [bytes(1000)])
    first, second = (Frame(id_, 0, 1000, 1000) for id_ in IDS)
    wanted = [Piece(frame, at, [10], bytes(DIGEST_BYTES)) for at in range(0, 1000, 10) for frame in (first, second)]
    reads = Reads(store)
    found = list(fetch(whole(wanted), reads.open_range, ahead=4))
    assert [item.slice.piece for item in found] == wanted
    assert [item.is_first for item in found] == [True, True] + [False] * 198
    assert len(reads.begun) == 2


def _reads_of(places: list[tuple[str, int]]) -> list[bool]:
    """Whether each part of a frame of 1,000 bytes, at a place of a backup, was read for the part that was wanted."""
    store = MemoryStore("bounds")
    for id_ in {id_ for id_, _ in places}:
        store.put(f"db/{id_}", [bytes(5000)])
    made = [Piece(Frame(id_, number * 1000, 1000, 1000), 0, [10], bytes(DIGEST_BYTES)) for id_, number in places]
    return [item.is_first for item in fetch(whole(made), Reads(store).open_range)]


def test_frames_in_use_of_which_parts_are_wanted_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one used least recently is read again."""
    monkeypatch.setattr(ranges, "_KEPT_BYTES", 2500)
    one, other, third = ((f"2026112{day}T160254Z-3f9c", 0) for day in (1, 2, 3))
    assert _reads_of([one, other, one, third, one, other]) == [True, True, False, True, False, True]


def test_frames_before_those_in_use_are_kept_within_bounds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_BEFORE_BYTES", 2500)
    first, second, third, fourth, other = (IDS[0], 0), (IDS[0], 1), (IDS[0], 2), (IDS[0], 3), (IDS[1], 0)
    assert _reads_of([other, first, second, first, second]) == [True, True, True, False, False]
    wanted = [other, first, second, third, fourth, first, second, third, other]
    assert _reads_of(wanted) == [True, True, True, True, True, True, False, False, False]
