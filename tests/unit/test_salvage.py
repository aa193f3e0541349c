"""A backup that goes on with what a killed one had stored holds what a full backup of the same state holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.stored import ENGINE, FIRST, HOST, SECOND, VOLUME, store_backup, store_second_pass
from tests.unit.test_increments import CHANGES, Change, make_tree
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cutter
from volback.archive.plan import Plan, PlannedUnit
from volback.archive.record import Recorder
from volback.archive.seal import seal
from volback.catalog.check import check_manifest
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, Source, UsedObject
from volback.catalog.repository import Catalog
from volback.context import Context
from volback.context.repository import Repository
from volback.operations import salvage as module
from volback.operations.first_pass import FirstPass
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent, Comparing, facts_of
from volback.operations.salvage import Salvage
from volback.progress import Silent
from volback.settings import Settings
from volback.store.base import Store
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

KIB = 1024
FULL = "20261124T160254Z-ffff"
SOURCE = Source(kind="volume", name=VOLUME)
KILLED, KEY = BackupKey(HOST, VOLUME, FIRST), BackupKey(HOST, VOLUME, SECOND)


@dataclass
class Machine:
    """A state directory and a repository."""

    state: Path
    store: Store
    source: Source = SOURCE
    dead: list[AbstractContextManager[FirstPass | None]] = field(default_factory=list)
    """Of runs that were killed: nothing of them is ever closed."""

    @property
    def noted(self) -> list[Path]:
        return list((self.state / "unfinished").glob("*"))

    def salvage(self) -> Salvage:
        ctx = Context(Settings(repository="unused", state=self.state))
        Catalog(self.store).ensure_repository(lambda: "repository")
        return Salvage(ctx, Repository(self.store, lambda: HOST), self.source, ENGINE)

    def kill(self, root: Path, *, settled: bool = True) -> None:
        """A backup of a tree is killed when its data object is there, and nothing else."""
        salvage, plan, recorder = self.salvage(), plan_of(root), Recorder(FIRST, Silent())
        self.dead.append(salvage.first_pass(KILLED, 3))
        assert self.dead[-1].__enter__() is None
        scan = facts_of(plan)
        if settled:
            scan = msgspec.structs.replace(scan, started_ns=scan.started_ns + 10**10)
        cutter = Cutter(plan)
        salvage.note(recorder, scan, cutter.report.privileged)
        data = recorder.data(seal(cutter.cut([read(root, plan)]), ZstdCodec(), threads=2))
        self.store.put(KILLED.data, recorder.hashed(data))

    @contextmanager
    def next(self) -> Iterator[FirstPass]:
        with self.salvage().first_pass(KEY, 3) as first:
            assert first is not None
            yield first

    def assert_nothing_is_used(self) -> None:
        with self.salvage().first_pass(KEY, 3) as first:
            assert first is None
        assert self.noted == []


@pytest.fixture(params=["memory", "bucket", "local"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "NOTED_EVERY_BYTES", 256 * KIB)
    memory = MemoryStore("test", is_shared=request.param == "bucket")
    store = LocalStore(tmp_path / "repository") if request.param == "local" else memory
    return Machine(tmp_path / "state", store)


def test_what_another_machine_has_condemned_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTED_EVERY_BYTES", 256 * KIB)
    machine = Machine(tmp_path / "state", MemoryStore("bucket", is_shared=True))
    machine.kill(make_tree(tmp_path))
    Catalog(machine.store).condemn([KILLED.data], 86_400)
    machine.assert_nothing_is_used()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def _end(machine: Machine, first: FirstPass, root: Path) -> tuple[Manifest, Recorder]:
    """Back the tree up; compare with a full backup of it."""

    def wanted(plan: Plan, is_read: Callable[[PlannedUnit], bool]) -> Iterable[bytes]:
        return [read(root, plan, is_read)]

    plan = plan_of(root)
    manifest, recorder = store_second_pass(machine.store, first, plan, wanted, ChosenParent())
    full = store_backup(machine.store, FULL, plan, [read(root, plan)])
    assert (manifest.digest, manifest.files, manifest.raw_bytes) == (full.digest, full.files, full.raw_bytes)
    assert _stream(machine.store, manifest) == _stream(machine.store, full)
    assert manifest.uses == []
    check_manifest(manifest, KEY)
    return manifest, recorder


def _stream(store: Store, manifest: Manifest) -> bytes:
    return b"".join(map(bytes, OpenBackup(store, manifest).stream()))


def _read_again(first: FirstPass, root: Path) -> list[str]:
    plan = plan_of(root)
    compared = first.compared(plan, Comparing())
    return [unit.kind for unit in plan.units if compared.is_read(unit)]


def test_what_was_stored_is_neither_read_nor_stored_again(machine: Machine, tree: Path) -> None:
    machine.kill(tree)
    stored = machine.store.stat(KILLED.data).size_bytes
    with machine.next() as first:
        assert stored - 3 * MIB < first.resumed_bytes <= stored
        assert "group" not in _read_again(first, tree)[:1]
        manifest, recorder = _end(machine, first, tree)
    assert manifest.stored_bytes < stored + 10 * KIB
    assert recorder.unused_bytes == 0
    assert [key.key for key in machine.store.list(KILLED.prefix)] == []
    assert machine.noted == []


def test_what_was_not_settled_is_read_again_and_not_stored_again(machine: Machine, tree: Path) -> None:
    machine.kill(tree, settled=False)
    stored = machine.store.stat(KILLED.data).size_bytes
    with machine.next() as first:
        assert len(_read_again(first, tree)) == len(plan_of(tree).units)
        manifest, _ = _end(machine, first, tree)
    assert manifest.stored_bytes < stored + 10 * KIB


@pytest.mark.parametrize("machine", ["memory"], indirect=True)
@pytest.mark.parametrize("change", CHANGES[1::3])
def test_what_changed_since_is_in_the_backup(machine: Machine, tree: Path, change: Change) -> None:
    machine.kill(tree)
    change(tree)
    with machine.next() as first:
        _end(machine, first, tree)


@pytest.mark.parametrize("machine", ["memory"], indirect=True)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("how", ["cut", "flip", "hole", "replaced"])
def test_what_is_damaged_is_not_used_nor_what_follows(machine: Machine, tree: Path, how: str, share: float) -> None:
    machine.kill(tree)
    data = b"".join(machine.store.open(KILLED.data))
    at = int(len(data) * share)
    damaged = {
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "hole": data[:at] + bytes(4096) + data[at + 4096 :],
        "replaced": data[:at] + os.urandom(len(data) - at),
    }
    machine.store.put(KILLED.data, [damaged[how]])
    if share < 0.2:
        machine.assert_nothing_is_used()
        return
    with machine.next() as first:
        assert at - 2.5 * MIB < first.resumed_bytes <= at
        _end(machine, first, tree)


@pytest.mark.parametrize("machine", ["memory"], indirect=True)
@pytest.mark.parametrize("data", [None, b"", b"x"], ids=["gone", "empty", "other"])
def test_what_is_not_there_is_not_used(machine: Machine, tree: Path, data: bytes | None) -> None:
    machine.kill(tree)
    machine.store.delete(KILLED.data)
    if data is not None:
        machine.store.put(KILLED.data, [data])
    machine.assert_nothing_is_used()


@pytest.mark.parametrize("machine", ["memory"], indirect=True)
@pytest.mark.parametrize("share", [0.0, 0.8])
def test_notes_that_are_cut_short_are_used_up_to_there(machine: Machine, tree: Path, share: float) -> None:
    machine.kill(tree)
    (path,) = machine.noted
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    if share < 0.1:
        machine.assert_nothing_is_used()
        return
    with machine.next() as first:
        _end(machine, first, tree)


def test_another_storage_uses_nothing(machine: Machine, tree: Path) -> None:
    machine.kill(tree)
    machine.source = msgspec.structs.replace(SOURCE, options={"device": "/dev/other"})
    machine.assert_nothing_is_used()


@pytest.mark.parametrize("by_others", [True, False])
def test_what_a_backup_needs_is_not_used(machine: Machine, tree: Path, by_others: bool) -> None:
    """Of one that was committed before it was killed, and may have been removed since."""
    machine.kill(tree)
    if by_others:
        made = store_backup(machine.store, FULL, plan_of(tree), [read(tree, plan_of(tree))])
        machine.store.put(made.key.increment, machine.store.open(made.key.data))
        size_bytes = machine.store.stat(KILLED.data).size_bytes
        used = UsedObject(id=FIRST, name="data.tar.zst", size_bytes=size_bytes, used_bytes=1)
        Catalog(machine.store).commit(msgspec.structs.replace(made, kind="incremental", uses=[used]))
    else:
        machine.store.put(KILLED.manifest, [b"damaged"])
    machine.assert_nothing_is_used()
    assert machine.store.stat(KILLED.data).size_bytes > 3 * MIB


def test_an_error_leaves_nothing(machine: Machine, tree: Path) -> None:
    machine.kill(tree)
    with pytest.raises(KeyboardInterrupt), machine.next():
        raise KeyboardInterrupt
    assert [found.key for found in machine.store.list(HOST + "/")] == []
    assert machine.noted == []


def test_one_that_is_killed_too_is_gone_on_with(machine: Machine, tree: Path) -> None:
    """What the second one uses is noted as its own before anything is moved."""
    machine.kill(tree)
    dead = machine.salvage().first_pass(KEY, 3)
    second = dead.__enter__()
    assert second is not None
    (path,) = machine.noted
    notes = path.read_bytes()
    second.upload.end()
    assert machine.store.stat(KEY.increment).size_bytes == second.resumed_bytes
    dead.__exit__(None, None, None)
    path.write_bytes(notes)
    with machine.salvage().first_pass(BackupKey(HOST, VOLUME, FULL), 3) as third:
        assert third is not None
        assert third.resumed_bytes == second.resumed_bytes
        assert len(_read_again(third, tree)) == len(_read_again(second, tree))
