"""Bad days of an encrypted repository: what was changed, cut, moved or swapped is noticed, and files are named."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from tests.support.archive import plan_of, read
from tests.support.encrypted import IDENTITY, encrypted_copy, own_file
from tests.support.stored import FIRST, store_backup
from tests.unit.test_golden import FORMAT_1, FULL, INCREMENT, SECOND_INCREMENT
from volback.archive.age import HEADER_BYTES, SEALED_BYTES
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.catalog.sealed import seal_document
from volback.context import Context
from volback.context.repository import Repository
from volback.encryption.sources import NO_SOURCES, Sources, identity_file
from volback.errors import FormatError, IdentityNeeded, IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

FULL_KEY = BackupKey("golden-host", "golden", FULL)


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore("test")
    encrypted_copy(FORMAT_1, made)
    return made


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Settings(repository="memory", state=tmp_path / "state"))


def repository(store: MemoryStore, tmp_path: Path, *, with_identity: bool = True) -> Repository:
    sources = Sources((identity_file(own_file(tmp_path)),)) if with_identity else NO_SOURCES
    return Repository(store, lambda: "golden-host", sources=sources)


def read_whole(where: Repository) -> bytes:
    return b"".join(OpenBackup.of(where, where.find(f"golden@{FULL}")).stream())


def content(store: MemoryStore, key: str) -> bytes:
    return b"".join(store.open(key))


def test_a_repository_in_clear_and_its_encrypted_copy_hold_the_same(store: MemoryStore, tmp_path: Path) -> None:
    clear, closed = Repository(LocalStore(FORMAT_1), lambda: "golden-host"), repository(store, tmp_path)
    for id_ in (FULL, INCREMENT, SECOND_INCREMENT):
        first, second = (OpenBackup.of(where, where.find(f"golden@{id_}")) for where in (clear, closed))
        assert b"".join(first.stream()) == b"".join(second.stream())
        assert list(first.members()) == list(second.members())


def test_verify_without_an_identity_says_what_is_missing_or_cut(
    store: MemoryStore, ctx: Context, tmp_path: Path
) -> None:
    closed = repository(store, tmp_path, with_identity=False)
    assert verify(ctx, closed, []).damaged == []
    with pytest.raises(IdentityNeeded):
        verify(ctx, closed, [], data=True)
    data = FULL_KEY.data + ".age"
    store.put(data, [content(store, data)[:-1]])
    assert {damage.object for damage in verify(ctx, closed, []).damaged} == {FULL_KEY.data}


def test_each_flip_is_found_and_the_files_are_named(store: MemoryStore, ctx: Context, tmp_path: Path) -> None:
    data, dice = FULL_KEY.data + ".age", random.Random(3)
    whole = content(store, data)
    positions = [0, 100, HEADER_BYTES - 1, HEADER_BYTES, len(whole) - 1, *dice.sample(range(len(whole)), 15)]
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 1 << dice.randrange(8)
        store.put(data, [changed])
        found = verify(ctx, repository(store, tmp_path), [f"golden@{FULL}"], data=True).damaged
        assert {damage.object for damage in found} == {FULL_KEY.data}, position
        assert any(damage.paths for damage in found), position


def test_of_a_thousand_flips_each_is_noticed_before_a_byte_is_used(store: MemoryStore, tmp_path: Path) -> None:
    """Anywhere in what a restore reads, with the exit code of damage."""
    dice, keys = random.Random(7), [f"{FULL_KEY.data}.age", f"{FULL_KEY.index}.age", FULL_KEY.manifest]
    whole = {key: content(store, key) for key in keys}
    expected = read_whole(repository(store, tmp_path))
    for _ in range(1000):
        key = dice.choice(keys)
        changed = bytearray(whole[key])
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        store.put(key, [changed])
        with pytest.raises(IntegrityError) as caught:
            read_whole(repository(store, tmp_path))
        assert (caught.value.exit_code, "\n" in caught.value.message) == (7, False)
        store.put(key, [whole[key]])
    assert read_whole(repository(store, tmp_path)) == expected


def test_one_damaged_piece_costs_the_files_in_it_alone(ctx: Context, tmp_path: Path) -> None:
    root, clear, store = tmp_path / "tree", tmp_path / "clear", MemoryStore("test")
    root.mkdir()
    for number in range(6):
        (root / f"file-{number}").write_bytes(random.Random(number).randbytes(1_500_000))
    made = store_backup(LocalStore(clear), FIRST, plan_of(root), [read(root, plan_of(root))])
    Catalog(LocalStore(clear)).ensure_repository(lambda: "c" * 32)
    Catalog(LocalStore(clear)).commit(made)
    (key,) = encrypted_copy(clear, store)
    changed = bytearray(content(store, f"{key.data}.age"))
    changed[HEADER_BYTES + 30 * SEALED_BYTES] ^= 1  # in the second file, and no other
    store.put(f"{key.data}.age", [changed])
    (found,) = verify(ctx, repository(store, tmp_path), [], data=True).damaged
    assert (found.object, found.paths) == (key.data, ["file-1"])


@pytest.mark.parametrize("object_key", [FULL_KEY.data, FULL_KEY.index])
def test_no_stream_comes_of_an_object_that_is_cut_mixed_or_swapped(
    store: MemoryStore, tmp_path: Path, object_key: str
) -> None:
    key, other = f"{object_key}.age", f"{BackupKey('golden-host', 'golden', INCREMENT).index}.age"
    whole, head = content(store, key), HEADER_BYTES
    pieces = [whole[at : at + SEALED_BYTES] for at in range(head, len(whole), SEALED_BYTES)]
    forged = [whole[: head + number * SEALED_BYTES] for number in range(len(pieces))]
    forged += [whole[:head] + b"".join(reversed(pieces)) if len(pieces) > 1 else whole[:-1], whole + b"x", b""]
    forged += [content(store, other), content(store, other)[:head] + whole[head:]]
    for data in forged:
        store.put(key, [data])
        with pytest.raises(IntegrityError) as caught:
            read_whole(repository(store, tmp_path))
        assert caught.value.exit_code == 7
        assert "\n" not in caught.value.message


def test_the_private_part_of_one_manifest_in_another_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    where = repository(store, tmp_path)
    full, increment = where.find(f"golden@{FULL}"), where.find(f"golden@{INCREMENT}")
    forged = msgspec.structs.replace(full, private=increment.private)
    store.put(FULL_KEY.manifest, [seal_document(forged)])
    where = repository(store, tmp_path)
    with pytest.raises(FormatError, match="of another backup"):
        OpenBackup.of(where, where.find(f"golden@{FULL}"))


def test_a_backup_in_clear_does_not_slip_in(store: MemoryStore, tmp_path: Path) -> None:
    where = repository(store, tmp_path)
    clear = where.opened(where.find(f"golden@{FULL}"))
    store.put(FULL_KEY.manifest, [seal_document(msgspec.structs.replace(clear, encryption=None))])
    store.put(FULL_KEY.data, [b"in clear"])
    with pytest.raises(FormatError, match="in clear, and the repository is encrypted"):
        repository(store, tmp_path).find(f"golden@{FULL}")


def test_the_repositorys_identity_is_the_one_of_the_tests(store: MemoryStore) -> None:
    assert str(IDENTITY.recipient).encode() in content(store, "volback.json")
