"""What is fuzzed of the archive: its parsers, valid input for each, and how input number N is made from that.

An input is made from its number alone, so that a failure is had again from what the run prints.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from tests.support.archive import END, MIB, record, scan_facts
from tests.support.stored import store_backup, store_units
from volback.archive import tar
from volback.archive.codec import ZstdCodec, check_extents, compress_lines, decompress, frame_length, open_frame
from volback.archive.cut import Cutter, RawFrame
from volback.archive.decompress import ForeignArchive
from volback.archive.parent import EarlierBackup, Reused, begins_of
from volback.archive.plan import PlannedUnit, make_plan
from volback.archive.ranges import fetch, whole
from volback.archive.seal import unseal
from volback.archive.segments import Segment, runs_of, split
from volback.archive.walk import walk
from volback.catalog.keys import is_id
from volback.catalog.runs import decode_runs, encode_runs
from volback.catalog.units import Frame, Piece, Run, Unit
from volback.errors import UsageError, VolbackError
from volback.operations.contents import read_file
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.store.memory import MemoryStore

BACKUP = "20261123T160254Z-3f9c"
BLOCK = tar.BLOCK
SPICE = [
    b"\0", b"\0\0", b"\xff" * 8, b"-1", b"+1", b" ", b"1_0", b"0o7", b"7" * 11, b"77777777777 ", b"9" * 25, b"9" * 5000,
    b"\x80\0\0\0\0\0\0\1\0\0\0\0", b"=", b"\n", b"10 size=-1\n", b"12 size=999\n", b"30 GNU.sparse.realsize=x\n",
    b"22 GNU.sparse.major=1\n", b"13 path=../a\n", b"x", b"g", b"L", b"ustar", b"./", b"../", b"/", bytes(BLOCK),
    b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xe0" + b"\xff" * 8,
]  # fmt: skip
FIELDS = {100: 8, 108: 8, 116: 8, 124: 12, 136: 12, 148: 8, 156: 1, 157: 100, 257: 6, 329: 8, 345: 155}
"""Of a ustar header: where each begins, and its width (POSIX.1-2008, pax)."""

Parser = Callable[[bytes], object]


class Case(NamedTuple):
    """A parser and what it accepts."""

    parse: Parser
    seeds: list[bytes]


class _Item(NamedTuple):
    path: str
    type: bytes = tarfile.REGTYPE
    content: bytes = b""
    link: str = ""
    pax: dict[str, str] | None = None


ITEMS = [
    _Item("./", tarfile.DIRTYPE),
    _Item("./a", content=b"a" * 700),
    _Item("./b/", tarfile.DIRTYPE),
    _Item("./b/caf\u00e9 " + "n" * 120, content=b"long", pax={"SCHILY.xattr.user.a": "1"}),
    _Item("./b/sparse", content=b"1\n0\n512\n".ljust(512, b"\0") + bytes(512), pax={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "./b/sparse",
        "GNU.sparse.realsize": "900000",
    }),
    _Item("./big", content=bytes(range(256)) * 5000),
    _Item("./c", tarfile.SYMTYPE, link="../x"),
    _Item("./d", tarfile.FIFOTYPE),
    _Item("./e", content=b"second name follows"),
    _Item("./f", tarfile.LNKTYPE, link="./e"),
]  # fmt: skip


def _stream() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in ITEMS:
            info = tarfile.TarInfo(item.path)
            info.type, info.linkname, info.size = item.type, item.link, len(item.content)
            info.pax_headers = {"mtime": "1700000000.123456789"} | (item.pax or {})
            archive.addfile(info, io.BytesIO(item.content))
    return target.getvalue()


def _scan() -> bytes:
    letters = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.FIFOTYPE: "p"}
    records = []
    for number, item in enumerate(ITEMS):
        path = item.path.removeprefix("./").rstrip("/")
        inode, links = (77, 2) if path in ("e", "f") else (number, 1)
        size = 900_000 if path == "b/sparse" else len(item.content or b"second name follows" * (path == "f"))
        link = item.link.encode() if item.type == tarfile.SYMTYPE else b""
        kind = letters.get(item.type, "f")
        blocks = -(-size // 512) if kind == "f" and size >= MIB else None
        records.append(record(path.encode(), kind=kind, size=size, inode=inode, links=links, link=link, blocks=blocks))
    return scan_facts() + b"".join(records) + END


def _headers(stream: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        return [stream[member.offset : member.offset_data] for member in archive.getmembers()]


def _in_parts(data: bytes) -> list[bytes]:
    """Some buffers, so that what is read lies across their ends."""
    edges = [0, *range(700, len(data), 200_001), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


STREAM = _stream()
SCAN = _scan()
HEADERS = _headers(STREAM)
TEXT = b"some text, some more text " * 900
CODEC = ZstdCodec()
SEALED = [CODEC.seal(TEXT)]
PIECE = Piece(Frame(BACKUP, 0, len(SEALED[0]), len(TEXT)), 0, [len(TEXT)], hashlib.sha256(TEXT).digest())
STORE = MemoryStore("fuzz")
FULL = OpenBackup(STORE, store_backup(STORE, BACKUP, make_plan([SCAN]), [STREAM]))
INDEX = [b"".join(STORE.open(FULL.key.index))]
RUNS = [Run(BACKUP, number * 500, 400, hashlib.sha256(b"%d" % number).digest()) for number in range(20)]
RUNS[1] = RUNS[1]._replace(dictionary=RUNS[0]._replace(offset=20_000))
FULL_DATA = b"".join(FULL.open_range(BACKUP, 0, FULL.manifest.data.size_bytes))
"""The stream as a backup, whole and true."""


def _without_large_file() -> bytes:
    """What tar writes where the large file is not named to it."""
    at = 0
    for unit in FULL.units():
        if unit.kind == "file":
            return STREAM[:at] + STREAM[at + unit.raw_bytes :]
        at += unit.raw_bytes
    raise AssertionError("there is no large file")


def _cut(stream: bytes) -> object:
    cutter = Cutter(make_plan([SCAN]))
    frames = [cut.pieces for cut in cutter.cut(_in_parts(stream)) if isinstance(cut, RawFrame)]
    came = b"".join(piece for pieces in frames[:-1] for piece in pieces)
    assert stream.startswith(came), "what was cut is what came"
    assert not any(stream[len(came) :]), "and what came is what was cut"
    assert cutter.report.raw_bytes == len(came) + sum(map(len, frames[-1]))
    return cutter.report


def _plan(scan: bytes) -> object:
    plan = make_plan(_in_parts(scan))
    for number in range(len(plan.records)):
        plan.entry(number)
    list(plan.names())
    for unit in plan.units:
        plan.fingerprint(unit, ignore_inode=True, ignore_ctime=True)
        plan.newest_mtime_ns(unit)
    return list(Cutter(plan).cut([STREAM]))


class _LargeFileOnly(EarlierBackup):
    """A parent of which nothing but the large file's unit is used."""

    def is_read(self, unit: PlannedUnit) -> bool:
        return unit.kind != "file"

    def reused(self, number: int) -> Reused | None:
        return None if self.is_read(self._plan.units[number]) else super().reused(number)


