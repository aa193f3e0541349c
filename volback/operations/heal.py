"""Heal: a new revision of a backup takes what is damaged of it from where the repository has the same extents intact.

Newer backups have stored these anew: extents are equal where their digests are. Nothing is copied, so little is
written: an index, and a manifest. Every extent that is taken has been read and verified before.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from volback.archive import ranges
from volback.archive.frames import MovedIndex, joined
from volback.archive.lookup import Place
from volback.archive.parent import units_with
from volback.archive.segments import Segment
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.units import Frame, Piece, Unit
from volback.context.repository import Repository
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.operations.revision import Name, revision_of
from volback.state.damaged import Frames, is_damaged

log = logging.getLogger(__name__)

IsBad = Callable[[Frame], bool]


class Damaged:
    """What is known to be damaged of one volume: frames that readers found, and objects that are not whole."""

    def __init__(self, frames: Frames, sizes: Mapping[str, int], key_of: Mapping[str, str]) -> None:
        """`sizes` are those of the stored objects, `key_of` has the keys of data objects by their object ids."""
        self._frames = set(frames)
        self._sizes = sizes
        self._key_of = key_of

    def is_bad(self, frame: Frame) -> bool:
        """Whether a frame cannot be read."""
        if (frame.backup, frame.offset) in self._frames:
            return True
        size = self._sizes.get(self._key_of.get(frame.backup, ""), -1)
        return frame.offset + frame.stored_bytes > size

    def is_not_as_written(self, object_id: str) -> bool:
        """Whether all of a data object is known to be not what was written, though its extents are."""
        return is_damaged(self._frames, object_id, -1)

    def note(self, frame: Frame) -> None:
        """A frame cannot be read either."""
        self._frames.add((frame.backup, frame.offset))


@dataclass(slots=True)
class Wounded:
    """A backup of which something cannot be read."""

    backup: OpenBackup
    needed: set[bytes] = field(default_factory=set)
    """Digests of the extents that lie in frames that cannot be read."""
    lost: dict[str, None] = field(default_factory=dict)
    """Paths of the files of which something is nowhere else."""
    healed: dict[str, None] = field(default_factory=dict)
    """Paths of the files of which all is elsewhere."""

    @property
    def name(self) -> str:
        """Its full name."""
        return self.backup.name


def wounded(backup: OpenBackup, is_bad: IsBad) -> Wounded:
    """Return what of a backup lies in frames that cannot be read; from its index alone."""
    found = Wounded(backup)
    for unit in units_with(backup.lines(), is_bad):
        for piece in unit.pieces:
            if is_bad(piece.frame):
                found.needed.update(extent.digest for extent in piece.extents())
    return found


def find_intact(
    wanted: Collection[bytes], backups: Iterable[OpenBackup], damaged: Damaged
) -> dict[bytes, tuple[Place, OpenBackup]]:
    """Return where extents with these digests lie intact; each was read. `backups` are asked in their order."""
    found: dict[bytes, tuple[Place, OpenBackup]] = {}
    others = list(backups)
    while left := set(wanted) - found.keys():
        candidates = _candidates(left, others, damaged.is_bad)
        if not candidates:
            break
        intact = _verified(candidates, damaged)
        found |= intact
    return found


def _candidates(
    wanted: set[bytes], backups: Iterable[OpenBackup], is_bad: IsBad
) -> dict[bytes, tuple[Place, int, OpenBackup]]:
    """The first place of each extent, with its size."""
    found: dict[bytes, tuple[Place, int, OpenBackup]] = {}
    seen: set[tuple[str, int]] = set()
    for backup in backups:
        for segment in backup.segments:
            if (segment.backup, segment.offset) in seen:
                continue
            seen.add((segment.backup, segment.offset))
            for piece in _pieces(segment):
                if is_bad(piece.frame):
                    continue
                for extent in piece.extents():
                    if extent.digest in wanted:
                        found.setdefault(extent.digest, (Place(piece.frame, extent.start), extent.size, backup))
    return found


def _pieces(segment: Segment) -> Iterator[Piece]:
    for number in range(segment.count()):
        yield from segment.unit(number).pieces


def _verified(
    candidates: Mapping[bytes, tuple[Place, int, OpenBackup]], damaged: Damaged
) -> dict[bytes, tuple[Place, OpenBackup]]:
    """Those that can be read; of the others, the frames are noted as damaged."""
    by_backup: dict[str, tuple[OpenBackup, list[tuple[bytes, Piece]]]] = {}
    for digest, (place, size, backup) in candidates.items():
        piece = Piece(place.frame, place.start, [size], digest)
        by_backup.setdefault(backup.manifest.id, (backup, []))[1].append((digest, piece))
    intact: dict[bytes, tuple[Place, OpenBackup]] = {}
    for backup, pieces in by_backup.values():
        pieces.sort(key=lambda item: (item[1].frame.backup, item[1].frame.offset, item[1].start))
        with closing(backup.fetch(ranges.whole(piece for _, piece in pieces))) as fetched:
            for (digest, piece), one in zip(pieces, fetched, strict=True):
                try:
                    backup.open_slice(one)
                except IntegrityError as exc:
                    log.debug("%s cannot be read either: %s", piece.frame, exc.message)
                    damaged.note(piece.frame)
                else:
                    intact[digest] = Place(piece.frame, piece.start), backup
    return intact


def judge(one: Wounded, intact: Collection[bytes], is_bad: IsBad) -> None:
    """Say which files are lost with it, and which are not: by the paths that have bytes in what cannot be read."""
    for unit in units_with(one.backup.lines(), is_bad):
        lost, touched = dict[str, None](), dict[str, None]()
        for start, piece in zip(unit.starts(), unit.pieces, strict=True):
            if not is_bad(piece.frame):
                continue
            for extent in piece.extents():
                at = start + extent.start - piece.start
                paths = dict.fromkeys(_paths(unit, at, at + extent.size))
                touched |= paths
                if extent.digest not in intact:
                    lost |= paths
        one.lost |= lost
        one.healed |= {path: None for path in touched if path not in lost}


def _paths(unit: Unit, start: int, stop: int) -> Iterator[str]:
    for span in unit.spans():
        if span.start < stop and span.stop > start:
            yield span.member.path.decode(errors="backslashreplace") or "."


def revise(
    repository: Repository,
    one: Wounded,
    intact: Mapping[bytes, tuple[Place, OpenBackup]],
    damaged: Damaged,
    *,
    revision: int,
    usable: Mapping[Name, UsedObject],
) -> Manifest:
    """Commit a new revision of a backup whose index names the intact places. Nothing is removed.

    `usable` are the objects of the volume, as they are stored. Raises StoreError, IntegrityError, ConflictError.
    """
    old, store = one.backup.manifest, repository.store
    index = MovedIndex(f"{old.id}.{revision}")
    for line in one.backup.lines():
        index.add_moved(line, damaged.is_bad, partial(_replaced, intact=intact, is_bad=damaged.is_bad))
    data = None if one.lost else partial(_as_it_is, repository, old)
    new, stored = revision_of(old, revision, index, usable, data=data)
    store.put(new.index_key, iter(stored.buffers), if_absent=True)
    holders = {backup.manifest.id: backup.manifest for _, backup in intact.values()}
    repository.catalog.commit(new, kept_by=[old, *holders.values()])
    return new


def _replaced(unit: Unit, *, intact: Mapping[bytes, tuple[Place, OpenBackup]], is_bad: IsBad) -> Unit:
    """The same unit, with what is damaged at its intact places, as far as there are some."""
    pieces, extents = list[Piece](), list[tuple[Place, int, bytes]]()
    for piece in unit.pieces:
        if is_bad(piece.frame):
            for start, size, digest in piece.extents():
                place, _ = intact.get(digest, (Place(piece.frame, start), None))
                extents.append((place, size, digest))
        else:
            pieces += [*joined(extents), piece]
            extents.clear()
    return unit._replace(pieces=[*pieces, *joined(extents)])


def _as_it_is(repository: Repository, manifest: Manifest) -> ObjectDigest:
    """Size and SHA-256 of the backup's own data object as it is now; where it is missing, an empty one is put there."""
    if repository.size_of(manifest.data_key) < 0:
        repository.store.put(manifest.data_key, [], if_absent=True)
    digest, size = hashlib.sha256(), 0
    for buffer in repository.store.open(manifest.data_key):
        digest.update(buffer)
        size += len(buffer)
    return ObjectDigest(size_bytes=size, sha256=digest.hexdigest())
