"""The index's line codec: one JSON line per unit. Buffers in, units out; archive/ does the compression.

A line begins with what an increment compares, so that a line of an unchanged unit is copied without decoding it.

Names are bytes: a valid UTF-8 path is written as that text, any other as U+0000 and its bytes as Latin-1 (a path
cannot contain NUL, so the two are never confused). Every line read may be hostile: everything that a reader trusts
later (frame sizes, paths, offsets) is checked here, in bulk, because an index can have a million members.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal, NamedTuple

import msgspec

from volback.catalog.unit_check import Fault, check_frames, check_unit
from volback.catalog.units import Frame, Member, Piece, Unit, UnitKind
from volback.errors import FormatError, IntegrityError, VolbackError

LINE_MAX_BYTES = 256 * 1024 * 1024
"""The longest line of a unit; a writer refuses a longer one."""
EXTENTS_MAX = 1 << 22
"""Of one unit. Files of more than 128 GiB are cut into larger blocks, so that they stay below (`archive.blocks`)."""
NAMES_MAX_BYTES = 32 * 1024 * 1024
"""What of a line may be other than frames: a group of at most 2 MiB of entries, and the names of one inode. The 65,000
that ext4 and Btrfs allow, each with the first name as its target, may take 500 bytes each."""
MEMBERS_MAX = 1 << 17
"""Members of one unit. Decoded, each takes about 1 KiB."""
EXTENT_TEXT_BYTES = 64
"""At most, on the average: its digest, its size, and its share of the frames' places."""
_EXTENTS_OF_FRAME = 128
"""More than that are in no frame of a large file."""
_COMMAS_OF_EXTENT = 4
"""At most: where an extent is a piece by itself."""
FRAME_LEAST_BYTES = 14
"""No frame is stored in fewer: zstd's header, size, one block of one byte, checksum (RFC 8878)."""
_SHORT_LINE_BYTES = 1024 * 1024
_FREE = 1 << 13
"""So many frames of a line, and units of an index, are decoded without asking how much data there is for them."""
_FREE_EXTENTS = 32 * _FREE
"""The same of the extents of a line: 16 GiB of zeros are one extent, that many times over."""

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Mode = Annotated[int, msgspec.Meta(ge=0, le=0o177777)]
_Owner = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Type = Literal["f", "d", "l", "p", "b", "c", "h"]
# path, type, size, mtime, ctime, inode, mode, uid, gid, link, offset
_Piece = tuple[_Size, _Size, list[int], bytes]
# number of the frame, start, sizes, digests in base64
_Row = tuple[str, _Type, _Size, int, int, int, _Mode, _Owner, _Owner, str, _Size]


class _Line(msgspec.Struct):
    digest: bytes
    scan: str
    newest: int
    files: _Size
    raw_bytes: _Size = msgspec.field(name="bytes")
    kind: UnitKind
    frames: list[Frame]
    pieces: list[_Piece]
    members: list[_Row]


class _RawLine(msgspec.Struct):
    """A line whose arrays are not decoded yet."""

    digest: bytes
    scan: str
    newest: int
    files: _Size
    raw_bytes: _Size = msgspec.field(name="bytes")
    kind: UnitKind
    frames: msgspec.Raw
    pieces: msgspec.Raw
    members: msgspec.Raw


