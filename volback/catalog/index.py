"""The index's line codec: one JSON line per unit. Buffers in, units out; archive/ does the compression.

Names are bytes: a valid UTF-8 path is written as that text, any other as U+0000 and its bytes as Latin-1 (a path
cannot contain NUL, so the two are never confused). Every line read may be hostile: everything that a reader trusts
later (frame sizes, paths, offsets) is checked here, in bulk, because an index can have a million members.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from operator import lt
from typing import Annotated, Literal

import msgspec

from volback.catalog.keys import is_id
from volback.catalog.model import FRAME_MAX_BYTES, Frame, Member, Unit, UnitKind
from volback.errors import FormatError, IntegrityError, VolbackError

LINE_MAX_BYTES = 512 * 1024 * 1024
"""The longest line of a unit; a writer refuses a longer one.

A frame takes at most 128 bytes (id 24, offset 15, sizes 7 each, digest 66, punctuation), and a file has one for each
MiB: so a file may have almost 4 TiB.
"""
NAMES_MAX_BYTES = 32 * 1024 * 1024
"""What of a line may be other than frames: a group of at most 2 MiB of entries, and the names of one inode. The 65,000
that ext4 and Btrfs allow, each with the first name as its target, may take 500 bytes each."""
MEMBERS_MAX = 1 << 17
"""Members of one unit. Decoded, each takes about 1 KiB."""
FRAME_TEXT_BYTES = 128
FRAME_LEAST_BYTES = 14
"""No frame is stored in fewer: zstd's header, size, one block of one byte, checksum (RFC 8878)."""
_SHORT_LINE_BYTES = 1024 * 1024
_FREE = 1 << 13
"""So many frames of a line, and units of an index, are decoded without asking how much data there is for them."""
STORED_MAX_BYTES = FRAME_MAX_BYTES + FRAME_MAX_BYTES // 128 + 1024
"""No stored frame is larger: zstd adds at most 1/256 to what it cannot compress, encryption some bytes."""

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Mode = Annotated[int, msgspec.Meta(ge=0, le=0o177777)]
_Owner = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Type = Literal["f", "d", "l", "p", "b", "c", "h"]
# path, type, size, mtime, ctime, inode, mode, uid, gid, link, offset
_Row = tuple[str, _Type, _Size, int, int, int, _Mode, _Owner, _Owner, str, _Size]

_TIME_LIMIT_NS = 2**63 * 1_000_000_000  # XFS and Btrfs keep 64-bit seconds: nanoseconds need more than 64 bits
_INODE_LIMIT = 2**64
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BAD_PATHS = (b"//", b"/./", b"/../")


class _Line(msgspec.Struct):
    kind: UnitKind
    frames: list[Frame]
    members: list[_Row]


class _Fault(ValueError):
    """What is wrong with a line; it becomes a FormatError that also names the line."""


class _RawLine(msgspec.Struct):
    """A line whose arrays are not decoded yet."""

    kind: UnitKind
    frames: msgspec.Raw
    members: msgspec.Raw


