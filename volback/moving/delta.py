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
        sent.update(_above(path))
    return Delta(frozenset(sent), frozenset(gone), sum(_size(now, unit) for unit in changed))


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


def _above(path: bytes) -> Iterator[bytes]:
    """The directories above, the root last."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _size(plan: Plan, unit: PlannedUnit) -> int:
    return sum(plan.entry(number).size_bytes for number in range(unit.start, unit.stop))
