"""The types of format 1: manifest, unit, frame, member. No I/O; all packages above use them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal, NamedTuple

import msgspec

from volback.catalog.keys import BackupKey
from volback.catalog.reference import Reference

FORMAT = 1
FRAME_MAX_BYTES = 8 * 1024 * 1024
"""No writer makes a larger frame; a reader refuses it, so that hostile sizes cost no memory."""

UnitKind = Literal["group", "file", "end"]
BackupKind = Literal["full", "incremental"]
Consistency = Literal["live", "paused", "stopped"]


class Frame(NamedTuple):
    """The place of one zstd frame: in the data object of `backup`, at `offset`."""

    backup: str
    offset: int
    stored_bytes: int
    raw_bytes: int
    sha256: str
    """Hex digest of the raw (uncompressed) bytes."""


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
    """What is read or reused as one: frames in stream order, members in stream order."""

    kind: UnitKind
    frames: list[Frame]
    members: list[Member]

    @property
    def raw_bytes(self) -> int:
        """Size of what the unit's frames hold."""
        return sum(frame.raw_bytes for frame in self.frames)

    def starts(self) -> Iterator[int]:
        """Yield where each frame begins in the unit's raw bytes."""
        at = 0
        for frame in self.frames:
            yield at
            at += frame.raw_bytes

    def spans(self) -> Iterator[Span]:
        """Yield where each member lies, in stream order."""
        stops = chain((member.offset for member in islice(self.members, 1, None)), [self.raw_bytes])
        for member, stop in zip(self.members, stops, strict=False):
            yield Span(member, member.offset, stop)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What was backed up: a volume as the engine describes it, or a host directory."""

    kind: Literal["volume", "directory"]
    name: str
    driver: str = "local"
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class ObjectDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Size and SHA-256 (hex) of one stored object."""

    size_bytes: int
    sha256: str


class SetOf(msgspec.Struct, frozen=True, kw_only=True):
    """What was backed up together: volumes read under one quiesce belong to one moment, and are restored together."""

    id: str
    """It has the form of a backup id, but is not the id of a backup."""
    project: str | None = None
    """The compose project whose volumes they are."""
    volumes: list[str]
    """Every volume of the set, including this one. The set is complete if each volume has a backup that names the
    set."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """One backup; written last, so a backup exists if and only if this does. Times are RFC 3339 UTC."""

    format: int
    id: str
    host: str
    volume: str
    """Volume name, or absolute path of a host directory; the key's VOLUME part is its encoding."""
    kind: BackupKind
    engine_id: str
    source: Source
    started_at: str
    ended_at: str
    consistency: Consistency
    containers: list[str] = []
    """Names of the containers that had the volume mounted while it was read."""
    files: int
    """Members in the stream (directories, links and devices too; the end blocks are not members)."""
    raw_bytes: int
    stored_bytes: int
    """Bytes new in this backup's data object."""
    reused_bytes: int = 0
    sockets_skipped: int = 0
    excludes: list[str] = []
    excluded: int = 0
    """How many members the patterns left out."""
    smaller_than: str | None = None
    """The id of the earlier backup against which this one is suspiciously small."""
    depends_on: list[str] = []
    """Ids of other backups of the same volume whose frames this one references."""
    data: ObjectDigest
    index: ObjectDigest
    digest: str
    """SHA-256 over the concatenated binary frame digests, in stream order."""
    warnings: list[str] = []
    encryption: str | None = None
    tags: list[str] = []
    set: SetOf | None = None
    """None for a backup that does not belong to a set, and in repositories written before there were sets."""
    volback: str

    @property
    def key(self) -> BackupKey:
        """Where the backup's objects are."""
        return BackupKey(self.host, self.volume, self.id)

    @property
    def name(self) -> str:
        """The backup's full name: `HOST/VOLUME@ID`."""
        return str(Reference(self.host, self.volume, self.id))


class RepositoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`volback.json`, the first object of a repository."""

    format: int
    id: str
