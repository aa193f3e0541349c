"""Plan: from a scan of the volume to the order of its tar stream and the units that the stream is cut into.

A record is one `bytes` object (about 180 bytes per file), parsed again when its unit is cut: a million files
stay under 300 MB. Paths are sorted by their parts. A night on which nothing changed costs the scan, the plan and the
units' fingerprints, so none of them parses a record of a plain file: 1.4 and 0.15 s of CPU for a million files.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from volback.archive import scan as scans
from volback.archive.scan import Entry, Scan, garbled, parse_record, path_of
from volback.archive.verdicts import Verdicts
from volback.catalog.units import UnitKind
from volback.errors import EngineError

__all__ = ["Entry", "Plan", "PlannedUnit", "learn", "make_plan"]

FILE_UNIT_BYTES = 1024 * 1024
GROUP_MIN_BYTES = 96 * 1024
GROUP_MAX_BYTES = 512 * 1024
GROUP_MASK = 0x07
"""A group ends, once it has its minimum, at the first path whose CRC-32 has these bits zero: one in 8."""
HEADER_ESTIMATE_BYTES = 3 * 512
"""A pax header, its records and the ustar header: what nearly every member takes before its data."""


_PLAIN = b" 1 f"
"""Link count and type of a regular file with one name."""
_FILE, _SOCKET = b"fs"
_NAMED_TWICE = b"fl"
"""Types of which tar writes a second name as a hard link (GNU tar's dump_hard_link: no FIFO, no device)."""
_IN_ONE_PLACE = b"dpbc"


class PlannedUnit(NamedTuple):
    """Records `start` to `stop` of the plan."""

    kind: UnitKind
    start: int
    stop: int


@dataclass(slots=True)
class Plan:
    """The stream's order: records, and the units over them."""

    records: list[bytes]
    units: list[PlannedUnit]
    total_bytes: int = 0
    """Estimate of the tar stream's size."""
    sockets: int = 0
    excluded: int = 0
    odd: list[bytes] = field(default_factory=list)
    """Paths of a type that tar cannot hold (doors and the like)."""
    started_ns: int = 0
    """When the scan began, by the clock of the kernel that the helper runs on."""
    newest_ns: int = 0
    """The newest ctime on the root's filesystem."""
    filesystem: str = ""
    """Type of the filesystem that the volume's root lies on, as the kernel names it: ext4, nfs4, fuse.sshfs;
    cifs.noserverino: a CIFS that numbers inodes by itself."""
    is_mixed: bool = False
    """Whether records of other filesystems than the root's are among them."""
    mounted: frozenset[str] = frozenset()
    """Types of the filesystems that are mounted below the root."""

    ignore_inode: bool = False
    """Whether fingerprints leave inode numbers out."""
    ignore_ctime: bool = False
    """Whether fingerprints leave ctimes out."""
    reads_mounted: bool = False
    """Whether units with files of other filesystems than the root's have no fingerprint: they are always read."""

    def scan_of(self, unit: PlannedUnit) -> tuple[str, int]:
        """The unit's fingerprint, and the time that has to be settled: the newest ctime, or mtime where that is out.

        A unit without a fingerprint ("") is always read.
        """
        if self.is_mixed and self.reads_mounted and any(map(scans.is_mounted, self.records[unit.start : unit.stop])):
            return "", 0
        newest_ns = self.newest_mtime_ns(unit) if self.ignore_ctime else self.newest_ctime_ns(unit)
        return self.fingerprint(unit, ignore_inode=self.ignore_inode, ignore_ctime=self.ignore_ctime), newest_ns

    def entry(self, number: int) -> Entry:
        """Parse one record."""
        return parse_record(self.records[number])

    def key(self, number: int) -> bytes:
        """What a record is sorted by: its path, with NUL for each `/`."""
        return scans.key_of(self.records[number])

    def paths(self, unit: PlannedUnit) -> Iterator[bytes]:
        """Yield the unit's paths, in stream order."""
        return map(path_of, self.records[unit.start : unit.stop])

    def fingerprint(self, unit: PlannedUnit, *, ignore_inode: bool = False, ignore_ctime: bool = False) -> str:
        """SHA-256 of all that the scan says of the unit's files, base64url; equal if nothing of it has changed.

        That is path, type, mode, owner, size, mtime, ctime, inode, link count (of directories too: it changes with
        their times) and target of a symlink. It is not st_dev, which changes at a reboot, nor blocks, which change when
        a file is written out. Each option makes another text, so fingerprints made with different ones are not equal.

        No two lists of records give one text: they are joined with `/`, which no record contains, and a record's key
        ends at its first two NULs, its facts at the next one, its link at the last one.
        """
        records = self.records[unit.start : unit.stop]
        try:
            if ignore_inode:
                records = list(map(scans.without_inode, records))
            if ignore_ctime:
                records = list(map(scans.without_ctime, records))
        except ValueError as exc:
            raise garbled() from exc
        return urlsafe_b64encode(sha256(b"/".join(records)).digest())[:-1].decode()

    def newest_ctime_ns(self, unit: PlannedUnit) -> int:
        """The newest ctime of the unit's files."""
        return scans.newest_ctime_ns(self.records[unit.start : unit.stop])

    def newest_stamp_ns(self) -> int:
        """The newest time on the root's filesystem of the kind that fingerprints hold: ctime, or mtime."""
        if not self.ignore_ctime:
            return self.newest_ns
        return scans.newest_mtime_ns(self.of_root())

    def of_root(self) -> list[bytes]:
        """The records of the root's filesystem."""
        return [record for record in self.records if not scans.is_mounted(record)] if self.is_mixed else self.records

    def newest_mtime_ns(self, unit: PlannedUnit) -> int:
        """The newest mtime of the unit's files: for filesystems that invent ctimes. Takes 3 us a file."""
        return scans.newest_mtime_ns(self.records[unit.start : unit.stop])

    def names(self, wanted: Callable[[PlannedUnit], bool] | None = None) -> Iterator[bytes]:
        """Yield what tar reads from its list, NUL-terminated, in buffers of about 64 KiB.

        With `wanted`, only the units for which it returns true are named.
        """
        batch: list[bytes] = []
        size = 0
        for record in self.records if wanted is None else self._records(wanted):
            name = b"./%s\0" % path_of(record)
            batch.append(name)
            size += len(name)
            if size > 65536:
                yield b"".join(batch)
                batch, size = [], 0
        yield b"".join(batch)

    def _records(self, wanted: Callable[[PlannedUnit], bool]) -> Iterator[bytes]:
        for unit in self.units:
            if wanted(unit):
                yield from self.records[unit.start : unit.stop]


def make_plan(
    scan: Iterable[bytes | bytearray], excludes: Iterable[str] = (), *, verdicts: Verdicts | None = None
) -> Plan:
    """Plan the stream of one volume from find's output (`tar.SCAN_FORMAT`), in buffers of any size.

    `verdicts`: what is known of the exclude patterns from an earlier scan. Raises EngineError if the scan was cut off
    or is garbled.
    """
    found = Scan(scan)
    records: list[bytes] = []
    for part in found.records():
        records += part
    records.sort()
    if not records or not records[0].startswith(b"\0\0"):
        raise EngineError("the scan of the volume ended before it began")
    kept = _kept(records, verdicts or Verdicts(excludes))
    try:
        plan = _arrange(found.numbered(kept), found.holes)
        plan.is_mixed = found.is_mixed
        newest_ns = scans.newest_ctime_ns(plan.of_root())
    except (ValueError, LookupError) as exc:
        raise garbled() from exc
    plan.excluded = len(records) - len(kept)
    plan.started_ns, plan.newest_ns = found.started_ns, newest_ns
    plan.filesystem, plan.mounted = found.filesystem, found.mounted
    return plan


def learn(scan: Iterable[bytes | bytearray], verdicts: Verdicts) -> int:
    """Match every path of a scan and remember it; return how many were found. No record is kept.

    Raises EngineError if the scan was cut off.
    """
    found = 0

    def counted() -> Iterator[bytes]:
        nonlocal found
        for records in Scan(scan).records():
            found += len(records)
            yield from records

    for _ in _not_excluded(counted(), verdicts.learn):
        continue
    verdicts.end_learning()
    return found


def _kept(records: list[bytes], verdicts: Verdicts) -> list[bytes]:
    return list(_not_excluded(records, verdicts.excludes)) if verdicts.has_patterns else records


def _not_excluded(records: Iterable[bytes], excludes: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Those that are not excluded. What is below an excluded directory follows it: in find's order, and sorted."""
    below: bytes | None = None
    for record in records:
        key = scans.key_of(record)
        if below is not None and key.startswith(below):
            continue
        if key and excludes(key.replace(b"\0", b"/")):
            below = key + b"\0"
        else:
            below = None
            yield record


def _arrange(records: list[bytes], holes: dict[bytes, int]) -> Plan:
    plan = Plan(records=[], units=[])
    group = _Group(plan, holes)
    links = _HardLinks(records)
    for record, kind, size in zip(records, map(scans.kind_of, records), map(scans.size_of, records), strict=True):
        if kind == _PLAIN:
            group.add([record], int(size))
        else:
            _add_other(plan, group, links, record)
    group.end()
    return plan


def _add_other(plan: Plan, group: _Group, links: _HardLinks, record: bytes) -> None:
    """Add what is no regular file with one name, or has a number that is wider than its field."""
    count, letter, size_bytes = scans.links_type_size(record)
    if letter in _NAMED_TWICE:
        names = [record] if count == 1 else links.names(record)
        if names:
            group.add(names, size_bytes if letter == _FILE else 0)
    elif letter in _IN_ONE_PLACE:
        group.add([record], 0)
    elif letter == _SOCKET:
        plan.sockets += 1
    else:
        plan.odd.append(path_of(record))


class _HardLinks:
    """All names of each inode that has several."""

    def __init__(self, records: list[bytes]) -> None:
        self._records = records
        self._names: dict[bytes, list[bytes]] | None = None

    def names(self, record: bytes) -> list[bytes]:
        """All names of the record's inode, in order; none the second time. Raises ValueError."""
        if self._names is None:
            self._names = self._found()
        return self._names.pop(scans.inode_of(record), [])

    def _found(self) -> dict[bytes, list[bytes]]:
        names: dict[bytes, list[bytes]] = {}
        for record, kind in zip(self._records, map(scans.kind_of, self._records), strict=True):
            if kind != _PLAIN:
                count, letter, _ = scans.links_type_size(record)
                if letter in _NAMED_TWICE and count != 1:
                    names.setdefault(scans.inode_of(record), []).append(record)
        return names


class _Group:
    """The group unit that is being filled; ends where a path's hash says so, or before a file unit.

    A file counts with its size and not with its blocks, which change when it is written out: equal scans, equal groups.
    """

    def __init__(self, plan: Plan, holes: dict[bytes, int]) -> None:
        self._plan = plan
        self._holes = holes
        self._start = 0
        self._bytes = 0

    def add(self, names: list[bytes], size_bytes: int) -> None:
        """Add one entry: all names of its inode."""
        if size_bytes >= FILE_UNIT_BYTES:
            self._add_file(names, size_bytes)
            return
        self._plan.records += names
        self._bytes += HEADER_ESTIMATE_BYTES * len(names) + size_bytes
        if self._bytes >= GROUP_MIN_BYTES and (
            self._bytes >= GROUP_MAX_BYTES or not zlib.crc32(scans.key_of(names[0])) & GROUP_MASK
        ):
            self.end()

    def end(self) -> None:
        """End the group, if anything is in it."""
        if self._start < len(self._plan.records):
            self._close("group")

    def _add_file(self, names: list[bytes], size_bytes: int) -> None:
        self.end()
        self._plan.records += names
        self._bytes = HEADER_ESTIMATE_BYTES * len(names) + size_bytes - self._holes.get(scans.key_of(names[0]), 0)
        self._close("file")

    def _close(self, kind: UnitKind) -> None:
        stop = len(self._plan.records)
        self._plan.units.append(PlannedUnit(kind, self._start, stop))
        self._plan.total_bytes += self._bytes
        self._start, self._bytes = stop, 0