def _cut_beside_reused(stream: bytes) -> object:
    """The large file's unit is the parent's, and the stream holds it or not."""
    plan = make_plan([SCAN])
    cutter = Cutter(plan, _LargeFileOnly(begins_of(FULL.segments), plan, lambda _: True, reread=False))
    cuts = list(cutter.cut(_in_parts(stream)))
    reused = [cut.begin.digest for cut in cuts if isinstance(cut, Reused)]
    assert reused == [unit.digest for unit in FULL.units() if unit.kind == "file"]
    return cutter.report


def _lying_index(data: bytes) -> object:
    """Everything that reads a backup, where the index is well formed but not true; the input chooses the lies."""
    dice = random.Random(data)
    lies = dice.randrange(1, 4) if data else 0
    units = list(FULL.units())
    for _ in range(lies):
        number = dice.randrange(len(units))
        units[number] = dice.choice(_LIES)(units[number], dice)
    stored = MemoryStore("lies")
    opened = OpenBackup(stored, store_units(stored, BACKUP, FULL_DATA, units))
    paths = [member.path for member in opened.members()]
    errors = [error for path in paths for error in _read_one(opened, path)]
    wanted = dice.sample(paths, min(2, len(paths)))
    errors += _errors(lambda: list(walk(Selection.of(opened, wanted).stream())))
    errors += _errors(lambda: _only_announced(opened, paths))
    if errors:
        raise errors[0]
    return len(paths)


def _only_announced(opened: OpenBackup, paths: list[bytes]) -> None:
    """What is streamed, to its end or to an error, are members of the index, in its order."""
    stream, came = opened.stream(), bytearray()
    try:
        for buffer in stream:
            came += buffer
    finally:
        found = list(islice(_paths_of(bytes(came)), len(paths) + 1))
        assert found == paths[: len(found)]


def _paths_of(stream: bytes) -> Iterator[bytes]:
    try:
        for header, _ in walk([stream]):
            yield header.path
    except VolbackError:
        return


