"""What compose says of volumes at `up`."""

from __future__ import annotations

from volback.policy.inherited import RESTORE_LABEL

MARKED = f'label "{RESTORE_LABEL}" has changed'
"""What compose v1 says of a volume that volback has made, at each `up`."""


def said_of_volumes(said: str) -> list[str]:
    """What compose says of volumes, or warns of, but for that."""
    lines = [line for line in said.splitlines() if "volume" in line.lower() or "warn" in line.lower()]
    return [line for line in lines if MARKED not in line]
