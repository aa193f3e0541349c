"""`verify --data` of several backups reads what they share once, also groups of small files of which one changed."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.counting import CountingStore
from tests.support.stored import FIRST, HOST, SECOND, store_backup, store_increment, store_units
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.context import Context
from volback.context.repository import Repository
from volback.operations.open_backup import OpenBackup
from volback.operations.seen import Seen
from volback.operations.verify import verify
from volback.operations.verify_data import read_all
from volback.settings import Settings
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

THIRD = "20261125T160254Z-3f9c"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root, dice = tmp_path / "tree", random.Random(8)
    for number in range(200):
        path = root / f"{number % 7}" / f"file-{number:03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([0, 100, 5000, 30_000, 200_000])))
    (root / "large").write_bytes(dice.randbytes(MIB + 300_000))
    os.link(root / "1/file-001", root / "6/again")
    os.link(root / "large", root / "large again")
    return root


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore("test"))


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Settings(repository="test", state=tmp_path / "state"))


def _next(store: CountingStore, id_: str, root: Path, parent: Manifest) -> Manifest:
    return store_increment(store, id_, plan_of(root), lambda plan, wanted: [read(root, plan, wanted)], parent)


def test_what_a_changed_line_shares_is_read_once(tree: Path, store: CountingStore, ctx: Context) -> None:
    """A file has other content, one another time, one another name; a large one a changed page and a further link."""
    plan = plan_of(tree)
    manifests = [store_backup(store, FIRST, plan, [read(tree, plan)])]
    (tree / "2/file-002").write_bytes(b"changed" * 1000)
    os.utime(tree / "3/file-003", ns=(0, 10**18))
    manifests.append(_next(store, SECOND, tree, manifests[0]))
    (tree / "4/file-004").rename(tree / "4/renamed")
    os.link(tree / "large", tree / "large third")
    with (tree / "large").open("r+b") as file:
        file.seek(500_000)
        file.write(bytes(8192))
    manifests.append(_next(store, THIRD, tree, manifests[1]))
    Catalog(store).ensure_repository(lambda: "a" * 32)
    for manifest in manifests:
        Catalog(store).commit(manifest)
    store.reads.clear()
    assert verify(ctx, Repository(store, lambda: HOST), [], data=True).damaged == []
    taken = Counter[str]()
    for each in store.reads:
        taken[each.key] += each.taken_bytes
    assert {manifest.data_key: taken[manifest.data_key] for manifest in manifests} == {
        manifest.data_key: manifest.data.size_bytes for manifest in manifests
    }
    assert sum(manifest.shared_bytes for manifest in manifests) > manifests[0].data.size_bytes


def test_other_members_in_bytes_that_were_read_before_are_found(tree: Path, store: CountingStore, ctx: Context) -> None:
    plan = plan_of(tree)
    first = store_backup(store, FIRST, plan, [read(tree, plan)])
    units = list(OpenBackup(store, first).units())
    number, at = next(
        (number, at)
        for number, unit in enumerate(units)
        for at, member in enumerate(unit.members)
        if member.path == b"5/file-005"
    )
    members = list(units[number].members)
    members[at] = members[at]._replace(path=b"5/file-00x", mode=0o777)
    units[number] = units[number]._replace(members=members)
    forged = store_units(store, SECOND, b"", units)
    repository, seen = Repository(store, lambda: HOST), Seen(remembered_bytes=MIB)
    assert read_all(ctx, repository, OpenBackup(store, first), seen) == []
    [damage] = read_all(ctx, repository, OpenBackup(store, forged), seen)
    assert "does not announce what the data holds" in damage.message
    assert "5/file-00x" in damage.message