def _read_one(opened: OpenBackup, path: bytes) -> list[VolbackError]:
    return _errors(lambda: opened.find(path)) + _errors(lambda: list(read_file(opened, path)), but=UsageError)


def _errors(work: Callable[[], object], but: type[VolbackError] | tuple[()] = ()) -> list[VolbackError]:
    try:
        work()
    except but:
        return []
    except VolbackError as error:
        return [error]
    return []


def _move_members(unit: Unit, dice: random.Random) -> Unit:
    room = max(unit.raw_bytes, len(unit.members) + 1)
    offsets = sorted(dice.sample(range(room), len(unit.members)))
    return unit._replace(
        members=[
            member._replace(offset=dice.choice((member.offset, offset)))
            for member, offset in zip(unit.members, offsets, strict=True)
        ]
    )


def _rename_members(unit: Unit, dice: random.Random) -> Unit:
    names = [member.path for member in unit.members] + [b"b", b"e", b"other/" + b"n" * 300]
    return unit._replace(
        members=[
            member._replace(
                path=dice.choice((member.path, dice.choice(names))), link=member.link and dice.choice(names)
            )
            for member in unit.members
        ]
    )


def _retype_members(unit: Unit, dice: random.Random) -> Unit:
    return unit._replace(
        members=[
            member._replace(type=kind, link=b"e" if kind in "lh" else b"")
            for member, kind in ((member, dice.choice((member.type, *"fdlh"))) for member in unit.members)
        ]
    )


def _mix_pieces(unit: Unit, dice: random.Random) -> Unit:
    pieces = [piece for other in FULL.units() for piece in other.pieces]
    return unit._replace(pieces=dice.choice((unit.pieces[::-1], unit.pieces[:-1], unit.pieces * 2, pieces)))


def _resize_frames(unit: Unit, dice: random.Random) -> Unit:
    sizes = (0, 1, 511, 512, 5000, 8 * 1024 * 1024)
    return unit._replace(
        pieces=[
            piece._replace(
                frame=piece.frame._replace(
                    raw_bytes=dice.choice((piece.frame.raw_bytes, dice.choice(sizes))),
                    offset=dice.choice((0, piece.frame.offset)),
                ),
                start=dice.choice((piece.start, 0, 512)),
            )
            for piece in unit.pieces
        ]
    )


def _recut_extents(unit: Unit, dice: random.Random) -> Unit:
    """Sizes and digests that do not belong together; the line's own sums are right."""
    return unit._replace(
        pieces=[
            piece._replace(sizes=dice.sample(piece.sizes, len(piece.sizes)), digests=piece.digests[::-1])
            for piece in unit.pieces
        ]
    )


_LIES = [_move_members, _move_members, _rename_members, _retype_members, _mix_pieces, _resize_frames, _recut_extents]


def _unsealed(stored: bytes) -> object:
    piece = PIECE._replace(frame=PIECE.frame._replace(stored_bytes=len(stored)))
    raw = open_frame(CODEC, piece.frame, stored)
    check_extents(piece, raw, 0, len(raw))
    assert raw == TEXT, "only what was written comes out"
    fetched = fetch(whole([piece]), lambda _id, offset, length: iter([stored[offset : offset + length]]))
    return list(unseal(fetched, CODEC, threads=1))


def _decompressed(stored: bytes) -> object:
    for buffer in decompress(stored, what="it"):
        assert len(buffer) <= 1 << 20
    return None


def _length(stored: bytes) -> object:
    length = frame_length(memoryview(stored))
    assert 0 < length <= len(stored)
    return length


def _lines_of(index: bytes) -> list[bytes]:
    return [line + b"\n" for segment in split(BACKUP, 0, memoryview(index)) for line in segment.lines()]


def _segments(index: bytes) -> object:
    """Each byte is in one of them, and what can be opened has lines."""
    segments = list(split(BACKUP, 0, memoryview(index)))
    assert b"".join(segment.stored for segment in segments) == index
    return [line for segment in segments for line in segment.lines()]


def _parent(lines: bytes) -> object:
    """An index with a good digest, whose lines are anything: what of it is used again is at most what it has."""
    plan = make_plan([SCAN])
    segments = [Segment(BACKUP, 0, memoryview(compress_lines(lines)))]
    parent = EarlierBackup(begins_of(segments), plan, lambda _: True, reread=False)
    for number, unit in enumerate(plan.units):
        assert parent.is_read(unit) == (parent.reused(number) is None)
        place = parent.known(number)(PIECE.digests)
        assert place is None or is_id(place.frame.backup)
    return parent.known(len(plan.units))(bytes(32))


