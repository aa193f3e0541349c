"""Checks: whether a volume fits into its target, and what will be different there, before the first byte is copied."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from volback.archive import scan as scans
from volback.archive.attributes import KINDS, Kind
from volback.archive.plan import HEADER_ESTIMATE_BYTES, Plan
from volback.engine.connect import EngineInfo
from volback.errors import EngineError
from volback.measures import count, human_duration, human_size, named
from volback.moving.look import Look

CLOCK_DOUBT_S = 30.0
"""Less is nothing that an application would notice."""
_WORDS: dict[Kind, str] = {"acl": "ACLs", "xattr": "extended attributes"}
_DENSE = frozenset({"btrfs", "zfs", "overlay", "fuse", "nfs", "nfs4", "cifs", "9p", "virtiofs"})
"""Where fewer bytes may be taken than files have, or the room that is reported is not that of the storage."""


@dataclass(frozen=True, slots=True)
class Room:
    """What files take at least."""

    size_bytes: int
    inodes: int


def room_for(plan: Plan, block_bytes: int) -> Room:
    """Return what the files of a plan take at least on a filesystem with blocks of that size.

    Only files with one name are rounded up to blocks, and count as inodes. Directories, and what the filesystem needs
    itself, come on top.
    """
    size = plan.total_bytes - HEADER_ESTIMATE_BYTES * len(plan.records)
    links = 0
    for record in plan.records:
        number, letter, size_bytes = scans.links_type_size(record)
        if letter == ord("f") and number == 1:
            size += -size_bytes % block_bytes
        elif letter == ord("f"):
            links += 1
    return Room(size, len(plan.records) - links)


def check_before(
    plan: Plan, look: Look, *, name: str, source: EngineInfo, target: EngineInfo, drop: Collection[str] = ()
) -> list[str]:
    """Compare what a volume (its `name`) holds with what was found of its target; return warnings.

    `drop`: kinds of attributes that are left out on purpose. Raises EngineError where the files do not fit, or cannot
    have their owners there.
    """
    warnings = _check_room(plan, look, name, target)
    _check_owners(plan, look, name, target)
    warnings += _attributes(look, target, drop)
    ahead_s = target.clock_ahead_s - source.clock_ahead_s
    if source.id != target.id and abs(ahead_s) >= CLOCK_DOUBT_S:
        word = "ahead of" if ahead_s > 0 else "behind"
        warnings.append(
            f"the clock of host {target.name} is {human_duration(abs(ahead_s))} {word} that of host {source.name};"
            " files keep their times"
        )
    return warnings


def _check_room(plan: Plan, look: Look, name: str, target: EngineInfo) -> list[str]:
    if look.free_bytes is None or look.block_bytes is None:
        return []
    most_bytes = plan.total_bytes + look.block_bytes * len(plan.records)
    if most_bytes <= look.free_bytes and (look.free_inodes is None or len(plan.records) <= look.free_inodes):
        return []  # to look at each file takes a second for a million
    room = room_for(plan, look.block_bytes)
    where = f"on the {look.filesystem} of host {target.name}"
    if look.free_inodes is not None and room.inodes > look.free_inodes:
        raise EngineError(
            f"volume {name!r} does not fit: it holds {count(room.inodes, 'file')}, and {where} there is room for"
            f" {look.free_inodes} more",
            "make room there, or use another filesystem",
        )
    if room.size_bytes <= look.free_bytes:
        return []
    message = (
        f"volume {name!r} does not fit: it takes {human_size(room.size_bytes)}, and {where} there are"
        f" {human_size(look.free_bytes)} free"
    )
    if look.filesystem.partition(".")[0] in _DENSE:
        return [f"{message}, unless it is compressed there"]
    raise EngineError(message, "make room there, or use another filesystem")


def _check_owners(plan: Plan, look: Look, name: str, target: EngineInfo) -> None:
    """Of a rootless engine, or one with userns-remap: not every owner exists there, and no device can be made."""
    if look.uids.are_all and look.gids.are_all:
        return
    foreign = list(_foreign(plan, look))
    if foreign:
        raise EngineError(
            f"volume {name!r} cannot be the same on host {target.name}, whose engine runs in a user namespace:"
            f" {named(foreign)}",
            "give the engine there more ids (/etc/subuid, /etc/subgid), change these files, or leave them out",
        )


def _foreign(plan: Plan, look: Look) -> Iterator[str]:
    for number in range(len(plan.records)):
        entry = plan.entry(number)
        path = entry.path.decode(errors="backslashreplace") or "."
        if entry.type in "bc":
            yield f"{path} (a device)"
        elif not look.uids.has(entry.uid):
            yield f"{path} (user {entry.uid})"
        elif not look.gids.has(entry.gid):
            yield f"{path} (group {entry.gid})"


def _attributes(look: Look, target: EngineInfo, drop: Collection[str]) -> list[str]:
    refused = [kind for kind in KINDS if kind in look.refuses and kind not in drop]
    if not refused:
        return []
    words = " or ".join(_WORDS[kind] for kind in refused)
    return [
        f"the {look.filesystem} of host {target.name} takes no {words}: files that have some will differ; --drop"
        f" {','.join(refused)} leaves them out"
    ]
