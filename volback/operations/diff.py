"""Diff: what differs between two backups, or between a backup and the volume as it is now.

Of backups only indexes are read. Of a volume, files are scanned; with `data`, those that may have changed are read too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from volback.archive import tar
from volback.archive.cut import Cut, Cutter, RawFrame, UnitEnd
from volback.archive.plan import Plan, PlannedUnit
from volback.archive.seal import digests_of, raw_bytes
from volback.archive.seal import in_order as in_threads
from volback.catalog.differences import Difference, differences
from volback.catalog.model import Manifest, Source
from volback.catalog.states import State, in_order, states_of
from volback.catalog.units import Frame, Member, Piece, Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader
from volback.operations.open_backup import OpenBackup
from volback.operations.single_files import read_source
from volback.operations.volumes import open_reader, scan, unreadable
from volback.progress import Progress
from volback.state.runs import Run

log = logging.getLogger(__name__)

_NOWHERE = Frame("", 0, 0, 0)
"""The frame of what is read to be compared, and not stored."""


@dataclass(slots=True)
class Totals:
    """How many paths differ, and how many bytes their files have; data with several names counts once."""

    added: int = 0
    added_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    changed: int = 0
    changed_from_bytes: int = 0
    changed_to_bytes: int = 0
    """Of files whose content changed: before, and after."""
    unclear: Counter[str] = field(default_factory=Counter)
    """Of how many paths that have not changed otherwise content or attributes were not compared."""

    def add(self, found: Difference) -> None:
        """Count one."""
        if found.before is None:
            self.added += 1
            self.added_bytes += _size(found.after)
        elif found.after is None:
            self.removed += 1
            self.removed_bytes += _size(found.before)
        elif found.changes:
            self.changed += 1
            if "content" in found.changes or "type" in found.changes:
                self.changed_from_bytes += _size(found.before)
                self.changed_to_bytes += _size(found.after)
        else:
            self.unclear[found.unclear] += 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, by path; `totals` are complete once `found` is exhausted."""

    before: Manifest
    after: str
    """The name of the other backup, or of the volume."""
    source: Source | None
    """The volume, if it is one."""
    totals: Totals
    found: Iterator[Difference]


def diff_backups(repository: Repository, before: str, after: str) -> Comparison:
    """Compare two backups, of any volumes. Raises NotFoundError, IntegrityError; the second also while it is read."""
    old = OpenBackup.as_stored(repository, repository.find(before))
    new = OpenBackup.as_stored(repository, repository.find(after))
    is_comparable = old.manifest.cut == new.manifest.cut
    shared = _segments(old) & _segments(new)
    found = differences(
        _states(old, shared, is_comparable=is_comparable), _states(new, shared, is_comparable=is_comparable)
    )
    return _compared(old.manifest, new.manifest, found)


def diff_volume(
    ctx: Context, engine: Engine, repository: Repository, before: str, volume: str | None = None, *, data: bool = False
) -> Comparison:
    """Compare a backup with a volume or directory as it is now: by default the one that was backed up.

    Without `data`, files that may have changed are unclear. Raises NotFoundError, IntegrityError, EngineError.
    """
    backup = OpenBackup.as_stored(repository, repository.find(before))
    source = backup.manifest.source
    if volume is not None and volume != source.name:
        source = Source(kind="directory" if volume.startswith("/") else "volume", name=volume)
    if source.kind == "volume":
        engine.volume(source.name)
    with Run(ctx.settings.state, "diff", backup.name) as run, open_reader(engine, run, read_source(source)) as reader:
        plan = scan(reader, backup.manifest.excludes)
        live = _Live(plan)
        if data:
            unclear = {item.path for item in differences(_states(backup), live.states(source.name)) if item.unclear}
            ctx.progress.start(f"diff {source.name}", total_bytes=None, total_files=None)
            live.read(reader, unclear, ctx.progress)
        found = list(differences(_states(backup), live.states(source.name)))
        _check_read(reader.messages())
    return _compared(backup.manifest, source, found)


def _compared(before: Manifest, after: Manifest | Source, found: Iterable[Difference]) -> Comparison:
    totals = Totals()

    def counted() -> Iterator[Difference]:
        for item in found:
            totals.add(item)
            yield item

    source = after if isinstance(after, Source) else None
    return Comparison(before, after.name, source, totals, counted())


