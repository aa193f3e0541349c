"""The catalog: a backup exists by its manifest alone; damage is shown, never skipped; what is needed stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.support.documents import DIGEST, MANIFEST, reseal, source_of
from volback.catalog.keys import REPOSITORY_KEY, BackupKey
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.reference import parse_reference
from volback.catalog.repository import Catalog
from volback.catalog.sealed import DOCUMENT_MAX_BYTES, open_document, seal_document
from volback.catalog.space import Removed
from volback.errors import ConflictError, FormatError, IntegrityError, NotFoundError, StoreUnreachable, UsageError
from volback.store.base import ObjectInfo

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SAFETY = ["before-replace"]
ID1, ID2, ID3 = "20261101T000000Z-aaaa", "20261102T000000Z-bbbb", "20261102T000000Z-cccc"


class DictObjects:
    """Objects in a dict, in key order; remembers what was opened and deleted, in order."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.opened: list[str] = []
        self.deleted: list[str] = []
        self.parallel_reads = 1
        self.is_shared = False

    def put(self, key: str, chunks: Iterable[bytes], *, if_absent: bool = False) -> int:
        if if_absent and key in self.held:
            raise ConflictError(f"{key} exists")
        self.held[key] = b"".join(chunks)
        return len(self.held[key])

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.opened.append(key)
        if key not in self.held:
            raise NotFoundError(f"no object {key}")
        yield self.held[key][start:] if length is None else self.held[key][start : start + length]

    def stat(self, key: str) -> ObjectInfo:
        if key not in self.held:
            raise NotFoundError(f"no object {key}")
        return ObjectInfo(key, len(self.held[key]), datetime(2026, 1, 1, tzinfo=UTC))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        assert not prefix or prefix.endswith("/")
        return (self.stat(key) for key in sorted(self.held) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.held.pop(key, None)
        self.deleted.append(key)


@pytest.fixture
def objects() -> DictObjects:
    return DictObjects()


@pytest.fixture
def catalog(objects: DictObjects) -> Catalog:
    return Catalog(objects)


def store(objects: DictObjects, id_: str, volume: str = "db", host: str = "web1", **changes: object) -> Manifest:
    """Data and index of a backup that is not committed yet."""
    manifest = msgspec.structs.replace(
        MANIFEST,
        id=id_,
        volume=volume,
        source=source_of(volume),
        host=host,
        data=ObjectDigest(size_bytes=4, sha256=DIGEST),
        index=ObjectDigest(size_bytes=5, sha256=DIGEST),
        **changes,
    )
    key = key_of(manifest)
    objects.put(manifest.data_key, [b"data"])
    objects.put(key.index, [b"index"])
    return manifest


def needing(*needed: Manifest) -> dict[str, Any]:
    """The fields of an increment that uses something of those backups."""
    return {
        "kind": "incremental",
        "uses": [
            UsedObject(
                id=other.id, name="data.tar.zst" if other.kind == "full" else "data.zst", size_bytes=4, used_bytes=1
            )
            for other in needed
        ],
    }


def committed(objects: DictObjects, id_: str, volume: str = "db", host: str = "web1", **changes: object) -> Manifest:
    manifest = store(objects, id_, volume, host, **changes)
    Catalog(objects).commit(manifest)
    return manifest


def key_of(manifest: Manifest) -> BackupKey:
    return manifest.key


def damage(objects: DictObjects, manifest: Manifest, data: bytes | None = None) -> None:
    key = key_of(manifest).manifest
    objects.held[key] = objects.held[key][:-9] if data is None else data


def test_a_repository_is_made_once(objects: DictObjects, catalog: Catalog) -> None:
    ids = iter(["first-1", "second-2"])
    made = catalog.ensure_repository(lambda: next(ids))
    assert made.id == "first-1"
    assert catalog.ensure_repository(lambda: next(ids)) == made == catalog.info()
    assert list(objects.held) == [REPOSITORY_KEY]


def test_the_loser_of_a_race_takes_the_winners_repository(objects: DictObjects, catalog: Catalog) -> None:
    def other_run_first() -> str:
        Catalog(objects).ensure_repository(lambda: "winner")
        return "loser"

    assert catalog.ensure_repository(other_run_first).id == "winner"


def test_no_repository_is_said_so(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="no repository"):
        catalog.info()


@pytest.mark.parametrize("data", [b"", b"garbage", reseal(id="a b"), reseal(format=2)], ids=range(4))
def test_a_damaged_repository_document_is_refused_not_replaced(
    objects: DictObjects, catalog: Catalog, data: bytes
) -> None:
    objects.held[REPOSITORY_KEY] = data
    with pytest.raises(FormatError):
        catalog.ensure_repository(lambda: "new")
    assert objects.held[REPOSITORY_KEY] == data


def test_a_committed_backup_is_found(objects: DictObjects, catalog: Catalog) -> None:
    manifest = committed(objects, ID1)
    assert list(catalog.manifests()) == [manifest]
    assert catalog.find(parse_reference("db"), "web1", now=NOW) == manifest


def test_a_backup_without_manifest_does_not_exist(objects: DictObjects, catalog: Catalog) -> None:
    store(objects, ID1)
    assert list(catalog.manifests()) == []
    with pytest.raises(NotFoundError):
        catalog.find(parse_reference("db"), "web1", now=NOW)


@pytest.mark.parametrize("missing", ["data", "index"])
def test_commit_refuses_a_missing_object(objects: DictObjects, catalog: Catalog, missing: str) -> None:
    manifest = store(objects, ID1)
    objects.delete(getattr(key_of(manifest), missing))
    with pytest.raises(IntegrityError, match="not in store"):
        catalog.commit(manifest)
    assert catalog.backups() == []


@pytest.mark.parametrize("short", ["data", "index"])
def test_commit_refuses_an_object_of_another_size(objects: DictObjects, catalog: Catalog, short: str) -> None:
    manifest = store(objects, ID1)
    objects.put(getattr(key_of(manifest), short), [b"x"])
    with pytest.raises(IntegrityError, match="1 bytes in store"):
        catalog.commit(manifest)
    assert catalog.backups() == []


def test_commit_refuses_a_backup_whose_parent_is_gone(objects: DictObjects, catalog: Catalog) -> None:
    parent = committed(objects, ID1)
    child = store(objects, ID2, parent=ID1, **needing(parent))
    held = dict(objects.held)
    for gone in (key_of(parent).manifest, key_of(parent).data):  # a removal takes the manifest first
        objects.held = {key: data for key, data in held.items() if key != gone}
        with pytest.raises(IntegrityError, match=f"{ID1}.* removed meanwhile"):
            catalog.commit(child)
        assert key_of(child).manifest not in objects.held
    objects.held = held
    catalog.commit(child)


def test_commit_refuses_a_backup_whose_parent_has_another_object_now(objects: DictObjects, catalog: Catalog) -> None:
    parent = committed(objects, ID1)
    child = store(objects, ID2, **needing(parent))
    objects.put(key_of(parent).data, [b"other"])
    with pytest.raises(IntegrityError, match=f"{ID1}/data.tar.zst, which has 5 bytes now, not 4"):
        catalog.commit(child)


def test_commit_refuses_what_could_not_be_read(objects: DictObjects, catalog: Catalog) -> None:
    with pytest.raises(FormatError):
        catalog.commit(store(objects, ID1, raw_bytes=-1))


def test_commit_never_overwrites(objects: DictObjects, catalog: Catalog) -> None:
    manifest = committed(objects, ID1)
    with pytest.raises(ConflictError):
        catalog.commit(msgspec.structs.replace(manifest, files=99))
    assert catalog.find(parse_reference("db"), "web1", now=NOW) == manifest


def test_manifests_come_by_host_volume_and_id(objects: DictObjects, catalog: Catalog) -> None:
    names = [("a", "db"), ("a", "db-2"), ("a", "/srv/db"), ("a-b", "db"), ("é", "db")]
    for host, volume in names:
        for id_ in (ID2, ID1):
            committed(objects, id_, volume, host)
    listed = [(each.host, each.volume, each.id) for each in catalog.manifests()]
    assert listed == sorted((host, volume, id_) for host, volume in names for id_ in (ID1, ID2))
    assert [each.volume for each in catalog.manifests("a", "db")] == ["db", "db"]
    assert {each.host for each in catalog.manifests(volume="db")} == {"a", "a-b", "é"}
    assert {each.host for each in catalog.manifests("a")} == {"a"}


def test_a_damaged_manifest_does_not_hide_the_others(objects: DictObjects, catalog: Catalog) -> None:
    first, second, third = (committed(objects, id_) for id_ in (ID1, ID2, ID3))
    damage(objects, second)
    listed = list(catalog.manifests())
    assert [listed[0], listed[2]] == [first, third]
    assert isinstance(listed[1], DamagedManifest)
    assert (listed[1].key, listed[1].id) == (key_of(second).manifest, ID2)
    assert isinstance(listed[1].error, FormatError)


def test_a_manifest_moved_under_another_key_is_damaged(objects: DictObjects, catalog: Catalog) -> None:
    first, second = committed(objects, ID1), committed(objects, ID2)
    damage(objects, second, objects.held[key_of(first).manifest])
    with pytest.raises(FormatError, match="another backup"):
        catalog.find(parse_reference(f"db@{ID2}"), "web1", now=NOW)


def test_a_huge_manifest_is_not_read_to_its_end(objects: DictObjects, catalog: Catalog) -> None:
    manifest = committed(objects, ID1)
    damage(objects, manifest, b" " * (2 * DOCUMENT_MAX_BYTES))
    with pytest.raises(FormatError, match="larger"):
        catalog.find(parse_reference("db"), "web1", now=NOW)


def test_a_manifest_removed_while_listing_is_left_out(objects: DictObjects, catalog: Catalog) -> None:
    first, second = committed(objects, ID1), committed(objects, ID2)
    listing = catalog.manifests()
    assert next(listing) == first
    objects.delete(key_of(second).manifest)
    assert list(listing) == []


def test_a_store_that_is_gone_does_not_look_like_damage(objects: DictObjects, catalog: Catalog) -> None:
    committed(objects, ID1)

    class Unplugged(DictObjects):
        def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            raise StoreUnreachable(f"no answer for {key}")

    unplugged = Unplugged()
    unplugged.held = objects.held
    with pytest.raises(StoreUnreachable):
        list(Catalog(unplugged).manifests())


def test_latest_is_the_highest_id_and_opens_no_other_manifest(objects: DictObjects, catalog: Catalog) -> None:
    for id_ in (ID2, ID3, ID1):
        committed(objects, id_)
    objects.opened.clear()
    assert catalog.find(parse_reference("db"), "web1", now=NOW).id == ID3
    assert objects.opened == [BackupKey("web1", "db", ID3).manifest]


def test_a_safety_copy_is_never_the_latest_and_answers_to_its_id(objects: DictObjects, catalog: Catalog) -> None:
    made = committed(objects, ID1)
    copies = [committed(objects, id_, tags=SAFETY) for id_ in (ID2, ID3)]
    assert catalog.find(parse_reference("db"), "web1", now=NOW) == made
    assert catalog.newest([key_of(item) for item in (made, *copies)], now=NOW) == key_of(made)
    for copy in copies:
        assert catalog.find(parse_reference(f"db@{copy.id}"), "web1", now=NOW) == copy


def test_safety_copies_alone_are_named(objects: DictObjects, catalog: Catalog) -> None:
    copy = committed(objects, ID1, tags=SAFETY)
    with pytest.raises(NotFoundError, match="safety copies") as caught:
        catalog.find(parse_reference("db"), "web1", now=NOW)
    assert ID1 in str(caught.value.hint)
    assert catalog.newest([key_of(copy)], now=NOW) is None


def test_a_backup_from_the_future_is_not_the_latest_and_is_named(
    objects: DictObjects, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    made, near, far = (
        committed(objects, id_) for id_ in (ID1, "20261125T121000Z-aaaa", "20271230T000000Z-aaaa")
    )  # fmt: skip
    assert catalog.find(parse_reference("db"), "web1", now=NOW) == near
    assert [record.getMessage() for record in caplog.records if far.id in record.getMessage()]
    assert not [record for record in caplog.records if near.id in record.getMessage()]
    assert catalog.find(parse_reference(f"db@{far.id}"), "web1", now=NOW) == far
    assert catalog.newest([key_of(item) for item in (made, near, far)], now=NOW - timedelta(hours=1)) == key_of(made)
    assert catalog.newest([key_of(far)], now=NOW) is None


def test_a_damaged_newest_counts_as_the_latest_in_an_overview(objects: DictObjects, catalog: Catalog) -> None:
    keys = [key_of(committed(objects, id_)) for id_ in (ID1, ID2)]
    damage(objects, catalog.read(keys[1]))
    assert catalog.newest(keys, now=NOW) == keys[1]


def test_a_prefix_finds_its_backup(objects: DictObjects, catalog: Catalog) -> None:
    for id_ in (ID1, ID2, ID3):
        committed(objects, id_)
    assert catalog.find(parse_reference("db@20261101"), "web1", now=NOW).id == ID1
    assert catalog.find(parse_reference(f"db@{ID2}"), "web1", now=NOW).id == ID2


def test_an_ambiguous_prefix_lists_the_ids(objects: DictObjects, catalog: Catalog) -> None:
    for id_ in (ID1, ID2, ID3):
        committed(objects, id_)
    with pytest.raises(UsageError, match=f"{ID2}, {ID3}"):
        catalog.find(parse_reference("db@20261102"), "web1", now=NOW)


def test_an_unknown_prefix_names_what_there_is(objects: DictObjects, catalog: Catalog) -> None:
    committed(objects, ID1)
    with pytest.raises(NotFoundError) as caught:
        catalog.find(parse_reference("db@2025"), "web1", now=NOW)
    assert ID1 in str(caught.value.hint)


def test_a_volume_of_other_hosts_is_pointed_to(objects: DictObjects, catalog: Catalog) -> None:
    committed(objects, ID1, host="web2")
    with pytest.raises(NotFoundError) as caught:
        catalog.find(parse_reference("db@2026"), "web1", now=NOW)
    assert "web2/db@2026" in str(caught.value.hint)
    assert catalog.find(parse_reference("web2/db"), "web1", now=NOW).host == "web2"


def test_a_damaged_latest_is_not_skipped_and_the_one_before_is_named(objects: DictObjects, catalog: Catalog) -> None:
    first, second = committed(objects, ID1), committed(objects, ID2)
    damage(objects, second)
    with pytest.raises(FormatError, match=ID2) as caught:
        catalog.find(parse_reference("db"), "web1", now=NOW)
    reference = str(caught.value.hint).rsplit(maxsplit=1)[-1]
    assert catalog.find(parse_reference(reference), "elsewhere", now=NOW) == first


def test_a_later_format_asks_for_a_newer_volback(objects: DictObjects, catalog: Catalog) -> None:
    damage(objects, committed(objects, ID1), reseal(format=2, id=ID1))
    with pytest.raises(FormatError, match="format 2") as caught:
        catalog.find(parse_reference("db"), "web1", now=NOW)
    assert "newer volback" in str(caught.value.hint)


def test_litter_is_what_has_no_manifest(objects: DictObjects, catalog: Catalog) -> None:
    committed(objects, ID1)
    begun = key_of(store(objects, ID2))
    catalog.ensure_repository(lambda: "uuid")
    objects.put("notes/of/someone/else", [b""])
    assert catalog.litter() == [begun.prefix]
    catalog.remove_litter(begun.prefix)
    assert catalog.litter() == []
    assert len(catalog.backups()) == 1


def test_what_a_manifest_lists_is_not_litter_without_its_own(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    lost, user = first.key, committed(objects, ID2, **needing(first))
    objects.delete(lost.manifest)
    used = {user.key_of(used) for used in user.uses}
    catalog.remove_litter(lost.prefix)
    assert used <= objects.held.keys()
    assert catalog.litter() == []
    catalog.remove([key_of(user)])
    assert objects.held == {}


def test_nothing_is_litter_while_a_manifest_is_unreadable(objects: DictObjects, catalog: Catalog) -> None:
    begun, damaged = key_of(store(objects, ID1)), key_of(committed(objects, ID2))
    objects.held[damaged.manifest] = b"{}"
    before = dict(objects.held)
    assert catalog.litter() == []
    with pytest.raises(IntegrityError, match=f"unknown what web1/db@{ID2} needs"):
        catalog.remove_litter(begun.prefix)
    assert objects.held == before
    catalog.remove([damaged])
    catalog.remove_litter(begun.prefix)
    assert objects.held == {}


def test_a_backup_is_never_removed_as_litter(objects: DictObjects, catalog: Catalog) -> None:
    key = key_of(committed(objects, ID1))
    before = dict(objects.held)
    with pytest.raises(ConflictError):
        catalog.remove_litter(key.prefix)
    for prefix in ("", "web1/", key.prefix[:-1], key.data):
        with pytest.raises(UsageError):
            catalog.remove_litter(prefix)
    assert objects.held == before


def test_remove_takes_the_manifest_first_and_leaves_nothing(objects: DictObjects, catalog: Catalog) -> None:
    kept, manifest = committed(objects, ID1), committed(objects, ID2)
    key = key_of(manifest)
    objects.put(key.prefix + "verified.json", [b"{}"])
    removed = Removed()
    catalog.remove([key], removed=removed)
    assert objects.deleted == [key.manifest, key.data, key.index, key.prefix + "verified.json"] == removed.objects
    assert removed.backups == [key]
    assert [stored.key for stored in objects.list(key.prefix)] == []
    assert list(catalog.manifests()) == [kept]


def test_what_others_use_of_a_removed_backup_stays_until_none_does(objects: DictObjects, catalog: Catalog) -> None:
    parent = committed(objects, ID1)
    child = committed(objects, ID2, parent=ID1, **needing(parent))
    grandchild = committed(objects, ID3, parent=ID2, **needing(child, parent))
    catalog.remove([parent.key])
    assert {stored.key for stored in objects.list(parent.key.prefix)} == {parent.data_key}
    catalog.remove([child.key])
    assert [key.id for key in catalog.backups()] == [ID3]
    assert objects.held.keys() == {parent.data_key, child.data_key, *grandchild.references, grandchild.key.manifest}
    catalog.remove([grandchild.key])
    assert objects.held == {}


def test_several_at_once_take_what_they_alone_use(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    second = committed(objects, ID2, **needing(first))
    third = committed(objects, ID3, **needing(second))
    catalog.remove([first.key, second.key])
    assert objects.held.keys() == {second.data_key, third.data_key, third.key.index, third.key.manifest}


def test_what_a_backup_in_progress_has_stored_stays(objects: DictObjects, catalog: Catalog) -> None:
    first, begun = committed(objects, ID1), store(objects, ID2)
    catalog.remove([first.key])
    assert objects.held.keys() == {begun.data_key, begun.key.index}


def test_other_volumes_and_hosts_use_nothing_of_a_backup(objects: DictObjects, catalog: Catalog) -> None:
    for host, volume in [("web1", "db"), ("web2", "db"), ("web1", "db2")]:
        first = committed(objects, ID1, volume, host)
        committed(objects, ID2, volume, host, **(needing(first) if host == "web2" or volume == "db2" else {}))
    key = BackupKey("web1", "db", ID1)
    catalog.remove([key])
    assert list(objects.list(key.prefix)) == []
    assert list(objects.list(BackupKey("web2", "db", ID1).prefix)) != []


@pytest.mark.parametrize("damaged_id", [ID1, ID2])
def test_nothing_is_removed_while_another_manifest_is_unreadable(
    objects: DictObjects, catalog: Catalog, damaged_id: str
) -> None:
    first = committed(objects, ID1)
    second = committed(objects, ID2, **needing(first))
    wanted, damaged = (second, first) if damaged_id == ID1 else (first, second)
    damage(objects, damaged)
    with pytest.raises(IntegrityError, match=damaged_id):
        catalog.remove([wanted.key])
    assert objects.deleted == []
    catalog.remove([damaged.key, wanted.key])
    assert objects.held == {}


def test_the_rest_of_a_damaged_backup_stays_if_others_use_it(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    second = committed(objects, ID2, **needing(first))
    damage(objects, first)
    catalog.remove([first.key])
    assert objects.held.keys() == {first.data_key, *second.references, second.key.manifest}


def test_a_backup_that_is_committed_while_its_parent_is_removed_keeps_what_it_uses(
    objects: DictObjects, catalog: Catalog
) -> None:
    """Another machine commits it after the manifests were read, and before they are listed again."""
    first = committed(objects, ID1)
    increment = store(objects, ID2, parent=ID1, **needing(first))
    delete = objects.delete

    def commit_first(key: str) -> None:
        objects.delete = delete  # type: ignore[method-assign]
        Catalog(objects).commit(increment)
        delete(key)

    needs = catalog.references("web1", "db")
    objects.delete = commit_first  # type: ignore[method-assign]
    catalog.remove([first.key], needs)
    assert objects.held.keys() == {first.data_key, *increment.references, increment.key.manifest}


def test_a_backup_whose_parent_is_removed_as_it_is_committed_is_withdrawn(
    objects: DictObjects, catalog: Catalog
) -> None:
    """Another machine has listed the manifests before this one was there, and deletes what it uses."""
    first = committed(objects, ID1)
    increment = store(objects, ID2, parent=ID1, **needing(first))
    put = objects.put

    def put_last(key: str, chunks: Iterable[bytes], *, if_absent: bool = False) -> int:
        objects.put = put  # type: ignore[method-assign]
        catalog.remove([first.key])
        return put(key, chunks, if_absent=if_absent)

    objects.put = put_last  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="not committed") as caught:
        Catalog(objects).commit(increment)
    assert caught.value.hint == "run the backup again"
    assert catalog.backups() == []
    catalog.remove_litter(increment.key.prefix)
    assert objects.held == {}


def test_an_increment_is_not_committed_without_what_it_uses(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    increment = store(objects, ID2, parent=ID1, **needing(first))
    catalog.remove([first.key])
    with pytest.raises(IntegrityError, match="removed meanwhile"):
        catalog.commit(increment)
    assert catalog.backups() == []


def test_the_stored_manifest_opens_without_the_catalog(objects: DictObjects) -> None:
    manifest = committed(objects, ID1)
    data = objects.held[key_of(manifest).manifest]
    assert open_document(data, Manifest, "it") == manifest
    assert data == seal_document(manifest)
