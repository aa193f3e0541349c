"""Machines that remove, prune, back up and read in one bucket at the same time, at every point of one another.

A step is a call of the bucket. Whatever another machine does before it, and wherever a process is killed: each backup
that is listed has all its data afterwards, also when the grace time is over and everything has been pruned again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.support.machines import HOUR, Clock, Killed, Machine, StepStore, assert_whole, bucket_of
from tests.support.repository import IDS, make_backup, manifest_of
from tests.unit.test_golden import FORMAT_1
from volback.catalog.condemned import GRACE_S
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.errors import IntegrityError
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.open_backup import OpenBackup
from volback.policy.keep import KeepRules
from volback.store.base import Store

KEEP_ALL = KeepRules(last=100)
FIRST, SECOND = IDS[:2]


class Setting:
    """A bucket, two machines, and a first backup."""

    def __init__(self, directory: Path, number: int, wrong_by: int = 0) -> None:
        self.clock = Clock()
        self.bucket = bucket_of(self.clock)
        self.here = Machine(directory / f"here{number}", self.bucket, self.clock)
        self.there = Machine(directory / f"there{number}", self.bucket, self.clock, wrong_by * HOUR)
        self.first = make_backup(self.bucket, FIRST, data_bytes=5000)

    def begun(self, id_: str = SECOND, *uses: str) -> tuple[Manifest, list[Manifest]]:
        """Data and index of a backup that is not committed yet, and what keeps what it uses."""
        key = make_backup(self.bucket, id_, data_bytes=5000, depends_on=list(uses))
        manifest = manifest_of(self.bucket, key)
        self.bucket.delete(key.manifest)
        parents = [manifest_of(self.bucket, BackupKey("web1", "db", used)) for used in uses]
        return manifest, parents

    def later(self) -> None:
        """Time passes, and both machines prune: whatever was condemned is decided on."""
        for machine in (self.there, self.here):
            self.clock.pass_(25)
            machine.prune(KEEP_ALL)
            assert_whole(self.bucket)


def commit(store: Store, manifest: Manifest, keepers: list[Manifest]) -> bool:
    """Whether it was committed."""
    try:
        Catalog(store).commit(manifest, kept_by=keepers)
    except IntegrityError:
        return False
    return True


def every_step(run: Callable[[int], StepStore]) -> int:
    """Run for each step, until the run has fewer; return how many there were."""
    for at in count():
        if run(at).calls <= at:
            return at
    raise AssertionError


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and state directories are written a thousand times."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(params=[-1, 0, 1], ids=["an hour behind", "right", "an hour ahead"])
def wrong_by(request: pytest.FixtureRequest) -> int:
    """The clock of the other machine."""
    return int(request.param)


# a backup is committed


@pytest.mark.parametrize("grace_s", [0, GRACE_S])
def test_a_backup_whose_parent_is_removed_at_any_step(tmp_path: Path, wrong_by: int, grace_s: int) -> None:
    committed = set[bool]()

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at, wrong_by)
        manifest, keepers = with_.begun(SECOND, FIRST)

        def removed() -> None:
            with_.there.remove(FIRST, grace_s=grace_s)
            with_.there.prune(KEEP_ALL, grace_s=grace_s)

        store = StepStore(with_.bucket, at, removed)
        committed.add(commit(store, manifest, keepers))
        with_.later()
        return store

    assert every_step(run) >= 5
    assert committed == ({True} if grace_s else {True, False})


def test_a_backup_that_is_killed_while_its_parent_is_removed(tmp_path: Path) -> None:
    """Also between its manifest and its second look."""
    points = 0
    for at in count():
        with_ = Setting(tmp_path, 1000 * at)
        manifest, keepers = with_.begun(SECOND, FIRST)
        commit(counted := StepStore(with_.bucket, 1000, None), manifest, keepers)
        if at >= counted.calls:
            break
        for removed_at in range(at + 1):
            points += 1
            with_ = Setting(tmp_path, 1000 * at + removed_at + 1)
            manifest, keepers = with_.begun(SECOND, FIRST)
            other = StepStore(with_.bucket, removed_at, lambda with_=with_: with_.there.remove(FIRST))  # type: ignore[misc]
            with pytest.raises(Killed):
                Catalog(StepStore(other, at, None)).commit(manifest, kept_by=keepers)
            with_.later()
    assert points >= 30


def test_a_backup_that_took_so_long_that_its_parents_data_may_be_deleted_by_now_fails(tmp_path: Path) -> None:
    with_ = Setting(tmp_path, 0)
    manifest, keepers = with_.begun(SECOND, FIRST)
    with_.there.remove(FIRST)
    with_.clock.pass_(17)
    assert commit(with_.bucket, manifest, keepers)
    with_.later()
    manifest, keepers = with_.begun(IDS[2], SECOND)
    with_.there.remove(SECOND)
    with_.clock.pass_(19)
    with pytest.raises(IntegrityError, match="another machine condemned web1/db/202611") as caught:
        Catalog(with_.bucket).commit(manifest, kept_by=keepers)
    assert caught.value.hint is not None
    assert Catalog(with_.bucket).backups() == []


# a first upload that takes longer than the grace time


@pytest.mark.parametrize(("hours", "is_committed"), [(25, True), (41, True), (43, False), (72, False)])
def test_a_first_upload_longer_than_the_grace_time(
    tmp_path: Path, wrong_by: int, hours: int, is_committed: bool
) -> None:
    """The other machine prunes each hour."""
    with_ = Setting(tmp_path, 0, wrong_by)
    manifest, _ = with_.begun()
    with_.clock.now = with_.clock.now.replace(day=int(SECOND[6:8]) + 1)
    for stored in list(with_.bucket.list(manifest.key.prefix)):
        with_.bucket.put(stored.key, list(with_.bucket.open(stored.key)))  # now
    for hour in range(hours):
        with_.there.prune(KEEP_ALL)
        assert (hour < 25) <= (with_.bucket.stat(manifest.data_key).size_bytes > 0)
        with_.clock.pass_(1)
        if hour > 44:
            break
    assert commit(with_.bucket, manifest, []) == is_committed
    with_.later()


def test_what_a_suspended_upload_has_stored_is_deleted_at_each_step_of_its_commit(tmp_path: Path) -> None:
    """The machine sleeps for two days, at any step."""
    committed = set[bool]()

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        manifest, _ = with_.begun()

        def slept() -> None:
            for _ in range(2):
                with_.clock.pass_(30)
                with_.there.prune(KEEP_ALL)

        store = StepStore(with_.bucket, at, slept)
        committed.add(commit(store, manifest, []))
        with_.later()
        return store

    assert every_step(run) >= 5
    assert committed == {True, False}


def test_what_a_running_upload_has_stored_is_condemned_at_each_step_of_its_commit(tmp_path: Path) -> None:
    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        manifest, _ = with_.begun()
        with_.clock.pass_(30)
        store = StepStore(with_.bucket, at, lambda: with_.there.prune(KEEP_ALL))
        assert commit(store, manifest, [])
        with_.later()
        assert Catalog(with_.bucket).backups() == [with_.first, manifest.key]
        return store

    assert every_step(run) >= 5


# prunes


def dying(with_: Setting, at: int, prune: Callable[[Store], object]) -> StepStore:
    store = StepStore(with_.bucket, at, None)
    with suppress(Killed):
        prune(store)
    return store


@pytest.mark.parametrize("hours", [0, 25], ids=["that condemns", "that deletes"])
def test_a_prune_that_is_killed_at_any_step(tmp_path: Path, hours: int) -> None:
    """Nothing is lost, and later prunes free what it would have freed."""

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        kept = [make_backup(with_.bucket, id_, data_bytes=5000, depends_on=[FIRST]) for id_ in IDS[1:3]]
        if hours:
            with_.there.prune()
            with_.clock.pass_(hours)
        store = dying(with_, at, lambda store: with_.here.prune(store=store))
        assert_whole(with_.bucket)
        with_.there.prune()
        with_.later()
        assert Catalog(with_.bucket).backups() == kept[1:]
        left = {stored.key for stored in with_.bucket.list("web1/")}
        assert left == {with_.first.data, *manifest_of(with_.bucket, kept[1]).references, kept[1].manifest}
        return store

    assert every_step(run) >= 12


@pytest.mark.parametrize("hours", [0, 25], ids=["that condemns", "that deletes"])
def test_two_prunes_at_the_same_time(tmp_path: Path, wrong_by: int, hours: int) -> None:
    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at, wrong_by)
        kept = [make_backup(with_.bucket, id_, data_bytes=5000) for id_ in IDS[1:3]]
        if hours:
            with_.there.prune()
            with_.clock.pass_(hours)
        store = StepStore(with_.bucket, at, with_.there.prune)
        with_.here.prune(store=store)
        assert_whole(with_.bucket)
        with_.later()
        assert Catalog(with_.bucket).backups() == kept[1:]
        assert {key.id for key in Catalog(with_.bucket).holdings()} == {kept[1].id}
        assert Catalog(with_.bucket).condemned("web1", "db") == {}
        return store

    assert every_step(run) >= 10


def test_what_a_removal_has_just_condemned_is_not_deleted_by_a_prune_that_saw_it_condemned_long_ago(
    tmp_path: Path,
) -> None:
    """A condemnation of something that was referenced again is old when that is removed: a restore still reads it."""

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        Catalog(with_.bucket).condemn([with_.first.data], GRACE_S)
        with_.clock.pass_(25)
        store = StepStore(with_.bucket, at, lambda: with_.there.remove(FIRST))
        with_.here.prune(KEEP_ALL, store=store)
        assert with_.bucket.stat(with_.first.data).size_bytes == 5000
        return store

    assert every_step(run) >= 5


# readers


def golden_bucket(clock: Clock) -> Store:
    store = bucket_of(clock)
    for path in FORMAT_1.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(FORMAT_1)), [path.read_bytes()])
    return store


def test_a_restore_or_verify_of_a_backup_that_is_removed_meanwhile_reads_all_of_it(tmp_path: Path) -> None:
    """Until the grace time is over."""
    clock = Clock()
    newest = max(Catalog(golden_bucket(clock)).backups("golden-host"))
    whole = hashlib.sha256(b"".join(map(bytes, opened(golden_bucket(clock), newest).stream()))).hexdigest()

    def run(at: int) -> StepStore:
        bucket = golden_bucket(clock)
        other = Machine(tmp_path / f"other{at}", bucket, clock, host="golden-host")

        def removed() -> None:
            for key in Catalog(bucket).backups("golden-host", newest.volume):
                other.remove(f"{newest.volume}@{key.id}")
            clock.pass_(23)
            other.prune(KEEP_ALL)

        store = StepStore(bucket, at + 1, removed)  # once its manifest was read
        backup = opened(store, newest)
        assert hashlib.sha256(b"".join(map(bytes, backup.stream()))).hexdigest() == whole
        store.calls -= 1
        return store

    assert every_step(run) >= 4


def opened(store: Store, key: BackupKey) -> OpenBackup:
    return OpenBackup(store, Catalog(store).read(BackupKey(key.host, key.volume, key.id, 1)))


# copies


def test_a_backup_that_was_removed_is_copied_again_while_its_data_is_deleted(tmp_path: Path) -> None:
    done = set[str]()

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        source = Machine(tmp_path / f"source{at}", bucket_of(with_.clock), with_.clock)
        make_backup(source.store, FIRST, data_bytes=5000)
        with_.here.remove(FIRST)
        with_.clock.pass_(25)
        store = StepStore(with_.bucket, at, lambda: with_.there.prune(KEEP_ALL))
        ctx, _, target = with_.here.library(store)
        (item,) = plan_copies(source.library().repository, target, [f"db@{FIRST}"])
        try:
            done.add(copy_backup(ctx, source.library().repository, target, item).done)
        except IntegrityError:
            assert copy_backup(ctx, source.library().repository, target, item).done == "copied"
        with_.later()
        assert Catalog(with_.bucket).backups() == [with_.first]
        return store

    assert every_step(run) >= 10
    assert done == {"copied"}


@pytest.mark.parametrize("grace_s", [0, GRACE_S])
def test_a_removed_backup_is_copied_again_whole_at_each_step_of_the_prune_that_deletes_its_data(
    tmp_path: Path, grace_s: int
) -> None:
    """Also between its last look at an object and the deletion: then the copy sees that it is being deleted."""
    done = set[str]()

    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        source = Machine(tmp_path / f"source{at}", bucket_of(with_.clock), with_.clock)
        make_backup(source.store, FIRST, data_bytes=5000)
        with_.here.remove(FIRST)
        with_.clock.pass_(25)

        def copied() -> None:
            with_.clock.pass_(0.01)
            ctx, _, target = with_.here.library()
            (item,) = plan_copies(source.library().repository, target, [f"db@{FIRST}"])
            try:
                done.add(copy_backup(ctx, source.library().repository, target, item).done)
            except IntegrityError as exc:
                done.add("failed" if "may be deleting it by now" in exc.message else exc.message)

        store = StepStore(with_.bucket, at, copied)
        assert with_.there.prune(KEEP_ALL, grace_s=grace_s, store=store).errors == ()
        assert_whole(with_.bucket)
        with_.clock.pass_(1)
        copied()
        assert Catalog(with_.bucket).backups() == [with_.first]
        with_.later()
        assert [info.key for info in with_.bucket.list("web1/db/condemned/")] == []
        return store

    assert every_step(run) >= 10
    assert done == {"copied", "skipped", "failed"}


def test_what_a_killed_prune_was_deleting_is_copied_again_a_day_later(tmp_path: Path) -> None:
    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        source = Machine(tmp_path / f"source{at}", bucket_of(with_.clock), with_.clock)
        make_backup(source.store, FIRST, data_bytes=5000)
        with_.here.remove(FIRST)
        with_.clock.pass_(25)
        store = dying(with_, at, lambda store: with_.there.prune(KEEP_ALL, store=store))
        ctx, _, target = with_.here.library()
        (item,) = plan_copies(source.library().repository, target, [f"db@{FIRST}"])
        with suppress(IntegrityError):
            copy_backup(ctx, source.library().repository, target, item)
        assert_whole(with_.bucket)
        with_.clock.pass_(25)
        if not Catalog(with_.bucket).backups():
            assert copy_backup(ctx, source.library().repository, target, item).done == "copied"
        with_.later()
        assert Catalog(with_.bucket).backups() == [with_.first]
        return store

    assert every_step(run) >= 10


def test_what_is_removed_while_it_is_copied_is_copied_whole(tmp_path: Path) -> None:
    def run(at: int) -> StepStore:
        with_ = Setting(tmp_path, at)
        make_backup(with_.bucket, SECOND, data_bytes=5000, depends_on=[FIRST])
        target = Machine(tmp_path / f"target{at}", bucket_of(with_.clock), with_.clock)

        def removed() -> None:
            with_.there.remove(SECOND)
            with_.clock.pass_(20)
            with_.there.prune(KEEP_ALL)

        store = StepStore(with_.bucket, 1000, None)
        ctx, _, source = with_.here.library(store)
        items = plan_copies(source, target.library().repository, [f"db@{FIRST}", f"db@{SECOND}"])
        store._act, store._at = removed, store.calls + at
        for item in items:
            assert copy_backup(ctx, source, target.library().repository, item).done == "copied"
        assert_whole(target.store)
        assert len(Catalog(target.store).backups()) == 2
        store.calls -= store._at - at
        return store

    assert every_step(run) >= 4
