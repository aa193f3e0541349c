"""The layer that encrypts: what lies in the store is age files, what all above see is what they hold.

That it behaves as a store is proven by the conformance suite.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support.counting import CountingStore
from volback.archive.age import HEADER_BYTES, PIECE_BYTES, SEALED_BYTES, decrypt, encrypt, stored_size
from volback.archive.age_keys import Identity
from volback.encryption.store import EncryptedStore, Encryption
from volback.errors import FormatError, IdentityNeeded, IntegrityError, NotFoundError
from volback.store.base import Store
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

OWN = Identity(bytes(range(32)))
KEY = "host/db/20261101T000000Z-aaaa/data.tar.zst"
PLAIN = random.Random(1).randbytes(3 * PIECE_BYTES + 500)


def layer(inner: Store, identities: Callable[[], list[Identity]] = lambda: [OWN]) -> EncryptedStore:
    encryption = Encryption(OWN.recipient, identities)
    return EncryptedStore(inner, lambda: encryption)


def without_identity() -> list[Identity]:
    raise IdentityNeeded("an identity is needed")


def content(store: Store, key: str = KEY, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.open(key, start=start, length=length))


def ranges(store: CountingStore) -> list[tuple[int, int | None]]:
    return [(read.start, read.length) for read in store.reads]


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore("test")


def test_data_is_a_whole_age_file_and_documents_are_in_clear(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN[:100], PLAIN[100:]])
    layer(inner).put("host/db/manifest.json", [b"{}"])
    assert [info.key for info in inner.list()] == [f"{KEY}.age", "host/db/manifest.json"]
    assert b"".join(decrypt([content(inner, f"{KEY}.age")], [OWN])) == PLAIN
    assert content(inner, "host/db/manifest.json") == b"{}"


def test_writing_listing_and_removing_need_no_identity(inner: MemoryStore) -> None:
    store = layer(inner, without_identity)
    assert store.put(KEY, [PLAIN]) == len(PLAIN)
    assert [(info.key, info.size_bytes) for info in store.list()] == [(KEY, len(PLAIN))]
    assert store.stat(KEY).size_bytes == len(PLAIN)
    with pytest.raises(IdentityNeeded):
        content(store)
    store.delete(KEY)
    assert list(inner.list()) == []


def test_where_nothing_is_encrypted_all_passes(inner: MemoryStore) -> None:
    store = EncryptedStore(inner, lambda: None)
    store.put(KEY, [PLAIN])
    assert content(inner) == PLAIN == content(store)
    assert [info.key for info in store.list()] == [KEY]


def test_a_range_reads_its_pieces_alone_and_the_header_once(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN])
    counting = CountingStore(inner)
    store = layer(counting)
    at = PIECE_BYTES + 10
    assert content(store, start=at, length=100) == PLAIN[at : at + 100]
    assert ranges(counting) == [(0, HEADER_BYTES), (HEADER_BYTES + SEALED_BYTES, SEALED_BYTES + 1)]
    assert content(store, start=at, length=100) == PLAIN[at : at + 100]
    assert ranges(counting)[2:] == [(HEADER_BYTES + SEALED_BYTES, SEALED_BYTES + 1)]


def test_an_object_that_is_read_from_its_beginning_takes_one_request(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN])
    counting = CountingStore(inner)
    assert content(layer(counting)) == PLAIN
    assert ranges(counting) == [(0, None)]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_ranges_at_every_boundary_are_slices(inner: MemoryStore, size: int) -> None:
    store, plain = layer(inner), PLAIN[:size]
    store.put(KEY, [plain])
    marks = sorted({0, 1, size - 1, size, size + 1, *(n * PIECE_BYTES + d for n in range(1, 4) for d in (-1, 0, 1))})
    for start in (mark for mark in marks if mark >= 0):
        for stop in (mark for mark in marks if mark >= start):
            assert content(store, start=start, length=stop - start) == plain[start:stop], (start, stop)
        assert content(store, start=start) == plain[start:]


def test_what_lies_there_in_clear_is_not_seen(inner: MemoryStore) -> None:
    inner.put(KEY, [b"slipped in"])
    store = layer(inner)
    assert list(store.list()) == []
    with pytest.raises(NotFoundError, match=repr(KEY)):
        store.stat(KEY)
    with pytest.raises(NotFoundError, match=repr(KEY)):
        content(store)


def test_damage_is_noticed_wherever_it_is(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN])
    stored, dice = content(inner, f"{KEY}.age"), random.Random(2)
    for position in (*range(0, HEADER_BYTES, 7), *dice.sample(range(len(stored)), 1000)):
        changed = bytearray(stored)
        changed[position] ^= 1 << dice.randrange(8)
        inner.put(f"{KEY}.age", [changed])
        with pytest.raises(IntegrityError):
            content(layer(inner))


def test_a_cut_a_swap_and_another_header_are_noticed(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN])
    layer(inner).put(KEY + ".zst", [PLAIN])
    stored, other = content(inner, f"{KEY}.age"), content(inner, f"{KEY}.zst.age")
    pieces = [stored[at : at + SEALED_BYTES] for at in range(HEADER_BYTES, len(stored), SEALED_BYTES)]
    forged = [stored[: HEADER_BYTES + number * SEALED_BYTES] for number in range(len(pieces))]
    forged += [stored[:-1], stored + b"x", stored[:HEADER_BYTES] + b"".join([pieces[1], pieces[0], *pieces[2:]])]
    forged += [other[:HEADER_BYTES] + stored[HEADER_BYTES:], stored[:HEADER_BYTES] + b"".join([pieces[0], *pieces])]
    for data in forged:
        inner.put(f"{KEY}.age", [data])
        with pytest.raises(IntegrityError, match=r"data\.tar\.zst\.age"):
            content(layer(inner))


def test_a_cut_object_has_another_size(inner: MemoryStore) -> None:
    layer(inner).put(KEY, [PLAIN])
    stored = content(inner, f"{KEY}.age")
    for size in (*range(0, len(stored), 4099), *(HEADER_BYTES + n * SEALED_BYTES for n in range(4)), len(stored) - 1):
        inner.put(f"{KEY}.age", [stored[:size]])
        assert layer(inner).stat(KEY).size_bytes < len(PLAIN)


def test_a_file_for_several_recipients_is_not_ours(inner: MemoryStore) -> None:
    inner.put(f"{KEY}.age", encrypt([PLAIN], [OWN.recipient, Identity.new().recipient]))
    with pytest.raises(FormatError, match="header"):
        content(layer(inner))


def test_without_a_recipient_nothing_is_written(inner: MemoryStore) -> None:
    encryption = Encryption(None, lambda: [OWN])
    with pytest.raises(IntegrityError, match=r"volback\.json"):
        EncryptedStore(inner, lambda: encryption).put(KEY, [PLAIN])
    assert list(inner.list()) == []


def test_the_overhead_is_one_part_in_four_thousand() -> None:
    assert stored_size(10**9) - 10**9 == HEADER_BYTES + 16 * 15259
