"""Sets: several sources backed up as one - locked together, kept still together, under one id.

One source that fails does not stop the others. What is kept still is so from before the first of its sources is read
until the last has been, whatever happens; what need not be still is read after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from volback.archive.plan import exclusion
from volback.catalog.model import Consistency, Source
from volback.engine.containers import Container
from volback.errors import ConflictError, Interrupted, VolbackError
from volback.operations.backup import BackupOptions, BackupResult, Stillness, make_backup
from volback.operations.quiesce import How, Quiesced, Wanted, Wish, containers_at_hand, plan_quiesce, writers
from volback.operations.recovery import sweep
from volback.operations.resuming import HEALTH_LIMIT_S
from volback.operations.session import Session
from volback.state.runs import Run, lock

Quiesce = Literal["stop", "pause", "none"]


@dataclass(frozen=True, slots=True)
class SetOptions:
    """How to back up a set."""

    backup: BackupOptions = field(default_factory=BackupOptions)
    quiesce: Quiesce | None = None
    """None: what labels say, else nothing is stopped."""
    stop_timeout_s: int | None = None
    """None is each container's own grace time."""
    health_timeout_s: float = HEALTH_LIMIT_S
    wait_s: float = 0.0
    """For locks of other runs."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """What came of a set. An interruption is the first of the errors: what was done before it is done."""

    id: str
    backups: list[BackupResult] = field(default_factory=list)
    errors: list[VolbackError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    downtime_s: dict[str, float] = field(default_factory=dict)
    """By container: how long it was stopped or paused."""


def backup_set(session: Session, sources: list[Source], options: SetOptions) -> SetResult:
    """Back up the sources. Errors of one source, and of containers that do not run again, are in the result.

    Raises what concerns all of them: EngineUnreachable, StoreError, UsageError for a pattern that is none.
    """
    exclusion(options.backup.excludes)
    sweep(session)
    session.catalog.ensure_repository(lambda: session.random_hex(16))
    return _Set(session, options).make(sources)


class _Set:
    def __init__(self, session: Session, options: SetOptions) -> None:
        self._session = session
        self._options = options
        self._result = SetResult(session.random_hex(8))

    def make(self, sources: list[Source]) -> SetResult:
        with ExitStack() as locks:
            mine = [source for source in sources if self._locked(locks, source)]
            try:
                self._make(mine)
            except Interrupted as exc:
                self._result.errors.insert(0, exc)
        return self._result

    def _locked(self, locks: ExitStack, source: Source) -> bool:
        name = f"{self._session.engine.info.id}-{source.name}"
        what = f"{source.kind} {source.name!r}"
        try:
            locks.enter_context(lock(self._session.settings.state, name, what, wait_s=self._options.wait_s))
        except Interrupted:
            raise
        except VolbackError as exc:
            self._result.errors.append(exc)
            return False
        return True

    def _make(self, sources: list[Source]) -> None:
        candidates = containers_at_hand(self._session)
        still = [source for source in sources if self._can_be_still(source, candidates)]
        if still:
            self._make_still(still, candidates)
        for source in sources:
            if self._how(source) is None:
                self._back_up(source)

    def _how(self, source: Source) -> How | None:
        how = self._options.quiesce
        return None if how == "none" else how

    def _wish(self, source: Source, how: How) -> Wish:
        return Wish(source, how, self._options.stop_timeout_s)

    def _can_be_still(self, source: Source, candidates: list[Container]) -> bool:
        """Whether it is to be kept still, and can be; that it cannot fails this source alone."""
        how = self._how(source)
        if how is None:
            return False
        try:
            plan_quiesce(candidates, [self._wish(source, how)])
        except ConflictError as exc:
            self._result.errors.append(exc)
            return False
        return True

    def _make_still(self, sources: list[Source], candidates: list[Container]) -> None:
        wishes = [self._wish(source, how) for source in sources if (how := self._how(source))]
        self._session.engine.ensure_image()  # nothing that can be done before waits until the containers are down
        try:
            with self._quiesced(plan_quiesce(candidates, wishes)) as quiesced:
                for wish in wishes:
                    self._back_up(wish.source, _stillness(wish, quiesced, last=wish is wishes[-1]))
                quiesced.release()
        except Interrupted:
            raise
        except VolbackError as exc:  # a container that cannot be stopped: nothing has been read
            self._result.errors.append(exc)

    @contextmanager
    def _quiesced(self, wanted: list[Wanted]) -> Iterator[Quiesced]:
        """Keep them still for the block; what came of it is in the result, also after an error."""
        with Run(self._session.settings.state, "quiesce") as run:
            quiesced = Quiesced(self._session, run, wanted, health_limit_s=self._options.health_timeout_s)
            try:
                with quiesced:
                    yield quiesced
            finally:
                self._result.errors.extend(quiesced.errors)
                self._result.warnings.extend(quiesced.warnings)
                self._result.downtime_s.update(quiesced.downtime_s)

    def _back_up(self, source: Source, stillness: Stillness | None = None) -> None:
        try:
            self._result.backups.append(make_backup(self._session, source, self._options.backup, stillness))
        except Interrupted:
            raise
        except VolbackError as exc:
            self._result.errors.append(exc)


def _stillness(wish: Wish, quiesced: Quiesced, *, last: bool) -> Stillness:
    held = set(quiesced.held)
    mine = {container.name for container in writers(wish.source, quiesced.containers)} & held
    how: Consistency = "live" if not mine else "stopped" if wish.how == "stop" else "paused"
    return Stillness(
        containers=tuple(sorted(mine)),
        how=how,
        disturbed=lambda: [name for name in quiesced.disturbed() if name in mine],
        read=quiesced.release if last else lambda: None,
    )
