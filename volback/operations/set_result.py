"""Set result: what came of the backup of several sources as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from volback.errors import Interrupted, VolbackError
from volback.operations.backup import BackupResult


@dataclass(frozen=True, slots=True)
class SetResult:
    """What came of a set. What was done before an interruption is done."""

    id: str
    backups: tuple[BackupResult, ...]
    errors: tuple[VolbackError, ...]
    interrupted: Interrupted | None
    failed: Mapping[str, VolbackError]
    """By source: the error because of which it has no backup."""
    warnings: tuple[str, ...]
    """Of the set: those of single backups are in their manifests."""
    downtime_s: Mapping[str, float]
    """By container: how long it was stopped or paused."""
    files: BackupResult | None = None
    """That of the project's compose files, which belongs to the set; the set is whole without it."""
