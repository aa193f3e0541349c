"""What an index says, as types: units, their members, and where their extents lie. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal, NamedTuple

DIGEST_BYTES = 32

UnitKind = Literal["group", "file", "end"]


class Frame(NamedTuple):
    """The place of one zstd frame: in the data object that `backup` names (its object id), at `offset`."""

    backup: str
    offset: int
    stored_bytes: int
    raw_bytes: int


class Extent(NamedTuple):
    """What has a digest of its own: `size` bytes from `start` of a frame's raw bytes on."""

    start: int
    size: int
    digest: bytes


class Piece(NamedTuple):
    """Extents that follow one another in a frame, and in the unit. What has a digest of its own is an extent."""

    frame: Frame
    start: int
    """Where the first extent begins in the frame's raw bytes."""
    sizes: list[int]
    """Of each extent, in bytes."""
    digests: bytes
    """The SHA-256 of each extent's raw bytes, one after the other."""

    @property
    def raw_bytes(self) -> int:
        """Size of all extents together."""
        return sum(self.sizes)

    def extents(self) -> Iterator[Extent]:
        """Yield each extent, in order."""
        start = self.start
        for number, size in enumerate(self.sizes):
            yield Extent(start, size, self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES])
            start += size


class Member(NamedTuple):
    """One tar member, as scanned; `type` is find's letter: f d l p b c (h = hard link to `link`)."""

    path: bytes
    """Relative to the volume's root, without leading `./`; the root itself is empty."""
    type: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int
    uid: int
    gid: int
    link: bytes
    """Target of a symlink; path (as `path`) of the first name of a hard link; else empty."""
    offset: int
    """The offset of the member's first header block in the unit's raw bytes."""


class Span(NamedTuple):
    """The place of a member: bytes `start` to `stop` of its unit's raw bytes, header and padding included."""

    member: Member
    start: int
    stop: int


class Unit(NamedTuple):
    """What is read or reused as one: pieces in stream order, members in stream order."""

    kind: UnitKind
    pieces: list[Piece]
    members: list[Member]
    scan: str = ""
    """Fingerprint of what the scan said of the members; empty where something changed between scan and read."""
    newest_ns: int = 0
    """The newest ctime of the members, as scanned."""

    @property
    def raw_bytes(self) -> int:
        """Size of what the unit's extents hold."""
        return sum(piece.raw_bytes for piece in self.pieces)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the digests of its extents: it does not depend on the frames in which they lie."""
        return hashlib.sha256(b"".join(piece.digests for piece in self.pieces)).digest()

    def starts(self) -> Iterator[int]:
        """Yield where each piece begins in the unit's raw bytes."""
        at = 0
        for piece in self.pieces:
            yield at
            at += piece.raw_bytes

    def spans(self) -> Iterator[Span]:
        """Yield where each member lies, in stream order."""
        stops = chain((member.offset for member in islice(self.members, 1, None)), [self.raw_bytes])
        for member, stop in zip(self.members, stops, strict=False):
            yield Span(member, member.offset, stop)


class Run(NamedTuple):
    """Segments of an index that lie one after the other: in the index object that `backup` names, at `offset`."""

    backup: str
    offset: int
    stored_bytes: int
    digest: bytes
    """SHA-256 of these stored bytes."""
    dictionary: Run | None = None
    """A segment, compressed without one, that was the dictionary of this run, which then is one segment."""
