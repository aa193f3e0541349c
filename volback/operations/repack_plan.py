"""Repack plan: which objects of a volume's removed backups are mostly unused.

Manifests list how many bytes of an object are in frames of which a backup uses something. A frame holds extents of many
files, and these do not live equally long: so what is used is counted by extents, which the indexes name. Manifests
alone say what is unused at least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from volback.archive.parent import begins_of, units_with
from volback.archive.repacked import MOSTLY, FrameUse
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.units import Unit
from volback.operations.open_backup import OpenBackup
from volback.operations.revision import Name, name_of
from volback.policy.packing import HALF

SPARE_SHARE = 0.4
"""Where something is repacked, objects are too of which a share is used that is greater by so much at most, but less
than `MOSTLY`: who restores a backup opens whole frames of them, and each of their blocks lies in another one."""
SPARE_WRITTEN = 1 / 3
"""As long as no more than this part of what is freed is written. All that is stored is freed some day: so at most half
as much is copied for this as backups store."""
MANY = 16
"""Where a backup takes its data from more objects that belong together, they become one. A reader holds some 32 frames:
of a hundred increments, each a frame whose blocks lie all over a volume of 200 MB, it opened each frame 3.4 times."""
_FEW = 8
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

    def packed_anew(self) -> Chosen:
        """The same, with no frame copied as it is: its blocks are put in the order of the stream."""
        frames = {offset: replace(use, is_scattered=True) for offset, use in self.frames.items()}
        return replace(self, frames=frames, used_bytes=sum(use.used_bytes for use in frames.values()))

    @property
    def share(self) -> float:
        """How much of it is written anew, of 1."""
        return self.used_bytes / max(self.object.size_bytes, 1)

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
    """Return the objects that are repacked: those that free most for each byte written, and those that are too many."""
    found = sorted(measured, key=lambda one: one.share)
    chosen = _mostly_unused(found, packing)
    names = {one.name for one in chosen}
    for many in _too_many([one for one in found if one.name not in names]):
        together = [*chosen, *many]
        written = sum(one.used_bytes for one in together)
        is_too_much = packing.max_bytes is not None and written > packing.max_bytes
        if not (is_too_much or sum(one.packed_extents for one in together) > EXTENTS_MAX):
            chosen = together
    return chosen


def _mostly_unused(found: Iterable[Chosen], packing: Packing) -> list[Chosen]:
    """Those of which less than a share is used. To these come others, for the sake of who reads, while much is freed
    for what is written. `found` is in the order of shares."""
    spare = max(min(packing.below + SPARE_SHARE, MOSTLY), packing.below)
    chosen, written, freed, extents = list[Chosen](), 0, 0, 0
    for one in found:
        written_then, freed_then = written + one.used_bytes, freed + one.freed_bytes
        extents_then = extents + one.packed_extents
        is_spare = one.share >= packing.below
        if one.share >= spare or (is_spare and freed < WORTH_BYTES):
            break
        is_too_much = packing.max_bytes is not None and written_then > packing.max_bytes
        is_too_much |= is_spare and written_then > SPARE_WRITTEN * freed_then
        if not (is_too_much or (chosen and extents_then > EXTENTS_MAX)):
            chosen.append(one)
            written, freed, extents = written_then, freed_then, extents_then
    return chosen if freed >= WORTH_BYTES else []


def _too_many(found: Iterable[Chosen]) -> Iterator[list[Chosen]]:
    """Data objects that are packed into one, so that a reader opens fewer frames at once: all that have the same oldest
    user, but for what is larger than all smaller ones together, so that no byte is copied often."""
    groups: dict[str, list[Chosen]] = {}
    for one in found:
        if not one.object.is_index and one.used_bytes:
            groups.setdefault(min(one.users), []).append(one)
    for group in groups.values():
        many, size = list[Chosen](), 0
        for one in sorted(group, key=lambda one: one.used_bytes):
            if len(many) >= _FEW and one.used_bytes > size:
                break
            many.append(one.packed_anew())
            size += one.used_bytes
        if len(many) > MANY:
            yield many


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
