"""Copies from and into encrypted repositories: as they are for one identity, else only as requested."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support.encrypted import IDENTITY, encrypted_copy, own_file
from tests.unit.test_golden import ALL, FORMAT_1, FULL
from volback.archive.age_keys import Identity
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import RepositoryEncryption
from volback.catalog.repository import Catalog
from volback.catalog.sealed import seal_document
from volback.context import Context
from volback.context.repository import Repository
from volback.encryption.sources import NO_SOURCES, Sources, identity_file
from volback.errors import IdentityNeeded, IntegrityError, UsageError
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.base import Store
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

OTHER = Identity(bytes(range(1, 33)))


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Settings(repository="memory", state=tmp_path / "state"))


def repository(store: Store, tmp_path: Path, identity: Identity | None = None) -> Repository:
    sources = NO_SOURCES if identity is None else Sources((identity_file(own_file(tmp_path, identity)),))
    return Repository(store, lambda: "golden-host", sources=sources)


def new_store(identity: Identity | None) -> MemoryStore:
    store = MemoryStore("target")
    stated = None if identity is None else RepositoryEncryption(recipient=str(identity.recipient))
    Catalog(store).ensure_repository(lambda: "f" * 32, stated)
    return store


def copied(ctx: Context, source: Repository, target: Repository, *ids: str, reencrypt: bool = False) -> list[str]:
    prepare_target(ctx, source, target, reencrypt=reencrypt)
    return [
        copy_backup(ctx, source, target, item).done
        for item in plan_copies(source, target, [f"golden@{id_}" for id_ in ids or ALL])
    ]


def encrypted_store() -> MemoryStore:
    store = MemoryStore("source")
    encrypted_copy(FORMAT_1, store)
    return store


def test_for_the_same_identity_objects_are_copied_as_they_are_and_without_it(ctx: Context, tmp_path: Path) -> None:
    source, target = encrypted_store(), new_store(IDENTITY)
    for done in ("copied", "skipped"):
        assert copied(ctx, repository(source, tmp_path), repository(target, tmp_path)) == [done] * 3
    for info in source.list("golden-host/"):
        assert b"".join(target.open(info.key)) == b"".join(source.open(info.key))
    assert verify(ctx, repository(target, tmp_path, IDENTITY), [], data=True).damaged == []


@pytest.mark.parametrize("target_identity", [OTHER, None], ids=["another identity", "in clear"])
def test_into_another_kind_of_repository_only_as_requested_and_with_an_identity(
    ctx: Context, tmp_path: Path, target_identity: Identity | None
) -> None:
    source, target = encrypted_store(), new_store(target_identity)
    before = [info.key for info in target.list()]
    with pytest.raises(UsageError, match="encrypted for age1") as caught:
        copied(ctx, repository(source, tmp_path, IDENTITY), repository(target, tmp_path))
    assert "--reencrypt" in (caught.value.hint or "")
    with pytest.raises(IdentityNeeded):
        copied(ctx, repository(source, tmp_path), repository(target, tmp_path), reencrypt=True)
    assert [info.key for info in target.list()] == before
    for done in ("copied", "skipped"):
        where = repository(source, tmp_path, IDENTITY), repository(target, tmp_path)
        assert copied(ctx, *where, reencrypt=True) == [done] * 3
    assert any(info.key.endswith(".zst.age") for info in target.list()) is (target_identity is not None)
    _holds_the_golden_backups(ctx, repository(target, tmp_path, target_identity))


def test_from_clear_into_an_encrypted_repository(ctx: Context, tmp_path: Path) -> None:
    source, target = LocalStore(FORMAT_1), new_store(OTHER)
    with pytest.raises(UsageError, match=r"is in clear, and .* is encrypted for age1"):
        copied(ctx, repository(source, tmp_path), repository(target, tmp_path))
    for done in ("copied", "skipped"):
        assert copied(ctx, repository(source, tmp_path), repository(target, tmp_path), reencrypt=True) == [done] * 3
    _holds_the_golden_backups(ctx, repository(target, tmp_path, OTHER))


def test_a_rotated_repository_is_like_one_that_knows_its_former_identities(ctx: Context, tmp_path: Path) -> None:
    """Else backups of before would lie in the other one for an identity that nobody looks for there."""
    source, target = encrypted_store(), new_store(OTHER)
    stated = RepositoryEncryption(recipient=str(OTHER.recipient), past=[str(IDENTITY.recipient)])
    info = Catalog(source).info()
    source.put(REPOSITORY_KEY, [seal_document(msgspec.structs.replace(info, encryption=stated))])
    with pytest.raises(UsageError, match="and for earlier identities, which memory://target does not know"):
        copied(ctx, repository(source, tmp_path), repository(target, tmp_path))
    known = msgspec.structs.replace(Catalog(target).info(), encryption=stated)
    target.put(REPOSITORY_KEY, [seal_document(known)])
    assert copied(ctx, repository(source, tmp_path), repository(target, tmp_path)) == ["copied"] * 3


def test_an_object_that_is_cut_is_not_copied(ctx: Context, tmp_path: Path) -> None:
    source, target = encrypted_store(), new_store(IDENTITY)
    key = f"golden-host/golden/{FULL}/data.tar.zst.age"
    source.put(key, [b"".join(source.open(key))[:-1]])
    with pytest.raises(IntegrityError, match="is not what was written"):
        copied(ctx, repository(source, tmp_path), repository(target, tmp_path))
    assert list(target.list("golden-host/")) == []


def _holds_the_golden_backups(ctx: Context, found: Repository) -> None:
    assert verify(ctx, found, [], data=True).damaged == []
    clear = Repository(LocalStore(FORMAT_1), lambda: "golden-host")
    for id_ in ALL:
        first, second = (OpenBackup.of(where, where.find(f"golden@{id_}")) for where in (clear, found))
        assert b"".join(first.stream()) == b"".join(second.stream())
        assert first.manifest.digest == second.manifest.digest
        assert first.manifest.source == second.manifest.source
