"""Several machines that use one bucket: each has its own state directory and its own clock; the bucket has its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.library import Library, open_from
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.operations import remove
from volback.operations.prune import prune
from volback.operations.prune_result import PruneResult
from volback.operations.remove import RemovedBackups
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.base import Buffer, ObjectInfo, Store, Wrapper
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
    host: str = "web1"

    def library(self, store: Store | None = None) -> Library:
        """`store` is another way to the bucket."""
        settings = Settings(str(self.state / "unused"), self.state, engine="unix:///nonexistent", host=self.host)
        return open_from(settings, now=lambda: self.clock.now + self.wrong_by).on(store or self.store)

    def prune(self, rules: KeepRules = LAST_1, *, store: Store | None = None, **options: object) -> PruneResult:
        return prune(*self.library(store), rules, **options)  # type: ignore[arg-type]

    def remove(self, reference: str, *, grace_s: int = 86_400) -> RemovedBackups:
        """A backup's full name, or the id of one of `db`."""
        reference = reference if "@" in reference else f"db@{reference}"
        library = self.library()
        (done,) = remove.remove(*library, remove.find_all(library.repository, [reference]), grace_s=grace_s)
        return done


class Killed(BaseException):
    """A process that was killed: it does nothing any more."""


class StepStore(Wrapper):
    """A store that does something before one of the calls of one process, or kills that process there."""

    def __init__(self, inner: Store, at: int, act: Callable[[], object] | None) -> None:
        """Before call `at` (from 0), `act` is called once; None kills."""
        super().__init__(inner)
        self._at = at
        self._act = act
        self.calls = 0

    def _step(self) -> None:
        number, self.calls = self.calls, self.calls + 1
        if self._act is None and number >= self._at:
            raise Killed
        if self._act is not None and number == self._at:
            self._act()

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        self._step()
        return self._inner.put(key, chunks, if_absent=if_absent)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        self._step()
        return self._inner.open(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        self._step()
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step()
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._step()
        self._inner.delete(key)


def assert_whole(store: Store) -> None:
    """Each backup that is listed has all its objects, at the sizes that its manifest says."""
    sizes = {stored.key: stored.size_bytes for stored in store.list()}
    for found in Catalog(store).manifests():
        assert isinstance(found, Manifest)
        needed = {found.data_key: found.data.size_bytes, found.index_key: found.index.size_bytes}
        needed |= {found.key_of(used): used.size_bytes for used in found.uses}
        assert {name: sizes.get(name) for name in needed} == needed, found.name
