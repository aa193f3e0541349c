"""Prune on real repositories without an engine: struck at each step, locks, damage, half-made backups, two hosts."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.halt import struck
from tests.support.library import Library, open_from
from tests.support.repository import make_backup, manifest_of, objects_of
from tests.support.s3 import S3Server, open_uploads
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.errors import ConflictError, IntegrityError, LockedError, NotFoundError, StoreError, UsageError
from volback.operations import remove
from volback.operations.prune import prune
from volback.operations.prune_result import PruneResult
from volback.operations.remove import RemovedBackups
from volback.operations.verify import verify
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.state.journal import NewBackup
from volback.state.locks import lock
from volback.state.runs import Run
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore

EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
IDS = [f"202610{day:02}T020000Z-aaaa" for day in range(1, 9)]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
LAST_2 = KeepRules(last=2)


class Place:
    """A repository, and a state directory of this machine."""

    def __init__(self, directory: Path) -> None:
        self.store = LocalStore(directory / "repository")
        self.state = directory / "state"

    def make(
        self, *ids: str, volume: str = "db", host: str = "web1", depends_on: Sequence[str] = ()
    ) -> list[BackupKey]:
        return [
            make_backup(self.store, id_, volume=volume, host=host, data_bytes=5000, depends_on=list(depends_on))
            for id_ in ids
        ]

    def library(self, host: str = "web1") -> Library:
        settings = Settings(self.store.url, self.state, engine="unix:///nonexistent", host=host)
        return open_from(settings, now=lambda: NOW)

    def prune(self, rules: KeepRules = LAST_2, **options: object) -> PruneResult:
        return prune(*self.library(), rules, **options)  # type: ignore[arg-type]

    def remove(self, id_: str) -> RemovedBackups:
        library = self.library()
        (done,) = remove.remove(*library, remove.find_all(library.repository, [f"db@{id_}"]))
        return done

    def size_bytes(self, volume: str = "db") -> int:
        """Of all that lies there of a volume."""
        return sum(stored.size_bytes for stored in self.store.list(f"web1/{volume}/"))

    def ids(self, volume: str = "db", host: str = "web1") -> list[str]:
        return [key.id for key in Catalog(self.store).backups(host, volume)]

    def assert_nothing_is_left(self) -> None:
        """Neither of a backup that was half removed nor of a run."""
        assert Catalog(self.store).litter() == []
        assert list((self.state / "runs").iterdir()) == []

    def half_make(self, id_: str, *, hours: float, host: str = "web1") -> BackupKey:
        """Leave the data of a backup without its manifest, written that long ago."""
        key = BackupKey(host, "db", id_)
        self.store.put(key.data, [b"x" * 700])
        self.age(key.data, hours)
        return key

    def age(self, key: str, hours: float) -> None:
        time = (NOW - timedelta(hours=hours)).timestamp()
        os.utime(Path(self.store.url) / key, (time, time))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]
)
def test_struck_between_any_two_deletes_a_second_run_finishes(number: signal.Signals, tmp_path: Path) -> None:
    """Two of three backups go, which alone use what another one has stored that was removed before.

    Whatever is listed is whole; what was half removed is swept, however young.
    """
    log = tmp_path / "log"
    assert _struck(_chain(tmp_path / "first"), number, 0, log=log) == 0
    steps = [
        (step, name) for step, name in enumerate(log.read_text().splitlines(), 1) if "before LocalStore.delete" in name
    ]
    assert len(steps) == 2 + 1 + 2 + 2
    for step, name in [*steps, (steps[-1][0] + 1, "after the last"), (steps[0][0] - 1, "after the journal")]:
        place = _chain(tmp_path / f"at-{step}")
        assert _struck(place, number, step) == EXIT[number], name
        assert place.ids() in (IDS[1:4], [IDS[1], IDS[3]], [IDS[3]]), name
        assert verify(place.library().ctx, place.library().repository, []).damaged == [], name
        if number != signal.SIGKILL:
            place.assert_nothing_is_left()
        place.prune(KeepRules(last=1), older_than_s=1e9)
        assert place.ids() == [IDS[3]], name
        assert {stored.key.split("/")[2] for stored in place.store.list("web1/")} == {IDS[3]}, name
        place.assert_nothing_is_left()


def _chain(directory: Path) -> Place:
    """A full backup that was removed, two that use its data, and another full one."""
    place = Place(directory)
    place.make(IDS[0])
    place.make(IDS[1], IDS[2], depends_on=[IDS[0]])
    place.make(IDS[3])
    place.remove(IDS[0])
    return place


def _struck(place: Place, number: int, step: int, log: Path | None = None) -> int:
    env = {"VOLBACK_HOSTNAME": "web1", "DOCKER_HOST": "unix:///nonexistent"} | ({"STRIKE_LOG": str(log)} if log else {})
    return struck(Volback(place.state.parent, set()), number, step, "prune", "--keep-last", "1", env=env)


def test_an_interrupted_prune_says_what_it_has_removed(place: Place) -> None:
    place.make(*IDS[:4])
    library = place.library().on(FaultStore(place.store, [FailCall("delete", StoreError("denied"), nth=5)]))
    before = place.size_bytes()
    result = prune(*library, LAST_2)
    assert [(judged.key.id, judged.is_kept) for judged in result.judged] == [
        (IDS[3], True), (IDS[2], True), (IDS[1], False), (IDS[0], False)
    ]  # fmt: skip
    assert [error.message for error in result.errors] == ["denied"]
    assert place.ids() == IDS[2:4]
    assert 0 < result.freed_bytes == before - place.size_bytes()
    assert place.prune().errors == ()
    place.assert_nothing_is_left()


def test_what_could_not_be_removed_is_said(place: Place) -> None:
    place.make(*IDS[:4])
    library = place.library().on(FaultStore(place.store, [FailCall("delete", StoreError("denied"), nth=2)]))
    result = prune(*library, LAST_2)
    assert place.ids() == [IDS[0], *IDS[2:4]]
    assert result.judged[-1].reasons == ["could not be removed"]
    assert place.prune().errors == ()
    place.assert_nothing_is_left()


def test_each_volume_is_a_group_of_its_own(place: Place) -> None:
    place.make(*IDS[:4])
    place.make(*IDS[:3], volume="web")
    place.make(*IDS, host="web2")
    result = place.prune()
    assert (place.ids(), place.ids("web"), place.ids(host="web2")) == (IDS[2:4], IDS[1:3], IDS)
    assert sum(not judged.is_kept for judged in result.judged) == 3
    assert result.freed_bytes > 3 * (5000 + 5000)
    assert place.prune().freed_bytes == 0


def test_a_named_volume_alone_is_pruned(place: Place) -> None:
    place.make(*IDS[:4])
    place.make(*IDS[:4], volume="web")
    place.make(*IDS[:4], host="web2")
    place.prune(volumes=["web", "web2/db"])
    assert (place.ids(), place.ids("web"), place.ids(host="web2")) == (IDS[:4], IDS[2:4], IDS[2:4])


def test_all_hosts(place: Place) -> None:
    place.make(*IDS[:4])
    place.make(*IDS[:4], host="web2")
    place.prune(all_hosts=True)
    assert (place.ids(), place.ids(host="web2")) == (IDS[2:4], IDS[2:4])


def test_a_dry_run_changes_nothing(place: Place) -> None:
    place.make(*IDS[:4])
    half = place.half_make(IDS[0][:-4] + "bbbb", hours=30)
    result = place.prune(dry_run=True)
    assert place.ids() == IDS[:4]
    assert [judged.key.id for judged in result.judged if not judged.is_kept] == [IDS[1], IDS[0]]
    assert [(found.key, found.stored_bytes) for found in result.half_made] == [(half, 700)]
    assert objects_of(place.store, half)
    assert not (place.state / "runs").exists()
    assert place.prune().freed_bytes == result.freed_bytes


def test_a_locked_volume_is_reported_and_does_not_stop_the_others(place: Place) -> None:
    keys = place.make(*IDS[:4])
    place.make(*IDS[:4], volume="web")
    with lock(place.state, f"{manifest_of(place.store, keys[0]).engine_id}-db", "volume 'db'"):
        result = place.prune()
    assert [type(error) for error in result.errors] == [LockedError]
    assert (place.ids(), place.ids("web")) == (IDS[:4], IDS[2:4])


def test_a_policy_that_would_remove_everything_is_refused_for_that_volume(place: Place) -> None:
    place.make(*IDS[:4])
    result = place.prune(KeepRules(tags=("gold",)))
    assert [type(error) for error in result.errors] == [ConflictError]
    assert place.ids() == IDS[:4]
    with pytest.raises(UsageError, match="no rule"):
        place.prune(KeepRules())


def test_a_volume_without_backups_and_one_backup_are_not_volumes_to_prune(place: Place) -> None:
    place.make(*IDS[:4])
    result = place.prune(volumes=["nothing", "db"])
    assert [type(error) for error in result.errors] == [NotFoundError]
    assert place.ids() == IDS[2:4]
    with pytest.raises(UsageError, match="names one backup"):
        place.prune(volumes=[f"db@{IDS[0]}"])


@pytest.mark.parametrize("damage", ["data missing", "data short", "index missing"])
def test_a_damaged_backup_stays_counts_for_nothing_and_is_reported(place: Place, damage: str) -> None:
    *_, newest = place.make(*IDS[:4])
    what, how = damage.split()
    path = Path(place.store.url) / getattr(newest, what)
    path.write_bytes(path.read_bytes()[:100]) if how == "short" else path.unlink()
    result = place.prune()
    assert place.ids() == IDS[1:4]
    assert [newest.id in warning and "is damaged" in warning for warning in result.warnings] == [True]


def test_an_unreadable_manifest_keeps_all_of_its_volume_and_no_other(place: Place) -> None:
    keys = place.make(*IDS[:6])
    place.make(*IDS[:3], volume="web")
    (Path(place.store.url) / keys[2].manifest).write_bytes(b"garbage")
    result = place.prune()
    assert place.ids("web") == IDS[1:3]
    assert place.ids() == IDS[:6]
    assert [f"manifest of backup web1/db@{IDS[2]} cannot be read" in warning for warning in result.warnings] == [True]
    place.remove(IDS[2])
    assert place.prune().warnings == []
    assert place.ids() == IDS[4:6]


def test_what_kept_backups_use_stays_and_nothing_else(place: Place) -> None:
    place.make(IDS[0], IDS[1])
    place.make(IDS[2], depends_on=[IDS[0]])
    (last,) = place.make(IDS[3], depends_on=[IDS[0], IDS[2]])
    for dry_run in (True, False):
        before = place.size_bytes()
        result = place.prune(KeepRules(last=1), dry_run=dry_run)
        freed, stays = result.freed_bytes, result.still_used_bytes
    assert (freed, stays) == (before - place.size_bytes(), 2 * 5000)
    assert place.ids() == [IDS[3]]
    used = {manifest_of(place.store, last).key_of(used) for used in manifest_of(place.store, last).uses}
    assert {stored.key for stored in place.store.list("web1/db/")} == {*used, *objects_of(place.store, last)}
    library = place.library()
    assert verify(library.ctx, library.repository, []).damaged == []
    assert place.prune(KeepRules(last=1), older_than_s=0).freed_bytes == 0, "nothing of it is half-made"
    place.make(IDS[4])
    before = place.size_bytes()
    assert place.prune(KeepRules(last=1)).freed_bytes == before - place.size_bytes()
    assert place.ids() == [IDS[4]]
    assert place.size_bytes() == sum(map(len, objects_of(place.store, BackupKey("web1", "db", IDS[4])).values()))
    place.assert_nothing_is_left()


def test_a_dry_run_says_what_is_freed(place: Place) -> None:
    place.make(IDS[0])
    place.make(IDS[1], depends_on=[IDS[0]])
    place.make(IDS[2], depends_on=[IDS[0], IDS[1]])
    place.prune(KeepRules(last=1))
    place.make(IDS[3])
    said = [place.prune(KeepRules(last=1), dry_run=dry_run) for dry_run in (True, False)]
    assert said[0].freed_bytes == said[1].freed_bytes > 2 * 5000
    assert (said[0].still_used_bytes, said[1].still_used_bytes) == (0, 0)


def test_remove_says_what_it_has_freed(place: Place) -> None:
    place.make(IDS[0])
    place.make(IDS[1], depends_on=[IDS[0]])
    for id_ in IDS[:2]:
        before = place.size_bytes()
        done = place.remove(id_)
        assert done.names == [f"web1/db@{id_}"]
        assert 0 < done.freed_bytes == before - place.size_bytes()
    assert place.size_bytes() == 0
    place.assert_nothing_is_left()


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_removal_that_fails_leaves_whole_backups_and_the_next_run_ends_it(place: Place, nth: int) -> None:
    """The removed ones use what a backup has stored that was removed before, and alone."""
    place.make(IDS[0])
    place.make(IDS[1], depends_on=[IDS[0]])
    place.make(IDS[2], depends_on=[IDS[0], IDS[1]])
    place.remove(IDS[0])
    place.make(IDS[3])
    faults = FaultStore(place.store, [FailCall("delete", StoreError("denied"), nth=nth)])
    assert [error.message for error in prune(*place.library().on(faults), KeepRules(last=1)).errors] == ["denied"]
    library = place.library()
    assert verify(library.ctx, library.repository, []).damaged == []
    assert place.prune(KeepRules(last=1), older_than_s=1e9).errors == ()
    assert place.ids() == [IDS[3]]
    assert place.size_bytes() == sum(map(len, objects_of(place.store, BackupKey("web1", "db", IDS[3])).values()))
    place.assert_nothing_is_left()


def test_half_made_backups_older_than_a_day_are_swept(place: Place) -> None:
    place.make(*IDS[:2])
    old = place.half_make("20261030T000000Z-bbbb", hours=30)
    young_by_id = place.half_make("20261031T220000Z-bbbb", hours=1)
    written_lately = place.half_make("20261001T000000Z-bbbb", hours=2)  # a copy of an old backup, under way elsewhere
    elsewhere = place.half_make("20261030T000000Z-bbbb", hours=30, host="web2")
    result = place.prune()
    assert [(found.key, found.stored_bytes) for found in result.half_made] == [(old, 700)]
    assert result.freed_bytes == 700
    assert Catalog(place.store).litter() == [written_lately.prefix, young_by_id.prefix, elsewhere.prefix]
    place.prune(older_than_s=5400)
    assert Catalog(place.store).litter() == [young_by_id.prefix, elsewhere.prefix]
    place.prune(all_hosts=True)
    assert Catalog(place.store).litter() == [young_by_id.prefix]


def test_data_of_a_lost_backup_that_another_one_uses_stays(place: Place) -> None:
    lost, user = *place.make(IDS[0]), *place.make(IDS[1], depends_on=IDS[:1])
    place.store.delete(lost.manifest)
    for stored in objects_of(place.store, lost):
        place.age(stored, 99)
    before = {used.name for used in manifest_of(place.store, user).uses}
    place.prune()
    assert before <= {key.rpartition("/")[2] for key in objects_of(place.store, lost)}


def test_half_made_backups_stay_while_a_manifest_is_unreadable_and_it_is_said(place: Place) -> None:
    (key,) = place.make(IDS[0])
    place.store.put(key.manifest, [b"{}"])
    begun = place.half_make("20261001T000000Z-bbbb", hours=99)
    elsewhere = place.make(IDS[0], volume="web")[0]
    place.store.put(BackupKey("web1", "web", begun.id).data, [b"x"])
    place.age(BackupKey("web1", "web", begun.id).data, 99)
    for dry_run in (True, False):
        result = place.prune(dry_run=dry_run)
        assert [found.key.volume for found in result.half_made] == [elsewhere.volume]
        assert [f"web1/db@{IDS[0]} cannot be read" in warning for warning in result.warnings] == [True]
    assert place.store.stat(begun.data).size_bytes == 700
    Catalog(place.store).remove([key])
    assert [found.key for found in place.prune().half_made] == [begun]


def test_a_half_made_backup_of_a_living_run_stays_however_old(place: Place) -> None:
    place.make(IDS[0])
    ours = place.half_make("20261001T000000Z-bbbb", hours=99)
    entry = NewBackup(repository=place.store.url, prefix=ours.prefix)
    with Run(place.state, "backup") as run, run.begun(entry):
        assert place.prune().half_made == ()
    assert [found.key for found in place.prune().half_made] == [ours]


def test_abandoned_temp_files_are_swept_and_those_of_living_writers_stay(place: Place) -> None:
    place.make(IDS[0])
    key = BackupKey("web1", "db", "20261001T000000Z-bbbb")
    temp = Path(place.store.url) / key.prefix / ".tmp-0123456789abcdef~"
    temp.parent.mkdir()
    temp.write_bytes(b"x" * 10)
    place.age(f"{key.prefix}{temp.name}", 30)
    result = place.prune()
    assert [(found.key, found.uploads) for found in result.half_made] == [(key, 1)]
    assert not temp.parent.exists()

    def slow() -> object:
        yield b"x"
        for held in Path(place.store.url).rglob(".tmp-*"):
            os.utime(held, (0, 0))
        assert place.prune().half_made == ()
        yield b"y"

    place.store.put(key.data, slow())  # type: ignore[arg-type]
    assert objects_of(place.store, key) == {key.data: b"xy"}


def test_a_commit_whose_objects_were_swept_is_refused(place: Place) -> None:
    """What a prune elsewhere can do to an upload of more than a day: no backup comes to be that is not whole."""
    (key,) = place.make(IDS[0])
    manifest = manifest_of(place.store, key)
    place.store.delete(key.manifest)
    for name in objects_of(place.store, key):
        place.age(name, 30)
    assert [found.key for found in place.prune().half_made] == [key]
    with pytest.raises(IntegrityError, match="not committed"):
        Catalog(place.store).commit(manifest)
    assert place.ids() == []


def test_an_upload_to_s3_that_never_ended_is_swept_by_its_age(
    radosgw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in radosgw.environment().items():
        monkeypatch.setenv(name, value)
    with radosgw.bucket() as bucket:
        place = Place(tmp_path)
        store = radosgw.store(bucket)
        library = open_from(replace(place.library().ctx.settings, repository=store.url)).on(store)
        make_backup(store, IDS[0], data_bytes=5000)
        ours, theirs = (BackupKey(host, "db", IDS[1]) for host in ("web1", "web2"))
        for key in (ours, theirs):
            radosgw.client().create_multipart_upload(Bucket=bucket, Key=key.data)
        assert prune(*library, LAST_2, older_than_s=0).half_made == ()  # it is not older than the grace time
        swept = prune(*library, LAST_2, older_than_s=0, grace_s=0).half_made
        assert [(found.key, found.uploads) for found in swept] == [(ours, 1)]
        assert [key for key, _ in open_uploads(radosgw.client(), bucket)] == [theirs.data]
        assert [
            found.key for found in prune(*library, LAST_2, older_than_s=0, grace_s=0, all_hosts=True).half_made
        ] == [theirs]
        assert open_uploads(radosgw.client(), bucket) == []


def fill_up(directory: Path) -> None:
    with (directory / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(512)):
            pass


def test_room_is_made_on_a_full_disk_that_the_journal_is_on_too(mount_small: Callable[[int], Path]) -> None:
    place = Place(mount_small(200_000))
    place.make(*IDS[:3])
    fill_up(place.state.parent)
    place.remove(IDS[0])
    assert place.ids() == IDS[1:3]
    fill_up(place.state.parent)
    assert place.prune(KeepRules(last=1)).errors == ()
    assert place.ids() == IDS[2:3]


def test_a_journal_that_is_cut_short_by_a_full_disk_does_not_take_the_place_of_the_one_before(tmp_path: Path) -> None:
    """The kernel writes what still fits, and only the next write fails."""
    with Run(tmp_path, "backup") as run:
        before = (run.directory / "journal.json").read_bytes()
        entries = [NewBackup(repository="r", prefix=f"{number:0200}") for number in range(50)]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(StoreError, match="File too large"):
                run.note(*entries)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (run.directory / "journal.json").read_bytes() == before
        assert run.journal.entries == []
