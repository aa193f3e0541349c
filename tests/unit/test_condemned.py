"""Two-phase removal: what nobody references is condemned first where other machines may use it, and deleted later."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.machines import HOUR, Clock, Machine, StepStore, assert_whole, bucket_of
from tests.support.repository import IDS, make_backup, manifest_of, objects_of
from volback.catalog.condemned import GRACE_S, Condemnation, judge
from volback.catalog.keys import (
    BackupKey,
    condemned_key,
    is_deleting_key,
    parse_backup_key,
    parse_condemned_key,
    parse_manifest_key,
)
from volback.catalog.repository import Catalog
from volback.errors import IntegrityError, NotFoundError, ObjectLocked, StoreDenied, StoreError
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.usage import usage
from volback.policy.keep import KeepRules
from volback.state.journal import Kind, NewBackup
from volback.state.runs import Run
from volback.store.base import Buffer, Store, Unfinished, Wrapper
from volback.store.faults import FailCall, FaultStore

KEEP_ALL = KeepRules(last=100)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and state directories are written a thousand times."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket(clock: Clock) -> Store:
    return bucket_of(clock)


@pytest.fixture
def here(tmp_path: Path, bucket: Store, clock: Clock) -> Machine:
    return Machine(tmp_path / "here", bucket, clock)


@pytest.fixture(params=[-1, 0, 1], ids=["an hour behind", "right", "an hour ahead"])
def there(tmp_path: Path, bucket: Store, clock: Clock, request: pytest.FixtureRequest) -> Machine:
    """Another machine, whose clock may be wrong."""
    return Machine(tmp_path / "there", bucket, clock, wrong_by=request.param * HOUR)


def keys(bucket: Store, prefix: str = "web1/db/") -> set[str]:
    return {stored.key for stored in bucket.list(prefix) if parse_condemned_key(stored.key) is None}


def condemned(bucket: Store) -> set[str]:
    return set(Catalog(bucket).condemned("web1", "db"))


def own(key: BackupKey) -> set[str]:
    return {key.data, key.index}


# the keys of condemnations


@pytest.mark.parametrize("name", ["data.tar.zst", "data.zst", "data.2.zst", "index.jsonl.zst", "any/thing"])
@pytest.mark.parametrize("grace_s", [0, 1, GRACE_S, 999_999_999])
def test_a_condemnation_names_its_object_and_belongs_to_no_backup(name: str, grace_s: int) -> None:
    key = BackupKey("wéb", "/srv/db", IDS[0]).prefix + name
    assert parse_condemned_key(condemned_key(key, grace_s)) == (key, grace_s)
    assert parse_backup_key(condemned_key(key, grace_s)) is None
    assert parse_manifest_key(condemned_key(key, grace_s)) is None
    assert not condemned_key(key, grace_s).endswith(".zst")  # else it would be encrypted


@pytest.mark.parametrize(
    "key",
    [
        f"web1/db/{IDS[0]}/data.zst", f"web1/db/condemned/{IDS[0]}/data.zst", f"web1/db/condemned/{IDS[0]}/data.zst.01",
        f"web1/db/condemned/{IDS[0]}/data.zst.-1", f"web1/db/condemned/{IDS[0]}.5", "web1/db/condemned/x/data.zst.5",
        f"web1/db/condemned/{IDS[0]}/data.zst.1234567890", f"web1/condemned/{IDS[0]}/data.zst.5", "",
    ],
)  # fmt: skip
def test_other_keys_condemn_nothing(key: str) -> None:
    assert parse_condemned_key(key) is None


# removal in two phases


def test_a_removal_deletes_the_manifest_and_condemns_the_data(here: Machine, bucket: Store, clock: Clock) -> None:
    key = make_backup(bucket, data_bytes=5000)
    size = sum(stored.size_bytes for stored in bucket.list(key.prefix) if stored.key in own(key))
    done = here.remove(key.id)
    assert Catalog(bucket).backups() == []
    assert keys(bucket) == own(key) == condemned(bucket)
    assert (done.freed_bytes > 0, done.condemned_bytes, done.until) == (True, size, clock.now + 24 * HOUR)


def test_a_prune_deletes_what_was_condemned_for_the_grace_time(
    here: Machine, there: Machine, bucket: Store, clock: Clock
) -> None:
    gone, kept = (make_backup(bucket, id_, data_bytes=5000) for id_ in IDS[:2])
    pruned = here.prune()
    size = sum(stored.size_bytes for stored in bucket.list(gone.prefix))
    assert [(found.objects, found.stored_bytes, found.until) for found in pruned.condemned] == [
        (2, size, clock.now + 24 * HOUR)
    ]
    assert pruned.condemned_bytes == size
    clock.pass_(23.9)
    before = there.prune()
    assert (before.condemned_bytes, before.freed_bytes) == (size, 0)
    assert own(gone) <= keys(bucket)
    clock.pass_(0.1)
    after = there.prune()
    assert (after.condemned, after.freed_bytes) == ((), size)
    assert keys(bucket) == {kept.manifest, *own(kept)}
    assert [stored.key for stored in bucket.list("web1/db/condemned/")] == []


@pytest.mark.parametrize("nth", range(1, 4))
def test_a_prune_that_fails_half_way_says_what_is_condemned_and_the_next_one_goes_on(
    here: Machine, bucket: Store, clock: Clock, nth: int
) -> None:
    for id_ in IDS[:4]:
        make_backup(bucket, id_, data_bytes=10)
    failing = FaultStore(bucket, [FailCall("delete", StoreError("the bucket fails"), nth=nth, key="web1/db/2*")])
    result = here.prune(store=failing)
    assert [error.message for error in result.errors] == ["the bucket fails"]
    assert sum(one.objects for one in result.condemned) == len(condemned(bucket)) == 2 * (nth - 1)
    assert result.left_backups == 4 - nth
    assert_whole(bucket)
    assert here.prune().errors == ()
    clock.pass_(25)
    assert here.prune().errors == ()
    assert [key.id for key in Catalog(bucket).backups()] == [IDS[3]]
    assert condemned(bucket) == set()


def test_what_is_deleted_is_listed_first_in_lists_of_bounded_length(
    here: Machine, bucket: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volback.catalog.condemned._LISTED_AT_ONCE", 3)
    gone = [make_backup(bucket, id_, data_bytes=10) for id_ in IDS[:3]]
    make_backup(bucket, IDS[3], data_bytes=10)
    here.prune()
    clock.pass_(25)
    noting = _Noting(bucket)
    assert here.prune(store=noting).errors == ()
    lists = [call.split("\n") for call in noting.calls if call.startswith("web1/db/2")]
    assert [len(names) for names in lists] == [3, 3]
    assert {name for names in lists for name in names} == {name for key in gone for name in own(key)}
    deleted = [call.removeprefix("delete ") for call in noting.calls if call.startswith("delete web1/db/2")]
    assert sorted(deleted[:3]) == sorted(lists[0]), "not before they are listed"
    assert [stored.key for stored in bucket.list("web1/db/condemned/")] == []


class _Noting(Wrapper):
    """Notes what is deleted, and the lists of it."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: list[str] = []

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        data = [bytes(chunk) for chunk in chunks]
        if is_deleting_key(key):
            self.calls.append(b"".join(data).decode())
        return self._inner.put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self.calls.append(f"delete {key}")
        self._inner.delete(key)