Room = Callable[[], int]
"""How many bytes the data objects of the backup have that the index belongs to: it is asked only by what is large."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)
_raw_decoder = msgspec.json.Decoder(_RawLine)
_frames_decoder = msgspec.json.Decoder(list[Frame])
_members_decoder = msgspec.json.Decoder(list[_Row])


def _endless() -> int:
    return 2**63


def encode_unit(unit: Unit) -> bytes:
    """Return `unit` as one line, its newline included. Raises VolbackError if that is too long for a reader."""
    members = [
        (
            _text(path), type_, size, mtime, ctime, inode, mode, uid, gid, _text(link) if link else "", offset,
        )
        for path, type_, size, mtime, ctime, inode, mode, uid, gid, link, offset in unit.members
    ]  # fmt: skip
    line = _encoder.encode({"kind": unit.kind, "frames": unit.frames, "members": members})
    names_bytes = len(line) - FRAME_TEXT_BYTES * len(unit.frames)
    if len(line) > LINE_MAX_BYTES or names_bytes > NAMES_MAX_BYTES or len(members) > MEMBERS_MAX:
        raise _too_long(unit, len(line))
    return line + b"\n"


def decode_unit(line: bytes, *, number: int = 1, room: Room = _endless) -> Unit:
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
        unit = Unit(parsed.kind, parsed.frames, members)
        _check(unit)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise FormatError(f"index line {number} cannot be read: {exc}") from exc
    return unit


def read_units(buffers: Iterable[bytes | memoryview], *, room: Room = _endless) -> Iterator[Unit]:
    """Yield the units of an index, lazily, from its bytes in buffers of any size.

    Raises FormatError for a line that is not a unit, or for more than the data has room for; IntegrityError for an
    index that ends inside a line.
    """
    return (unit for _, unit in select_units(buffers, lambda _: True, room=room))


def select_units(
    buffers: Iterable[bytes | memoryview], wanted: Callable[[int], bool], *, room: Room = _endless
) -> Iterator[tuple[int, Unit]]:
    """Yield the wanted units with their numbers, counted from 0; other lines are not decoded. Raises as `read_units`.

    `wanted` is called for each number in turn, after the unit before it has been used.
    """
    for number, line in enumerate(_lines(buffers, room)):
        if number >= _FREE and number > room() // FRAME_LEAST_BYTES:
            raise FormatError(f"the index has more units than the data has room for: {number} and more")
        if wanted(number):
            yield number, decode_unit(line, number=number + 1, room=room)


def _decode_long(line: bytes, room: Room) -> _Line:
    """Decode a line, if its arrays are not longer than they may be. Raises MsgspecError, _Fault."""
    raw = _raw_decoder.decode(line)
    frames, members = _strings(raw.frames) // 2, _strings(raw.members) // 3
    if members > MEMBERS_MAX:
        raise _Fault(f"{members} members are too many for a unit")
    if frames > _FREE and frames > room() // FRAME_LEAST_BYTES:
        raise _Fault(f"{frames} frames are more than the data has room for")
    return _Line(raw.kind, _frames_decoder.decode(raw.frames), _members_decoder.decode(raw.members))


def _strings(text: msgspec.Raw) -> int:
    """How many strings there are in JSON text: a frame has two of them, and a member three."""
    plain = bytes(text).replace(b"\\\\", b"")
    return (plain.count(b'"') - plain.count(b'\\"')) // 2


def _too_long(unit: Unit, size_bytes: int) -> VolbackError:
    what = unit.members[0].path.decode(errors="backslashreplace") if unit.members else "a unit"
    return VolbackError(
        f"{what} is too large, or has too many names: its index line has {size_bytes} bytes of {LINE_MAX_BYTES}",
        "leave it out with --exclude",
    )


def _lines(buffers: Iterable[bytes | memoryview], room: Room) -> Iterator[bytes]:
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
        raise IntegrityError(f"the index is cut short: it ends inside line {count + 1}")


def _longest(room: Room) -> int:
    """How long a line may be where the data has that much room for frames."""
    return min(LINE_MAX_BYTES, NAMES_MAX_BYTES + FRAME_TEXT_BYTES * (room() // FRAME_LEAST_BYTES))


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
        raise _Fault("a name that is valid UTF-8 is written as one that is not")
    return raw


def _check(unit: Unit) -> None:
    _check_frames(unit.frames)
    if not unit.members:
        return
    if unit.kind == "end":
        raise _Fault("the end of the archive has members")
    _check_offsets([member.offset for member in unit.members], unit.raw_bytes)
    _check_paths(unit.members)
    _check_numbers(unit.members)


def _check_frames(frames: list[Frame]) -> None:
    for id_ in {frame.backup for frame in frames}:
        if not is_id(id_):
            raise _Fault(f"{id_[:40]!r} is not a backup id")
    for _, offset, stored_bytes, raw_bytes, sha256 in frames:
        if not (0 <= offset < 2**63 and 0 <= stored_bytes <= STORED_MAX_BYTES and 0 <= raw_bytes <= FRAME_MAX_BYTES):
            raise _Fault(f"impossible frame: {stored_bytes} bytes at {offset} that hold {raw_bytes}")
        if not _DIGEST.fullmatch(sha256):
            raise _Fault("a frame's digest is not valid")


def _check_offsets(offsets: list[int], unit_bytes: int) -> None:
    if offsets[-1] >= unit_bytes or not all(map(lt, offsets, offsets[1:])):
        raise _Fault(f"members are not in order within the unit's {unit_bytes} bytes")


def _check_paths(members: list[Member]) -> None:
    if any(not member.path and member.type != "d" for member in members):
        raise _Fault("the volume's root is not a directory")
    if any((member.type in "lh") != bool(member.link) for member in members):
        raise _Fault("a link has no target, or a member that is not a link has one")
    targets = [member.link for member in members if member.link]
    paths = [member.path for member in members if member.path]
    if b"\0" in b"".join(paths) or b"\0" in b"".join(targets):
        raise _Fault("a path contains a NUL")
    # All paths at once, as `/path/` with NUL between: three searches per unit instead of three per member.
    paths += [member.link for member in members if member.type == "h"]
    joined = b"/" + b"/\0/".join(paths) + b"/"
    if paths and any(bad in joined for bad in _BAD_PATHS):
        raise _Fault("a path is absolute or has an empty, '.' or '..' part")


def _check_numbers(members: list[Member]) -> None:
    times = [member.mtime_ns for member in members] + [member.ctime_ns for member in members]
    if not -_TIME_LIMIT_NS <= min(times) <= max(times) < _TIME_LIMIT_NS:
        raise _Fault("a time is out of range")
    inodes = [member.inode for member in members]
    if min(inodes) < 0 or max(inodes) >= _INODE_LIMIT:
        raise _Fault("an inode number is out of range")
