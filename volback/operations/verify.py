"""Verify: whether all objects of a backup exist with the right size; with `data`, whether every byte is what was
written."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from volback.archive import ranges
from volback.archive.announced import Announced, expected_of
from volback.archive.seal import in_order
from volback.catalog.keys import REPOSITORY_KEY, BackupKey
from volback.catalog.model import Manifest, Member, Unit
from volback.catalog.reference import Reference
from volback.catalog.repository import DamagedManifest
from volback.context import Context, Repository
from volback.errors import IntegrityError, NoRepository, NotFoundError
from volback.operations.open_backup import OpenBackup

REPOSITORY = "repository"
"""Used in place of a backup's name where the repository's own document is damaged; the name of a backup contains
`@`."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged object of a backup, and the files that are lost with it."""

    backup: str
    object: str
    message: str
    paths: list[str]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and found."""

    checked: int
    damaged: list[Damage]

    @property
    def intact(self) -> int:
        """How many backups are intact."""
        return self.checked - len({damage.backup for damage in self.damaged} - {REPOSITORY})


def verify(ctx: Context, repository: Repository, references: list[str], *, data: bool = False) -> Verification:
    """Verify the named backups, or all of the repository. Raises NotFoundError for a reference that matches none."""
    found: list[Manifest | DamagedManifest]
    found = [repository.find(reference) for reference in references] or list(repository.catalog.manifests())
    damaged = list(_repository(repository)) if found else []
    for manifest in found:
        if isinstance(manifest, DamagedManifest):
            name = str(Reference(manifest.host, manifest.volume, manifest.id))
            damaged.append(Damage(name, manifest.key, manifest.error.message, []))
        else:
            damaged += verify_backup(ctx, repository, manifest, data=data)
    return Verification(len(found), damaged)


def verify_backup(ctx: Context, repository: Repository, manifest: Manifest, *, data: bool) -> list[Damage]:
    """Verify one backup; return all damage found, objects first."""
    key, name = manifest.key, manifest.name
    damaged = list(_objects(repository, manifest, key, name))
    if any(damage.object == key.index for damage in damaged):
        return damaged
    try:
        backup = OpenBackup(repository.store, manifest)
        if data:
            damaged += _read_all(ctx, backup)
        elif damaged:
            damaged = [_with_paths(backup, damage, repository) for damage in damaged]
    except IntegrityError as exc:
        damaged.append(Damage(name, key.index, exc.message, []))
    return damaged


def _repository(repository: Repository) -> Iterator[Damage]:
    """The repository's own document: not needed by a restore, but by every backup."""
    try:
        _ = repository.info
    except NoRepository:
        yield Damage(REPOSITORY, REPOSITORY_KEY, f"{REPOSITORY_KEY} is missing", [])
    except IntegrityError as exc:
        yield Damage(REPOSITORY, REPOSITORY_KEY, exc.message, [])


def _objects(repository: Repository, manifest: Manifest, key: BackupKey, name: str) -> Iterator[Damage]:
    for object_key, expected in ((key.index, manifest.index), (key.data, manifest.data)):
        try:
            size = repository.store.stat(object_key).size_bytes
        except NotFoundError:
            yield Damage(name, object_key, f"{object_key} is missing", [])
            continue
        if size != expected.size_bytes:
            yield Damage(name, object_key, f"{object_key} has {size} bytes, not {expected.size_bytes}", [])
    for backup_id in manifest.depends_on:
        needed = BackupKey(manifest.host, manifest.volume, backup_id).data
        try:
            repository.store.stat(needed)
        except NotFoundError:
            yield Damage(name, needed, f"{needed} is missing", [])


def _read_all(ctx: Context, backup: OpenBackup) -> list[Damage]:
    """Read every frame once; the data object's own digest finds damage outside of frames."""
    manifest = backup.manifest
    ctx.progress.start(f"verify {backup.name}", total_bytes=manifest.raw_bytes, total_files=None)
    whole, stream = hashlib.sha256(), hashlib.sha256()
    bad: dict[str, list[str]] = {}
    at = 0
    index = _IndexCheck(backup)
    for part, item, stored, raw in _checked(backup):
        in_place = True
        if item.frame.backup == manifest.id:
            in_place = item.frame.offset == at
            at = item.frame.offset + len(stored)
            whole.update(stored)
        stream.update(bytes.fromhex(item.frame.sha256))
        ctx.progress.advance(raw_bytes=item.frame.raw_bytes, stored_bytes=len(stored))
        index.compare(part, raw)
        if raw is None or not in_place:
            key = BackupKey(manifest.host, manifest.volume, item.frame.backup).data
            bad.setdefault(key, []).extend(part.paths())
    damaged = [Damage(backup.name, key, f"{key} is damaged", list(dict.fromkeys(paths))) for key, paths in bad.items()]
    if backup.key.data not in bad and (whole.hexdigest() != manifest.data.sha256 or at != manifest.data.size_bytes):
        damaged.append(Damage(backup.name, backup.key.data, f"{backup.key.data} is not what was written", []))
    if stream.hexdigest() != manifest.digest:
        damaged.append(Damage(backup.name, backup.key.index, f"{backup.key.index} is not this backup's", []))
    return damaged + index.damage()


