"""Latest: which backup of a volume answers to the volume's name alone. The rule only: no I/O, no clock of its own.

It is the newest backup that people or jobs made: never a safety copy, which `restore --replace` makes of what it
replaces, and never one from the future, which a wrong clock made. Both answer to their ids.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime, timedelta

SAFETY_TAG = "before-replace"
"""What `restore --replace` writes on its backup of the former content."""

FUTURE_AFTER = timedelta(minutes=10)
"""Clocks of machines that use one repository may differ by this much."""


def created_at(id: str) -> datetime:
    """When the backup of that id began; a time that does not exist in the calendar counts as a future one."""
    try:
        return datetime.strptime(id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def is_future(time: datetime, now: datetime) -> bool:
    """Whether a backup of that time is from the future, so that its clock or this one is wrong."""
    return time - now > FUTURE_AFTER


def is_safety_copy(tags: Container[str]) -> bool:
    """Whether the backup with these tags is the former content of a volume, which somebody replaced."""
    return SAFETY_TAG in tags
