"""The fault wrapper does what its plan says, and tells which faults never struck."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable

import pytest

from volback.errors import NotFoundError, StoreError, StoreUnreachable
from volback.store.base import Buffer
from volback.store.faults import CutOpen, FailCall, FailPut, FaultStore, FlipByte, Method, SlowCall
from volback.store.memory import MemoryStore


@pytest.fixture
def inner() -> MemoryStore:
    store = MemoryStore("inner")
    store.put("a/data", [b"0123456789"])
    store.put("b/data", [b"abcdefghij"])
    return store


def content(store: FaultStore, key: str, **where: int) -> bytes:
    return b"".join(store.open(key, **where))


@pytest.mark.parametrize("method", ["put", "open", "stat", "list", "delete", "free_bytes", "sweep"])
def test_the_nth_call_of_a_method_fails_and_no_other(inner: MemoryStore, method: Method) -> None:
    error = StoreUnreachable("gone")
    store = FaultStore(inner, [FailCall(method, error, nth=2)])
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: store.put("a/new", [b"x"]),
        "open": lambda: list(store.open("a/data")),
        "stat": lambda: store.stat("a/data"),
        "list": lambda: list(store.list()),
        "delete": lambda: store.delete("a/other"),
        "free_bytes": store.free_bytes,
        "sweep": store.sweep,
    }
    for call in calls.values():
        call()
    with pytest.raises(AssertionError, match=f"never hit.*{method}"):
        store.assert_all_hit()
    for name, call in calls.items():
        if name == method:
            with pytest.raises(StoreUnreachable) as caught:
                call()
            assert caught.value is error
        else:
            call()
    calls[method]()
    assert store.hits == (1,)
    store.assert_all_hit()


def test_only_keys_like_the_pattern_count_and_fail(inner: MemoryStore) -> None:
    store = FaultStore(inner, [FailCall("stat", StoreError("no"), nth=None, key="b/*")])
    store.stat("a/data")
    for _ in range(2):
        with pytest.raises(StoreError):
            store.stat("b/data")
    assert store.hits == (2,)


@pytest.mark.parametrize("after_bytes", [0, 1, 4, 5, 9, 10])
def test_a_put_fails_once_so_many_bytes_reached_the_store(inner: MemoryStore, after_bytes: int) -> None:
    seen: list[bytes] = []

    class Watched(MemoryStore):
        def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
            return super().put(key, map(see, chunks), if_absent=if_absent)

    def see(chunk: Buffer) -> Buffer:
        seen.append(bytes(chunk))
        return chunk

    store = FaultStore(Watched("watched"), [FailPut(after_bytes, KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        store.put("a", [b"01234", b"", b"56789"])
    assert b"".join(seen) == b"0123456789"[:after_bytes]
    assert list(store.list()) == []
    store.assert_all_hit()
    assert store.put("a", [b"01234", b"56789"]) == 10


def test_a_put_shorter_than_the_plan_is_not_hit(inner: MemoryStore) -> None:
    store = FaultStore(inner, [FailPut(11, StoreError("full"))])
    assert store.put("c", [b"01234", b"56789"]) == 10
    with pytest.raises(AssertionError, match=r"FailPut\(after_bytes=11"):
        store.assert_all_hit()


@pytest.mark.parametrize("after_bytes", [0, 3, 9])
def test_an_open_is_cut_short_in_silence_or_with_an_error(inner: MemoryStore, after_bytes: int) -> None:
    plan = [CutOpen(after_bytes, key="a/*"), CutOpen(after_bytes, StoreError("reset"), key="b/*")]
    store = FaultStore(inner, plan)
    assert content(store, "a/data") == b"0123456789"[:after_bytes]
    with pytest.raises(StoreError, match="reset"):
        content(store, "b/data")
    assert content(store, "a/data") == b"0123456789"
    assert store.hits == (1, 1)


def test_an_open_with_no_more_to_yield_is_not_cut(inner: MemoryStore) -> None:
    store = FaultStore(inner, [CutOpen(10)])
    assert content(store, "a/data") == b"0123456789"
    assert store.hits == (0,)


def test_a_byte_is_flipped_wherever_a_range_covers_it(inner: MemoryStore) -> None:
    store = FaultStore(inner, [FlipByte(4, mask=1, key="a/data")])
    assert content(store, "a/data") == b"0123556789"
    assert content(store, "a/data", start=4, length=1) == b"5"
    assert content(store, "a/data", start=2, length=4) == b"2355"
    assert content(store, "a/data", start=5) == b"56789"
    assert content(store, "a/data", length=4) == b"0123"
    assert content(store, "b/data") == b"abcdefghij"
    assert store.hits == (3,)


def test_a_slow_call_sleeps_before_it_begins(inner: MemoryStore) -> None:
    naps: list[float] = []
    store = FaultStore(inner, [SlowCall("open", 1.5), SlowCall("put", 2.5, nth=2)], sleep=naps.append)
    content(store, "a/data")
    store.put("c", [b""])
    store.put("c", [b""])
    content(store, "a/data")
    assert naps == [1.5, 2.5, 1.5]
    assert store.hits == (2, 1)


def test_errors_of_the_store_itself_pass_through_and_faults_add_up(inner: MemoryStore) -> None:
    store = FaultStore(inner, [FlipByte(0, key="a/data"), CutOpen(2, key="a/data")])
    assert content(store, "a/data") == b"\xcf1"
    with pytest.raises(NotFoundError):
        content(store, "missing")
    store.assert_all_hit()


def test_closing_an_open_closes_the_inner_one(inner: MemoryStore) -> None:
    opened: list[Generator[bytes, None, None]] = []

    class Watched(MemoryStore):
        def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
            opened.append(super().open(key, start=start, length=length))
            return opened[-1]

    watched = Watched("watched")
    watched.put("a", [bytes(9_000_000)])
    buffers = FaultStore(watched, [FlipByte(0)]).open("a")
    next(buffers)
    buffers.close()
    assert inspect.getgeneratorstate(opened[0]) == inspect.GEN_CLOSED