class _IndexCheck:
    """Compares the members that the index announces with those in the data; a unit with a damaged frame is left out."""

    def __init__(self, backup: OpenBackup) -> None:
        self._backup = backup
        self._announced: Announced | None = None
        self._has_ended = False
        self._faults: dict[str, None] = {}
        self._paths: dict[str, None] = {}

    def compare(self, part: _Part, raw: bytes | None) -> None:
        """Compare the next frame; None is one that is damaged."""
        if part.start == 0:
            self._announced = Announced(f"backup {self._backup.name}")
            self._announced.announce(expected_of(part.unit))
            if self._has_ended:
                self._faults["it goes on after the end of the archive"] = None
        if raw is None:
            self._announced = None
        self._has_ended = part.unit.kind == "end"
        if self._announced is None or raw is None:
            return
        try:
            self._announced.feed(raw)
            if part.stop == part.unit.raw_bytes:
                self._announced.end()
        except IntegrityError as exc:
            self._announced = None
            self._faults[exc.message] = None
            self._paths |= dict.fromkeys(part.paths())

    def damage(self) -> list[Damage]:
        """What was found: at most one damage, of the index."""
        if not self._has_ended:
            self._faults["it has no end of the archive"] = None
        if not self._faults:
            return []
        key, fault = self._backup.key.index, next(iter(self._faults))
        return [Damage(self._backup.name, key, f"{key} does not announce what the data holds: {fault}", [*self._paths])]


class _Part(NamedTuple):
    """One frame's place in its unit."""

    unit: Unit
    start: int
    stop: int

    def paths(self) -> list[str]:
        """Paths of the unit's members that have bytes in the frame."""
        members = self.unit.members
        first = bisect_right(members, self.start, key=_offset) - 1
        last = bisect_left(members, self.stop, key=_offset)
        return [member.path.decode(errors="backslashreplace") or "." for member in members[max(first, 0) : last]]


def _parts(backup: OpenBackup) -> Iterator[tuple[_Part, ranges.Slice]]:
    """Every frame of the backup, whole, in stream order."""
    for unit in backup.units():
        for start, item in zip(unit.starts(), ranges.whole(unit.frames), strict=True):
            yield _Part(unit, start, start + item.frame.raw_bytes), item


def _checked(backup: OpenBackup) -> Iterator[tuple[_Part, ranges.Slice, bytes | memoryview, bytes | None]]:
    """Every frame in order, with its place in its unit, its stored and its raw bytes (None where it is damaged)."""
    parts: deque[_Part] = deque()

    def slices() -> Iterator[ranges.Slice]:
        for part, item in _parts(backup):
            parts.append(part)
            yield item

    def check(pair: tuple[ranges.Slice, bytes | memoryview]) -> tuple[ranges.Slice, bytes | memoryview, bytes | None]:
        try:
            return (*pair, backup.open_frame(pair[0].frame, pair[1]))
        except IntegrityError:
            return (*pair, None)

    with closing(in_order(check, backup.fetch(slices()))) as checked:
        for item, stored, raw in checked:
            yield parts.popleft(), item, stored, raw


def _offset(member: Member) -> int:
    return member.offset


def _with_paths(backup: OpenBackup, damage: Damage, repository: Repository) -> Damage:
    """What is lost with a data object that is missing or cut short, from the index only."""
    ids = {BackupKey(backup.key.host, backup.key.volume, id_).data: id_ for id_ in _data_ids(backup.manifest)}
    try:
        size = repository.store.stat(damage.object).size_bytes
    except NotFoundError:
        size = 0
    lost: list[str] = []
    for part, item in _parts(backup):
        frame = item.frame
        if frame.backup == ids.get(damage.object) and frame.offset + frame.stored_bytes > size:
            lost += part.paths()
    return Damage(damage.backup, damage.object, damage.message, list(dict.fromkeys(lost)))


def _data_ids(manifest: Manifest) -> list[str]:
    return [manifest.id, *manifest.depends_on]