@pytest.mark.parametrize("listed", ["this", "another", "too long"])
def test_what_is_on_a_list_of_a_prune_is_not_committed(
    bucket: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.setattr("volback.catalog.condemned._LIST_MAX_BYTES", 100)
    key = make_backup(bucket, IDS[0], data_bytes=10)
    manifest, catalog = manifest_of(bucket, key), Catalog(bucket)
    bucket.delete(key.manifest)
    catalog.condemn(own(key), GRACE_S)
    said = {"this": key.data, "another": "web1/db/other/data.zst", "too long": "x" * 101}[listed]
    bucket.put("web1/db/condemned/deleting/0123", [said.encode()])
    if listed == "another":
        catalog.commit(manifest)
        assert catalog.backups() == [key]
        return
    with pytest.raises(IntegrityError, match=r"another machine condemned .*, and may be deleting it by now"):
        catalog.commit(manifest)
    clock.pass_(25)  # the prune is dead
    catalog.condemn(own(key), GRACE_S)
    catalog.commit(manifest)


def test_what_the_last_backup_of_a_volume_had_is_freed_too(here: Machine, bucket: Store, clock: Clock) -> None:
    make_backup(bucket, data_bytes=5000)
    here.remove(IDS[0])
    clock.pass_(24)
    assert here.prune(volumes=["db"]).errors == ()
    assert keys(bucket) == condemned(bucket) == set()
    assert isinstance(here.prune(volumes=["db"]).errors[0], NotFoundError)


def test_a_dry_run_says_what_would_be_condemned_and_freed(here: Machine, bucket: Store, clock: Clock) -> None:
    first, second, _ = (make_backup(bucket, id_, data_bytes=5000) for id_ in IDS[:3])
    here.remove(first.id)
    clock.pass_(25)
    before = {stored.key for stored in bucket.list()}
    dry = here.prune(dry_run=True)
    assert {stored.key for stored in bucket.list()} == before
    sizes = {stored.key: stored.size_bytes for stored in bucket.list()}
    done = here.prune()
    assert (dry.condemned_bytes, dry.freed_bytes, dry.condemned) == (
        done.condemned_bytes, done.freed_bytes, done.condemned
    )  # fmt: skip
    assert dry.condemned_bytes == sum(sizes[name] for name in own(second))


def test_a_local_filesystem_is_freed_at_once(tmp_path: Path, clock: Clock) -> None:
    from volback.store.memory import MemoryStore

    store = MemoryStore("disk", clock=lambda: clock.now)
    machine = Machine(tmp_path, store, clock)
    for id_ in IDS[:2]:
        make_backup(store, id_, data_bytes=5000)
    done = machine.prune()
    assert (done.condemned, done.condemned_bytes) == ((), 0)
    assert done.freed_bytes > 5000
    assert {key for key in keys(store) if IDS[0] in key} == condemned(store) == set()


def test_without_a_grace_time_a_prune_frees_at_once(here: Machine, bucket: Store) -> None:
    gone = make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    done = here.prune(grace_s=0)
    assert done.condemned == ()
    assert done.freed_bytes > 5000
    assert not own(gone) & keys(bucket)
    assert condemned(bucket) == set()


def test_without_a_grace_time_a_removal_frees_at_once_what_was_condemned_too(here: Machine, bucket: Store) -> None:
    for id_ in IDS[:2]:
        make_backup(bucket, id_, data_bytes=5000)
    size = sum(stored.size_bytes for stored in bucket.list("web1/db/"))
    before = here.remove(IDS[0])
    after = here.remove(IDS[1], grace_s=0)
    assert before.freed_bytes + after.freed_bytes == size
    assert (after.condemned_bytes, after.until) == (0, None)
    assert list(bucket.list("web1/")) == []


def test_what_others_use_is_not_condemned(here: Machine, bucket: Store) -> None:
    first = make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000, depends_on=[first.id])
    assert here.prune().still_used_bytes == 5000
    assert condemned(bucket) == {first.index}


