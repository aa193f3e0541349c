"""Bad days of a copy: struck by a signal at each step, damaged sources, failing targets, two copies at once."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.fault.conftest import StepsOf
from tests.support.engine import Volback
from tests.support.halt import struck
from tests.support.library import open_from
from tests.support.repository import IDS, make_backup, new_repository, objects_of
from tests.unit.test_golden import FORMAT_1, SECOND_INCREMENT
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.errors import IntegrityError, LockedError, StoreError
from volback.operations import copy as operation
from volback.settings import Settings
from volback.store.faults import CutOpen, FailCall, FailPut, Fault, FaultStore, FlipByte, SlowCall
from volback.store.local import LocalStore

EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


class Pair:
    """A repository with one backup, one to copy it to, and a state directory for each machine that copies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = LocalStore(directory / "source")
        self.target = LocalStore(directory / "target")
        new_repository(self.target)
        self.key = make_backup(self.source)
        self.other = make_backup(self.source, IDS[1], volume="other", data_bytes=10)

    def state(self, machine: str = "here") -> Path:
        return self.directory / f"state-{machine}"

    def copy(
        self,
        volume: str = "db",
        *,
        faults: Sequence[Fault] = (),
        target_faults: Sequence[Fault] = (),
        sleep: Callable[[float], None] = lambda _: None,
        target_sleep: Callable[[float], None] = lambda _: None,
        machine: str = "here",
    ) -> list[str]:
        """Copy in this process, all faults hit; returns what was done with each backup."""
        settings = Settings(self.source.url, self.state(machine), engine="unix:///nonexistent", host="web1")
        library = open_from(settings)
        source = FaultStore(self.source, faults, sleep=sleep)
        here = library.on(source).repository
        try:
            operation.prepare_target(library.ctx, here, library.on(self.target).repository)
            items = operation.plan_copies(here, library.on(self.target).repository, [volume])
            failing = FaultStore(self.target, target_faults, sleep=target_sleep)
            target = library.on(failing).repository
            try:
                return [str(operation.copy_backup(library.ctx, here, target, item).done) for item in items]
            finally:
                failing.assert_all_hit()
        finally:
            source.assert_all_hit()

    def assert_nothing_is_there(self) -> None:
        """At the target: neither an object of a backup nor a temp file; here: no run to remember."""
        files = [path.name for path in Path(self.target.url).rglob("*") if path.is_file()]
        assert files in ([], ["volback.json"])
        assert list((self.state() / "runs").glob("*")) == []

    def assert_whole(self, key: BackupKey) -> None:
        assert objects_of(self.target, key) == objects_of(self.source, key)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_copy_struck_at_any_step_leaves_no_half_backup(number: signal.Signals, pair: Pair, some_of: StepsOf) -> None:
    """What a killed one left is swept by the next copy to that repository, be it of another backup."""
    log = pair.directory / "log"
    assert _struck(pair, number, 0, log=log) == 0
    pair.assert_whole(pair.key)
    steps = list(enumerate(log.read_text().splitlines(), 1))
    assert len(steps) >= 20
    for step, name in some_of(steps):
        Catalog(pair.target).remove([pair.key])
        assert _struck(pair, number, step) in (EXIT[number], 0), name
        if number == signal.SIGKILL:
            assert pair.copy("other") in (["copied"], ["skipped"]), name
        there = Catalog(pair.target).backups("web1", "db")
        if there:
            pair.assert_whole(pair.key)
        assert Catalog(pair.target).litter() == [], name
        assert list((pair.state() / "runs").iterdir()) == [], name
        names = {path.name for path in Path(pair.target.url).rglob("*") if path.is_file()}
        assert names <= {"volback.json", "manifest.json", "index.jsonl.zst", "data.tar.zst"}, name
        assert pair.copy() == ["skipped" if there else "copied"], name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_copy_of_an_increment_struck_at_any_step_leaves_no_half_one(
    number: signal.Signals, tmp_path: Path, some_of: StepsOf
) -> None:
    """Alone: its frames come from three data objects into one."""
    shutil.copytree(FORMAT_1, tmp_path / "source")
    target, log = LocalStore(tmp_path / "target"), tmp_path / "log"
    new_repository(target)
    key = BackupKey("golden-host", "golden", SECOND_INCREMENT)
    env = {"VOLBACK_REPO": str(tmp_path / "source"), "VOLBACK_STATE_DIR": str(tmp_path / "state")}
    env |= {"VOLBACK_HOSTNAME": "golden-host"}
    command = ("copy", "golden", "--to", target.url)
    volback = Volback(tmp_path, set())
    assert struck(volback, number, 0, *command, env={**env, "STRIKE_LOG": str(log)}) == 0
    whole = objects_of(target, key)
    steps = list(enumerate(log.read_text().splitlines(), 1))
    assert len(steps) >= 20
    for step, name in some_of(steps):
        Catalog(target).remove([key])
        assert struck(volback, number, step, *command, env=env) in (EXIT[number], 0), name
        assert objects_of(target, key).keys() in (set(), whole.keys()) or number == signal.SIGKILL, name
        assert struck(volback, number, 0, *command, env=env) == 0, name
        assert objects_of(target, key) == whole, name
        assert Catalog(target).litter() == [], name
        assert list((tmp_path / "state/runs").iterdir()) == [], name


