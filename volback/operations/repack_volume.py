"""Repack one volume: what is used of mostly unused objects is copied into new ones, and every backup that uses them
gets a new revision of its manifest, with an index that names the new places.

Each backup can be read all the time, in its old or in its new revision. The old ones, and what nobody needs then, are
removed by the caller. The volume's locks are the caller's task too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from volback.archive import ranges
from volback.archive.codec import FrameCodec, ZstdCodec
from volback.archive.frames import MovedIndex, Verified
from volback.archive.parent import Reused, begins_of, units_with
from volback.archive.repacked import RepackedFrames, moved
from volback.archive.segments import Segment
from volback.catalog.keys import BackupKey, repacked_name
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.objects import StoredObject
from volback.catalog.units import Frame
from volback.context.repository import Repository
from volback.operations.open_backup import OpenBackup
from volback.operations.repack_plan import Chosen
from volback.operations.revision import Name, name_of, next_revision, revision_of

log = logging.getLogger(__name__)


class KeptInMemory:
    """What was read of the indexes of one volume; it fits the catalog's `Kept`."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], bytes] = {}

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        """What was put under that name, if it has that SHA-256: runs of several lengths begin at one place."""
        return self._held.get((name, sha256 or ""))

    def put(self, name: str, data: bytes) -> None:
        """Keep it."""
        self._held[name, hashlib.sha256(data).hexdigest()] = bytes(data)


@dataclass(slots=True)
class Written:
    """What a repack of one volume has done so far."""

    objects: list[str] = field(default_factory=list)
    """Keys of new data and index objects."""
    bytes: int = 0
    """Of these."""
    replaced: list[Manifest] = field(default_factory=list)
    """The revisions that have a successor now."""
    made: list[Manifest] = field(default_factory=list)
    """Their successors, with their private parts."""


