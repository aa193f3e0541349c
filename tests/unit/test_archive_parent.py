"""What of an earlier backup is used again: unchanged units by their scan, extents by path, or wherever they were."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.stored import FIRST, store_backup
from volback.archive import lookup
from volback.archive.codec import compress_lines
from volback.archive.lookup import Place, no_extent
from volback.archive.parent import EarlierBackup, Parent, begins_of
from volback.archive.plan import PlannedUnit
from volback.archive.segments import Segment
from volback.catalog.units import DIGEST_BYTES, Unit
from volback.operations.open_backup import OpenBackup
from volback.store.memory import MemoryStore

UNIT = PlannedUnit("file", 0, 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two groups or more, and a large file."""
    dice = random.Random(7)
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        for number in range(60):
            (tmp_path / directory / f"file-{number:02}").write_bytes(dice.randbytes(9000))
    (tmp_path / "c").write_bytes(dice.randbytes(2 * MIB))
    return tmp_path


@pytest.fixture
def backup(tree: Path) -> OpenBackup:
    store = MemoryStore("test")
    return OpenBackup(store, store_backup(store, FIRST, plan_of(tree), [read(tree, plan_of(tree))]))


def _digests(backup: OpenBackup, path: bytes) -> list[bytes]:
    """Of the extents of the unit that holds a path."""
    return _digests_of(backup.find(path)[0])


def _digests_of(unit: Unit) -> list[bytes]:
    joined = b"".join(piece.digests for piece in unit.pieces)
    return [joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)]


def test_without_a_parent_everything_is_read_and_nothing_is_known() -> None:
    parent = Parent()
    assert parent.is_read(UNIT)
    assert parent.reused(0) is None
    assert parent.known(0) == no_extent
    assert no_extent(bytes(32)) is None
    assert parent.same_line(b"{}") is None


def test_units_whose_scan_is_the_same_are_used_and_not_read(tree: Path, backup: OpenBackup) -> None:
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
    assert not any(map(parent.is_read, plan.units))
    units = list(backup.units())
    for number, unit in enumerate(units[:-1]):
        reused = parent.reused(number)
        assert reused is not None
        assert (reused.begin.digest, reused.raw_bytes) == (unit.digest, unit.raw_bytes)


@pytest.mark.parametrize("reread", [False, True])
def test_what_is_not_settled_is_read_and_so_is_everything_if_asked(
    tree: Path, backup: OpenBackup, reread: bool
) -> None:
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: reread, reread=reread)
    assert all(map(parent.is_read, plan.units))
    digests = _digests(backup, b"c")
    assert [isinstance(parent.known(len(plan.units) - 1)(digest), Place) for digest in digests] == [True] * len(digests)


def test_a_changed_unit_is_read_alone(tree: Path, backup: OpenBackup) -> None:
    with (tree / "c").open("r+b") as file:
        file.write(b"changed")
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
    assert [unit.kind for unit in plan.units if parent.is_read(unit)] == ["file"]


def test_the_settled_time_is_asked_for_each_unit(tree: Path, backup: OpenBackup) -> None:
    os.utime(tree / "c", ns=(1, 1))
    asked: list[int] = []

    def is_settled(newest_ns: int) -> bool:
        asked.append(newest_ns)
        return False

    EarlierBackup(begins_of(backup.segments), plan_of(tree), is_settled, reread=False)
    assert asked == [unit.newest_ns for unit in backup.units() if unit.scan]


def test_extents_are_found_under_another_name_too(tree: Path, backup: OpenBackup) -> None:
    digests = _digests(backup, b"c")
    (tree / "c").rename(tree / "0 other")
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
    number = next(number for number, unit in enumerate(plan.units) if unit.kind == "file")
    assert [parent.known(number)(digest) is not None for digest in digests] == [True] * len(digests)
    assert parent.known(number)(bytes(32)) is None


def test_nothing_is_taken_from_a_damaged_frame(tree: Path, backup: OpenBackup) -> None:
    unit, _ = backup.find(b"c")
    bad = unit.pieces[0].frame
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False, is_damaged=bad.__eq__)
    assert [unit.kind for unit in plan.units if parent.is_read(unit)] == ["file"]
    known = parent.known(next(number for number, unit in enumerate(plan.units) if unit.kind == "file"))
    places = [known(digest) for digest in _digests(backup, b"c")]
    assert None in places
    assert bad not in {place.frame for place in places if place}


