"""The parts of a subset together read every frame once, and damage is found by the part that it lies in."""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.counting import CountingStore
from tests.support.stored import FIRST, HOST, SECOND, VOLUME, store_backup, store_increment
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.units import Frame
from volback.context import Context
from volback.context.repository import Repository
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify
from volback.policy import subset as subsets
from volback.policy.invalid import InvalidValue
from volback.policy.subset import Subset, part_of, read_subset, read_turns
from volback.settings import Settings
from volback.state.damaged import damaged_frames
from volback.state.memory import Memory
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

PARTS = [Subset(part, 7) for part in range(1, 8)]


class Chain:
    """A full backup and an increment, and what is read of their data objects."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = CountingStore(MemoryStore("test"))
        memory = Memory(tmp_path / "state", "memory://test", accept=False, cache=tmp_path / "cache")
        self.repository = Repository(self.store, lambda: HOST, memory=memory)
        self.ctx = Context(Settings(repository="test", state=tmp_path / "state"))
        root, dice = tmp_path / "tree", random.Random(1)
        root.mkdir()
        for number in range(12):
            (root / f"{number:02}").write_bytes(dice.randbytes(MIB + 10_000 * number))
        for number in range(200):
            (root / f"small-{number:03}").write_bytes(dice.randbytes(5000))
        plan = plan_of(root)
        first = store_backup(self.store, FIRST, plan, [read(root, plan)])
        (root / "new").write_bytes(dice.randbytes(2 * MIB))
        plan = plan_of(root)
        second = store_increment(self.store, SECOND, plan, lambda plan, wanted: [read(root, plan, wanted)], first)
        Catalog(self.store).ensure_repository(lambda: "a" * 32)
        for manifest in (first, second):
            Catalog(self.store).commit(manifest)
        self.manifests: list[Manifest] = [first, second]
        self.known = self._frames()

    def _frames(self) -> dict[Frame, str]:
        """Every frame, and the key of its data object."""
        opened = [OpenBackup(self.store, manifest) for manifest in self.manifests]
        return {
            piece.frame: backup.data_key(piece.frame.backup)
            for backup in opened
            for unit in backup.units()
            for piece in unit.pieces
        }

    def read_by(self, subset: Subset | None) -> set[Frame]:
        """The frames that are read; all is intact."""
        self.store.reads.clear()
        assert verify(self.ctx, self.repository, [], data=True, subset=subset).damaged == []
        return {
            frame
            for frame, key in self.known.items()
            if any(
                item.key == key and item.start <= frame.offset < item.start + item.taken_bytes
                for item in self.store.reads
            )
        }


def test_data_of_a_large_file_that_a_new_line_uses_again_is_read_once(tmp_path: Path) -> None:
    """Each night one block of it changes: a line of its own, and new names, but the data is that of the first."""
    store, root, dice = CountingStore(MemoryStore("test")), tmp_path / "tree", random.Random(4)
    ctx, repository = Context(Settings(repository="test", state=tmp_path / "state")), Repository(store, lambda: HOST)
    root.mkdir()
    (root / "database").write_bytes(dice.randbytes(6 * MIB))
    plan = plan_of(root)
    made = [store_backup(store, "20261101T000000Z-0000", plan, [read(root, plan)])]
    for night in range(1, 5):
        with (root / "database").open("r+b") as file:
            file.seek(night * MIB)
            file.write(b"changed")
        (root / f"name-{night}").hardlink_to(root / "database")
        made.append(_next(store, root, f"20261102T00000{night}Z-0000", made[-1]))
    Catalog(store).ensure_repository(lambda: "a" * 32)
    for manifest in made:
        Catalog(store).commit(manifest)
    store.reads.clear()
    assert verify(ctx, repository, [], data=True).damaged == []
    read_bytes = sum(item.taken_bytes for item in store.reads if item.key == made[0].data_key)
    assert made[0].data.size_bytes <= read_bytes < made[0].data.size_bytes + 100_000
    damaged = bytearray(b"".join(store.open(made[0].data_key)))
    damaged[4 * MIB + 500_000] ^= 1
    store.put(made[0].data_key, [damaged])
    found = verify(ctx, repository, [], data=True).damaged
    assert [(item.backup, item.object) for item in found] == [(each.name, made[0].data_key) for each in made]


def _next(store: CountingStore, root: Path, id_: str, parent: Manifest) -> Manifest:
    return store_increment(store, id_, plan_of(root), lambda plan, wanted: [read(root, plan, wanted)], parent)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Blocks are small, so that a small data object has many."""
    monkeypatch.setattr(subsets, "BLOCK_BYTES", MIB)
    return Chain(tmp_path)


