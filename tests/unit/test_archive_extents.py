"""What an extent is, and that a stream of any size passes in little memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.archive import (
    BUFFERS,
    END,
    MIB,
    TREES,
    CutUnit,
    Made,
    cut,
    made,
    pieces,
    plan_of,
    raw_of,
    read,
    record,
    scan_facts,
)
from volback.archive import seal as sealing
from volback.archive import tar
from volback.archive.blocks import SECTION_BYTES, Blocks
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cut, Cutter, RawFrame, UnitEnd
from volback.archive.lookup import Place
from volback.archive.plan import make_plan
from volback.archive.record import Recorder
from volback.archive.seal import Extents, NewFrame, seal
from volback.catalog.units import Frame, Member
from volback.progress import Silent

OLD, ID = "20261122T160254Z-aaaa", "20261123T160254Z-3f9c"
CODEC = ZstdCodec()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(TREES, BUFFERS)
def test_an_extent_is_data_of_one_member_or_the_headers_between(tree: list[Made], sizes: list[int]) -> None:
    """So its digest depends neither on where frames end, nor on the buffers in which the stream comes."""
    with made(tree) as root:
        plan = plan_of(root)
        stream = read(root, plan)
    units, _ = cut(plan, pieces(stream, sizes))
    assert [unit.extents for unit in units] == [unit.extents for unit in cut(plan, [stream])[0]]
    for unit in units[:-1]:
        assert [len(extent) for extent in unit.extents] == list(_expected(unit))
    assert len(units[-1].extents) == 1


def _expected(unit: CutUnit) -> Iterator[int]:
    """Sizes: of the headers together, then of the blocks of the member's data."""
    raw, headers, members = raw_of(unit), 0, unit.end.members
    for member, end in zip(members, [*(member.offset for member in members[1:]), len(raw)], strict=True):
        header = tar.read_header(raw[member.offset : end])
        headers += header.header_bytes
        if header.data_bytes:
            yield headers
            headers = 0
            data = memoryview(raw)[member.offset + header.header_bytes : end]
            assert len(data) <= SECTION_BYTES
            yield from Blocks(len(data)).sizes(data, is_last=True)
    if headers:
        yield headers


def test_a_unit_keeps_what_the_scan_said_only_if_all_is_as_scanned(tmp_path: Path) -> None:
    """Else the next increment would take for unchanged what was never read."""
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode() * MIB)
    plan = plan_of(tmp_path)
    (tmp_path / "a").write_bytes(b"a" * (MIB + 1))
    (tmp_path / "b").unlink()
    (tmp_path / "d").chmod(0o400)
    units, _ = cut(plan, [read(tmp_path, plan)])
    found = {member.path: (unit.end.scan, unit.end.newest_ns) for unit in units for member in unit.end.members}
    assert found == {
        b"": plan.scan_of(plan.units[0]),
        b"a": ("", 0),
        b"c": plan.scan_of(plan.units[3]),
        b"d": ("", 0),
    }


def test_a_unit_of_which_one_member_vanished_has_no_fingerprint(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    plan = plan_of(tmp_path)
    (tmp_path / "b").unlink()
    units, report = cut(plan, [read(tmp_path, plan)])
    assert report.vanished == [b"b"]
    assert [unit.end.scan for unit in units] == ["", ""]


def test_further_names_and_links_are_as_scanned(tmp_path: Path) -> None:
    """The stream has a hard link where the scan has a file: that is not a change."""
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "d").symlink_to("n" * 200)
    (tmp_path / "e").hardlink_to(tmp_path / "d")
    plan = plan_of(tmp_path)
    units, _ = cut(plan, [read(tmp_path, plan)])
    assert [unit.end.scan for unit in units] == [plan.scan_of(plan.units[0])[0], ""]


def test_a_file_of_any_size_passes_in_little_memory() -> None:
    """Its header and 200 MiB of data, in buffers as the engine sends them."""
    size = 200 * MIB
    plan = make_plan([scan_facts(), record(b"", kind="d", mode=0o755), record(b"file", size=size), END])
    root, file = (_header(plan.entry(number).path, number == 0, size) for number in (0, 1))
    block = hashlib.shake_128(b"block").digest(4 * MIB)
    stream = chain([root, file], repeat(block, size // len(block)), [tar.END_OF_ARCHIVE])
    recorder = Recorder(ID, Silent())
    cutter = Cutter(plan)
    tracemalloc.start()
    try:
        for _ in recorder.data(seal(cutter.cut(stream), ZstdCodec(1), threads=2)):
            continue
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cutter.report.raw_bytes > size
    assert peak < 60 * MIB


def _header(path: bytes, is_directory: bool, size: int) -> bytes:
    name = b"./" + path
    head = bytearray(tar.BLOCK)
    mode = 0o755 if is_directory else 0o644
    head[: len(name)] = name
    head[100:136] = b"%07o\0%07o\0%07o\0%011o\0" % (mode, 0, 0, 0 if is_directory else size)
    head[136:148] = b"%011o\0" % 1_700_000_000
    head[156:157] = b"5" if is_directory else b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def _known(content: bytes) -> dict[bytes, Place]:
    return {hashlib.sha256(content).digest(): Place(Frame(OLD, 0, 1, len(content)), 0)}


def test_members_that_wait_for_a_frame_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of empty files is one extent, and hundreds of members: all that pass by while one extent waits for
    others would be held.
    """
    monkeypatch.setattr(sealing, "_WAITING_EXTENTS_MAX", 1000)
    members = [Member(b"x%d" % number, "f", 0, 0, 0, 1, 0, 0, 0, b"", number) for number in range(300)]
    known = _known(b"old").get
    cuts: list[Cut] = [RawFrame([memoryview(b"new")], [3], known), UnitEnd("group", members)]
    cuts += [RawFrame([memoryview(b"old")], [3], known), UnitEnd("group", members)] * 100
    found = [type(item) for item in seal(cuts, CODEC, in_stream_order=False)]
    assert found.index(NewFrame) <= 10


@pytest.mark.parametrize("place", [Place(Frame(OLD, 0, 9, 6), 0), Place(Frame(OLD, 0, 9, 7), 1)])
def test_an_extent_that_does_not_lie_within_its_frame_is_stored_again(place: Place) -> None:
    """The parent's index may be false: such a place would make this backup's own index unreadable."""
    found = list(seal([RawFrame([memoryview(b"content")], [7], lambda _: place)], CODEC, in_stream_order=False))
    assert [type(item) for item in found] == [Extents, NewFrame]
    assert isinstance(found[1], NewFrame)
    assert CODEC.unseal(found[1].stored, 7) == b"content"
