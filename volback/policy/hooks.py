"""Hooks: commands that run in a container before and after its volumes are read. One type for jobs, labels, journal."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Hook:
    """One command, for `/bin/sh -c` in a container (its name or id), as the container's user or as another.

    A run's journal holds hooks as JSON: a field that is renamed cannot be read from the journal of an older version.
    """

    container: str
    command: str = field(repr=False)
    """May hold a password: it is in no repr and no log."""
    user: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
