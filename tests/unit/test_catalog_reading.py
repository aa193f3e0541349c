"""Manifests of a distant store: read at once, in order, each error by itself; copies only of what is still there."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from tests.support.documents import MANIFEST, source_of
from tests.support.leftovers import Leftovers
from tests.support.repository import IDS, make_backup
from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.sealed import seal_document
from volback.catalog.space import Removed
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import Interrupted, NotFoundError, StoreDenied, StoreUnreachable
from volback.operations.stored_sets import find_set
from volback.operations.verify import verify
from volback.settings import Settings
from volback.state.cache import Cache
from volback.state.memory import Memory
from volback.store.memory import MemoryStore

TOGETHER = 8


class WatchedStore(MemoryStore):
    """Notes which manifests are read; the first `TOGETHER` reads wait for each other, if they are to overlap."""

    def __init__(self, parallel_reads: int = 2) -> None:
        super().__init__("watched", parallel_reads=parallel_reads)
        self.opened: list[str] = []
        self.barrier: threading.Barrier | None = None
        self.fails: dict[str, Exception] = {}
        self._watching = threading.Lock()

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        with self._watching:
            self.opened.append(key)
            barrier = self.barrier if len(self.opened) <= TOGETHER else None
        if barrier is not None:
            barrier.wait(30)
        if key in self.fails:
            raise self.fails[key]
        yield from super().open(key, start=start, length=length)


@pytest.fixture
def store() -> WatchedStore:
    return filled(WatchedStore())


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", "here", limit_bytes=1 << 24)


def filled(store: WatchedStore) -> WatchedStore:
    for id_ in IDS[:20]:
        make_backup(store, id_, data_bytes=100)
    store.opened.clear()
    return store


def key_of(number: int) -> BackupKey:
    return BackupKey("web1", "db", IDS[number])


def ids(catalog: Catalog, *, cached: bool = False) -> list[str]:
    return [found.id for found in catalog.manifests(cached=cached) if isinstance(found, Manifest)]


def replace(store: MemoryStore, number: int, **changes: object) -> None:
    key = key_of(number)
    manifest = msgspec.structs.replace(Catalog(store).read(key), **changes)
    store.put(key.manifest, [seal_document(manifest)])


def test_reads_overlap_and_come_in_order(store: WatchedStore, leftovers: Leftovers) -> None:
    store.barrier = threading.Barrier(TOGETHER)
    assert ids(Catalog(store)) == IDS[:20]
    assert sorted(store.opened) == [key_of(number).manifest for number in range(20)]
    assert leftovers.threads("ahead") == []


def test_the_sets_of_a_project_are_looked_for_in_manifests_that_are_read_together(store: WatchedStore) -> None:
    repository = Repository(store, lambda: "web1")
    assert repository.catalog.at_once >= TOGETHER
    store.opened.clear()
    store.barrier = threading.Barrier(TOGETHER)
    with pytest.raises(NotFoundError, match="no set of project 'shop'"):
        find_set(repository, "shop")


def test_a_near_store_is_read_in_the_callers_thread(leftovers: Leftovers) -> None:
    store = filled(WatchedStore(parallel_reads=1))
    walk = Catalog(store).manifests()
    assert isinstance(next(walk), Manifest)
    assert leftovers.threads() == []
    assert len(store.opened) == 1


def test_each_damaged_manifest_is_found_by_itself(store: WatchedStore) -> None:
    store.put(key_of(3).manifest, [b"{"])
    store.put(key_of(7).manifest, [bytes(300_000)])
    found = list(Catalog(store).manifests())
    assert [item.id for item in found] == IDS[:20]
    assert [item.id for item in found if isinstance(item, DamagedManifest)] == [IDS[3], IDS[7]]


def test_a_manifest_that_is_larger_than_what_is_read_ahead_is_read_whole(store: WatchedStore) -> None:
    replace(store, 5, warnings=["w" * 300_000])
    assert ids(Catalog(store)) == IDS[:20]


@pytest.mark.parametrize("error", [StoreUnreachable("no answer"), Interrupted(2)])
def test_what_ends_the_walk_leaves_no_thread(store: WatchedStore, error: Exception, leftovers: Leftovers) -> None:
    store.fails[key_of(6).manifest] = error
    seen: list[object] = []
    with pytest.raises(type(error)):
        seen.extend(Catalog(store).manifests())
    assert leftovers.threads("ahead") == []


def test_the_second_look_reads_no_manifest(store: WatchedStore, kept: Cache) -> None:
    assert ids(Catalog(store, kept), cached=True) == IDS[:20]
    store.opened.clear()
    assert ids(Catalog(store, kept), cached=True) == IDS[:20]
    assert store.opened == []
    assert ids(Catalog(store, kept)) == IDS[:20], "who proves or deletes reads the repository"
    assert len(store.opened) == 20


class DeletingStore(WatchedStore):
    """Notes what is deleted; each two deletes wait for each other, if they are to overlap."""

    def __init__(self, meeting: threading.Barrier | None = None) -> None:
        super().__init__()
        self.deleted: list[str] = []
        self.meeting = meeting

    def delete(self, key: str) -> None:
        if self.meeting is not None:
            self.meeting.wait(30)
        if key in self.fails:
            raise self.fails[key]
        super().delete(key)
        self.deleted.append(key)


def test_objects_of_a_distant_store_are_deleted_at_once_and_all_manifests_first() -> None:
    store = DeletingStore(threading.Barrier(2))
    filled(store)
    doomed, removed = [key_of(number) for number in range(8)], Removed()
    Catalog(store).remove(doomed, removed=removed)
    assert set(store.deleted[:8]) == {key.manifest for key in doomed}
    assert sorted(store.deleted) == sorted(removed.objects)
    assert len(store.deleted) == 3 * 8
    assert sorted(removed.backups) == doomed
    assert ids(Catalog(store)) == IDS[8:20]


def test_what_was_deleted_beside_one_that_cannot_be_is_noted() -> None:
    store = DeletingStore()
    filled(store)
    doomed, removed = [key_of(number) for number in range(8)], Removed()
    store.fails[doomed[0].manifest] = StoreDenied("denied")
    with pytest.raises(StoreDenied):
        Catalog(store).remove(doomed, removed=removed)
    assert sorted(store.deleted) == sorted(removed.objects)
    assert {key.id for key in removed.backups} == {*IDS[:20]} - {key.id for key in Catalog(store).backups()}


def test_a_removed_backup_and_a_replaced_manifest_are_seen(store: WatchedStore, kept: Cache) -> None:
    assert ids(Catalog(store, kept), cached=True) == IDS[:20]
    Catalog(store).remove([key_of(2)])
    replace(store, 4, tags=["new"])
    store.put(key_of(5).manifest, [b"{"])
    store.opened.clear()
    found = {item.id: item for item in Catalog(store, kept).manifests(cached=True)}
    assert IDS[2] not in found
    assert isinstance(found[IDS[5]], DamagedManifest)
    changed = found[IDS[4]]
    assert isinstance(changed, Manifest)
    assert changed.tags == ["new"]
    assert sorted(store.opened) == [key_of(4).manifest, key_of(5).manifest]


def test_a_copy_of_another_backups_manifest_is_not_used(store: WatchedStore, kept: Cache) -> None:
    foreign = msgspec.structs.replace(MANIFEST, volume="other", source=source_of("other"))
    for stored in store.list():
        if stored.key == key_of(1).manifest:
            kept.put(f"{stored.key} {stored.size_bytes} {stored.modified_at.isoformat()} ", seal_document(foreign))
    assert ids(Catalog(store, kept), cached=True) == IDS[:20]


def test_verify_notices_what_the_listing_does_not_show(store: WatchedStore, tmp_path: Path) -> None:
    """Of the same size and time, as bytes that went bad on the server's disk."""
    memory = Memory(tmp_path / "state", "memory://watched", accept=False, cache=tmp_path / "cache")
    repository = Repository(store, lambda: "web1", memory=memory)
    assert ids(repository.catalog, cached=True) == IDS[:20]
    key = key_of(9).manifest
    data, modified_at = store._objects[key]
    store._objects[key] = (data.replace(b"web1", b"web2"), modified_at)
    assert ids(repository.catalog, cached=True) == IDS[:20]
    damaged = verify(Context(Settings("memory://watched", tmp_path / "state")), repository, []).damaged
    assert key in {damage.object for damage in damaged}


def test_another_repository_at_the_same_address_has_other_copies(store: WatchedStore, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state", "memory://watched", accept=True, cache=tmp_path / "cache")
    memory.kept("one").put("name", b"data")
    assert memory.kept("one").get("name") == b"data"
    assert memory.kept("two").get("name") is None
    off = Memory(tmp_path / "state", "memory://watched", accept=True, cache=tmp_path / "cache", cache_bytes=0)
    off.kept("one").put("name", b"data")
    assert off.kept("one").get("name") is None
