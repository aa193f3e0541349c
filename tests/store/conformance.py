"""What every store must do, from the docstrings of volback.store.base; run by test_conformance.py.

A test here knows the protocol only: `store` is an empty store, made and removed by the fixture.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import product

import pytest

from volback.errors import ConflictError, NotFoundError, StoreError, UsageError
from volback.store.base import BUFFER_MAX_BYTES, Store

INVALID_KEYS = [
    "",
    ".",
    "..",
    "/",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    "a/..",
    "./a",
    "a\0b",
    "a\n",
    "a\nb",
    "a b",
    "a~",
    "a\\b",
    "é",
    "\udc80",
    "x" * 256,
    "a/" + "x" * 300,
    "x/" * 512 + "xx",
]
VALID_KEYS = ["a", "a/b/c", "...", ".a", "..a", "-", "%2Fetc%0A", "A_b.c-d/0", "x" * 255, "x/" * 511 + "xx"]
MIB = 1024 * 1024
WHOLE = array("Q", range(3 * MIB)).tobytes()
"""More than two parts of an upload."""
Abandon = Callable[[str, bytes], object]
INVALID_PREFIXES = ["a", "/", "../", "a//", "a/../", "a\n/", " /", "x" * 256 + "/"]


TORN = [
    pytest.param(error, chunks, id=f"{error!r}-{len(chunks)}", marks=[pytest.mark.long] * ((nth + size) % 2))
    for nth, error in enumerate([ValueError("torn"), OSError(28, "of the source"), KeyboardInterrupt(), SystemExit(3)])
    for size, chunks in enumerate([[], [b"x" * 5000], [b"x" * 100_000] * 3])
]
"""What ends a put, and after which chunks."""


def content(store: Store, key: str, **where: int) -> bytes:
    return b"".join(store.open(key, **where))


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def failing(error: BaseException, *chunks: bytes) -> Iterator[bytes]:
    yield from chunks
    raise error


class StoreConformance:
    @pytest.fixture
    def atomic_if_absent(self) -> bool:
        """Whether of puts if_absent at the same moment only one succeeds; some S3 servers ignore If-None-Match."""
        return True

    @pytest.fixture
    def flat(self) -> bool:
        """Whether keys are names: some S3 servers keep objects as files in directories, and deletes have side effects.

        rclone 1.75.2 refuses to delete what is a directory; with a key below an object the object goes too; and with
        the last one of a directory goes what is being put beside it. So a repository there is for one run at a time.
        """
        return True

    @pytest.fixture
    def frees_prefixes(self) -> bool:
        """Whether a key is free for an upload of parts once all keys below it are deleted.

        SeaweedFS 4.48 keeps an empty directory there (completeMultipartUpload: "existing entry is a directory"), and
        answers with an internal error; a put of one request replaces it. No key of a repository lies below another.
        """
        return True

    @pytest.fixture
    def abandon(self, store: Store) -> Abandon:
        """Leaves what a put of that object leaves that is killed when most of it is stored; a store in memory ends
        with it, or before it."""
        return lambda key, data: store.put(key, [data])

    # put: whole or not at all

    def test_an_object_comes_back_as_it_was_put(self, store: Store) -> None:
        assert store.put("a/b", [b"one", bytearray(b"two"), b"", memoryview(b"xthreex")[1:-1]]) == 11
        assert content(store, "a/b") == b"onetwothree"

    @pytest.mark.parametrize("chunks", [[], [b""], [memoryview(b"")]], ids=["none", "empty", "empty-view"])
    def test_an_empty_object_is_an_object(self, store: Store, chunks: list[bytes]) -> None:
        assert store.put("empty", chunks) == 0
        assert content(store, "empty") == b""
        assert store.stat("empty").size_bytes == 0
        assert keys(store) == ["empty"]

    def test_a_large_object_streams_through(self, store: Store) -> None:
        blocks = [bytes([number]) * 307_200 + number.to_bytes(4, "big") for number in range(140)]
        assert store.put("large", iter(blocks)) == 140 * 307_204
        buffers = list(store.open("large"))
        assert max(map(len, buffers)) <= BUFFER_MAX_BYTES
        assert len(buffers) > 10
        assert sha256(b"".join(buffers)).digest() == sha256(b"".join(blocks)).digest()

    def test_one_chunk_larger_than_any_buffer_is_put_whole(self, store: Store) -> None:
        chunk = bytes(range(256)) * (9 * 4096) + b"end"
        assert store.put("large", [chunk]) == len(chunk)
        assert content(store, "large") == chunk

    def test_a_chunk_may_be_filled_again_once_the_next_is_asked_for(self, store: Store) -> None:
        buffer = bytearray(1000)

        def refilled() -> Iterator[memoryview]:
            for number in range(20):
                buffer[:] = bytes([number]) * 1000
                yield memoryview(buffer)

        store.put("a", refilled())
        assert content(store, "a") == b"".join(bytes([number]) * 1000 for number in range(20))

    def test_put_replaces_an_object(self, store: Store) -> None:
        store.put("a", [b"old and long"])
        store.put("a", [b"new"])
        assert content(store, "a") == b"new"
        assert store.stat("a").size_bytes == 3

    def test_an_object_is_not_visible_before_its_last_chunk(self, store: Store) -> None:
        seen: list[object] = []

        def watched() -> Iterator[bytes]:
            yield b"first"
            seen.append(keys(store))
            with pytest.raises(NotFoundError):
                store.stat("a/b")
            yield b"last"

        store.put("a/b", watched())
        assert seen == [[]]
        assert keys(store) == ["a/b"]

    @pytest.mark.parametrize(("error", "chunks"), TORN)
    @pytest.mark.parametrize("if_absent", [False, True])
    def test_chunks_that_raise_leave_nothing(
        self, store: Store, error: BaseException, chunks: list[bytes], if_absent: bool
    ) -> None:
        with pytest.raises(type(error)) as caught:
            store.put("a/b", failing(error, *chunks), if_absent=if_absent)
        assert caught.value is error
        assert keys(store) == []
        assert store.sweep() == []
        with pytest.raises(NotFoundError):
            store.stat("a/b")

    def test_the_old_object_stays_when_replacing_it_fails(self, store: Store) -> None:
        store.put("a", [b"old"])
        with pytest.raises(KeyboardInterrupt):
            store.put("a", failing(KeyboardInterrupt(), b"new", b"er"))
        assert content(store, "a") == b"old"
        assert store.sweep() == []

    def test_an_open_reads_one_version_while_the_object_is_replaced(self, store: Store) -> None:
        store.put("a", [b"old" * 3_000_000])
        buffers = store.open("a")
        read = next(buffers)
        store.put("a", [b"new" * 3_000_000])
        assert read + b"".join(buffers) == b"old" * 3_000_000
        assert content(store, "a") == b"new" * 3_000_000

    def test_as_many_ranges_as_the_store_says_can_be_read_at_once(self, store: Store) -> None:
        store.put("a", [bytes(range(250)) * 1000])
        count = store.parallel_reads
        assert count >= 1
        together = threading.Barrier(count, timeout=30)

        def read(number: int) -> bytes:
            with closing(store.open("a", start=number * 1000, length=1000)) as buffers:
                first = next(buffers)
                together.wait()
                return first + b"".join(buffers)

        with ThreadPoolExecutor(count) as pool:
            assert list(pool.map(read, range(count))) == [bytes(range(250)) * 4] * count

    def test_many_ranges_are_read_in_a_block_and_what_is_put_is_seen_after_it(self, store: Store) -> None:
        store.put("a", [b"old" * 1000])
        store.put("b", [b"two"])
        with store.reading():
            for start in range(0, 3000, 300):
                assert content(store, "a", start=start, length=300) == b"old" * 100
                assert content(store, "b", start=1) == b"wo"
        store.put("a", [b"new"])
        store.delete("b")
        with store.reading():
            assert content(store, "a") == b"new"
            with pytest.raises(NotFoundError):
                content(store, "b")

    # put: if_absent

    def test_if_absent_puts_what_is_not_there(self, store: Store) -> None:
        assert store.put("a", [b"one"], if_absent=True) == 3
        assert content(store, "a") == b"one"

    def test_if_absent_refuses_what_is_there(self, store: Store) -> None:
        store.put("a", [b"one"])
        with pytest.raises(ConflictError, match="'a'"):
            store.put("a", [b"two"], if_absent=True)
        assert content(store, "a") == b"one"
        assert store.sweep() == []

    def test_if_absent_refuses_what_came_while_it_wrote(self, store: Store) -> None:
        def overtaken() -> Iterator[bytes]:
            yield b"two"
            store.put("a", [b"one"])

        with pytest.raises(ConflictError):
            store.put("a", overtaken(), if_absent=True)
        assert content(store, "a") == b"one"
        assert keys(store) == ["a"]
        assert store.sweep() == []

    def test_if_absent_puts_again_what_was_deleted(self, store: Store) -> None:
        store.put("a", [b"one"], if_absent=True)
        store.delete("a")
        store.put("a", [b"two"], if_absent=True)
        assert content(store, "a") == b"two"

    # two at once

    def test_of_two_puts_on_one_key_one_wins_whole(self, store: Store) -> None:
        texts = [bytes([65 + number]) * 300_000 for number in range(4)]
        assert _together([partial(store.put, "a/b", _paced(text)) for text in texts]) == [300_000] * 4
        assert content(store, "a/b") in texts
        assert keys(store) == ["a/b"]

    def test_of_many_puts_if_absent_on_one_key_exactly_one_succeeds(self, store: Store, atomic_if_absent: bool) -> None:
        """Where the server is not atomic, those that began at one moment replace one another; each is whole."""
        texts = [bytes([65 + number]) * 100_000 for number in range(6)]
        results = _together([partial(store.put, "a/b", _paced(text), if_absent=True) for text in texts])
        winners = [text for text, result in zip(texts, results, strict=True) if result == 100_000]
        assert [type(result) for result in results].count(ConflictError) == 6 - len(winners)
        assert len(winners) == 1 or not atomic_if_absent
        assert content(store, "a/b") in winners
        assert store.sweep() == []

    def test_puts_deletes_lists_and_sweeps_do_not_disturb_one_another(self, store: Store, flat: bool) -> None:
        kept = set[str]() if flat else {"d/a/kept", "d/b/kept"}
        for key in kept:
            store.put(key, [b"so that its directory is never empty"])

        def churn(name: str) -> None:
            for _ in range(25):
                store.put(f"d/{name}/o", [name.encode() * 10])
                assert content(store, f"d/{name}/o") == name.encode() * 10
                assert f"d/{name}/o" in keys(store, f"d/{name}/")
                store.delete(f"d/{name}/o")

        def watch() -> None:
            for _ in range(60):
                store.sweep()
                assert set(keys(store)) <= {"d/a/o", "d/b/o"} | kept

        results = _together([lambda: churn("a"), lambda: churn("b"), watch])
        assert results == [None, None, None], results
        assert set(keys(store)) == kept

    # open

    def test_a_range_is_a_slice(self, store: Store) -> None:
        data = b"0123456789"
        store.put("a", [data])
        for start, length in product([0, 1, 9, 10, 11, 2**70], [None, 0, 1, 5, 9, 10, 11, 2**70]):
            end = None if length is None else start + length
            assert b"".join(store.open("a", start=start, length=length)) == data[start:end], (start, length)

    def test_a_range_across_buffers_is_a_slice(self, store: Store) -> None:
        data = b"".join(number.to_bytes(4, "big") for number in range(2_500_000))
        store.put("a", [data])
        assert content(store, "a", start=1_048_577, length=7_000_001) == data[1_048_577 : 1_048_577 + 7_000_001]
        assert content(store, "a", start=9_999_999) == data[9_999_999:]

    def test_a_negative_range_is_refused_by_the_call(self, store: Store) -> None:
        store.put("a", [b"0123456789"])
        for where in ({"start": -1}, {"length": -1}, {"start": -5, "length": 10}):
            with pytest.raises(UsageError):
                store.open("a", **where)

    def test_open_of_a_missing_object_fails_at_the_first_buffer(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        for key in ("a", "b", "a/c", "x/y"):
            buffers = store.open(key)
            with pytest.raises(NotFoundError, match=repr(key)):
                next(buffers)

    def test_an_open_can_be_closed_early_and_before_it_began(self, store: Store) -> None:
        store.put("a", [bytes(9_000_000)])
        buffers = store.open("a")
        assert next(buffers)
        buffers.close()
        assert list(buffers) == []
        store.open("a").close()

    # stat, list

    def test_stat_tells_key_size_and_time_in_utc(self, store: Store) -> None:
        store.put("a/b", [b"12345"])
        info = store.stat("a/b")
        assert (info.key, info.size_bytes) == ("a/b", 5)
        assert info.modified_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - info.modified_at) < timedelta(minutes=5)

    def test_stat_of_a_missing_object_is_not_found(self, store: Store) -> None:
        store.put("a/b/x", [b"x"])
        for key in ("a", "a/b/c", "b", "a/bb"):
            with pytest.raises(NotFoundError, match=repr(key)):
                store.stat(key)

    def test_list_of_an_empty_store_is_empty(self, store: Store) -> None:
        assert keys(store) == []
        assert keys(store, "a/b/") == []

    def test_list_is_in_key_order(self, store: Store) -> None:
        names = ["a/z", "a/b/c", "a-other/x", "a.b", "a0", "B", "b", "_", "%2F/x", ".x", "a/b-/c", "a/b.c", "aa/b"]
        for name in names:
            store.put(name, [name.encode()])
        assert [(info.key, info.size_bytes) for info in store.list()] == [(name, len(name)) for name in sorted(names)]

    def test_a_prefix_never_sees_siblings(self, store: Store) -> None:
        for name in ("a/x", "a/y/z", "a-other/x", "aa/x", "b/a/x", "a.x"):
            store.put(name, [b""])
        assert keys(store, "a/") == ["a/x", "a/y/z"]
        assert keys(store, "a/y/") == ["a/y/z"]
        assert keys(store, "a/x/") == []
        assert keys(store, "c/") == []

    def test_list_and_stat_agree(self, store: Store) -> None:
        store.put("a/b", [b"12"])
        store.put("c", [b"345"])
        assert list(store.list()) == [store.stat("a/b"), store.stat("c")]

    def test_objects_may_be_deleted_while_they_are_listed(self, store: Store) -> None:
        names = [f"d/{number:02}/o" for number in range(30)]
        for name in names:
            store.put(name, [b"x"])
        for info in store.list("d/"):
            store.delete(info.key)
        assert keys(store) == []

    # delete

    def test_delete_removes_that_object_alone(self, store: Store) -> None:
        for name in ("a/b", "a/bc", "a-b"):
            store.put(name, [b"x"])
        store.delete("a/b")
        assert keys(store) == ["a-b", "a/bc"]
        with pytest.raises(NotFoundError):
            next(store.open("a/b"))

    def test_delete_of_a_missing_object_is_not_an_error(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        for key in ("x", "a/c", "x/y/z"):
            store.delete(key)
        assert keys(store) == ["a/b"]

    def test_delete_of_what_is_above_or_below_an_object(self, store: Store, flat: bool) -> None:
        store.put("a/b", [b"x"])
        with nullcontext() if flat else pytest.raises(StoreError, match="'a'"):
            store.delete("a")
        assert keys(store) == ["a/b"]
        store.delete("a/b/c")
        assert keys(store) == (["a/b"] if flat else [])

    def test_a_key_is_free_for_a_level_below_once_deleted(self, store: Store) -> None:
        store.put("a/b/c", [b"deep"])
        store.delete("a/b/c")
        store.put("a", [b"flat"])
        store.delete("a")
        store.put("a/b/c", [b"deep again"])
        assert content(store, "a/b/c") == b"deep again"

    def test_a_key_is_free_for_a_large_object_once_those_below_are_deleted(
        self, store: Store, frees_prefixes: bool
    ) -> None:
        store.put("a/b/c", [b"deep"])
        store.delete("a/b/c")
        with nullcontext() if frees_prefixes else pytest.raises(StoreError, match="'a'"):
            store.put("a", [bytes(9_000_000)])
        assert keys(store) == (["a"] if frees_prefixes else [])
        assert store.unfinished() == []

    # keys

    def test_an_invalid_key_is_refused_by_the_call(self, store: Store) -> None:
        def untouched() -> Iterator[bytes]:
            raise AssertionError("chunks were asked for")
            yield b""

        def put(key: str) -> None:
            store.put(key, untouched())

        calls: list[Callable[[str], object]] = [store.open, store.stat, store.delete, put]
        for key, call in product(INVALID_KEYS, calls):
            with pytest.raises(UsageError):
                call(key)
        assert keys(store) == []

    def test_an_odd_but_valid_key_is_a_key(self, store: Store) -> None:
        for key in VALID_KEYS:
            store.put(key, [b"x"])
            assert keys(store) == [key]
            assert content(store, key) == b"x"
            store.delete(key)
        assert store.sweep() == []
        assert keys(store) == []

    def test_an_invalid_prefix_is_refused_by_the_call(self, store: Store) -> None:
        calls: list[Callable[[str], object]] = [store.list, store.sweep]
        for prefix, call in product(INVALID_PREFIXES, calls):
            with pytest.raises(UsageError):
                call(prefix)

    def test_keys_differ_in_case(self, store: Store) -> None:
        store.put("Key", [b"upper"])
        store.put("key", [b"lower"])
        assert (content(store, "Key"), content(store, "key")) == (b"upper", b"lower")

    # finish, extend

    def test_what_a_dead_put_has_stored_becomes_an_object(self, store: Store, abandon: Abandon) -> None:
        assert store.finish("a/b/data") is None
        abandon("a/b/data", WHOLE)
        size_bytes = store.finish("a/b/data")
        assert size_bytes is not None
        assert size_bytes >= 16 * MIB
        assert content(store, "a/b/data", length=16 * MIB) == WHOLE[: 16 * MIB]
        assert store.stat("a/b/data").size_bytes == size_bytes
        assert store.finish("a/b/data") == size_bytes
        assert keys(store) == ["a/b/data"]
        store.sweep(older_than_s=0)
        assert keys(store) == ["a/b/data"]

    def test_an_object_is_not_finished_again(self, store: Store) -> None:
        store.put("a", [b"whole"])
        assert store.finish("a") == 5
        assert content(store, "a") == b"whole"

    @pytest.mark.parametrize("keep_bytes", [0, 1000, 8 * MIB, 20 * MIB + 7], ids=["0", "1000", "8M", "20M"])
    def test_an_object_is_extended_under_another_key(self, store: Store, keep_bytes: int) -> None:
        store.put("a/left", [WHOLE])
        more = [b"one", b"x" * 5 * MIB, b"two"]
        assert store.extend("a/left", "b/new", iter(more), keep_bytes=keep_bytes) == keep_bytes + 5 * MIB + 6
        assert content(store, "b/new") == WHOLE[:keep_bytes] + b"".join(more)
        store.delete("a/left")
        assert keys(store) == ["b/new"]
        assert store.unfinished() == []

    @pytest.mark.parametrize("keep_bytes", [1000, 20 * MIB], ids=["1000", "20M"])
    def test_an_extension_that_fails_leaves_nothing(self, store: Store, keep_bytes: int) -> None:
        store.put("a/left", [WHOLE])
        with pytest.raises(KeyboardInterrupt):
            store.extend("a/left", "b/new", failing(KeyboardInterrupt(), b"x" * 9 * MIB), keep_bytes=keep_bytes)
        store.delete("a/left")
        assert keys(store) == []
        assert store.sweep() == []
        assert store.unfinished() == []

    # sweep, the rest

    def test_sweep_leaves_objects_and_live_puts_alone(self, store: Store) -> None:
        swept: list[str] = []

        def sweeping() -> Iterator[bytes]:
            yield b"first"
            swept.extend(store.sweep() + store.sweep("a/") + store.sweep("a/b/"))
            yield b"last"

        store.put("a/old", [b"old"])
        store.put("a/b/new", sweeping())
        assert content(store, "a/b/new") == b"firstlast"
        assert content(store, "a/old") == b"old"
        assert swept == []

    def test_what_it_holds_is_named(self, store: Store) -> None:
        assert store.holds() is None
        store.put("b/c", [b"x"])
        assert store.holds() in {"b", "b/c"}
        store.delete("b/c")
        assert store.holds() is None

    def test_free_bytes_is_a_count_or_has_no_meaning(self, store: Store) -> None:
        free_bytes = store.free_bytes()
        assert free_bytes is None or free_bytes > 0

    def test_the_url_is_one_plain_line(self, store: Store) -> None:
        assert store.url.isprintable()
        assert store.url


def _paced(text: bytes) -> Iterable[bytes]:
    return (text[start : start + 10_000] for start in range(0, len(text), 10_000))


def _together(calls: list[Callable[[], object]]) -> list[object]:
    """Results of calls made at the same time; an exception is the result of the call that raised it."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
        return [future.exception() or future.result() for future in futures]
