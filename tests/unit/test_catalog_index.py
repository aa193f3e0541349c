"""The index: every name survives, any cut of the bytes reads the same, hostile lines are refused by number."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.catalog import index
from volback.catalog.index import (
    begin_of,
    decode_unit,
    encode_unit,
    first_path_of,
    read_units,
)
from volback.catalog.model import FRAME_MAX_BYTES
from volback.catalog.runs import decode_runs, encode_runs
from volback.catalog.unit_check import STORED_MAX_BYTES
from volback.catalog.units import Frame, Member, Piece, Run, Unit, UnitKind
from volback.errors import FormatError, IntegrityError, VolbackError

ID = "20261123T160254Z-3f9c"
BEGIN = b'{"digest":"%s=","scan":"","newest":0,"bytes":5,"files":0,"kind":"group",' % (b"a" * 43)
SIZES = st.integers(0, 2**63 - 1)
PARTS = st.binary(min_size=1, max_size=12).filter(lambda raw: not {0, 47} & set(raw) and raw not in {b".", b".."})
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)
TARGETS = st.binary(min_size=1, max_size=20).filter(lambda raw: 0 not in raw)
TIMES = st.integers(-(2**63), 2**63) | st.just(2**62 * 10**9)
FRAMES = st.builds(Frame, st.just(ID), SIZES, st.integers(0, STORED_MAX_BYTES), st.integers(1, FRAME_MAX_BYTES))


@st.composite
def pieces(draw: st.DrawFn, frames: list[Frame]) -> Piece:
    """Up to four extents somewhere in one of the frames."""
    frame = draw(st.sampled_from(frames))
    cuts = sorted(draw(st.sets(st.integers(0, frame.raw_bytes), min_size=2, max_size=5)))
    sizes = [stop - start for start, stop in pairwise(cuts)]
    return Piece(frame, cuts[0], sizes, draw(st.binary(min_size=32 * len(sizes), max_size=32 * len(sizes))))


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
    frames = draw(st.lists(FRAMES, max_size=3))
    found = draw(st.lists(pieces(frames), max_size=4)) if frames else []
    room = sum(piece.raw_bytes for piece in found)
    offsets = draw(st.sets(st.integers(0, room - 1), max_size=4)) if room and kind != "end" else set[int]()
    held = [draw(members(offset)) for offset in sorted(offsets)]
    return Unit(kind, found, held, draw(st.sampled_from(["", "-_" + "aZ" * 20 + "9"])), draw(TIMES))


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
    begin = begin_of(line[:-1])
    assert (begin.digest, begin.scan, begin.newest_ns) == (unit.digest, unit.scan, unit.newest_ns)
    assert (begin.raw_bytes, begin.members, begin.kind) == (unit.raw_bytes, len(unit.members), unit.kind)
    assert begin.frames == list(dict.fromkeys(piece.frame for piece in unit.pieces))
    assert first_path_of(line[:-1]) == (unit.members[0].path if unit.members else None)


@settings(deadline=None)
@given(st.lists(units(), max_size=5), st.data())
def test_units_read_the_same_however_the_bytes_are_cut(written: list[Unit], data: st.DataObject) -> None:
    whole = b"".join(map(encode_unit, written))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    buffers = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(read_units(buffers)) == written
    assert list(read_units(memoryview(buffer) for buffer in buffers)) == written


UNIT = Unit(
    "group",
    [Piece(Frame(ID, 0, 700, 5000), 100, [1024, 3072], bytes(range(64)))],
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
    assert b64decode(fields["digest"]) == hashlib.sha256(bytes(range(64))).digest()
    assert (fields["scan"], fields["newest"], fields["bytes"], fields["files"]) == ("", 0, 4096, 4)
    assert fields["frames"] == [[ID, 0, 700, 5000]]
    assert fields["pieces"] == [[0, 100, [1024, 3072], b64encode(bytes(range(64))).decode()]]
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


def test_a_frame_of_nothing_known_takes_no_more_of_a_line_than_its_extents_bound_counts_with() -> None:
    """A mebibyte of a large file: seven extents at least on the average; a frame of its own, one piece."""

    def of(count: int) -> Unit:
        frames = [Frame(ID, 10**13 + n, STORED_MAX_BYTES, FRAME_MAX_BYTES) for n in range(count)]
        return Unit("file", [Piece(frame, 0, [65536] * 7, bytes(7 * 32)) for frame in frames], [])

    assert len(encode_unit(of(1001))) - len(encode_unit(of(1))) <= 1000 * 7 * index.EXTENT_TEXT_BYTES


def test_the_parts_of_a_line_that_is_used_unchanged_are_read_alone() -> None:
    line = encode_unit(UNIT)[:-1]
    at = line.index(b'"pieces":')
    begin = begin_of(line[: at + len(b'"pieces":')] + b"whatever comes after it")
    assert (begin.frames, begin.raw_bytes) == ([UNIT.pieces[0].frame], 4096)


HOSTILE_BEGINS = {
    "nothing": b"",
    "other keys": b'{"kind":"group",',
    "another order": b'{"scan":"","digest":"%s",' % (b"a" * 44),
    "a short digest": b'{"digest":"%s=",' % (b"a" * 42),
    "a long scan": b'{"digest":"%s=","scan":"%s","newest":0,' % (b"a" * 43, b"a" * 44),
    "a negative size": BEGIN.replace(b'"bytes":5', b'"bytes":-5') + b'"frames":[],"pieces":',
    "a size of 30 digits": BEGIN.replace(b'"bytes":5', b'"bytes":' + b"9" * 30) + b'"frames":[],"pieces":',
    "another kind": BEGIN.replace(b"group", b"other") + b'"frames":[],"pieces":',
    "frames that do not end": BEGIN + b'"frames":[["",0,0,0],',
    "frames of text": BEGIN + b'"frames":["a"],"pieces":',
    "a frame of no backup": BEGIN + b'"frames":[["../x",0,10,10]],"pieces":',
    "a frame before the beginning": BEGIN + b'"frames":[["%s",-1,10,10]],"pieces":' % ID.encode(),
    "a frame that is too large": BEGIN + b'"frames":[["%s",0,10,8388609]],"pieces":' % ID.encode(),
    "brackets": BEGIN + b'"frames":' + b"[" * 100_000 + b'],"pieces":',
}


@pytest.mark.parametrize("case", HOSTILE_BEGINS)
def test_a_hostile_beginning_is_refused(case: str) -> None:
    assert begin_of(BEGIN + b'"frames":[["%s",0,10,8388608]],"pieces":' % ID.encode()).raw_bytes == 5
    with pytest.raises(FormatError):
        begin_of(HOSTILE_BEGINS[case])


def test_a_beginning_counts_its_frames_before_it_decodes_them() -> None:
    frames = b",".join([b'["%s",0,10,10]' % ID.encode()] * 40_000)
    line = BEGIN + b'"frames":[' + frames + b'],"pieces":'
    assert len(begin_of(line, room=lambda: 40_000 * 14).frames) == 40_000
    with pytest.raises(FormatError, match="40000 frames are more than the data has room for"):
        begin_of(line, room=lambda: 39_999 * 14)


def test_the_first_path_of_a_line_that_has_none_or_a_wrong_one() -> None:
    assert first_path_of(encode_unit(Unit("end", [], []))) is None
    for wrong in (rb"\u0000plain", rb"\ud800", rb"\x", b"\xff"):
        with pytest.raises(FormatError):
            first_path_of(b'"members":[["%s"' % wrong)


PLACES = (
    st.sampled_from([ID, ID[:-1] + "0"]),
    st.integers(0, 100),
    st.integers(1, 100),
    st.binary(min_size=32, max_size=32),
)
RUNS = st.lists(
    st.builds(Run, *PLACES, dictionary=st.none() | st.builds(Run, *PLACES, dictionary=st.none())), max_size=5
)


def _overlap(runs: list[Run]) -> bool:
    bytes_of = [{(run.backup, at) for at in range(run.offset, run.offset + run.stored_bytes)} for run in runs]
    return sum(map(len, bytes_of)) > len(set().union(*bytes_of))


@given(RUNS)
def test_runs_come_back_in_their_order_unless_they_overlap(runs: list[Run]) -> None:
    """Neither do dictionaries; a run may be a dictionary, too."""
    line = encode_runs(runs)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    if not _overlap(runs) and not _overlap([run.dictionary for run in runs if run.dictionary]):
        assert decode_runs(line) == runs
    else:
        with pytest.raises(FormatError, match="twice"):
            decode_runs(line)


RUN = Run(ID, 0, 10, bytes(32))


@pytest.mark.parametrize(
    "changes",
    [
        {"backup": "../x"}, {"backup": ID + "\n"}, {"offset": -1}, {"offset": 2**63}, {"stored_bytes": 0},
        {"stored_bytes": -1}, {"stored_bytes": 2**63}, {"digest": bytes(31)}, {"digest": bytes(33)}, {"digest": b""},
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_run_is_refused(changes: dict[str, Any]) -> None:
    assert decode_runs(encode_runs([RUN])) == [RUN]
    impossible = RUN._replace(**changes)
    for run in (impossible, RUN._replace(dictionary=impossible)):
        with pytest.raises(FormatError):
            decode_runs(encode_runs([run]))


def test_a_dictionary_of_a_dictionary_is_refused() -> None:
    with pytest.raises(FormatError):
        decode_runs(encode_runs([RUN._replace(dictionary=RUN._replace(dictionary=RUN))]))


@pytest.mark.parametrize("line", [b"", b"\xff", b"[]", b"{}", b'{"runs":[[]]}', b'{"runs":' + b"[" * 100_000])
def test_what_is_not_a_list_of_runs_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        decode_runs(line)


def test_a_bad_line_is_named_by_its_number() -> None:
    with pytest.raises(FormatError, match="index line 3 "):
        list(read_units([encode_unit(UNIT) * 2 + b"{}\n"]))
    with pytest.raises(FormatError, match="index line 2 "):
        list(read_units([encode_unit(UNIT) + b"\n"]))


def with_frame(**changes: Any) -> Unit:
    return with_piece(frame=UNIT.pieces[0].frame._replace(**changes))


def with_piece(**changes: Any) -> Unit:
    return UNIT._replace(pieces=[UNIT.pieces[0]._replace(**changes)])


def with_member(**changes: Any) -> Unit:
    return UNIT._replace(members=[UNIT.members[0], UNIT.members[1]._replace(**changes)])


def paths(bad: Iterable[bytes]) -> list[Unit]:
    named = [with_member(path=path) for path in bad]
    return named + [with_member(type="h", link=path) for path in bad]


@pytest.mark.parametrize("unit", [with_piece(start=904), with_member(), *paths([b"a/.../..b/.c"])], ids=range(4))
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
    with_frame(raw_bytes=4195),
    with_piece(start=-1),
    with_piece(start=905),
    with_piece(start=2**63),
    with_piece(sizes=[]),
    with_piece(sizes=[], digests=b""),
    with_piece(sizes=[1024, 3072, 0]),
    with_piece(sizes=[4096, 0]),
    with_piece(sizes=[4097, -1]),
    with_piece(sizes=[2**63, 3072]),
    with_piece(sizes=[4096]),
    with_piece(digests=bytes(63)),
    with_piece(digests=bytes(96)),
    UNIT._replace(scan="a"),
    UNIT._replace(scan="a" * 44),
    UNIT._replace(scan="a" * 42 + "\n"),
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
]


@pytest.mark.parametrize("unit", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_refused(unit: Unit) -> None:
    with pytest.raises(FormatError, match="index line 7 "):
        decode_unit(encode_unit(unit), number=7)


LIES = {
    "another digest": (b'"digest":"', b'"digest":"aaaa'),
    "another size": (b'"bytes":4096', b'"bytes":4097'),
    "another count": (b'"files":4', b'"files":3'),
    "a frame that is not there": (b'"pieces":[[0,', b'"pieces":[[1,'),
    "a frame before the first": (b'"pieces":[[0,', b'"pieces":[[-1,'),
    "a size that is not whole": (b"[1024,3072]", b"[1024.5,3072]"),
    "digests that are not base64": (b'[1024,3072],"', b'[1024,3072],"?'),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_beginning_that_is_not_the_units_is_refused(lie: str) -> None:
    line, (old, new) = encode_unit(UNIT), LIES[lie]
    assert line.count(old) == 1
    forged = line.replace(old, new)
    if lie == "another digest":
        forged = line.replace(b64encode(UNIT.digest), b64encode(bytes(32)))
    words = "not what its beginning says" if lie.startswith("another") else "index line 1 "
    with pytest.raises(FormatError, match=words):
        decode_unit(forged)


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
        BEGIN + b'"frames":[],"pieces":[]}',
        BEGIN + b'"frames":[[]],"pieces":[],"members":[]}',
        BEGIN + b'"frames":[],"pieces":[[]],"members":[]}',
        BEGIN + b'"frames":[],"pieces":[],"members":[[]]}',
        BEGIN + b'"frames":[],"pieces":[],"members":[],"x":' + b"[" * 100_000,
        b"1" * 100_000,
    ],
    ids=range(10),
)
def test_what_is_no_unit_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        decode_unit(line)