def _size(state: State | None) -> int:
    return 0 if state is None or state.is_further_name else state.member.size_bytes


def _segments(backup: OpenBackup) -> frozenset[bytes]:
    return frozenset(segment.digest for segment in backup.segments)


def _states(
    backup: OpenBackup, shared: frozenset[bytes] = frozenset(), *, is_comparable: bool = True
) -> Iterator[State]:
    """The states of a backup by path, but for segments of the index that the other one has too."""
    units = backup.numbered(_numbers(backup, shared)) if shared else backup.units()
    return in_order((_states_of(unit, is_comparable) for unit in units), f"backup {backup.name}")


def _numbers(backup: OpenBackup, shared: frozenset[bytes]) -> set[int]:
    """The numbers of the units that are in other segments."""
    numbers, at = set[int](), 0
    for segment in backup.segments:
        stop = at + len(segment.lines())
        if segment.digest not in shared:
            numbers.update(range(at, stop))
        at = stop
    return numbers


def _states_of(unit: Unit, is_comparable: bool) -> Iterator[State]:
    for state in states_of(unit):
        yield state if is_comparable else state._replace(content=None, header=None)


class _Live:
    """A volume as it is now: what its scan says, and of some units what was read of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._read: set[int] = set()
        self._units: Iterator[Unit] = iter(())
        self._next: Unit | None = None

    def states(self, name: str) -> Iterator[State]:
        """Yield the states by path."""
        return in_order(map(self._states_of, self._plan.units), name)

    def read(self, reader: VolumeReader, paths: set[bytes], progress: Progress) -> None:
        """Read the units that hold these paths, while `states` is iterated, which has their content then."""
        units = [unit for unit in self._plan.units if not paths.isdisjoint(self._plan.paths(unit))]
        self._read = {unit.start for unit in units}
        wanted = replace(self._plan, units=units)
        names = wanted.names(lambda _: True)
        self._units = _read_units(Cutter(wanted).cut(reader.read(names)), progress)
        self._next = next(self._units, None)

    def _states_of(self, unit: PlannedUnit) -> Iterator[State]:
        if unit.start not in self._read:
            return self._scanned(unit)
        found = self._next
        if found is None or found.members[0].path not in self._plan.paths(unit):
            return iter(())  # all of it has vanished since the scan
        self._next = next(self._units, None)
        return states_of(found)

    def _scanned(self, unit: PlannedUnit) -> Iterator[State]:
        entries = [self._plan.entry(number) for number in range(unit.start, unit.stop)]
        names = Counter((entry.device, entry.inode) for entry in entries)
        seen: set[tuple[int, int]] = set()
        for entry in entries:
            inode, is_file = (entry.device, entry.inode), entry.type == "f"
            member = Member(
                entry.path, entry.type, entry.size_bytes if is_file else 0, entry.mtime_ns, entry.ctime_ns,
                entry.inode, entry.mode, entry.uid, entry.gid, entry.link, 0,
            )  # fmt: skip
            yield State(member, names[inode] > 1, None if is_file else b"", None, inode in seen)
            seen.add(inode)


def _read_units(cuts: Iterable[Cut], progress: Progress) -> Iterator[Unit]:
    """Units with the digests of what is read, but for the end of the archive."""

    def digested(cut: Cut) -> Piece | UnitEnd:
        if isinstance(cut, UnitEnd):
            return cut
        assert isinstance(cut, RawFrame), "nothing is reused without a parent"
        return Piece(_NOWHERE, 0, cut.sizes, b"".join(digests_of(cut)))

    pieces: list[Piece] = []
    with closing(in_threads(digested, cuts, size=raw_bytes)) as items:
        for item in items:
            if isinstance(item, Piece):
                progress.advance(raw_bytes=item.raw_bytes)
                pieces.append(item)
                continue
            if item.members:
                yield Unit(item.kind, pieces, item.members)
            pieces = []


def _check_read(messages: bytes) -> None:
    """Raises EngineError for what could not be read; what changed meanwhile is logged."""
    changed, failures = tar.read_warnings(messages)
    if failures:
        raise unreadable(failures)
    for message in changed:
        log.warning("%s", message)
