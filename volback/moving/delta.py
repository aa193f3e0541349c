"""Delta: what has changed in a volume between two scans of it, and whether two scans say the same of its files.

Pure: it compares plans. What may have changed counts as changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from volback.archive.plan import Entry, Plan, PlannedUnit
from volback.policy.unchanged import ignored, is_known_below, is_settled

_NAMES_BYTES = 65536
_LOST_FOUND = b"lost+found"
"""It came with the target's filesystem."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What a later pass has to do."""

    sent: frozenset[bytes]
    """Paths that are sent: of files that may have changed, and of the directories above, whose times that changes."""
    gone: frozenset[bytes]
    """Paths that are removed first: they are not there any more, or of another type."""
    raw_bytes: int
    """Estimate of the stream."""

    def names(self, plan: Plan) -> Iterator[bytes]:
        """Yield what tar reads from its list, in the order of the plan."""
        batch, size = list[bytes](), 0
        for unit in plan.units:
            for path in plan.paths(unit):
                if path in self.sent:
                    batch.append(b"./%s\0" % path)
                    size += len(batch[-1])
            if size > _NAMES_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
        yield b"".join(batch)


def delta(before: Plan, now: Plan) -> Delta:
    """Compare a volume with an earlier scan of it."""
    for plan in (before, now):
        plan.ignore_inode, plan.ignore_ctime = ignored(now.filesystem)
        plan.reads_mounted = not is_known_below(plan.filesystem, plan.mounted)
    earlier, unknown = _marked(before)
    changed: list[PlannedUnit] = []
    for unit in now.units:
        mark, newest_ns = now.scan_of(unit)
        is_there = bool(mark) and earlier.pop(mark, None) is not None
        if not (is_there and is_settled(newest_ns, before, now.filesystem)):
            changed.append(unit)
    types_before, types_now = _types(before, [*unknown, *earlier.values()]), _types(now, changed)
    gone = {path for path, type_ in types_before.items() if types_now.get(path) != type_}
    sent = set(types_now)
    for path in [*sent, *gone]:
        sent.update(above(path))
    return Delta(frozenset(sent), frozenset(gone), sum(_size(now, unit) for unit in changed))


@dataclass(frozen=True, slots=True)
class Remainder:
    """What a target lacks that holds a part of a volume."""

    delta: Delta
    alike: tuple[int, ...]
    """Numbers of the records of which the target has what the scan says, in order: their content is not compared."""


def remainder(now: Plan, there: Plan) -> Remainder:
    """Compare a volume with what a target holds of it, by what the scans say. All names of an inode count as one."""
    found = {entry.path: entry for entry in map(there.entry, range(len(there.records)))}
    sent, alike, gone, raw_bytes = set[bytes](), list[int](), set[bytes](), 0
    for numbers in _inodes(now):
        entries = [now.entry(number) for number in numbers]
        theirs = [found.pop(entry.path, None) for entry in entries]
        if all(there and _described(there) == _described(one) for one, there in zip(entries, theirs, strict=True)):
            alike += numbers
            continue
        sent.update(entry.path for entry in entries)
        gone.update(there.path for one, there in zip(entries, theirs, strict=True) if there and there.type != one.type)
        raw_bytes += entries[0].size_bytes if entries[0].type == "f" else 0
    gone.update(path for path in found if path != _LOST_FOUND)
    for path in [*sent, *gone]:
        sent.update(above(path))
    left = [number for number in alike if now.entry(number).path not in sent]
    return Remainder(Delta(frozenset(sent), frozenset(gone), raw_bytes), tuple(left))


def _inodes(plan: Plan) -> Iterator[list[int]]:
    """The numbers of the names of each inode, which follow one another in a plan."""
    numbers, last = list[int](), None
    for number in range(len(plan.records)):
        entry = plan.entry(number)
        inode = (entry.device, entry.inode) if entry.links > 1 and entry.type in "fl" else None
        if numbers and (inode is None or inode != last):
            yield numbers
            numbers = []
        numbers.append(number)
        last = inode
    if numbers:
        yield numbers


def are_same(one: Plan, other: Plan) -> bool:
    """Whether both say the same of all files: what a copy takes over, but for attributes and content."""
    if len(one.records) != len(other.records):
        return False
    numbers = range(len(one.records))
    return all(_described(one.entry(number)) == _described(other.entry(number)) for number in numbers)


class _Described(NamedTuple):
    """What two copies of a file have in common. A directory's size and links are the filesystem's own."""

    path: bytes
    type: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size_bytes: int
    links: int
    link: bytes


def _described(entry: Entry) -> _Described:
    size_bytes = entry.size_bytes if entry.type == "f" else 0
    links = entry.links if entry.type in "fl" else 0
    owner = entry.uid, entry.gid
    return _Described(entry.path, entry.type, entry.mode, owner, entry.mtime_ns, size_bytes, links, entry.link)


def _marked(plan: Plan) -> tuple[dict[str, PlannedUnit], list[PlannedUnit]]:
    """The units by their fingerprint, and those that have none."""
    marked: dict[str, PlannedUnit] = {}
    unknown: list[PlannedUnit] = []
    for unit in plan.units:
        mark, _ = plan.scan_of(unit)
        if mark:
            marked[mark] = unit
        else:
            unknown.append(unit)
    return marked, unknown


def _types(plan: Plan, units: Iterable[PlannedUnit]) -> dict[bytes, str]:
    return {entry.path: entry.type for unit in units for entry in map(plan.entry, range(unit.start, unit.stop))}


def above(path: bytes) -> Iterator[bytes]:
    """The directories above, the root last."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _size(plan: Plan, unit: PlannedUnit) -> int:
    return sum(plan.entry(number).size_bytes for number in range(unit.start, unit.stop))
