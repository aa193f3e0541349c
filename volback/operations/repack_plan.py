"""Repack plan: which objects of a volume's removed backups are mostly unused.

Manifests list how many bytes of an object are in frames of which a backup uses something. A frame holds extents of many
files, and these do not live equally long: so what is used is counted by extents, which the indexes name. Manifests
alone say what is unused at least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from volback.archive.parent import begins_of, units_with
from volback.archive.repacked import FrameUse
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.units import Unit
from volback.operations.open_backup import OpenBackup
from volback.operations.revision import Name, name_of
from volback.policy.packing import HALF

WORTH_BYTES = 64 * 1024
"""What frees less is left: the manifests and indexes that are written anew take some of it."""
EXTENTS_MAX = 2_000_000
"""So many are packed at once: the place of each takes some 150 bytes of memory. A later repack goes on."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What is repacked."""

    below: float = HALF
    """Objects of which less than this share is used."""
    max_bytes: int | None = None
    """So much data is written at most; None: as much as is worth it."""


@dataclass(slots=True)
class Candidate:
    """An object that is not one of the two own first ones of a backup that is there."""

    object: UsedObject
    users: list[str] = field(default_factory=list)
    """Ids of the backups that use it, oldest first."""
    most_bytes: int = 0
    """So many bytes of it are used at most, as the manifests say."""

    @property
    def name(self) -> Name:
        """How indexes name it."""
        return name_of(self.object)

    @property
    def unused_bytes(self) -> int:
        """So much of it nobody uses, at least."""
        return max(self.object.size_bytes - self.most_bytes, 0)


def candidates(manifests: Sequence[Manifest]) -> list[Candidate]:
    """Return the objects that could be repacked, from the manifests of a volume's backups, oldest first.

    What a backup has stored first, it uses itself, so it is none while that backup is there.
    """
    own = {name for manifest in manifests for name in ((manifest.id, False), (manifest.index_id, True))}
    found: dict[Name, Candidate] = {}
    for manifest in manifests:
        for used in manifest.uses:
            if (name := name_of(used)) in own:
                continue
            one = found.setdefault(name, Candidate(used))
            one.users.append(manifest.id)
            one.most_bytes = min(one.most_bytes + used.used_bytes, used.size_bytes)
    return list(found.values())


@dataclass(slots=True)
class Chosen:
    """An object that is repacked, with what of it is used by all backups together."""

    object: UsedObject
    users: list[str]
    used_bytes: int
    frames: Mapping[int, FrameUse]
    """Of a data object, by their offsets."""

    @property
    def name(self) -> Name:
        """How indexes name it."""
        return name_of(self.object)

    @property
    def packed_extents(self) -> int:
        """How many extents have to be packed into new frames."""
        return sum(use.extents for use in self.frames.values() if not use.is_copied)

    @property
    def freed_bytes(self) -> int:
        """What repacking it frees."""
        return self.object.size_bytes - self.used_bytes


def measured(candidates: Iterable[Candidate], opened: Iterable[OpenBackup]) -> Iterator[Chosen]:
    """Yield these objects with the bytes that all backups use of them; `opened` are all that use one of them."""
    wanted = {one.name: one for one in candidates}
    frames, segments = _used(opened, {id_ for id_, is_index in wanted if not is_index})
    for (id_, is_index), one in wanted.items():
        if is_index:
            yield Chosen(one.object, one.users, sum(segments.get(id_, {}).values()), {})
        else:
            used = frames.get(id_, {})
            yield Chosen(one.object, one.users, sum(use.used_bytes for use in used.values()), used)


def choose(measured: Iterable[Chosen], packing: Packing) -> list[Chosen]:
    """Return the objects that are repacked, those first that free most for each byte written."""
    below = [one for one in measured if one.used_bytes < packing.below * one.object.size_bytes]
    chosen, written, extents = list[Chosen](), 0, 0
    for one in sorted(below, key=lambda one: one.used_bytes / one.object.size_bytes):
        written_then, extents_then = written + one.used_bytes, extents + one.packed_extents
        is_too_much = packing.max_bytes is not None and written_then > packing.max_bytes
        if not (is_too_much or (chosen and extents_then > EXTENTS_MAX)):
            chosen.append(one)
            written, extents = written_then, extents_then
    return chosen if sum(one.freed_bytes for one in chosen) >= WORTH_BYTES else []


def _used(
    opened: Iterable[OpenBackup], wanted: Collection[str]
) -> tuple[dict[str, dict[int, FrameUse]], dict[str, dict[int, int]]]:
    """What is used of the frames of these data objects, and which segments of index objects (their sizes), by object id
    and offset. A segment that several indexes share is read once."""
    frames: dict[str, dict[int, FrameUse]] = {}
    segments: dict[str, dict[int, int]] = {}
    for backup in opened:
        for segment in backup.segments:
            offsets = segments.setdefault(segment.backup, {})
            if segment.offset in offsets:
                continue
            offsets[segment.offset] = len(segment.stored)
            if (before := segment.dictionary) is not None:
                segments.setdefault(before.backup, {})[before.offset] = len(before.stored)
            for unit in units_with(begins_of([segment], backup.holders), lambda frame: frame.backup in wanted):
                _count(unit, wanted, frames)
    return frames, segments


def _count(unit: Unit, wanted: Collection[str], frames: dict[str, dict[int, FrameUse]]) -> None:
    for piece in unit.pieces:
        if (frame := piece.frame).backup in wanted:
            of_object = frames.setdefault(frame.backup, {})
            if frame.offset not in of_object:
                of_object[frame.offset] = FrameUse(frame)
            of_object[frame.offset].note(piece)