Room = Callable[[], int]
"""How many bytes the data objects of the backup have that the index belongs to: it is asked only by what is large."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)
_raw_decoder = msgspec.json.Decoder(_RawLine)
_frames_decoder = msgspec.json.Decoder(list[Frame])
_pieces_decoder = msgspec.json.Decoder(list[_Piece])
_members_decoder = msgspec.json.Decoder(list[_Row])
_text_decoder = msgspec.json.Decoder(str)


def endless() -> int:
    """The room of an index that is not asked about its data."""
    return 2**63


def encode_unit(unit: Unit) -> bytes:
    """Return `unit` as one line, its newline included. Raises VolbackError if that is too long for a reader."""
    members = [
        (
            _text(path), type_, size, mtime, ctime, inode, mode, uid, gid, _text(link) if link else "", offset,
        )
        for path, type_, size, mtime, ctime, inode, mode, uid, gid, link, offset in unit.members
    ]  # fmt: skip
    numbers: dict[Frame, int] = {}
    pieces = [
        (numbers.setdefault(frame, len(numbers)), start, sizes, digests) for frame, start, sizes, digests in unit.pieces
    ]
    line = _encoder.encode(
        {
            "digest": unit.digest, "scan": unit.scan, "newest": unit.newest_ns, "bytes": unit.raw_bytes,
            "files": len(members), "kind": unit.kind, "frames": list(numbers), "pieces": pieces, "members": members,
        }
    )  # fmt: skip
    extents = sum(len(piece.sizes) for piece in unit.pieces)
    names_bytes = len(line) - EXTENT_TEXT_BYTES * extents
    if (
        extents > EXTENTS_MAX
        or len(line) > LINE_MAX_BYTES
        or names_bytes > NAMES_MAX_BYTES
        or len(members) > MEMBERS_MAX
    ):
        raise _too_long(unit, len(line))
    return line + b"\n"


def decode_unit(line: bytes, *, number: int = 1, room: Room = endless) -> Unit:
    """Return the unit that `line` holds, all of it checked. Raises FormatError that names line `number`.

    A long line is counted before it is decoded: memory is in proportion to what a unit may be, and to `room`.
    """
    try:
        parsed = _decoder.decode(line) if len(line) <= _SHORT_LINE_BYTES else _decode_long(line, room)
        members = [
            Member(
                _raw(path), type_, size, mtime, ctime, inode, mode, uid, gid, _raw(link) if link else b"", offset
            )
            for path, type_, size, mtime, ctime, inode, mode, uid, gid, link, offset in parsed.members
        ]  # fmt: skip
        frames = parsed.frames
        check_frames(frames)
        pieces = [Piece(frames[number], start, sizes, digests) for number, start, sizes, digests in parsed.pieces]
        unit = Unit(parsed.kind, pieces, members, parsed.scan, parsed.newest)
        check_unit(unit)
        if (unit.digest, unit.raw_bytes, len(members)) != (parsed.digest, parsed.raw_bytes, parsed.files):
            raise Fault("it is not what its beginning says")
    except (msgspec.MsgspecError, ValueError, IndexError, RecursionError) as exc:
        raise FormatError(f"index line {number} cannot be read: {exc}") from exc
    return unit


_BEGIN = re.compile(
    rb'\{"digest":"([A-Za-z0-9+/]{43}=)","scan":"([A-Za-z0-9_-]{43}|)","newest":(-?\d{1,40}),"bytes":(\d{1,19}),'
    rb'"files":(\d{1,9}),"kind":"(group|file|end)","frames":(\[.*?\]|\[\]),"pieces":'
)


class LineBegin(NamedTuple):
    """What a line says of its unit before all else."""

    digest: bytes
    scan: str
    newest_ns: int
    raw_bytes: int
    members: int
    kind: str
    frames: list[Frame]


def begin_of(line: bytes, *, room: Room = endless) -> LineBegin:
    """Read the beginning of a line, and nothing else of it. Raises FormatError."""
    found = _BEGIN.match(line)
    if found is None:
        raise FormatError("an index line does not begin as one")
    digest, scan, newest, raw_bytes, members, kind, frames = found.groups()
    try:
        if len(frames) > _SHORT_LINE_BYTES:
            _check_count(frames, room)
        decoded = _frames_decoder.decode(frames)
        check_frames(decoded)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise FormatError(f"an index line names no valid frames: {exc}") from exc
    return LineBegin(
        a2b_base64(digest), scan.decode(), int(newest), int(raw_bytes), int(members), kind.decode(), decoded
    )


_FIRST_PATH = re.compile(rb'"members":\[\["((?:[^"\\]|\\.)*+)"')
"""Possessive: it remembers no way back, of which there would be one for each letter."""


def first_path_of(line: bytes) -> bytes | None:
    """The path of a line's first member; None for the end of the archive. Raises FormatError."""
    found = _FIRST_PATH.search(line)
    try:
        return None if found is None else _raw(_text_decoder.decode(b'"%s"' % found[1]))
    except (msgspec.MsgspecError, ValueError) as exc:
        raise FormatError(f"an index line's first path cannot be read: {exc}") from exc


def is_same_but_for_places(one: bytes, other: bytes) -> bool:
    """Whether two lines differ in nothing but the places of the unit's extents, whose digests are not compared."""
    return _without_places(one) == _without_places(other)


def _without_places(line: bytes) -> tuple[bytes, bytes]:
    begin, _, rest = line.partition(b',"frames":')
    return begin, rest.partition(b',"members":')[2]


def read_units(buffers: Iterable[bytes | memoryview], *, room: Room = endless) -> Iterator[Unit]:
    """Yield the units of an index, lazily, from its bytes in buffers of any size.

    Raises FormatError for a line that is not a unit, or for more than the data has room for; IntegrityError for an
    index that ends inside a line.
    """
    return (unit for _, unit in select_units(read_lines(buffers, room=room), lambda _: True, room=room))


