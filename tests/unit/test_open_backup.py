"""One backup opened: lookups by path decode few units, and an index that lies about its data is refused."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.archive import MIB, TREES, Made, made, plan_of, read
from tests.support.stored import FIRST, store_backup, store_units
from volback.archive.walk import walk
from volback.catalog import index
from volback.catalog.model import Manifest
from volback.catalog.units import Frame, Piece, Unit
from volback.errors import IntegrityError, NotFoundError
from volback.operations.contents import members, read_file
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.store.memory import MemoryStore


class _Decoded:
    """Numbers of the index lines that were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[int] = []
        decode_unit = index.decode_unit

        def counting(line: bytes, *, number: int = 1, room: Callable[[], int]) -> Unit:
            self.lines.append(number)
            return decode_unit(line, number=number, room=room)

        monkeypatch.setattr(index, "decode_unit", counting)

    @contextmanager
    def at_most(self, count: int) -> Iterator[None]:
        self.lines.clear()
        yield
        assert 0 < len(self.lines) <= count


@pytest.fixture
def many(tmp_path: Path) -> OpenBackup:
    """Forty directories in some twenty units, one large file, and two names far from their first one."""
    for directory in range(40):
        (tmp_path / f"{directory:02}").mkdir()
        for number in range(30):
            (tmp_path / f"{directory:02}" / f"{number}").write_bytes(b"%d" % directory * 10_000)
    (tmp_path / "large").write_bytes(b"large" * MIB)
    for name in ("20/again", "39/" + "z" * 120):
        (tmp_path / name).hardlink_to(tmp_path / "03" / "7")
    return _opened(tmp_path)


def _opened(root: Path) -> OpenBackup:
    store, plan = MemoryStore("test"), plan_of(root)
    return OpenBackup(store, store_backup(store, FIRST, plan, [read(root, plan)]))


def test_a_path_is_found_once_passed_without_decoding_what_it_cannot_be_in(
    many: OpenBackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = len(list(many.units()))
    assert total > 20
    decoded = _Decoded(monkeypatch)
    with decoded.at_most(total // 2):
        assert many.find(b"10/5")[1].member.path == b"10/5"
    with decoded.at_most(total), pytest.raises(NotFoundError, match="no/such"):
        many.find(b"no/such")
    for path in (b"", b"00/0", b"10/5", b"39/29", b"large"):
        with decoded.at_most(3):
            assert many.find(path)[1].member.path == path


def test_a_hard_link_far_from_its_first_name_is_found(many: OpenBackup) -> None:
    list(many.around([], below=[b""]))
    for name in (b"20/again", b"39/" + b"z" * 120):
        unit, span = many.find(name)
        assert (span.member.type, span.member.link) == ("h", b"03/7")
        assert b"03/7" in {member.path for member in unit.members}
        assert b"".join(read_file(many, name)) == b"3" * 10_000
    assert [member.path for member in members(many, b"20")][-1] == b"20/9"
    assert b"20/again" in {member.path for member in members(many, b"20")}


def test_a_part_decodes_the_index_once_and_then_its_own_units(
    many: OpenBackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = Selection.of(many, [b"17", b"large"])
    wanted = {b"", b"17", b"large", *(b"17/%d" % number for number in range(30))}
    units = list(many.units())
    own = sum(not wanted.isdisjoint(member.path for member in unit.members) for unit in units)
    assert 10 * own < len(units)
    decoded = _Decoded(monkeypatch)
    with decoded.at_most(own + 2):
        found = [header.path for header, _ in walk(selection.stream())]
    with decoded.at_most(own + 2):
        assert [member.path for member in selection.members()] == found
    assert set(found) == wanted


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(TREES)
def test_every_path_is_found_whatever_was_looked_up_before(tree: list[Made]) -> None:
    with made(tree) as root:
        opened = _opened(root)
    paths = [member.path for member in opened.members()]
    dice = random.Random(len(paths))
    for path in dice.sample(paths, len(paths)):
        unit, span = opened.find(path)
        assert span.member.path == path
        assert span in list(unit.spans())
        below = [other for other in paths if other == path or other.startswith(path + b"/") or not path]
        assert [member.path for member in members(opened, path)] == below
        if span.member.type == "f":
            assert sum(map(len, read_file(opened, path))) == span.member.size_bytes


def test_two_long_names_without_their_first_one_come_back(tmp_path: Path) -> None:
    """The second is a link to the other; its own header takes more than three blocks, as both names are long."""
    (tmp_path / ("a" * 200)).write_bytes(b"content")
    names = [letter * 200 + "/" + letter * 200 for letter in "xy"]
    for name in names:
        (tmp_path / name).parent.mkdir()
    (tmp_path / names[0]).hardlink_to(tmp_path / ("a" * 200))
    (tmp_path / names[1]).hardlink_to(tmp_path / ("a" * 200))
    selection = Selection.of(_opened(tmp_path), map(os.fsencode, names))
    found = {header.path: (header.type, header.link) for header, _ in walk(selection.stream())}
    first, second = map(os.fsencode, names)
    assert (found[first], found[second]) == (("f", b""), ("h", first))


def _with_offsets(tmp_path: Path, offset_of: dict[bytes, int]) -> tuple[MemoryStore, Manifest]:
    """A backup whose index says that members lie elsewhere."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ("f" * 150)).write_bytes(b"content")
    (tmp_path / "tree" / "g").write_bytes(b"content")
    store, plan = MemoryStore("test"), plan_of(tmp_path / "tree")
    honest = OpenBackup(store, store_backup(store, FIRST, plan, [read(tmp_path / "tree", plan)]))
    data = b"".join(honest.open_range(FIRST, 0, honest.manifest.data.size_bytes))
    units = [
        unit._replace(members=[m._replace(offset=offset_of.get(m.path, m.offset)) for m in unit.members])
        for unit in honest.units()
    ]
    return store, store_units(store, FIRST, data, units)


@pytest.mark.parametrize("room", [1, 200, 512, 1024, 1535])
def test_index_whose_members_have_no_room_for_their_headers_is_refused(tmp_path: Path, room: int) -> None:
    """It must not be read without end, nor end in an error of Python."""
    first = b"f" * 150
    begin = 3 * 512
    store, manifest = _with_offsets(tmp_path, {b"g": begin + room})
    opened = OpenBackup(store, manifest)
    with pytest.raises(IntegrityError, match="does not fit its data"):
        b"".join(read_file(opened, first))


def test_index_that_names_a_frame_of_another_backup_is_refused(tmp_path: Path) -> None:
    store = MemoryStore("test")
    frame = Frame("20261120T160254Z-cccc", 0, 5, 5)
    manifest = store_units(store, FIRST, b"", [Unit("file", [Piece(frame, 0, [5], bytes(32))], [])])
    assert manifest.depends_on == [frame.backup]
    opened = OpenBackup(store, manifest)
    with pytest.raises(IntegrityError, match="is missing"):
        b"".join(opened.stream())
