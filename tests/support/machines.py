"""Several machines that use one bucket: each has its own state directory and its own clock; the bucket has its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.library import Library, open_from
from volback.operations import remove
from volback.operations.prune import prune
from volback.operations.prune_result import PruneResult
from volback.operations.remove import RemovedBackups
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.base import Store
from volback.store.memory import MemoryStore

HOUR = timedelta(hours=1)
LAST_1 = KeepRules(last=1)


@dataclass
class Clock:
    """The bucket's clock, which tests set."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 28, tzinfo=UTC))

    def pass_(self, hours: float) -> None:
        self.now += hours * HOUR


def bucket_of(clock: Clock) -> MemoryStore:
    """A bucket: a store that other machines may use."""
    return MemoryStore("bucket", clock=lambda: clock.now, is_shared=True)


@dataclass
class Machine:
    """One machine."""

    state: Path
    store: Store
    clock: Clock
    wrong_by: timedelta = timedelta()
    """Its clock, compared with that of the bucket."""

    def library(self) -> Library:
        settings = Settings(str(self.state / "unused"), self.state, engine="unix:///nonexistent", host="web1")
        return open_from(settings, now=lambda: self.clock.now + self.wrong_by).on(self.store)

    def prune(self, rules: KeepRules = LAST_1, **options: object) -> PruneResult:
        return prune(*self.library(), rules, **options)  # type: ignore[arg-type]

    def remove(self, id_: str, *, grace_s: int = 86_400) -> RemovedBackups:
        library = self.library()
        (done,) = remove.remove(*library, remove.find_all(library.repository, [f"db@{id_}"]), grace_s=grace_s)
        return done