def select_units(
    lines: Iterable[bytes], wanted: Callable[[int], bool], *, room: Room = endless
) -> Iterator[tuple[int, Unit]]:
    """Yield the wanted units with their numbers, counted from 0; other lines are not decoded. Raises FormatError.

    `wanted` is called for each number in turn, after the unit before it has been used.
    """
    for number, line in enumerate(lines):
        check_units(number, room)
        if wanted(number):
            yield number, decode_unit(line, number=number + 1, room=room)


def check_units(number: int, room: Room) -> None:
    """Raises FormatError if the index has more units up to this one (counted from 0) than the data has room for."""
    if number >= _FREE and number > room() // FRAME_LEAST_BYTES:
        raise FormatError(f"the index has more units than the data has room for: {number} and more")


def _decode_long(line: bytes, room: Room) -> _Line:
    """Decode a line, if its arrays are not longer than they may be. Raises MsgspecError, _Fault."""
    raw = _raw_decoder.decode(line)
    members = _strings(raw.members) // 3
    if members > MEMBERS_MAX:
        raise Fault(f"{members} members are too many for a unit")
    _check_count(raw.frames, room)
    extents = bytes(raw.pieces).count(b",") // _COMMAS_OF_EXTENT
    if extents > _FREE_EXTENTS and extents > _extents(room):
        raise Fault(f"{extents} extents are more than the data has room for")
    if extents > EXTENTS_MAX:
        raise Fault(f"{extents} extents are too many for a unit")
    return _Line(
        raw.digest, raw.scan, raw.newest, raw.files, raw.raw_bytes, raw.kind,
        _frames_decoder.decode(raw.frames),
        _pieces_decoder.decode(raw.pieces),
        _members_decoder.decode(raw.members),
    )  # fmt: skip


def _check_count(frames: bytes | msgspec.Raw, room: Room) -> None:
    count = _strings(frames)
    if count > _FREE and count > room() // FRAME_LEAST_BYTES:
        raise Fault(f"{count} frames are more than the data has room for")


def _strings(text: bytes | msgspec.Raw) -> int:
    """How many strings there are in JSON text: a frame has one of them, a piece too, and a member three."""
    plain = bytes(text).replace(b"\\\\", b"")
    return (plain.count(b'"') - plain.count(b'\\"')) // 2


def _too_long(unit: Unit, size_bytes: int) -> VolbackError:
    what = unit.members[0].path.decode(errors="backslashreplace") if unit.members else "a unit"
    return VolbackError(
        f"{what} is too large, or has too many names: its index line has {size_bytes} bytes of {LINE_MAX_BYTES}",
        "leave it out with --exclude",
    )


def read_lines(
    buffers: Iterable[bytes | memoryview], *, room: Room = endless, what: str = "the index"
) -> Iterator[bytes]:
    """Yield the lines of an index without their newlines, as soon as they are there.

    Raises FormatError for a line that is longer than one of a unit may be, IntegrityError where the last one is cut.
    """
    count, pending, pending_bytes = 0, list[bytes](), 0
    for buffer in buffers:
        first, *rest = bytes(buffer).split(b"\n")
        pending.append(first)
        pending_bytes += len(first)
        if pending_bytes > min(NAMES_MAX_BYTES, LINE_MAX_BYTES) and pending_bytes > _longest(room):
            raise FormatError(f"index line {count + 1} is longer than {_longest(room)} bytes")
        if rest:
            yield b"".join(pending)
            yield from rest[:-1]
            count += len(rest)
            pending, pending_bytes = [rest[-1]], len(rest[-1])
    if pending_bytes:
        raise IntegrityError(f"{what} is cut short: it ends inside line {count + 1}")


def _longest(room: Room) -> int:
    """How long a line may be where the data has that much room for frames."""
    return min(LINE_MAX_BYTES, NAMES_MAX_BYTES + EXTENT_TEXT_BYTES * max(_FREE_EXTENTS, _extents(room)))


def _extents(room: Room) -> int:
    """How many extents a unit may have where the data has that much room for frames."""
    return _EXTENTS_OF_FRAME * (room() // FRAME_LEAST_BYTES)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "\0" + raw.decode("latin-1")


def _raw(text: str) -> bytes:
    if text[:1] != "\0":
        return text.encode()
    raw = text[1:].encode("latin-1")
    if _text(raw) != text:
        raise Fault("a name that is valid UTF-8 is written as one that is not")
    return raw