def test_what_describes_a_removed_backup_goes_with_its_manifest(here: Machine, bucket: Store) -> None:
    key = make_backup(bucket, data_bytes=5000)
    bucket.put(key.prefix + "verified.json", [b"{}"])
    here.remove(key.id)
    assert keys(bucket) == own(key)


# the grace time


def test_the_grace_time_of_who_condemned_holds_for_a_prune_with_a_shorter_one_from_then_on(
    here: Machine, there: Machine, bucket: Store, clock: Clock
) -> None:
    """Who makes a backup relies on what the condemnation says, so it is written anew, with that time."""
    make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.prune()
    clock.pass_(2)
    (waiting,) = there.prune(grace_s=3600).condemned
    assert waiting.until == clock.now + HOUR
    assert len(list(bucket.list("web1/db/condemned/"))) == 2
    clock.pass_(1)
    assert here.prune().condemned  # its own grace time is longer
    assert there.prune(grace_s=3600).condemned == ()
    assert condemned(bucket) == set()


def test_a_short_rest_is_not_made_longer(here: Machine, there: Machine, bucket: Store, clock: Clock) -> None:
    make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.prune()
    clock.pass_(23.5)
    (waiting,) = there.prune(grace_s=3600).condemned
    assert waiting.until == clock.now + HOUR / 2


