"""The index: every name survives, any cut of the bytes reads the same, hostile lines are refused by number."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.catalog import index
from volback.catalog.index import STORED_MAX_BYTES, begin_of, decode_unit, encode_unit, first_path_of, read_units
from volback.catalog.model import DIGEST_BYTES, FRAME_MAX_BYTES, Frame, Member, Piece, Unit, UnitKind
from volback.errors import FormatError, IntegrityError, VolbackError

ID = "20261123T160254Z-3f9c"
DIGEST = bytes.fromhex("0123456789abcdef" * 4)
SIZES = st.integers(0, 2**63 - 1)
PARTS = st.binary(min_size=1, max_size=12).filter(lambda raw: not {0, 47} & set(raw) and raw not in {b".", b".."})
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)
TARGETS = st.binary(min_size=1, max_size=20).filter(lambda raw: 0 not in raw)
TIMES = st.integers(-(2**63), 2**63) | st.just(2**62 * 10**9)
FRAMES = st.builds(Frame, st.just(ID), SIZES, st.integers(0, STORED_MAX_BYTES), st.integers(10_000, FRAME_MAX_BYTES))


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    sizes = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=4))
    digests = draw(st.binary(min_size=DIGEST_BYTES * len(sizes), max_size=DIGEST_BYTES * len(sizes)))
    return Piece(draw(FRAMES), draw(st.integers(0, 2000)), sizes, digests)


@st.composite
def members(draw: st.DrawFn, offset: int) -> Member:
    type_ = draw(st.sampled_from("fdlpbch"))
    path = draw(PATHS | st.just(b"")) if type_ == "d" else draw(PATHS)
    link = draw({"l": TARGETS, "h": PATHS}.get(type_, st.just(b"")))
    owner = st.integers(0, 2**32 - 1)
    inode = st.integers(0, 2**64 - 1)
    size, mtime, ctime, mode = draw(SIZES), draw(TIMES), draw(TIMES), draw(st.integers(0, 0o7777))
    return Member(path, type_, size, mtime, ctime, draw(inode), mode, draw(owner), draw(owner), link, offset)


@st.composite
def units(draw: st.DrawFn) -> Unit:
    kinds: list[UnitKind] = ["group", "file", "end"]
    kind = draw(st.sampled_from(kinds))
    made = draw(st.lists(pieces(), max_size=3))
    room = sum(piece.raw_bytes for piece in made)
    offsets = draw(st.sets(st.integers(0, room - 1), max_size=4)) if room and kind != "end" else set[int]()
    scan = draw(st.sampled_from(["", "A-_z" * 10 + "abc"]))
    return Unit(kind, made, [draw(members(offset)) for offset in sorted(offsets)], scan, draw(TIMES))


@settings(deadline=None)
@given(units())
def test_every_unit_comes_back_from_one_line(unit: Unit) -> None:
    line = encode_unit(unit)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    back = decode_unit(line)
    assert back == unit
    assert all(isinstance(member, Member) for member in back.members)
    assert all(isinstance(piece, Piece) and isinstance(piece.frame, Frame) for piece in back.pieces)


@settings(deadline=None)
@given(st.lists(units(), max_size=5), st.data())
def test_units_read_the_same_however_the_bytes_are_cut(written: list[Unit], data: st.DataObject) -> None:
    whole = b"".join(map(encode_unit, written))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    buffers = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(read_units(buffers)) == written
    assert list(read_units(memoryview(buffer) for buffer in buffers)) == written


@settings(deadline=None)
@given(units())
def test_the_beginning_of_a_line_says_what_an_increment_compares(unit: Unit) -> None:
    line = encode_unit(unit)
    begin = begin_of(line)
    assert begin[:6] == (unit.digest, unit.scan, unit.newest_ns, unit.raw_bytes, len(unit.members), unit.kind)
    assert begin.frames == list(dict.fromkeys(piece.frame for piece in unit.pieces))
    assert first_path_of(line) == (unit.members[0].path if unit.members else None)


UNIT = Unit(
    "group",
    [Piece(Frame(ID, 0, 700, 5000), 100, [1000, 3096], DIGEST + DIGEST[::-1])],
    [
        Member(b"", "d", 0, 1, 2, 3, 0o755, 0, 0, b"", 0),
        Member(b"a\xff/b\n", "f", 5, 1, 2, 4, 0o644, 1000, 1000, b"", 512),
        Member(b"a\xff/c", "h", 5, 1, 2, 4, 0o644, 1000, 1000, b"a\xff/b\n", 2048),
        Member(b"l", "l", 5, 1, 2, 5, 0o777, 0, 0, b"/../abs//olute/.", 2560),
    ],
)


def test_a_line_is_the_json_of_the_format() -> None:
    fields = json.loads(encode_unit(UNIT))
    assert list(fields) == ["digest", "scan", "newest", "bytes", "files", "kind", "frames", "pieces", "members"]
    assert fields["digest"] == b64encode(hashlib.sha256(DIGEST + DIGEST[::-1]).digest()).decode()
    assert [fields[name] for name in ("scan", "newest", "bytes", "files", "kind")] == ["", 0, 4096, 4, "group"]
    assert fields["frames"] == [[ID, 0, 700, 5000]]
    assert fields["pieces"] == [[0, 100, [1000, 3096], b64encode(DIGEST + DIGEST[::-1]).decode()]]
    assert fields["members"][1] == ["\0a\xff/b\n", "f", 5, 1, 2, 4, 0o644, 1000, 1000, "", 512]


def test_units_come_as_soon_as_their_line_is_there() -> None:
    def buffers() -> Iterator[bytes]:
        yield encode_unit(UNIT) + b'{"kind'
        raise AssertionError("read ahead")

    assert next(read_units(buffers())) == UNIT


def test_an_index_cut_short_is_distinguished_from_one_that_ends() -> None:
    whole = encode_unit(UNIT) * 2
    units = read_units([whole[:-1]])
    assert next(units) == UNIT
    with pytest.raises(IntegrityError, match="cut short: it ends inside line 2"):
        next(units)
    assert list(read_units([])) == []
    assert list(read_units([b""])) == []


def test_an_endless_line_is_refused_before_memory_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LINE_MAX_BYTES", 10_000)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield encode_unit(UNIT)
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(FormatError, match="index line 2 is longer"):
        list(read_units(endless()))
    assert taken <= 12


def test_a_line_that_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    line = encode_unit(UNIT)
    monkeypatch.setattr(index, "LINE_MAX_BYTES", len(line) - 1)
    assert list(read_units([encode_unit(UNIT)])) == [UNIT]
    monkeypatch.setattr(index, "LINE_MAX_BYTES", len(line) - 2)
    with pytest.raises(VolbackError, match="too large, or has too many names"):
        encode_unit(UNIT)
    with pytest.raises(FormatError, match="index line 1 is longer"):
        list(read_units([line]))


def test_an_extent_takes_no_more_of_a_line_than_its_bound_counts_with() -> None:
    """In frames of 16 extents, as they are for a large file."""
    sizes, digests = [65_536] * 16, bytes([255]) * 16 * DIGEST_BYTES
    made = [
        Piece(Frame(ID, 10**13 - number, index.STORED_MAX_BYTES, FRAME_MAX_BYTES), 10**6, sizes, digests)
        for number in range(2)
    ]
    one, two = (len(encode_unit(Unit("file", made[:count], []))) for count in (1, 2))
    assert two - one <= index.EXTENT_TEXT_BYTES * 16


def test_a_bad_line_is_named_by_its_number() -> None:
    with pytest.raises(FormatError, match="index line 3 "):
        list(read_units([encode_unit(UNIT) * 2 + b"{}\n"]))
    with pytest.raises(FormatError, match="index line 2 "):
        list(read_units([encode_unit(UNIT) + b"\n"]))


def with_frame(**changes: Any) -> Unit:
    return UNIT._replace(pieces=[UNIT.pieces[0]._replace(frame=UNIT.pieces[0].frame._replace(**changes))])


def with_piece(**changes: Any) -> Unit:
    return UNIT._replace(pieces=[UNIT.pieces[0]._replace(**changes)])


def with_member(**changes: Any) -> Unit:
    return UNIT._replace(members=[UNIT.members[0], UNIT.members[1]._replace(**changes)])


def paths(bad: Iterable[bytes]) -> list[Unit]:
    named = [with_member(path=path) for path in bad]
    return named + [with_member(type="h", link=path) for path in bad]


@pytest.mark.parametrize("unit", [with_frame(), with_member(), *paths([b"a/.../..b/.c"])], ids=range(4))
def test_what_the_hostile_lines_are_made_from_is_read(unit: Unit) -> None:
    assert decode_unit(encode_unit(unit)) == unit


HOSTILE = [
    with_frame(backup="../../x"),
    with_frame(backup=ID + "\n"),
    with_frame(offset=-1),
    with_frame(offset=2**63),
    with_frame(stored_bytes=-1),
    with_frame(stored_bytes=STORED_MAX_BYTES + 1),
    with_frame(raw_bytes=-1),
    with_frame(raw_bytes=FRAME_MAX_BYTES + 1),
    *paths([b"/etc/passwd", b"../x", b"a/../b", b"a/..", b"..", b".", b"./a", b"a/./b", b"a//b", b"a/", b"/", b"a\0b"]),
    with_member(path=b""),
    with_member(type="d", path=b"", link=b"x"),
    with_member(type="s"),
    with_member(type=""),
    with_member(type="lh"),
    with_member(type="l"),
    with_member(type="h"),
    with_member(type="l", link=b"a\0b"),
    with_member(link=b"x"),
    with_member(size_bytes=-1),
    with_member(size_bytes=2**63),
    with_member(mtime_ns=2**94),
    with_member(ctime_ns=-(2**94)),
    with_member(inode=-1),
    with_member(inode=2**64),
    with_member(mode=-1),
    with_member(mode=2**16),
    with_member(uid=-1),
    with_member(gid=2**32),
    with_member(offset=-1),
    with_member(offset=0),
    with_member(offset=4096),
    with_member(offset=2**63),
    UNIT._replace(kind="end"),
    UNIT._replace(kind=cast(UnitKind, "other")),
    UNIT._replace(pieces=[]),
    with_piece(start=905),
    with_piece(start=-1),
    with_piece(start=2**63),
    with_piece(sizes=[4096]),
    with_piece(sizes=[1000, 3096, 1]),
    with_piece(sizes=[4096, 0]),
    with_piece(sizes=[5000, -904]),
    with_piece(digests=DIGEST),
    with_piece(digests=DIGEST * 3),
    with_piece(sizes=[], digests=b""),
    UNIT._replace(scan="A" * 42),
    UNIT._replace(scan="A" * 42 + "="),
]


@pytest.mark.parametrize(("before", "after"), [(b'"bytes":4096', b'"bytes":4097'), (b'"files":4', b'"files":5')])
def test_a_line_whose_beginning_lies_is_refused(before: bytes, after: bytes) -> None:
    with pytest.raises(FormatError, match="not what its beginning says"):
        decode_unit(encode_unit(UNIT).replace(before, after))
    line = encode_unit(UNIT)
    with pytest.raises(FormatError, match="not what its beginning says"):
        decode_unit(line[:11] + (b"B" if line[11:12] == b"A" else b"A") + line[12:])


@pytest.mark.parametrize("unit", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_refused(unit: Unit) -> None:
    with pytest.raises(FormatError, match="index line 7 "):
        decode_unit(encode_unit(unit), number=7)


@pytest.mark.parametrize(
    "path",
    [
        r"\u0000plain",
        r"\u0000\u0100",
        r"\u0000",
        r"\ud800",
        r"\ud800\u0041",
        r"\u0000a\u00ff\u0000",
        r"\u0000\u00ff/../x",
    ],
)
def test_a_name_written_in_no_proper_way_is_refused(path: str) -> None:
    line = encode_unit(with_member(path=b"PATH")).replace(b"PATH", path.encode())
    with pytest.raises(FormatError):
        decode_unit(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"kind":"end","frames":[]}',
        b'{"kind":"end","frames":[[]],"members":[]}',
        b'{"kind":"end","frames":[],"members":[[]]}',
        b'{"kind":"end","frames":[],"members":[],"x":' + b"[" * 100_000,
        b"1" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_no_unit_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        decode_unit(line)
