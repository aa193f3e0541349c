"""A full backup, or one that reads every file, is due where the last one is too old: by ids and this clock."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from tests.support.counting import CountingStore
from tests.support.documents import MANIFEST
from tests.support.repository import IDS, make_backup, manifest_of
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.latest import SAFETY_TAG
from volback.operations.due import with_due
from volback.operations.parent import Comparing
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

DAY_S = 86_400.0
NOW = datetime(2026, 11, 10, 0, 0, 30, tzinfo=UTC)
"""Half a minute after the tenth of the backups that have an id."""


@pytest.fixture
def repository() -> Repository:
    """A full backup on the 1st, an increment of it on each day until the 9th; that of the 5th read every file."""
    store = MemoryStore("test")
    first = make_backup(store, IDS[0], data_bytes=1000)
    for id_ in IDS[1:9]:
        key = make_backup(store, id_, data_bytes=1000, depends_on=[first.id])
        made = msgspec.structs.replace(manifest_of(store, key), parent=first.id, reread=id_ == IDS[4])
        store.delete(key.manifest)
        Catalog(store).commit(made)
    return Repository(store, lambda: "web1", lambda: NOW)


def test_each_manifest_is_read_once_for_both_questions(repository: Repository) -> None:
    counting = CountingStore(repository.store)
    counted = Repository(counting, lambda: "web1", lambda: NOW)
    assert _due(counted, Comparing(full_every_s=10 * DAY_S, reread_every_s=4 * DAY_S)) == (False, True)
    manifests = [read.key for read in counting.reads if read.key.endswith("manifest.json")]
    assert sorted(manifests) == [BackupKey("web1", "db", id_).manifest for id_ in IDS[5:9]]


def _due(repository: Repository, comparing: Comparing, engine_id: str = MANIFEST.engine_id) -> tuple[bool, bool]:
    found = with_due(repository, repository.catalog.backups("web1", "db"), engine_id, comparing)
    return found.full, found.reread


@pytest.mark.parametrize(
    ("comparing", "expected"),
    [
        (Comparing(), (False, False)),
        (Comparing(full_every_s=8 * DAY_S), (True, False)),
        (Comparing(full_every_s=10 * DAY_S), (False, False)),
        (Comparing(full=True, full_every_s=10 * DAY_S), (True, False)),
        (Comparing(reread_every_s=4 * DAY_S), (False, True)),
        (Comparing(reread_every_s=6 * DAY_S), (False, False)),
        (Comparing(reread=True, reread_every_s=6 * DAY_S), (False, True)),
        (Comparing(full_every_s=8 * DAY_S, reread_every_s=4 * DAY_S), (True, False)),
    ],
)
def test_the_last_one_of_its_kind_decides(
    repository: Repository, comparing: Comparing, expected: tuple[bool, bool]
) -> None:
    assert _due(repository, comparing) == expected


def test_a_full_backup_has_read_every_file(repository: Repository) -> None:
    key = make_backup(repository.store, IDS[8].replace("aaaa", "bbbb"), data_bytes=1000)
    assert manifest_of(repository.store, key).kind == "full"
    assert _due(repository, Comparing(full_every_s=2 * DAY_S, reread_every_s=2 * DAY_S)) == (False, False)


def test_one_in_two_passes_that_uses_no_other_counts_as_full(repository: Repository) -> None:
    """It is an increment in form only."""
    store = repository.store
    key = make_backup(store, IDS[8].replace("aaaa", "bbbb"), data_bytes=1000, depends_on=[IDS[0]])
    made = msgspec.structs.replace(manifest_of(store, key), uses=[])
    store.delete(key.manifest)
    Catalog(store).commit(made)
    assert (made.kind, made.parent) == ("incremental", None)
    assert _due(repository, Comparing(full_every_s=2 * DAY_S)) == (False, False)


def test_one_that_stood_alone_counts_also_when_it_was_removed(repository: Repository) -> None:
    """What is left of it is used: it is not older than that."""
    repository.catalog.remove([BackupKey("web1", "db", IDS[0])])
    for every_s, is_due in ((8 * DAY_S, True), (10 * DAY_S, False)):
        assert _due(repository, Comparing(full_every_s=every_s)) == (is_due, False)
    repository.catalog.remove([BackupKey("web1", "db", IDS[4])])
    assert _due(repository, Comparing(reread_every_s=10 * DAY_S)) == (False, False)


@pytest.mark.parametrize("how", ["engine", "safety", "future", "damaged"])
def test_what_is_no_backup_of_this_line_and_time_does_not_count(repository: Repository, how: str) -> None:
    store = repository.store
    id_ = IDS[20] if how == "future" else IDS[8].replace("aaaa", "bbbb")
    engine_id = "ANOTHER" if how == "engine" else MANIFEST.engine_id
    key = make_backup(store, id_, data_bytes=1000, engine_id=engine_id)
    if how == "safety":
        made = msgspec.structs.replace(manifest_of(store, key), tags=[SAFETY_TAG])
        store.delete(key.manifest)
        Catalog(store).commit(made)
    if how == "damaged":
        store.put(key.manifest, [b"{"])
    assert _due(repository, Comparing(full_every_s=2 * DAY_S)) == (True, False)