def test_no_grace_time_frees_what_waits_for_a_long_one(here: Machine, bucket: Store) -> None:
    gone = make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.prune()
    assert here.prune(grace_s=0).condemned == ()
    assert not own(gone) & keys(bucket)
    assert condemned(bucket) == set()


def test_verdicts() -> None:
    at = Clock().now
    found = {
        name: [Condemnation(condemned_key(name, grace_s), name, at - age * HOUR, grace_s) for age, grace_s in all_]
        for name, all_ in {
            "h/v/i/needed": [(48, GRACE_S)], "h/v/i/gone": [(48, GRACE_S)], "h/v/i/due": [(24, GRACE_S)],
            "h/v/i/new": [(23, GRACE_S)], "h/v/i/both": [(48, GRACE_S), (0, 3600)], "h/v/i/long": [(1, 7 * GRACE_S)],
        }.items()
    }  # fmt: skip
    there = found.keys() - {"h/v/i/gone"}
    verdicts = judge(found, there=there, needed={"h/v/i/needed"}, now=at, grace_s=GRACE_S)
    assert (verdicts.lift, verdicts.forget, verdicts.free) == (["h/v/i/needed"], ["h/v/i/gone"], ["h/v/i/due"])
    later = {"h/v/i/later": [Condemnation("", "h/v/i/later", at + HOUR, GRACE_S)]}
    assert judge(later, there=later, needed=(), now=at, grace_s=GRACE_S).wait == ["h/v/i/later"]
    assert (verdicts.shorten, verdicts.wait) == (["h/v/i/long"], ["h/v/i/new", "h/v/i/both"])


# referenced again


def test_a_condemnation_of_what_is_referenced_counts_for_nothing_and_is_lifted(
    here: Machine, bucket: Store, clock: Clock
) -> None:
    key = make_backup(bucket, data_bytes=5000)
    Catalog(bucket).condemn([key.data, key.index], GRACE_S)
    clock.pass_(48)
    done = here.prune(KEEP_ALL)
    assert (done.freed_bytes, done.condemned, done.warnings) == (0, (), [])
    assert condemned(bucket) == set()
    assert own(key) <= keys(bucket)


def test_a_condemnation_of_what_is_gone_is_removed(here: Machine, bucket: Store) -> None:
    key = make_backup(bucket, data_bytes=5000)
    Catalog(bucket).condemn([BackupKey("web1", "db", IDS[5]).data], GRACE_S)
    here.prune(KEEP_ALL)
    assert condemned(bucket) == set()
    assert len(objects_of(bucket, key)) == 3


def test_while_a_manifest_is_unreadable_what_is_condemned_stays(here: Machine, bucket: Store, clock: Clock) -> None:
    gone, kept = (make_backup(bucket, id_, data_bytes=5000) for id_ in IDS[:2])
    here.prune()
    clock.pass_(48)
    whole = b"".join(bucket.open(kept.manifest))
    bucket.put(kept.manifest, [whole[:-9]])
    done = here.prune()
    assert done.freed_bytes == 0
    assert [found.objects for found in done.condemned] == [2]
    assert any("cannot be read" in warning for warning in done.warnings)
    assert own(gone) <= keys(bucket)
    bucket.put(kept.manifest, [whole])
    assert here.prune().condemned == ()
    assert not own(gone) & keys(bucket)


