"""Repack in one bucket, while another machine backs up, prunes and removes there, and where a process is killed.

A step is a call of the bucket. Whatever another machine does before it, each backup that is listed is what it was, also
when the grace time is over and everything has been pruned again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.library import Library
from tests.support.machines import HOUR, Clock, Killed, Machine, StepStore
from tests.support.nights import id_of, key_of, make_nights, put_all, remove, stream_of
from tests.support.stored import HOST, VOLUME, commit_next
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.errors import IntegrityError
from volback.operations.check import check
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.open_backup import OpenBackup
from volback.operations.repack import RepackResult, repack
from volback.operations.repack_plan import Packing
from volback.operations.verify import verify_all
from volback.policy.keep import KeepRules
from volback.store.base import Store
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

LEFT = (3, 4)
LONG = pytest.mark.long
KEEP_ALL = KeepRules(last=100)


class _Made:
    """The backups of some nights in a bucket: of three nothing is left but what others use."""

    def __init__(self, directory: Path) -> None:
        self.volume = directory / "volume"
        self.objects = MemoryStore("nights")
        repository = make_nights(directory, self.objects, 5, files=24)
        remove(repository, [0, 1, 2])
        found = [one for one in repository.catalog.manifests() if isinstance(one, Manifest)]
        self.streams = {one.id: stream_of(self.objects, one) for one in found}
        self.streams[id_of(5)] = self.streams[id_of(4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _Made(tmp_path_factory.mktemp("nights"))


class _Setting:
    """The bucket, and two machines, whose clocks differ by an hour."""

    def __init__(self, made: _Made, directory: Path, number: int) -> None:
        self.made = made
        self.clock = Clock()
        self.bucket = MemoryStore("bucket", clock=lambda: self.clock.now, is_shared=True)
        put_all(self.bucket, made.objects)
        self.here = Machine(directory / f"here{number}", self.bucket, self.clock, host=HOST)
        self.there = Machine(directory / f"there{number}", self.bucket, self.clock, HOUR, host=HOST)

    def repack(self, store: Store | None = None) -> RepackResult:
        return repack(*self.here.library(store), Packing())

    def back_up(self) -> None:
        """Another machine makes the next increment."""
        ctx, _, repository = self.there.library()
        commit_next(ctx, repository, id_of(5), self.made.volume)

    def assert_whole(self) -> None:
        for manifest in Catalog(self.bucket).manifests():
            assert isinstance(manifest, Manifest)
            assert stream_of(self.bucket, manifest) == self.made.streams[manifest.id]
        assert check(Repository(self.bucket, lambda: HOST)).wrong == []

    def later(self, rules: KeepRules = KEEP_ALL) -> None:
        """Time passes, and both machines prune, and repack what is left to do, until nothing is condemned any more."""
        self.assert_whole()
        for machine in (self.there, self.here):
            self.clock.pass_(25)
            result = machine.prune(rules, packing=Packing())
            assert (result.errors, result.interrupted) == ((), None)
            self.assert_whole()
        self.clock.pass_(25)
        assert self.here.prune(rules).errors == ()
        self.assert_whole()

    def assert_clean(self) -> None:
        catalog = Catalog(self.bucket)
        needed = catalog.references(HOST, VOLUME).users.keys()
        assert {info.key for info in self.bucket.list() if "/" in info.key} == needed
        assert check(Repository(self.bucket, lambda: HOST)).findings == ()


def _steps(made: _Made, directory: Path) -> int:
    setting = _Setting(made, directory, -1)
    counting = StepStore(setting.bucket, -1, lambda: None)
    assert setting.repack(counting).errors == ()
    return counting.calls


def test_a_repack_in_a_bucket_condemns_what_it_replaces(made: _Made, tmp_path: Path) -> None:
    setting = _Setting(made, tmp_path, 0)
    (done,) = setting.repack().volumes
    assert (done.objects > 0, done.waiting_bytes > done.written_bytes > 0) == (True, True)
    assert done.freed_bytes < 10_000, "manifests go at once"
    assert setting.repack().volumes == ()
    setting.later()
    setting.assert_clean()
    size = sum(info.size_bytes for info in setting.bucket.list())
    assert size < 0.75 * sum(info.size_bytes for info in made.objects.list())


@pytest.mark.parametrize("start", [0, pytest.param(1, marks=LONG), 2, pytest.param(3, marks=LONG)])
def test_killed_at_any_call_all_is_whole_and_later_clean(made: _Made, tmp_path: Path, start: int) -> None:
    steps = _steps(made, tmp_path)
    assert steps >= 30
    for step in range(start, steps, 4):
        setting = _Setting(made, tmp_path, step)
        with suppress(Killed):
            setting.repack(StepStore(setting.bucket, step, None))
        setting.assert_whole()
        assert set(map(id_of, LEFT)) == {key.id for key in Catalog(setting.bucket).backups()}
        setting.later()
        setting.assert_clean()


@pytest.mark.parametrize("start", [0, pytest.param(1, marks=LONG)])
def test_another_machine_backs_up_before_any_call(made: _Made, tmp_path: Path, start: int) -> None:
    for step in range(start, _steps(made, tmp_path), 4):
        setting = _Setting(made, tmp_path, step)
        result = setting.repack(StepStore(setting.bucket, step, setting.back_up))
        assert result.errors == ()
        setting.assert_whole()
        assert Catalog(setting.bucket).exists(key_of(5))
        if step % 12 == start:
            setting.later()


@pytest.mark.parametrize("start", [0, pytest.param(1, marks=LONG)])
def test_another_machine_prunes_before_any_call(made: _Made, tmp_path: Path, start: int) -> None:
    for step in range(start, _steps(made, tmp_path), 4):
        setting = _Setting(made, tmp_path, step)

        def prune(setting: _Setting = setting) -> None:
            assert setting.there.prune(KeepRules(last=1)).errors == ()

        setting.repack(StepStore(setting.bucket, step, prune))
        assert id_of(4) in {key.id for key in Catalog(setting.bucket).backups()}
        setting.later(KeepRules(last=1))  # what was removed just when its new revision was written goes now
        assert {key.id for key in Catalog(setting.bucket).backups()} == {id_of(4)}
        setting.assert_clean()


def test_both_repack_at_once(made: _Made, tmp_path: Path) -> None:
    for step in range(0, _steps(made, tmp_path), 2):
        setting = _Setting(made, tmp_path, step)

        def repack_there(setting: _Setting = setting) -> None:
            assert repack(*setting.there.library(), Packing()).errors == ()

        setting.repack(StepStore(setting.bucket, step, repack_there))
        setting.assert_whole()
        assert set(map(id_of, LEFT)) == {key.id for key in Catalog(setting.bucket).backups()}
        if step % 8 == 0:
            setting.later()
            setting.assert_clean()


Reader = Callable[[Library, Repository], bytes]
"""Reads a backup of the first machine's, and returns its stream; the other repository is empty."""