def test_the_parts_together_read_each_frame_once(chain: Chain) -> None:
    read_by_parts = [chain.read_by(part) for part in PARTS]
    assert sum(map(bool, read_by_parts)) > 3
    assert sum(map(len, read_by_parts)) == len(chain.known) > 10
    assert set().union(*read_by_parts) == set(chain.known) == chain.read_by(None)
    for part, found in zip(PARTS, read_by_parts, strict=True):
        assert all(part.holds(chain.known[frame], frame.offset) for frame in found)


def test_a_flipped_byte_is_found_by_one_part(chain: Chain) -> None:
    frames = list(chain.known.items())
    for frame, key in (frames[0], frames[len(frames) // 2], frames[-1]):
        data = bytearray(b"".join(chain.store.open(key)))
        at = frame.offset + frame.stored_bytes // 2
        data[at] ^= 0x10
        chain.store.put(key, [bytes(data)])
        found = [verify(chain.ctx, chain.repository, [], subset=part, data=True).damaged for part in PARTS]
        assert [part for part, damaged in zip(PARTS, found, strict=True) if damaged] == [
            part for part in PARTS if part.holds(key, frame.offset)
        ]
        (damaged,) = (damaged for damaged in found if damaged)
        assert {item.object for item in damaged} == {key}
        assert all(item.paths for item in damaged)
        data[at] ^= 0x10
        chain.store.put(key, [bytes(data)])


def test_a_part_that_is_intact_does_not_make_known_damage_be_forgotten(chain: Chain) -> None:
    frame, key = next(iter(chain.known.items()))
    data = bytearray(b"".join(chain.store.open(key)))
    data[frame.offset + frame.stored_bytes // 2] ^= 0x10
    chain.store.put(key, [bytes(data)])
    for part in PARTS:
        verify(chain.ctx, chain.repository, [], subset=part, data=True)
    known = damaged_frames(chain.ctx.settings.state, chain.repository.id, HOST, VOLUME)
    assert known == {(frame.backup, frame.offset)}


def test_what_is_added_changes_no_part(chain: Chain) -> None:
    before = {key: [part.holds(key, 0) for part in PARTS] for key in chain.known.values()}
    assert all(sum(held) == 1 for held in before.values())


def test_each_day_has_another_part() -> None:
    days = [date(2026, 12, 29) + timedelta(days=number) for number in range(7)]
    assert {part_of(day, 7) for day in days} == set(PARTS)
    assert part_of(days[0] + timedelta(days=7), 7) == part_of(days[0], 7)
    assert {read_subset("today/7", day) for day in days} == set(PARTS)
    assert read_subset("3/7", days[0]) == Subset(3, 7)
    assert str(Subset(3, 7)) == "3/7"
    assert (read_turns("1/7"), read_turns("1/1")) == (7, 1)


@pytest.mark.parametrize("text", ["", "7", "0/7", "8/7", "1/0", "1/367", "today", "-1/7", "1/7 ", "day/7", "1.5/7"])
def test_what_is_not_a_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="write it like 1/7"):
        read_subset(text, date(2026, 11, 26))
    with pytest.raises(InvalidValue, match="write it like 1/7"):
        read_turns(text)
