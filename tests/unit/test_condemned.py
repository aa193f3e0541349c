"""Two-phase removal: what nobody references is condemned first where other machines may use it, and deleted later."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.machines import HOUR, Clock, Machine, bucket_of
from tests.support.repository import IDS, make_backup, objects_of
from volback.catalog.condemned import GRACE_S, Condemnation, judge
from volback.catalog.keys import BackupKey, condemned_key, parse_backup_key, parse_condemned_key, parse_manifest_key
from volback.catalog.repository import Catalog
from volback.errors import NotFoundError
from volback.operations.usage import usage
from volback.policy.keep import KeepRules
from volback.store.base import Store

KEEP_ALL = KeepRules(last=100)


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
    assert [volume.backups_there for volume in usage(repository, []).volumes] == [1]
    assert here.prune().half_made == ()
