"""Totals: what a job's run has come to so far, added up step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

from volback.catalog.reference import Reference
from volback.errors import Interrupted, VolbackError
from volback.operations.backup import BackupResult, DryRun
from volback.operations.prune_result import PruneResult
from volback.operations.set_result import SetResult


@dataclass(slots=True)
class RunTotals:
    """The totals of a run so far."""

    set_id: str | None = None
    backups: list[BackupResult] = field(default_factory=list)
    planned: list[DryRun] = field(default_factory=list)
    to_remove: list[str] = field(default_factory=list)
    to_free_bytes: int = 0
    copied: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    errors: list[VolbackError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    interrupted: Interrupted | None = None
    failed: dict[str, VolbackError] = field(default_factory=dict)
    """By source: why it has no backup."""
    downtime_s: dict[str, float] = field(default_factory=dict)

    def add_set(self, done: SetResult) -> None:
        """Add what a set of backups has come to. Raises Interrupted if a signal ended it."""
        self.set_id = done.id
        self.backups += [*done.backups, *([done.files] if done.files is not None else [])]
        self.errors += done.errors
        self.warnings += done.warnings
        self.failed.update(done.failed)
        self.downtime_s.update(done.downtime_s)
        if done.interrupted is not None:
            raise done.interrupted

    def add_pruned(self, done: PruneResult, where: str) -> None:
        """Add what was removed from one repository. Raises Interrupted if a signal ended it."""
        self.removed += _removed(done, where)
        self.errors += done.errors
        self.notices += done.notices
        self.warnings += done.warnings
        if done.interrupted is not None:
            raise done.interrupted

    def add_planned_prune(self, done: PruneResult, where: str) -> None:
        """Add what would be removed from one repository."""
        self.to_remove += _removed(done, where)
        self.to_free_bytes += done.freed_bytes + done.condemned_bytes
        self.errors += done.errors
        self.notices += done.notices
        self.warnings += done.warnings


def _removed(done: PruneResult, where: str) -> list[str]:
    removed = (judged.key for judged in done.judged if not judged.is_kept)
    return [f"{Reference(key.host, key.volume, key.id)} in {where}" for key in removed]
