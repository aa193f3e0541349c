"""Plan: from a scan of the volume to the order of its tar stream and the units that the stream is cut into.

A record is one `bytes` object (about 180 bytes per file), parsed again when its unit is cut: a million files
stay under 300 MB. Paths are sorted by their parts: `/` becomes NUL, which sorts before every byte of a name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from volback.archive.tar import SCAN_END
from volback.archive.verdicts import Verdicts
from volback.catalog.model import UnitKind
from volback.errors import EngineError

FILE_UNIT_BYTES = 1024 * 1024
GROUP_MIN_BYTES = 512 * 1024
GROUP_MAX_BYTES = 2 * 1024 * 1024
GROUP_MASK = 0x1F
"""A group ends, once it has its minimum, at the first path whose CRC-32 has these bits zero: one in 32."""
HEADER_ESTIMATE_BYTES = 3 * 512
"""A pax header, its records and the ustar header: what nearly every member takes before its data."""


_FILE, _SOCKET = b"fs"
_NAMED_TWICE = b"fl"
"""Types of which tar writes a second name as a hard link (GNU tar's dump_hard_link: no FIFO, no device)."""


class Entry(NamedTuple):
    """One record of the scan; sizes in bytes, times in ns; `held_bytes` is what the file occupies on disk."""

    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    held_bytes: int
    link: bytes


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

    def entry(self, number: int) -> Entry:
        """Parse one record."""
        return parse_record(self.records[number])

    def paths(self, unit: PlannedUnit) -> Iterator[bytes]:
        """Yield the unit's paths, in stream order."""
        return map(_path, self.records[unit.start : unit.stop])

    def names(self, wanted: Callable[[PlannedUnit], bool] | None = None) -> Iterator[bytes]:
        """Yield what tar reads from its list, NUL-terminated, in buffers of about 64 KiB.

        With `wanted`, only the units for which it returns true are named.
        """
        batch: list[bytes] = []
        size = 0
        for record in self.records if wanted is None else self._records(wanted):
            name = b"./%s\0" % _path(record)
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
    verdicts = verdicts or Verdicts(excludes)
    records = sorted(_records(scan))
    if not records or not records[0].startswith(b"\0\0"):
        raise EngineError("the scan of the volume ended before it began")
    kept = list(_kept(records, verdicts.excludes))
    try:
        return _arrange(kept, len(records) - len(kept))
    except (ValueError, LookupError) as exc:
        raise _garbled() from exc


def learn(scan: Iterable[bytes | bytearray], verdicts: Verdicts) -> int:
    """Match every path of a scan and remember it; return how many were found. No record is kept.

    Raises EngineError if the scan was cut off.
    """
    found = 0

    def counted() -> Iterator[bytes]:
        nonlocal found
        for record in _records(scan):
            found += 1
            yield record

    for _ in _kept(counted(), verdicts.learn):
        continue
    verdicts.end_learning()
    return found


def parse_record(record: bytes) -> Entry:
    """Parse one record of a plan. Raises EngineError if it is garbled."""
    try:
        key, _, rest = record.partition(b"\0\0")
        facts, _, link = rest.partition(b"\0")
        kind, mode, uid, gid, size, mtime, ctime, inode, device, links, blocks = facts.split(b" ")
        return Entry(
            key.replace(b"\0", b"/"),
            chr(kind[0]),
            int(mode, 8),
            int(uid),
            int(gid),
            int(size),
            _nanoseconds(mtime),
            _nanoseconds(ctime),
            int(inode),
            int(device),
            int(links),
            int(blocks) * 512,
            link,
        )
    except (ValueError, LookupError) as exc:
        raise _garbled() from exc


def _path(record: bytes) -> bytes:
    return record[: record.index(b"\0\0")].replace(b"\0", b"/")


def _records(scan: Iterable[bytes | bytearray]) -> Iterator[bytes]:
    rest = b""
    for buffer in scan:
        fields = (rest + buffer).split(b"\0")
        whole = (len(fields) - 1) // 3 * 3
        for at in range(0, whole, 3):
            yield b"%s\0\0%s\0%s" % (fields[at].replace(b"/", b"\0"), fields[at + 1], fields[at + 2])
        rest = b"\0".join(fields[whole:])
    if rest != SCAN_END.encode():
        raise EngineError("the scan of the volume was cut off", "run the command again")


def _kept(records: Iterable[bytes], excludes: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Those that are not excluded. What is below an excluded directory follows it: in find's order, and sorted."""
    below: bytes | None = None
    for record in records:
        key = record[: record.index(b"\0\0")]
        if below is not None and key.startswith(below):
            continue
        if key and excludes(key.replace(b"\0", b"/")):
            below = key + b"\0"
        else:
            below = None
            yield record


def _arrange(records: list[bytes], excluded: int) -> Plan:
    plan = Plan(records=[], units=[], excluded=excluded)
    other_names = _other_names(records)
    placed: set[bytes] = set()
    group = _Group(plan)
    for record in records:
        at = record.index(b"\0\0") + 2
        kind = record[at]
        if kind == _SOCKET:
            plan.sockets += 1
        elif kind not in b"fdlpbc":
            plan.odd.append(_path(record))
        elif kind not in _NAMED_TWICE:
            group.add([record], 0, record[: at - 2])
        elif record not in placed:
            facts = record[at : record.index(b"\0", at)].split(b" ")
            names = [record]
            if facts[9] != b"1":
                names = other_names[facts[8], facts[7]]
                placed.update(names)
            size = int(facts[4])
            held_bytes = min(size, int(facts[10]) * 512)
            if kind == _FILE and size >= FILE_UNIT_BYTES:
                group.add_file(names, held_bytes)
            else:
                group.add(names, held_bytes, record[: at - 2])
    group.end()
    return plan


class _Group:
    """The group unit that is being filled; ends where a path's hash says so, or before a file unit."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._start = 0
        self._bytes = 0

    def add(self, names: list[bytes], data_bytes: int, key: bytes) -> None:
        """Add one entry: all names of its inode."""
        size = self._take(names, data_bytes)
        self._bytes += size
        full = self._bytes >= GROUP_MAX_BYTES
        if full or (self._bytes >= GROUP_MIN_BYTES and not zlib.crc32(key) & GROUP_MASK):
            self.end()

    def add_file(self, names: list[bytes], data_bytes: int) -> None:
        """Add a file that is a unit of its own."""
        self.end()
        self._take(names, data_bytes)
        self._close("file")

    def end(self) -> None:
        """End the group, if anything is in it."""
        if self._start < len(self._plan.records):
            self._close("group")

    def _take(self, names: list[bytes], data_bytes: int) -> int:
        self._plan.records += names
        size = HEADER_ESTIMATE_BYTES * len(names) + data_bytes
        self._plan.total_bytes += size
        return size

    def _close(self, kind: UnitKind) -> None:
        stop = len(self._plan.records)
        self._plan.units.append(PlannedUnit(kind, self._start, stop))
        self._start, self._bytes = stop, 0


def _other_names(records: list[bytes]) -> dict[tuple[bytes, bytes], list[bytes]]:
    """Names of each inode that has several, in order; keyed by device and inode."""
    names: dict[tuple[bytes, bytes], list[bytes]] = {}
    for record in records:
        at = record.index(b"\0\0") + 2
        if record[at] not in _NAMED_TWICE:
            continue
        facts = record[at : record.index(b"\0", at)].split(b" ")
        if facts[9] != b"1":
            names.setdefault((facts[8], facts[7]), []).append(record)
    return names


def _garbled() -> EngineError:
    return EngineError("the scan of the volume is garbled: a record is not what find writes", "run the command again")


def _nanoseconds(text: bytes) -> int:
    """find prints whole seconds, rounded down, and the rest with ten digits: -1.9999999990 is -1 ns."""
    return int(text[:-11]) * 1_000_000_000 + int(text[-10:-1])