class VolumeRepack:
    """Repacks objects of one volume."""

    def __init__(
        self, repository: Repository, opened: Sequence[OpenBackup], held: Mapping[BackupKey, Iterable[StoredObject]]
    ) -> None:
        """`opened` are all backups that use one of the objects, oldest first; `held` is what lies in the repository of
        the volume."""
        self.written = Written()
        self._repository = repository
        self._opened = {backup.manifest.id: backup for backup in opened}
        self._kept = KeptInMemory()
        self._revisions = {id_: next_revision(one.manifest, held.get(one.key, ())) for id_, one in self._opened.items()}
        self._objects: dict[Name, UsedObject] = {}
        """New objects."""
        self._holders: dict[Name, Manifest] = {}
        """The committed manifests that hold them."""
        self._codec: FrameCodec = ZstdCodec()
        self._places: dict[str, RepackedFrames] = {}
        """Of the extents of each object that is repacked, by its object id."""
        self._lines: dict[tuple[str, int, int], Reused] = {}
        """Where a line of an old index lies in a new one, by object id and offset of its segment, and its number."""

    def work_off(self, chosen: Sequence[Chosen]) -> None:
        """Repack these objects; `written` says how far it came.

        Raises IntegrityError where something is damaged, or a backup was removed meanwhile; ConflictError where
        another machine repacks the same; StoreError, IdentityNeeded.
        """
        for oldest, group in _by_oldest(one for one in chosen if not one.object.is_index).items():
            self._copy(self._opened[oldest], group)
        indexes = {one.object.object_id for one in chosen if one.object.is_index}
        users = {id_ for one in chosen for id_ in one.users}
        for id_, backup in self._opened.items():
            if id_ in users:
                self._revise(backup, indexes)

    def _copy(self, owner: OpenBackup, group: Sequence[Chosen]) -> None:
        """Copy what is used of these objects into one that belongs to `owner`."""
        revision = self._revisions[owner.manifest.id]
        uses = {one.object.object_id: one.frames for one in group}
        repacked = RepackedFrames(f"{owner.manifest.id}.{revision}", uses, self._codec)
        key = owner.key.prefix + repacked_name(revision)
        self._put(key, repacked.data(self._verified(group, repacked)))
        self._places |= dict.fromkeys(uses, repacked)
        digest = repacked.digest()
        made = UsedObject(
            id=owner.manifest.id, name=repacked_name(revision), size_bytes=digest.size_bytes, used_bytes=0,
            sha256=digest.sha256, oldest=min(one.object.since for one in group),
        )  # fmt: skip
        self._objects[made.object_id, False] = made

    def _verified(self, group: Sequence[Chosen], repacked: RepackedFrames) -> Verified:
        """What is used, in the order in which the newest backup needs it, then what only older ones need."""
        wanted = {one.object.object_id for one in group}
        for id_ in sorted({id_ for one in group for id_ in one.users}, reverse=True):
            backup = self._opened[id_]
            yield from backup.unsealed(_slices(backup, wanted, repacked))

    def _revise(self, backup: OpenBackup, indexes: Set[str]) -> None:
        """Commit a new revision of a backup. Nothing is taken from these index objects."""
        old = backup.manifest
        number = self._revisions[old.id]
        usable = {name_of(one): one for one in old.usable} | self._objects
        new, stored = revision_of(old, number, self._moved(backup, f"{old.id}.{number}", indexes), usable)
        self._put(new.index_key, iter(stored.buffers))
        self._kept.put(new.index_key, b"".join(stored.buffers))
        holders = [self._holders[name] for one in new.uses if (name := name_of(one)) in self._holders]
        self._repository.catalog.commit(new, kept_by=[old, *{holder.id: holder for holder in holders}.values()])
        self.written.replaced.append(old)
        self.written.made.append(new)
        self._note(backup, new)

    def _moved(self, backup: OpenBackup, own: str, indexes: Set[str]) -> MovedIndex:
        """Its index with all frames at their new places; a line that an older backup's new index has is taken from
        there."""
        index, copies = MovedIndex(own), dict[Segment, Segment]()
        for line in backup.lines():
            segment = line.segment
            if (known := self._lines.get((segment.backup, segment.offset, line.number))) is not None:
                index.add_unchanged(known)
            elif segment.dictionary is not None and {segment.backup, segment.dictionary.backup} & indexes:
                index.add(moved(segment.unit(line.number), self._places))
            elif segment.backup in indexes and not any(map(self._is_moved, line.begin.frames)):
                copy = copies.setdefault(segment, Segment(own, segment.offset, segment.stored, segment.room))
                index.add_unchanged(replace(line, segment=copy))
            else:
                index.add_moved(line, self._is_moved, lambda unit: moved(unit, self._places))
        return index

    def _is_moved(self, frame: Frame) -> bool:
        return frame.backup in self._places

    def _note(self, backup: OpenBackup, new: Manifest) -> None:
        """Remember what the new revision holds, for the backups after it."""
        self._objects[new.index_id, True] = UsedObject(
            id=new.id, name=new.index_name, size_bytes=new.index.size_bytes, used_bytes=0, sha256=new.index.sha256
        )
        self._holders[new.index_id, True] = self._holders[new.index_id, False] = new
        revised = OpenBackup(self._repository.store, new, kept=self._kept)
        lines = zip(begins_of(backup.segments), begins_of(revised.segments), strict=True)
        self._lines |= {
            (before.segment.backup, before.segment.offset, before.number): after
            for before, after in lines
            if after.segment.backup == new.index_id
        }

    def _put(self, key: str, chunks: Iterator[bytes | memoryview]) -> None:
        """Another machine that repacks the same has the same names."""
        self.written.bytes += self._repository.store.put(key, chunks, if_absent=True)
        self.written.objects.append(key)


def _by_oldest(chosen: Iterable[Chosen]) -> dict[str, list[Chosen]]:
    """The objects that are packed together: what has the same oldest user goes when that is removed."""
    groups: dict[str, list[Chosen]] = {}
    for one in chosen:
        groups.setdefault(min(one.users), []).append(one)
    return dict(sorted(groups.items()))


def _slices(backup: OpenBackup, wanted: Collection[str], repacked: RepackedFrames) -> Iterator[ranges.Slice]:
    """What the backup has in these objects that is not repacked yet."""
    for unit in units_with(backup.lines(), lambda frame: frame.backup in wanted):
        yield from ranges.whole(filter(repacked.lacks, unit.pieces))
