"""What runs in a thread and is fed chunks: order, errors on both sides, and no thread that stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from tests.support.leftovers import Leftovers
from volback.errors import EngineError, StoreError
from volback.feed import AHEAD_BYTES, Feed
from volback.store.base import Store
from volback.store.faults import FailPut, FaultStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit


def _upload(store: Store) -> Feed[bytes]:
    return Feed(lambda chunks: store.put("key", chunks), "test")


class TestFeed:
    def test_stores_what_is_added_in_several_turns_in_order(self) -> None:
        store = MemoryStore("test")
        with _upload(store) as upload:
            upload.add(b"%d " % number for number in range(20))
            assert list(store.list()) == []
            upload.add([b"end"])
            upload.end()
        assert b"".join(store.open("key")) == b"".join(b"%d " % number for number in range(20)) + b"end"

    def test_stores_nothing_if_it_is_left_early(self, leftovers: Leftovers) -> None:
        store = MemoryStore("test")

        def fail() -> Iterator[bytes]:
            yield b"first"
            raise EngineError("cannot read on")

        with pytest.raises(EngineError), _upload(store) as upload:
            upload.add(fail())
        assert list(store.list()) == []
        assert leftovers.threads() == []

    @pytest.mark.parametrize("after", [0, 3000])
    def test_an_error_of_the_store_ends_it(self, after: int) -> None:
        store = FaultStore(MemoryStore("test"), [FailPut(after, StoreError("disk full"))])
        with pytest.raises(StoreError, match="disk full"), _upload(store) as upload:
            upload.add(bytes(100) for _ in range(1_000_000))
        assert list(store.list()) == []
        store.assert_all_hit()

    def test_an_error_of_the_store_at_its_end_is_raised(self) -> None:
        def put(chunks: Iterable[bytes]) -> None:
            assert b"".join(chunks) == b"all"
            raise StoreError("disk full")

        with Feed(put, "test") as upload:
            upload.add([b"all"])
            with pytest.raises(StoreError, match="disk full"):
                upload.end()

    def test_so_many_bytes_wait_at_most_besides_those_that_are_taken(self) -> None:
        chunk, seen, made = bytes(AHEAD_BYTES // 4), list[int](), 0

        def chunks() -> Iterator[bytes]:
            nonlocal made
            for _ in range(40):
                made += 1
                yield chunk

        def take(taken: Iterable[bytes]) -> None:
            for number, _ in enumerate(taken):
                while made < min(40, number + 6):  # four wait, and one more is made
                    time.sleep(0.001)
                seen.append(made)

        with Feed(take, "test") as feed:
            feed.add(chunks())
            feed.end()
        assert len(seen) == 40
        assert max(ahead - number for number, ahead in enumerate(seen)) <= 4 + 4 + 1

    def test_small_chunks_come_in_few_lists_each_once_and_in_order(self) -> None:
        taken = list[list[bytes]]()
        chunks = [b"%07d" % number for number in range(100_000)]
        with Feed[bytes].in_lists(taken.extend, "test") as feed:
            feed.add(iter(chunks[:99_999]))
            feed.add(chunks[99_999:])
            feed.end()
        assert [chunk for some in taken for chunk in some] == chunks
        assert len(taken) <= 5

    def test_one_chunk_is_not_kept_back_until_more_comes(self) -> None:
        given = threading.Event()

        def take(taken: Iterable[bytes]) -> None:
            for _ in taken:
                given.set()

        with Feed(take, "test") as feed:
            feed.add([b"one"])
            assert given.wait(30)
            feed.end()

    def test_lists_that_are_given_up_end(self, leftovers: Leftovers) -> None:
        def fail() -> Iterator[bytes]:
            yield b"first"
            raise EngineError("cannot read on")

        with pytest.raises(EngineError), Feed[bytes].in_lists(list, "test") as feed:
            feed.add(fail())
        assert leftovers.threads() == []