def copied(source: Library, target: Repository) -> bytes:
    (item,) = plan_copies(source.repository, target, [f"{VOLUME}@{id_of(4)}"])
    assert copy_backup(source.ctx, source.repository, target, item).done == "copied"
    assert check(target, [VOLUME]).findings == ()
    return stream_of(target.stored, target.catalog.read(key_of(4)))


def verified(source: Library, _: Repository) -> bytes:
    found = source.repository.find(f"{VOLUME}@{id_of(4)}")
    assert verify_all(source.ctx, source.repository, [found], data=True).damaged == []
    return b"".join(map(bytes, OpenBackup.of(source.repository, found).stream()))


@pytest.mark.parametrize("read", [copied, verified])
def test_a_repack_comes_before_any_call_of_a_reader(made: _Made, tmp_path: Path, read: Reader) -> None:
    """Then the grace time is over, and what was replaced is deleted."""
    step, is_struck = 0, True
    while is_struck:
        setting, struck = _Setting(made, tmp_path, step), list[bool]()

        def strike(setting: _Setting = setting, struck: list[bool] = struck) -> None:
            struck.append(True)
            assert setting.repack().errors == ()
            setting.clock.pass_(25)
            assert setting.here.prune(KEEP_ALL).errors == ()

        target = MemoryStore("target")
        Catalog(target).ensure_repository(lambda: "t" * 32)
        source = setting.there.library(StepStore(setting.bucket, step, strike))
        assert read(source, Repository(target, lambda: HOST)) == made.streams[id_of(4)]
        setting.assert_whole()
        step, is_struck = step + 2, bool(struck)
    assert step > 10


def test_a_repack_comes_before_any_call_of_a_backup(made: _Made, tmp_path: Path) -> None:
    step, is_struck = 0, True
    while is_struck:
        setting, struck = _Setting(made, tmp_path, step), list[bool]()

        def strike(setting: _Setting = setting, struck: list[bool] = struck) -> None:
            struck.append(True)
            assert setting.repack().errors == ()

        ctx, _, repository = setting.there.library(StepStore(setting.bucket, step, strike))
        with suppress(IntegrityError):
            commit_next(ctx, repository, id_of(5), made.volume)
        setting.assert_whole()
        if step % 5 == 0:
            setting.later()
        step, is_struck = step + 1, bool(struck)
    assert step > 10