def _struck(pair: Pair, number: int, step: int, log: Path | None = None) -> int:
    env = {"VOLBACK_REPO": pair.source.url, "VOLBACK_STATE_DIR": str(pair.state()), "VOLBACK_HOSTNAME": "web1"}
    env |= {"STRIKE_LOG": str(log)} if log else {}
    return struck(Volback(pair.directory, set()), number, step, "copy", "db", "--to", pair.target.url, env=env)


@pytest.mark.parametrize("name", ["data", "index", "manifest", "repository"])
def test_a_flipped_byte_of_the_source_is_not_copied(pair: Pair, name: str) -> None:
    key = "volback.json" if name == "repository" else str(getattr(pair.key, name))
    size, dice = pair.source.stat(key).size_bytes, random.Random(name)
    for offset in {0, size - 1, *(dice.randrange(size) for _ in range(30))}:
        with pytest.raises(IntegrityError, match=key):
            pair.copy(faults=[FlipByte(offset, mask=1 << dice.randrange(8), key=key)])
        pair.assert_nothing_is_there()
    assert pair.copy() == ["copied"]
    pair.assert_whole(pair.key)


@pytest.mark.parametrize("name", ["data", "index", "manifest"])
def test_an_object_of_the_source_that_is_cut_short_is_not_copied(pair: Pair, name: str) -> None:
    key = str(getattr(pair.key, name))
    for size in (0, 1, pair.source.stat(key).size_bytes - 1):
        with pytest.raises(IntegrityError, match=key):
            pair.copy(faults=[CutOpen(size, key=key)])
        pair.assert_nothing_is_there()


@pytest.mark.parametrize("name", ["data", "index"])
def test_an_object_that_is_longer_or_missing_is_not_copied(pair: Pair, name: str) -> None:
    key = str(getattr(pair.key, name))
    content = b"".join(pair.source.open(key))
    pair.source.put(key, [content, b"more"])
    with pytest.raises(IntegrityError, match="is not what was written"):
        pair.copy()
    pair.assert_nothing_is_there()
    pair.source.delete(key)
    with pytest.raises(IntegrityError, match="is missing"):
        pair.copy()
    pair.assert_nothing_is_there()


@pytest.mark.parametrize(
    "fault",
    [
        FailPut(0, StoreError("full"), key="*/data.tar.zst"),
        FailPut(2_000_000, StoreError("full"), key="*/data.tar.zst"),
        FailPut(4000, StoreError("full"), key="*/index.jsonl.zst"),
        FailPut(100, StoreError("full"), key="*/manifest.json"),
        FailCall("stat", StoreError("full"), nth=2),
    ],
)
def test_a_target_that_fails_holds_nothing_of_the_backup(pair: Pair, fault: Fault) -> None:
    with pytest.raises(StoreError, match="full"):
        pair.copy(target_faults=[fault])
    pair.assert_nothing_is_there()
    assert pair.copy() == ["copied"]
    pair.assert_whole(pair.key)


def test_of_two_copies_from_two_machines_the_later_one_finds_the_backup_there(pair: Pair) -> None:
    done: list[str] = []
    meanwhile = SlowCall("open", 0, key=pair.key.index)
    ours = pair.copy(faults=[meanwhile], sleep=lambda _: done.extend(pair.copy(machine="there")))
    assert (done, ours) == (["copied"], ["skipped"])
    pair.assert_whole(pair.key)
    assert list((pair.state() / "runs").iterdir()) == []


def test_what_a_copy_from_another_machine_takes_away_as_it_is_cut_off_is_put_once_more(pair: Pair) -> None:
    """It looks before our manifest is there, and deletes after: data and index are of the same names."""

    def take_away(_: float) -> None:
        pair.target.delete(pair.key.data)
        pair.target.delete(pair.key.index)

    before = SlowCall("put", 0, key=pair.key.manifest)
    assert pair.copy(target_faults=[before], target_sleep=take_away) == ["copied"]
    pair.assert_whole(pair.key)


def test_of_two_copies_on_one_machine_the_later_one_is_refused(pair: Pair) -> None:
    refused: list[LockedError] = []

    def meanwhile(_: float) -> None:
        with pytest.raises(LockedError, match="is locked by process") as raised:
            pair.copy()
        refused.append(raised.value)
        assert pair.copy("other") == ["copied"]

    assert pair.copy(faults=[SlowCall("open", 0, key=pair.key.index)], sleep=meanwhile) == ["copied"]
    assert len(refused) == 1
    pair.assert_whole(pair.key)
    pair.assert_whole(pair.other)