def _runs(table: bytes) -> object:
    found = runs_of(memoryview(table), what="it")
    assert all(run.stored_bytes > 0 <= run.offset for run in found)
    return found


def _foreign(data: bytes) -> object:
    archive = ForeignArchive(io.BytesIO(data), "it")
    return max(len(buffer) for buffer in archive.stream()), archive.has_end


def _foreign_archives() -> list[bytes]:
    """Plain, and in every compression."""
    zstd = compress_lines(STREAM)
    return [STREAM, gzip.compress(STREAM, mtime=0), bz2.compress(STREAM), lzma.compress(STREAM, preset=1), zstd]


def _pax(header: bytes) -> bytes:
    return header[BLOCK : BLOCK + tar.number(header[124:136])]


def _read_with_value(value: bytes) -> object:
    """A valid header but for the value of one record: no mutation keeps a record's length right."""
    for key in (b"size", b"GNU.sparse.realsize", b"path", b"linkpath"):
        body = pax_record(key, value)
        extended = bytearray(HEADERS[0][:BLOCK])
        extended[124:136] = b"%011o\0" % len(body)
        header = tar.read_header(
            bytes(extended) + body + bytes(tar.padded(len(body)) - len(body)) + HEADERS[1][-BLOCK:]
        )
        assert header.size_bytes >= 0
        assert header.data_bytes >= 0
    return None


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE`, where LENGTH counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d%s" % (length, rest)


CASES: dict[str, Case] = {
    "value of a record": Case(_read_with_value, [b"123"]),
    "header": Case(tar.read_header, HEADERS),
    "renamed header": Case(lambda data: tar.build_header(data, path=b"other", link=b"another"), HEADERS),
    "pax records": Case(tar.pax_records, [_pax(header) for header in HEADERS]),
    "walk": Case(lambda data: list(walk(_in_parts(data))), [STREAM]),
    "cut": Case(_cut, [STREAM]),
    "cut beside reused": Case(_cut_beside_reused, [_without_large_file()]),
    "lying index": Case(_lying_index, [b""]),
    "plan": Case(_plan, [SCAN]),
    "frame": Case(_unsealed, SEALED),
    "index": Case(_decompressed, [compress_lines(TEXT)]),
    "length of a frame": Case(_length, [compress_lines(TEXT), compress_lines(bytes(9000))]),
    "segments": Case(_segments, INDEX),
    "lines of a parent": Case(_parent, [b"".join(_lines_of(INDEX[0]))]),
    "runs": Case(_runs, [compress_lines(encode_runs(RUNS))]),
    "text of runs": Case(decode_runs, [encode_runs(RUNS)]),
    "foreign archive": Case(_foreign, _foreign_archives()),
    "messages": Case(tar.read_warnings, [b"tar: ./a: file changed as we read it\nfind: './b': Permission denied\n"]),
}


def mutant(seeds: list[bytes], number: int) -> bytes:
    """Input `number`: a seed with some bytes flipped, cut, doubled, spiced; now and then plain noise."""
    dice = random.Random(number)
    if not dice.randrange(20):
        return dice.randbytes(dice.randrange(3 * BLOCK))
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 4)):
        dice.choice(_ACTIONS)(data, dice)
    return bytes(data)


def _flip(data: bytearray, dice: random.Random) -> None:
    if data:
        data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _delete(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    del data[at : at + dice.choice((1, 7, BLOCK, 3 * BLOCK, len(data)))]


def _double(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    data[at:at] = data[at : at + dice.choice((1, 30, BLOCK))]


def _spice(data: bytearray, dice: random.Random) -> None:
    at = _place(data, dice)
    data[at : at + dice.choice((0, 1, 5))] = dice.choice(SPICE)


def _overwrite_field(data: bytearray, dice: random.Random) -> None:
    offset, width = dice.choice(list(FIELDS.items()))
    at = _place(data, dice) // BLOCK * BLOCK + offset
    if at + width <= len(data):
        data[at : at + width] = dice.choice(SPICE)[:width].ljust(width, b"\0")


def _move_block(data: bytearray, dice: random.Random) -> None:
    at, to = (_place(data, dice) // BLOCK * BLOCK for _ in range(2))
    block = data[at : at + BLOCK]
    del data[at : at + BLOCK]
    data[to:to] = block


_ACTIONS = [_flip, _delete, _double, _spice, _spice, _overwrite_field, _overwrite_field, _move_block]


def _place(data: bytearray, dice: random.Random) -> int:
    """Anywhere; half the time near the beginning, where the headers are."""
    size = max(1, len(data))
    return dice.randrange(min(size, 4000)) if dice.randrange(2) else dice.randrange(size)