def _spoiled(segments: list[Segment], wanted: Callable[[bytes], bool]) -> list[Segment]:
    """The same index; of some lines nothing can be read but their beginnings, and where their paths begin."""
    found = []
    for segment in segments:
        lines = [
            line.replace(b'"pieces":[', b'"pieces":[garbage').rpartition(b"]]}")[0] if wanted(line) else line
            for line in segment.lines()
        ]
        text = b"".join(line + b"\n" for line in lines)
        found.append(Segment(segment.backup, segment.offset, memoryview(compress_lines(text))))
    return found


def test_of_what_is_unchanged_nothing_but_the_beginning_is_read(tree: Path, backup: OpenBackup) -> None:
    plan = plan_of(tree)
    segments = _spoiled(backup.segments, lambda line: b'"kind":"end"' not in line)
    parent = EarlierBackup(begins_of(segments), plan, lambda _: True, reread=False)
    assert not any(map(parent.is_read, plan.units))


def test_extents_are_looked_up_near_the_path_before_anywhere_else(
    tree: Path, backup: OpenBackup, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a parent of a million files a few units are decoded, if what is looked up is there."""
    digests = _digests(backup, b"c")
    plan = plan_of(tree)
    segments = _spoiled(backup.segments, lambda line: b'"kind":"group"' in line)
    parent = EarlierBackup(begins_of(segments), plan, lambda _: True, reread=True)
    caplog.set_level("INFO")
    known = parent.known(len(plan.units) - 1)
    asked = caplog.text.count("nothing of a unit")
    assert asked <= 1, "the unit before it may hold the path, too"
    assert all(map(known, digests))
    assert caplog.text.count("nothing of a unit") == asked
    assert known(bytes(32)) is None, "now all are looked at; those that cannot be read are passed over"
    assert caplog.text.count("nothing of a unit") > asked + 1


def test_a_unit_without_a_fingerprint_is_read_again(tree: Path) -> None:
    """Something was odd when it was read: the parent does not have what the scan said."""
    plan = plan_of(tree)
    (tree / "a" / "file-00").unlink()
    store = MemoryStore("test")
    backup = OpenBackup(store, store_backup(store, FIRST, plan, [read(tree, plan)]))
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
    assert [b"a/file-00" in plan.paths(unit) for unit in plan.units if parent.is_read(unit)] == [True]


def test_the_end_is_known_by_its_place(tree: Path, backup: OpenBackup) -> None:
    plan = plan_of(tree)
    parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
    *_, end = backup.units()
    (piece,) = end.pieces
    assert parent.known(len(plan.units))(piece.digests) == Place(piece.frame, piece.start)


def test_a_line_that_comes_again_is_found(tree: Path, backup: OpenBackup) -> None:
    parent = EarlierBackup(begins_of(backup.segments), plan_of(tree), lambda _: True, reread=True)
    for segment in backup.segments:
        for number, line in enumerate(segment.lines()):
            assert parent.same_line(line) == (segment, number)
            assert parent.same_line(line + b" ") is None


def test_the_lookup_by_digest_alone_is_bounded(tree: Path, backup: OpenBackup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each extent takes about 200 bytes: a parent may have a hundred million."""
    monkeypatch.setattr(lookup, "WIDE_EXTENTS_MAX", 1)
    parent = EarlierBackup(begins_of(backup.segments), plan_of(tree), lambda _: True, reread=True)
    units = list(backup.units())
    known = parent.known(len(units) - 1)  # that of the end: nothing else is near
    found = [[known(digest) is not None for digest in _digests_of(unit)] for unit in units[:-1]]
    assert [any(unit) for unit in found] == [True] + [False] * (len(units) - 2)


def test_the_lookup_of_copies_is_bounded(tree: Path, backup: OpenBackup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files that are used unchanged are looked at, groups of small ones are not."""
    plan, units = plan_of(tree), list(backup.units())
    for at_most, expected in ((lookup.COPIED_EXTENTS_MAX, True), (-1, False)):
        monkeypatch.setattr(lookup, "COPIED_EXTENTS_MAX", at_most)
        parent = EarlierBackup(begins_of(backup.segments), plan, lambda _: True, reread=False)
        known = parent.known(len(plan.units))
        found = {unit.kind: any(map(known, _digests_of(unit))) for unit in units}
        assert found == {"file": expected, "group": False, "end": True}
