"""A backup in two passes holds what a full backup of the second pass's state holds, whatever changed between them."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from tests.support.archive import MIB, plan_of, read, scan
from tests.support.stored import FIRST, HOST, SECOND, VOLUME, store_backup, store_second_pass
from tests.unit.test_increments import CHANGES, Change, make_tree
from volback.archive import tar
from volback.archive.plan import Plan, PlannedUnit
from volback.archive.record import Recorder
from volback.catalog.check import check_manifest
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, Source
from volback.catalog.units import Frame
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.streams import no_action
from volback.operations.first_pass import FirstPass, FirstReading, first_pass
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent, Comparing
from volback.policy.unchanged import SETTLING_NS
from volback.settings import Settings
from volback.store.base import Store
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

FULL = "20261124T160254Z-ffff"
KEY = BackupKey(HOST, VOLUME, SECOND)


@dataclass
class Helper:
    """Scans and reads a directory of this machine; `between` runs after the scan."""

    root: Path
    between: Change = lambda _: None

    def scan(self) -> Iterator[bytes]:
        scanned = scan(self.root)
        self.between(self.root)
        yield scanned

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = no_action) -> Iterator[bytes]:
        done = subprocess.run(
            [*tar.CREATE, "--files-from=-", "--file=-"], cwd=self.root, input=b"".join(names), capture_output=True,
            check=False, env={"LC_ALL": "C"},
        )  # fmt: skip
        at_end()
        yield done.stdout

    def messages(self) -> bytes:
        return b""

    def check(self) -> None:
        pass


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


@contextmanager
def _first(store: Store, helper: Helper, tmp_path: Path, chosen: ChosenParent) -> Iterator[FirstPass]:
    """All ctimes of its scan are settled, as if the tree were older: else the second pass would read all again."""
    ctx = Context(Settings(repository="unused", state=tmp_path / "state"))
    wanted = FirstReading(
        Source(kind="volume", name=VOLUME), KEY, chosen, Comparing(), [], 3, lambda: nullcontext(helper)
    )
    with first_pass(ctx, Repository(store, lambda: HOST), wanted) as first:
        yield replace(first, scan=msgspec.structs.replace(first.scan, started_ns=first.scan.started_ns + SETTLING_NS))


def _read(root: Path) -> Callable[[Plan, Callable[[PlannedUnit], bool]], Iterable[bytes]]:
    return lambda plan, wanted: [read(root, plan, wanted)]


def _stream(store: Store, manifest: Manifest) -> bytes:
    return b"".join(map(bytes, OpenBackup(store, manifest).stream()))


@dataclass
class Made:
    """A backup in two passes, and a full one of the state at the second."""

    store: MemoryStore
    manifest: Manifest
    recorder: Recorder
    full: Manifest

    def assert_equal(self) -> None:
        assert self.manifest.digest == self.full.digest
        assert (self.manifest.files, self.manifest.raw_bytes) == (self.full.files, self.full.raw_bytes)
        assert _stream(self.store, self.manifest) == _stream(self.store, self.full)
        assert list(OpenBackup(self.store, self.manifest).members()) == list(
            OpenBackup(self.store, self.full).members()
        )
        check_manifest(self.manifest, KEY)


def _make(tmp_path: Path, helper: Helper, between: Change, *, parent: bool) -> Made:
    store, chosen, root = MemoryStore("test"), ChosenParent(), helper.root
    if parent:
        plan = plan_of(root)
        chosen = ChosenParent(OpenBackup(store, store_backup(store, FIRST, plan, [read(root, plan)])))
    with _first(store, helper, tmp_path, chosen) as first:
        between(root)
        plan = plan_of(root)
        manifest, recorder = store_second_pass(store, first, plan, _read(root), chosen)
    return Made(store, manifest, recorder, store_backup(store, FULL, plan, [read(root, plan)]))


@pytest.mark.parametrize(
    ("change", "parent"),
    [*((change, True) for change in CHANGES[2::2]), *((change, False) for change in CHANGES[1::6])],
)
def test_a_change_between_the_passes_is_in_the_backup(tree: Path, tmp_path: Path, change: Change, parent: bool) -> None:
    made = _make(tmp_path, Helper(tree), change, parent=parent)
    made.assert_equal()
    assert made.manifest.depends_on == ([FIRST] if parent else [])


@pytest.mark.parametrize("change", CHANGES[1::4])
def test_a_change_while_the_first_pass_reads_is_in_the_backup(tree: Path, tmp_path: Path, change: Change) -> None:
    _make(tmp_path, Helper(tree, change), lambda _: None, parent=True).assert_equal()


def test_the_second_pass_reads_and_stores_what_has_changed_alone(tree: Path, tmp_path: Path) -> None:
    store, chosen = MemoryStore("test"), ChosenParent()
    with _first(store, Helper(tree), tmp_path, chosen) as first:
        stored = first.recorder.stored_bytes
        (tree / "b/new").write_bytes(b"new")
        plan = plan_of(tree)
        wanted = [unit for unit in plan.units if first.compared(plan, Comparing()).is_read(unit)]
        manifest, recorder = store_second_pass(store, first, plan, _read(tree), chosen)
    assert [unit.kind for unit in wanted] == ["group", "group"], "of the new file, and of its directory"
    assert 0 < recorder.stored_bytes - stored < 5000
    assert recorder.unused_bytes == 0
    assert manifest.reused_bytes == 0, "what the first pass stored is this backup's own"
    assert manifest.index_table_bytes == 0, "the index is in one object, whole"


def test_what_the_second_pass_replaces_is_counted(tree: Path, tmp_path: Path) -> None:
    """The frames of a database that was written anew between the passes stay in the data object, and nobody reads
    them."""

    def rewrite(root: Path) -> None:
        (root / "database").write_bytes(random.Random(1).randbytes(3 * MIB))

    made = _make(tmp_path, Helper(tree), rewrite, parent=False)
    made.assert_equal()
    assert 2 * MIB < made.recorder.unused_bytes < 3.2 * MIB
    read_bytes = sum({(f.backup, f.offset): f.stored_bytes for f in _frames(made)}.values())
    assert read_bytes == made.manifest.stored_bytes - made.recorder.unused_bytes


def _frames(made: Made) -> Iterator[Frame]:
    return (piece.frame for unit in OpenBackup(made.store, made.manifest).units() for piece in unit.pieces)


def test_bytes_of_others_are_counted_where_a_unit_of_the_first_pass_has_both(tree: Path, tmp_path: Path) -> None:
    """A group in which one file is new is stored in two backups."""
    store = MemoryStore("test")
    plan = plan_of(tree)
    chosen = ChosenParent(OpenBackup(store, store_backup(store, FIRST, plan, [read(tree, plan)])))
    (tree / "b/new").write_bytes(random.Random(2).randbytes(9000))
    with _first(store, Helper(tree), tmp_path, chosen) as first:
        before = first.recorder.stored_bytes
        manifest, _ = store_second_pass(store, first, plan_of(tree), _read(tree), chosen)
    opened = OpenBackup(store, manifest)
    others = [piece.raw_bytes for unit in opened.units() for piece in unit.pieces if piece.frame.backup == FIRST]
    assert manifest.reused_bytes == sum(others) > 0
    assert manifest.stored_bytes == before
