"""Noticed: what a backup says, as warnings, of what was found while its source was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from volback.measures import count, human_size

if TYPE_CHECKING:
    from volback.archive.cut import CutReport, Cutter, PrivilegedAttribute
    from volback.archive.plan import Plan
    from volback.catalog.model import Manifest


def vanished(cutter: Cutter, messages: list[str]) -> list[str]:
    """Vanished members that tar has not named in a message of its own."""
    named = "\n".join(messages)
    paths = [path.decode(errors="backslashreplace") for path in cutter.report.vanished]
    return [f"{path} vanished while the volume was read" for path in paths if path not in named]


def all_excluded(plan: Plan) -> list[str]:
    """A backup of the root alone, because the patterns left out all else."""
    if not plan.excluded or len(plan.records) > 1:
        return []
    return [f"the patterns exclude everything: {count(plan.excluded, 'file')} left out, nothing backed up"]


def shrink_warning(report: CutReport, usual: Manifest) -> str:
    return (
        f"the backup is suspiciously small: {count(report.members, 'file')} and {human_size(report.raw_bytes)}, where"
        f" {usual.id} has {count(usual.files, 'file')} and {human_size(usual.raw_bytes)}; prune keeps that one and the"
        " older ones; if this size is right, accept it: back up with --shrink-ratio 0"
    )


def privileged(attributes: Mapping[str, PrivilegedAttribute]) -> list[str]:
    """Attributes that a restore will not set by itself: said now, not when the volume is needed."""
    lines = []
    for name, found in attributes.items():
        more = ", ..." if found.members > len(found.paths) else ""
        paths = ", ".join(path.decode(errors="backslashreplace") or "." for path in found.paths)
        lines.append(
            f"attribute {name} of {count(found.members, 'file')} comes back only with restore --privileged-xattrs:"
            f" {paths}{more}"
        )
    return lines


def odd(plan: Plan) -> list[str]:
    return [f"{path.decode(errors='backslashreplace')} is of a type that tar cannot hold" for path in plan.odd]
