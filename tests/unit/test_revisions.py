"""Revisions of a manifest: the highest valid one counts, a damaged one hides none, and what any lists is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.documents import MANIFEST
from tests.unit.test_catalog_repository import ID1, ID2, ID3, DictObjects, committed, needing, store
from volback.catalog.keys import BackupKey, index_name, is_object_id, is_object_name, object_id, parse_manifest_key
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.reference import parse_reference
from volback.catalog.repository import Catalog
from volback.catalog.space import Removed
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import FormatError, IntegrityError, NotFoundError
from volback.latest import created_at
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.memory import MemoryStore

NOW = created_at("20261201T000000Z-0000")


@pytest.fixture
def objects() -> DictObjects:
    return DictObjects()


@pytest.fixture
def catalog(objects: DictObjects) -> Catalog:
    return Catalog(objects)


def revised(objects: DictObjects, made: Manifest, number: int = 2, **changes: Any) -> Manifest:
    """Commit a later revision of a backup, which has an index of its own."""
    later = msgspec.structs.replace(made, number=number, **changes)
    objects.put(later.index_key, [b"index"])
    Catalog(objects).commit(later, kept_by=[made])
    return later


def damage(objects: DictObjects, manifest: Manifest) -> None:
    objects.held[manifest.manifest_key] = objects.held[manifest.manifest_key][:-9]


def test_names_of_objects_say_the_revision() -> None:
    first = ("data.tar.zst", "data.zst", "index.jsonl.zst")
    assert {object_id(ID1, name) for name in first} == {ID1}
    assert [object_id(ID1, name) for name in ("data.2.zst", "index.12.jsonl.zst")] == [f"{ID1}.2", f"{ID1}.12"]
    assert all(map(is_object_id, [ID1, f"{ID1}.2", f"{ID1}.10"]))
    for text in (".", ".0", ".1", ".02", ".tar", ".2.3", ".2 ", "\n"):
        assert not is_object_id(ID1 + text)
    for name in ("data.1.zst", "data.tar.2.zst", "index.1.jsonl.zst", "../data.zst", "manifest.json", ""):
        assert not is_object_name(name)
    assert index_name(1) == "index.jsonl.zst"


def test_every_revision_is_a_manifest_of_its_backup() -> None:
    key = BackupKey("web1", "db", ID1)
    for revision, name in ((1, "manifest.json"), (2, "manifest.2.json"), (30, "manifest.30.json")):
        found = parse_manifest_key(key.prefix + name)
        assert found == key
        assert found is not None
        assert (found.revision, found.manifest_of(revision)) == (revision, key.prefix + name)
    for name in ("manifest.1.json", "manifest.02.json", "manifest.2.json.x", "manifest..json", "notes.json"):
        assert parse_manifest_key(key.prefix + name) is None


def test_the_highest_revision_counts(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    later = revised(objects, first, 2)
    last = revised(objects, later, 10)
    assert [key.revision for key in catalog.backups()] == [10]
    assert list(catalog.manifests("web1", "db")) == [last]
    assert list(catalog.revisions("web1", "db")) == [first, later, last]
    assert catalog.find(parse_reference("db"), "web1", now=NOW) == last
    assert catalog.read(BackupKey("web1", "db", ID1)) == last
    assert last.index_key.endswith("index.10.jsonl.zst")
    assert b'"revision": 10' in objects.held[last.manifest_key]
    assert b"revision" not in objects.held[first.manifest_key]


def test_a_manifest_is_read_with_one_request_where_a_listing_names_the_revision(
    objects: DictObjects, catalog: Catalog
) -> None:
    later = revised(objects, committed(objects, ID1))
    committed(objects, ID2)
    keys = catalog.backups("web1", "db")
    objects.opened.clear()
    assert catalog.read(keys[0]) == later
    assert objects.opened == [later.manifest_key]
    objects.opened.clear()
    assert len(list(catalog.manifests())) == 2
    assert len(objects.opened) == 2


def test_a_backup_exists_as_long_as_any_revision_does(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    later = revised(objects, first)
    objects.delete(first.manifest_key)
    assert (catalog.backups(), catalog.exists(first.key)) == ([first.key], True)
    assert catalog.litter() == []
    objects.delete(later.manifest_key)
    assert (catalog.backups(), catalog.exists(first.key)) == ([], False)
    assert catalog.litter() == [first.key.prefix]


def test_a_revision_that_was_replaced_while_it_was_read_is_looked_up_again(
    objects: DictObjects, catalog: Catalog
) -> None:
    first = committed(objects, ID1)
    key = catalog.backups()[0]
    later = revised(objects, first)
    objects.delete(first.manifest_key)
    assert catalog.read(key) == later
    objects.delete(later.manifest_key)
    with pytest.raises(NotFoundError, match="holds no backup"):
        catalog.read(key)


def test_a_damaged_revision_does_not_hide_the_one_before(
    objects: DictObjects, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    first = committed(objects, ID1)
    damage(objects, revised(objects, first))
    assert list(catalog.manifests()) == [first]
    assert catalog.read(first.key) == first
    assert catalog.read(BackupKey("web1", "db", ID1)) == first
    assert "manifest.2.json is cut short" in caplog.text
    assert "an earlier revision of it is used" in caplog.text
    assert [type(one) for one in catalog.revisions()] == [Manifest, DamagedManifest]


def test_where_no_revision_is_valid_the_backup_is_damaged(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    later = revised(objects, first)
    damage(objects, first)
    damage(objects, later)
    (found,) = catalog.manifests()
    assert isinstance(found, DamagedManifest)
    assert found.key == later.manifest_key
    with pytest.raises(FormatError, match=r"manifest\.2\.json"):
        catalog.read(catalog.backups()[0])


def test_what_a_damaged_revision_lists_is_unknown_so_nothing_is_deleted(objects: DictObjects, catalog: Catalog) -> None:
    first, other = committed(objects, ID1), committed(objects, ID2)
    damage(objects, revised(objects, first))
    with pytest.raises(IntegrityError, match="stays, as nothing of its volume is deleted"):
        catalog.remove([other.key])
    assert catalog.exists(other.key)
    catalog.remove([first.key])
    assert [key.id for key in catalog.backups()] == [ID2]


def test_what_any_revision_lists_stays_while_it_is_there(objects: DictObjects, catalog: Catalog) -> None:
    full = committed(objects, ID1)
    increment = committed(objects, ID2, parent=ID1, **needing(full))
    revised(objects, increment, uses=[])
    catalog.remove([full.key])
    assert full.data_key in objects.held
    objects.delete(increment.manifest_key)
    assert catalog.litter() == [full.key.prefix]


def test_a_removal_deletes_all_revisions_the_one_that_counts_last(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    later = revised(objects, first)
    last = revised(objects, later, 10)
    removed = Removed()
    catalog.remove([first.key], removed=removed)
    assert objects.deleted[:3] == [first.manifest_key, later.manifest_key, last.manifest_key]
    assert removed.backups == [first.key]
    assert objects.held == {}


def test_a_backup_holds_whose_parent_was_repacked_and_keeps_what_it_uses(
    objects: DictObjects, catalog: Catalog
) -> None:
    full = committed(objects, ID1)
    parent = committed(objects, ID2, parent=ID1, **needing(full))
    child = store(objects, ID3, parent=ID2, **needing(full, parent))
    revised(objects, parent)
    objects.delete(parent.manifest_key)
    catalog.commit(child, kept_by=[parent])
    assert catalog.exists(child.key)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_backup_fails_whose_parent_was_repacked_and_keeps_it_no_more(
    objects: DictObjects, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    full = committed(objects, ID1)
    parent = committed(objects, ID2, parent=ID1, **needing(full))
    child = store(objects, ID3, parent=ID2, **needing(full, parent))

    def repack() -> None:
        revised(objects, parent, uses=[])
        objects.delete(parent.manifest_key)

    if when == "before":
        repack()
    else:
        put = objects.put

        def put_then_repack(key: str, chunks: Any, *, if_absent: bool = False) -> int:
            size = put(key, chunks, if_absent=if_absent)
            if key == child.manifest_key:
                monkeypatch.undo()
                repack()
            return size

        monkeypatch.setattr(objects, "put", put_then_repack)
    with pytest.raises(IntegrityError, match=f"it needs what {ID2} uses, and that was removed meanwhile"):
        catalog.commit(child, kept_by=[parent])
    assert not catalog.exists(child.key)


def test_what_a_manifest_may_not_say_of_its_revision(objects: DictObjects, catalog: Catalog) -> None:
    first = committed(objects, ID1)
    objects.held[first.key.manifest_of(2)] = objects.held[first.manifest_key]
    assert [type(one) for one in catalog.revisions()] == [Manifest, DamagedManifest]
    for number in (-1, 0, 1_000_000):
        with pytest.raises(FormatError, match=f"says that it is revision {number}"):
            catalog.commit(msgspec.structs.replace(first, number=number))


@pytest.mark.parametrize(
    ("used", "says"),
    [
        (UsedObject(id=ID1, name="../data.zst", size_bytes=4, used_bytes=1), "is not an object of a backup"),
        (UsedObject(id=ID2, name="data.zst", size_bytes=4, used_bytes=1), "names its own data.zst"),
        (UsedObject(id=ID2, name="index.2.jsonl.zst", size_bytes=4, used_bytes=1), "names its own index.2.jsonl.zst"),
        (UsedObject(id=ID1, name="data.2.zst", size_bytes=4, used_bytes=1, oldest="x"), "uses data of 'x'"),
    ],
)
def test_what_a_revision_may_not_use(objects: DictObjects, catalog: Catalog, used: UsedObject, says: str) -> None:
    made = store(objects, ID2)
    with pytest.raises(FormatError, match=says):
        catalog.commit(msgspec.structs.replace(made, number=2, kind="incremental", uses=[used]))


def test_a_revision_may_use_what_came_with_an_earlier_one(objects: DictObjects) -> None:
    first = committed(objects, ID1, kind="incremental")
    objects.put(first.key.prefix + "data.2.zst", [b"data"])
    repacked = UsedObject(id=ID1, name="data.2.zst", size_bytes=4, used_bytes=4, oldest="20250101T000000Z-0000")
    old_index = UsedObject(id=ID1, name="index.jsonl.zst", size_bytes=5, used_bytes=4)
    later = revised(objects, first, uses=[repacked, old_index])
    assert later.depends_on == []
    assert repacked.since == "20250101T000000Z-0000"
    assert [used.object_id for used in later.usable] == [ID1, f"{ID1}.2", f"{ID1}.2", ID1]
    assert later.references == [
        first.data_key, later.index_key, first.key.prefix + "data.2.zst", first.index_key,
    ]  # fmt: skip


def test_verify_names_a_damaged_revision(tmp_path: Path) -> None:
    objects = MemoryStore("revisions")
    catalog = Catalog(objects)
    catalog.ensure_repository(lambda: "0" * 32)
    first = msgspec.structs.replace(MANIFEST, id=ID1, data=ObjectDigest(size_bytes=4, sha256=MANIFEST.digest))
    objects.put(first.data_key, [b"data"])
    for made in (first, msgspec.structs.replace(first, number=2)):
        objects.put(made.index_key, [bytes(50)])
        catalog.commit(made, kept_by=[])
    objects.put(first.key.manifest_of(2), [b"{"])
    ctx = Context(Settings("memory://revisions", tmp_path), now=lambda: NOW)
    result = verify(ctx, Repository(objects, lambda: "web1"), [])
    assert (result.checked, result.intact) == (1, 0)
    assert result.damaged[0].object == first.key.manifest_of(2)
