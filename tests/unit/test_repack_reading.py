"""After a repack a backup is read as a full one: how many bytes of frames are opened, how often, in how many ranges."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.archive import plan_of, read
from tests.support.counting import CountingStore
from tests.support.nights import change, context, id_of, make_nights, stream_of
from tests.support.stored import commit_next, store_backup
from volback.archive.codec import ZstdCodec
from volback.archive.repacked import FrameUse
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.units import DIGEST_BYTES, Frame, Piece
from volback.context import open_engine
from volback.operations.check import check
from volback.operations.open_backup import OpenBackup
from volback.operations.prune import prune
from volback.operations.repack import Repacked
from volback.operations.repack_plan import MANY, SPARE_WRITTEN, Chosen, Packing, choose
from volback.policy.keep import KeepRules
from volback.store.base import Store
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

FULL = "20290101T000000Z-ffff"
PAGE_BYTES = 4096
KIB = 1024


class _Codec(ZstdCodec):
    """Notes what is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = Counter[bytes]()
        self.raw_bytes = 0

    def unseal(self, stored: bytes | memoryview, raw_bytes: int) -> bytes:
        self.opened[bytes(stored)] += 1
        self.raw_bytes += raw_bytes
        return super().unseal(stored, raw_bytes)


@dataclass(frozen=True)
class _Reading:
    """What reading a backup's whole stream took."""

    raw_bytes: int
    frames: int
    twice: int
    """Frames that were opened more than once."""
    ranges: int
    read_bytes: int


def _reading(store: Store, manifest: Manifest) -> _Reading:
    counting, codec = CountingStore(store), _Codec()
    opened = OpenBackup(counting, manifest, codec=codec)
    counting.reads.clear()
    for _ in opened.stream():
        pass
    twice = sum(1 for times in codec.opened.values() if times > 1)
    read_bytes = sum(one.taken_bytes for one in counting.reads)
    return _Reading(codec.raw_bytes, len(codec.opened), twice, len(counting.reads), read_bytes)


class _Chain:
    """A volume with a backup of each night, and a full backup of its last state in another repository."""

    def __init__(self, directory: Path, nights: int, change_it: Callable[[Path, int], None], files: int) -> None:
        self.store, self.directory, self.root = MemoryStore("chain"), directory, directory / "volume"
        self.repository = make_nights(directory, self.store, 0, files=files)
        for night in range(nights):
            change_it(self.root, night)
            commit_next(context(directory), self.repository, id_of(night), self.root)
        self.before = _reading(self.store, self.last)
        self.stream = stream_of(self.store, self.last)
        plan, other = plan_of(self.root), MemoryStore("full")
        self.full = _reading(other, store_backup(other, FULL, plan, [read(self.root, plan)]))

    @property
    def last(self) -> Manifest:
        """The newest backup."""
        found = list(self.repository.catalog.manifests())[-1]
        assert isinstance(found, Manifest)
        return found

    def prune(self, rules: KeepRules, packing: Packing | None = None) -> list[Repacked]:
        """Prune with a repack; the backup that is left last has the same stream, and nothing is wrong."""
        here = context(self.directory)
        done = prune(here, open_engine(here), self.repository, rules, packing=packing or Packing())
        assert done.errors == ()
        assert stream_of(self.store, self.last) == self.stream
        assert check(self.repository).findings == ()
        return list(done.repacked)

    def objects(self) -> int:
        """How many data objects the newest backup uses."""
        return sum(1 for used in self.last.uses if not used.is_index)