def test_condemnations_do_not_confuse_what_looks_at_a_repository(here: Machine, bucket: Store, clock: Clock) -> None:
    first, second = (make_backup(bucket, id_, data_bytes=5000) for id_ in IDS[:2])
    here.prune()
    repository = here.library().repository
    assert repository.catalog.backups() == [second]
    assert set(repository.catalog.holdings()) == {first, second}
    (used,) = usage(repository, []).volumes
    condemned_bytes = sum(stored.size_bytes for stored in bucket.list(first.prefix))
    assert (used.backups_there, used.condemned_bytes) == (1, condemned_bytes)
    assert used.stored_bytes == condemned_bytes + sum(stored.size_bytes for stored in bucket.list(second.prefix))
    assert here.prune().half_made == ()


# object locks


class Locking(StepStore):
    """A bucket that refuses to delete some objects."""

    def __init__(self, inner: Store, locked: set[str], until: datetime | None = None) -> None:
        super().__init__(inner, -1, lambda: None)
        self.locked = locked
        self.until = until

    def delete(self, key: str) -> None:
        if key in self.locked:
            error = ObjectLocked(f"cannot delete {key!r}: an object lock keeps it")
            error.until = self.until
            raise error
        super().delete(key)


@pytest.mark.parametrize(
    ("until", "words"),
    [(datetime(2026, 12, 24, tzinfo=UTC), "until 2026-12-24 00:00:00 UTC"), (None, "until its retention ends")],
)
def test_what_an_object_lock_keeps_is_a_warning_and_goes_later(
    here: Machine, bucket: Store, clock: Clock, until: datetime | None, words: str
) -> None:
    gone = make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.prune()
    clock.pass_(25)
    locking = Locking(bucket, {gone.data}, until)
    done = here.prune(store=locking)
    assert done.errors == ()
    assert list(done.locked) == [gone.data]
    assert done.warnings == [f"{gone.data} stays {words}, as an object lock keeps it; a later prune removes it"]
    assert gone.index not in keys(bucket)
    locking.locked.clear()
    assert here.prune(store=locking).warnings == []
    assert not own(gone) & keys(bucket)


def test_a_backup_whose_manifest_is_locked_stays(here: Machine, bucket: Store, clock: Clock) -> None:
    stays, gone, _ = (make_backup(bucket, id_, data_bytes=5000) for id_ in IDS[:3])
    done = here.prune(store=Locking(bucket, {stays.manifest}))
    assert [(judged.key, judged.is_kept) for judged in done.judged][1:] == [(gone, False), (stays, True)]
    assert list(done.locked) == [stays.manifest]
    clock.pass_(25)
    here.prune(KEEP_ALL)
    assert_whole(bucket)
    assert Catalog(bucket).condemned("web1", "db") == {}


def test_condemnations_that_are_locked_do_no_harm(here: Machine, bucket: Store, clock: Clock) -> None:
    gone = make_backup(bucket, IDS[0], data_bytes=5000)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.prune()
    clock.pass_(25)
    locking = Locking(bucket, {condemned_key(name, GRACE_S) for name in own(gone)})
    assert here.prune(store=locking).freed_bytes > 5000
    assert here.prune(store=locking).warnings == []
    assert not own(gone) & keys(bucket)


# what dead runs left


def died(machine: Machine, kind: Kind, key: BackupKey) -> None:
    """A run of that kind died while it made something there."""
    repository = machine.library().repository
    run = Run(machine.state, kind)
    run.__enter__()
    run.note(NewBackup(repository=repository.store.url, repository_id=repository.id, prefix=key.prefix))
    os.close(run.lock_fd)


