"""Unit check: what a unit of an index may be. Checked in bulk, because an index can have a million members."""

from __future__ import annotations

import re
from operator import lt

from volback.catalog.keys import is_object_id
from volback.catalog.model import FRAME_MAX_BYTES
from volback.catalog.units import DIGEST_BYTES, Frame, Member, Piece, Unit

STORED_MAX_BYTES = FRAME_MAX_BYTES + FRAME_MAX_BYTES // 128 + 1024
"""No stored frame is larger: zstd adds at most 1/256 to what it cannot compress, encryption some bytes."""
_TIME_LIMIT_NS = 2**63 * 1_000_000_000  # XFS and Btrfs keep 64-bit seconds: nanoseconds need more than 64 bits
_INODE_LIMIT = 2**64
_SCAN = re.compile(r"[A-Za-z0-9_-]{43}|")
_BAD_PATHS = (b"//", b"/./", b"/../")


class Fault(ValueError):
    """What is wrong with a line; it becomes a FormatError that also names the line."""


def check_unit(unit: Unit) -> None:
    """Raises Fault with the first thing that is wrong."""
    if not _SCAN.fullmatch(unit.scan):
        raise Fault("a fingerprint is not valid")
    for piece in unit.pieces:
        _check_piece(piece)
    if not unit.members:
        return
    if unit.kind == "end":
        raise Fault("the end of the archive has members")
    _check_offsets([member.offset for member in unit.members], unit.raw_bytes)
    _check_paths(unit.members)
    _check_numbers(unit.members)


def check_frames(frames: list[Frame]) -> None:
    """Raises Fault for a frame that no writer makes."""
    for id_ in {frame.backup for frame in frames}:
        if not is_object_id(id_):
            raise Fault(f"{id_[:40]!r} names no data object")
    for _, offset, stored_bytes, raw_bytes in frames:
        if not (0 <= offset < 2**63 and 0 <= stored_bytes <= STORED_MAX_BYTES and 0 <= raw_bytes <= FRAME_MAX_BYTES):
            raise Fault(f"impossible frame: {stored_bytes} bytes at {offset} that hold {raw_bytes}")


def _check_piece(piece: Piece) -> None:
    """Its extents are not empty, and lie within its frame."""
    if len(piece.digests) != DIGEST_BYTES * len(piece.sizes) or not piece.sizes:
        raise Fault(f"{len(piece.sizes)} extents have {len(piece.digests)} bytes of digests")
    if min(piece.sizes) < 1 or piece.start + piece.raw_bytes > piece.frame.raw_bytes:
        raise Fault(f"extents from {piece.start} on do not lie within a frame of {piece.frame.raw_bytes} bytes")


def _check_offsets(offsets: list[int], unit_bytes: int) -> None:
    if offsets[-1] >= unit_bytes or not all(map(lt, offsets, offsets[1:])):
        raise Fault(f"members are not in order within the unit's {unit_bytes} bytes")


def _check_paths(members: list[Member]) -> None:
    if any(not member.path and member.type != "d" for member in members):
        raise Fault("the volume's root is not a directory")
    if any((member.type in "lh") != bool(member.link) for member in members):
        raise Fault("a link has no target, or a member that is not a link has one")
    targets = [member.link for member in members if member.link]
    paths = [member.path for member in members if member.path]
    if b"\0" in b"".join(paths) or b"\0" in b"".join(targets):
        raise Fault("a path contains a NUL")
    # All paths at once, as `/path/` with NUL between: three searches per unit instead of three per member.
    paths += [member.link for member in members if member.type == "h"]
    joined = b"/" + b"/\0/".join(paths) + b"/"
    if paths and any(bad in joined for bad in _BAD_PATHS):
        raise Fault("a path is absolute or has an empty, '.' or '..' part")


def _check_numbers(members: list[Member]) -> None:
    times = [member.mtime_ns for member in members] + [member.ctime_ns for member in members]
    if not -_TIME_LIMIT_NS <= min(times) <= max(times) < _TIME_LIMIT_NS:
        raise Fault("a time is out of range")
    inodes = [member.inode for member in members]
    if min(inodes) < 0 or max(inodes) >= _INODE_LIMIT:
        raise Fault("an inode number is out of range")