def _pages(root: Path, night: int) -> None:
    """A few pages anywhere in the large file, so most of what each night has stored stays in use."""
    dice = random.Random(night)
    with (root / "big").open("r+b") as file:
        for _ in range(3):
            file.seek(dice.randrange(root.joinpath("big").stat().st_size // PAGE_BYTES) * PAGE_BYTES)
            file.write(dice.randbytes(PAGE_BYTES))


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> _Chain:
    """A third of all files, and parts of the large one, change each night."""
    return _Chain(tmp_path_factory.mktemp("busy"), 40, lambda root, night: change(root, night, 240), files=240)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> _Chain:
    """Little changes each night, anywhere."""
    return _Chain(tmp_path_factory.mktemp("quiet"), 40, _pages, files=600)


def test_what_changed_often_is_read_as_a_full_backup(busy: _Chain) -> None:
    assert busy.before.raw_bytes > 1.5 * busy.full.raw_bytes, "else this shows nothing"
    (done,) = busy.prune(KeepRules(last=1))
    after = _reading(busy.store, busy.last)
    assert after.raw_bytes <= 1.1 * busy.full.raw_bytes
    assert after.read_bytes <= 1.1 * busy.full.read_bytes
    assert after.twice == 0
    assert after.frames <= 1.1 * busy.full.frames + 4
    assert after.ranges <= busy.full.ranges + 8
    assert done.written_bytes < done.freed_bytes
    assert busy.prune(KeepRules(last=1)) == []


def test_increments_that_are_mostly_used_become_one_object(quiet: _Chain) -> None:
    assert quiet.before.ranges > 40
    assert quiet.objects() > 2 * MANY
    quiet.prune(KeepRules(last=1))
    after = _reading(quiet.store, quiet.last)
    assert quiet.objects() <= 2, "the first backup, and all others"
    assert after.twice == 0
    assert after.ranges < quiet.before.ranges / 2
    assert quiet.prune(KeepRules(last=1)) == []


def test_what_is_repacked_to_the_last_byte_is_not_repacked_again(tmp_path: Path) -> None:
    """A frame that is copied as it is frees nothing, so it is not counted as if it did."""
    chain = _Chain(tmp_path, 4, _pages, files=300)
    chain.prune(KeepRules(last=1), Packing(below=1.0))
    assert chain.prune(KeepRules(last=1), Packing(below=1.0)) == []


# what is chosen


def _object(number: int, size: int, used: int, *, oldest: str = "z") -> Chosen:
    """An object of one frame, of which one extent is used."""
    id_ = f"20260101T{number:06}Z-0000"
    use = FrameUse(Frame(id_, 0, size, size))
    use.note(Piece(use.frame, 0, [used], bytes(DIGEST_BYTES)))
    stored = UsedObject(id=id_, name="data.zst", size_bytes=size, used_bytes=used, sha256="0" * 64)
    return Chosen(stored, [oldest], use.used_bytes, {0: use})


def _ids(chosen: Collection[Chosen]) -> set[str]:
    return {one.object.id for one in chosen}


def test_what_is_used_to_half_comes_along_while_much_is_freed() -> None:
    dead = _object(1, 1000 * KIB, 100 * KIB)
    halves = [_object(10 + number, 400 * KIB, (210 + 10 * number) * KIB) for number in range(10)]
    chosen = choose([dead, *halves], Packing())
    assert {dead.object.id} < _ids(chosen) < _ids([dead, *halves])
    assert sum(one.used_bytes for one in chosen) <= SPARE_WRITTEN * sum(one.freed_bytes for one in chosen)
    assert _ids(chosen) >= {halves[0].object.id}, "those first of which least is used"
    assert choose(halves, Packing()) == [], "not by themselves"
    assert _ids(choose([dead, *halves], Packing(max_bytes=100 * KIB))) == {dead.object.id}
    assert choose([dead, *halves], Packing(max_bytes=0)) == []


def test_many_objects_become_one_but_only_with_the_same_oldest_user_and_within_what_may_be_written() -> None:
    many = [_object(number, 100 * KIB, 95 * KIB) for number in range(MANY + 1)]
    assert len(choose(many, Packing())) == MANY + 1
    assert all(not use.is_copied for one in choose(many, Packing()) for use in one.frames.values())
    assert choose(many[1:], Packing()) == []
    apart = [_object(number, 100 * KIB, 95 * KIB, oldest=f"user{number % 2}") for number in range(2 * MANY)]
    assert choose(apart, Packing()) == []
    assert choose(many, Packing(max_bytes=MANY * 95 * KIB)) == []


def test_no_byte_is_copied_often_because_objects_are_many() -> None:
    """One more object each night, all of it used without end: a byte is copied as often as the number doubles."""
    objects, written, most = list[Chosen](), 0, 0
    for night in range(1000):
        objects.append(_object(night, 100 * KIB, 100 * KIB))
        if chosen := choose(objects, Packing()):
            size = sum(one.used_bytes for one in chosen)
            gone = _ids(chosen)
            objects = [one for one in objects if one.object.id not in gone]
            objects.append(_object(1000 + night, size, size))
            written += size
        most = max(most, len(objects))
    assert most <= MANY + 10
    assert written <= 7 * 1000 * 100 * KIB