@pytest.mark.parametrize(("kind", "is_condemned"), [("backup", False), ("copy", True), ("remove", True)])
def test_what_a_dead_run_left_goes_at_once_only_if_no_other_machine_can_know_it(
    here: Machine, bucket: Store, kind: Kind, is_condemned: bool
) -> None:
    here.library()
    begun = BackupKey("web1", "db", IDS[0])
    bucket.put(begun.data, [b"data"])
    died(here, kind, begun)
    make_backup(bucket, IDS[1], data_bytes=5000)
    here.remove(IDS[1])
    assert (begun.data in keys(bucket)) == is_condemned
    assert (begun.data in condemned(bucket)) == is_condemned


def test_what_a_failed_copy_has_put_is_condemned(here: Machine, bucket: Store, clock: Clock, tmp_path: Path) -> None:
    source = Machine(tmp_path / "source", bucket_of(clock), clock)
    key = make_backup(source.store, data_bytes=5000)
    failing = FaultStore(bucket, [FailCall("put", StoreDenied("no"), key=key.manifest)])
    ctx, _, target = here.library(failing)
    (item,) = plan_copies(source.library().repository, target, [f"db@{key.id}"])
    with pytest.raises(StoreDenied):
        copy_backup(ctx, source.library().repository, target, item)
    assert condemned(bucket) == own(key)
    clock.pass_(40)
    ctx, _, target = here.library()
    assert copy_backup(ctx, source.library().repository, target, item).done == "copied"
    assert condemned(bucket) == set()
    assert_whole(bucket)


def test_a_key_that_may_not_list_knows_nothing_of_condemnations(bucket: Store) -> None:
    key = make_backup(bucket, data_bytes=5000)
    manifest = manifest_of(bucket, key)
    bucket.delete(key.manifest)
    denied = FaultStore(bucket, [FailCall("list", StoreDenied("no"), nth=None)])
    Catalog(denied).commit(manifest, kept_by=[])
    assert_whole(bucket)


def test_a_condemnation_that_cannot_be_lifted_does_not_fail_a_backup(bucket: Store) -> None:
    key = make_backup(bucket, data_bytes=5000)
    manifest = manifest_of(bucket, key)
    bucket.delete(key.manifest)
    Catalog(bucket).condemn([key.data], GRACE_S)
    denied = FaultStore(bucket, [FailCall("delete", StoreDenied("no"), nth=None)])
    Catalog(denied).commit(manifest, kept_by=[])
    assert condemned(bucket) == {key.data}
    assert_whole(bucket)


# unfinished uploads


class Uploading(StepStore):
    """A bucket with an unfinished upload."""

    def __init__(self, inner: Store, upload: Unfinished) -> None:
        super().__init__(inner, -1, lambda: None)
        self.uploads = [upload]

    def unfinished(self, prefix: str = "") -> list[Unfinished]:
        return [one for one in self.uploads if one.key.startswith(prefix)]

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> list[str]:
        assert older_than_s == 0.0
        swept = [one.key for one in self.uploads if one.key.startswith(prefix)]
        self.uploads = [one for one in self.uploads if one.key not in swept]
        return swept


def test_a_running_upload_is_condemned_when_it_is_older_than_the_grace_time_and_aborted_a_grace_time_later(
    there: Machine, bucket: Store, clock: Clock
) -> None:
    make_backup(bucket, IDS[0], data_bytes=5000)
    key = BackupKey("web1", "db", f"{clock.now:%Y%m%dT%H%M%SZ}-aaaa")
    store = Uploading(bucket, Unfinished(key.data, clock.now))
    seen = []
    for hour in range(52):
        done = there.prune(KEEP_ALL, store=store, older_than_s=0)
        seen.append((bool(done.half_made), len(done.condemned), len(store.uploads)))
        if hour == 24:
            assert [(found.key, found.is_condemned, found.uploads) for found in done.half_made] == [(key, True, 1)]
        clock.pass_(1)
    assert seen == [(False, 0, 1)] * 24 + [(True, 1, 1)] + [(False, 1, 1)] * 23 + [(False, 0, 0)] * 4
    assert condemned(bucket) == set()
