"""Condemned: what a prune does with the objects of a volume that were condemned, by itself or by another one.

What a manifest references again is condemned no more. What nobody has referenced for the grace time is deleted. The
rest waits for a later prune.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from volback.catalog.condemned import Condemnation, Locked, Verdicts, judge, until
from volback.catalog.keys import parse_backup_key
from volback.catalog.references import References
from volback.catalog.space import sizes_of
from volback.context.repository import Repository
from volback.errors import IntegrityError, ManifestUnreadable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WorkedOff:
    """What became of the condemned objects of one volume."""

    freed: dict[str, int] = field(default_factory=dict)
    """The sizes of those that are gone, by key."""
    waiting: dict[str, int] = field(default_factory=dict)
    """The sizes of those that a later prune deletes; of an upload that has not ended it is 0."""
    locked: Locked = field(default_factory=dict)
    """What an object lock keeps."""
    until: datetime | None = None
    """When all of these may be deleted, by the store's clock."""


class Worker:
    """Works off what is condemned of one volume."""

    def __init__(self, repository: Repository, *, now: datetime, grace_s: int, uploads: Iterable[str] = ()) -> None:
        """`now` is by the store's clock, from before this is called. `uploads` are the keys of unfinished ones."""
        self._repository = repository
        self._catalog = repository.catalog
        self._now = now
        self._grace_s = grace_s
        self._uploads = set(uploads)

    def work_off(self, host: str, volume: str, needs: References | None, *, dry_run: bool = False) -> WorkedOff:
        """Lift, delete, or leave each; of a dry run, say what would be done.

        `needs` is what manifests say that were read already; what is not there any more, or new, is looked up. While
        one manifest cannot be read, all waits.
        """
        now = self._now if self._grace_s or dry_run else self._catalog.store_time()
        held, condemned, _ = self._catalog.survey(host, volume)
        if not condemned:
            return WorkedOff()
        sizes = sizes_of(held)
        sizes.update(dict.fromkeys(self._uploads - sizes.keys(), 0))
        needs = self._catalog.references_now(host, volume, held, needs)
        try:
            needs.check_known(f"what is condemned of {host}/{volume}")
        except (IntegrityError, ManifestUnreadable) as exc:
            log.debug("%s", exc.message)
            verdicts = Verdicts(wait=list(condemned))
        else:
            verdicts = judge(condemned, there=sizes, needed=needs.users, now=now, grace_s=self._grace_s)
        done = WorkedOff(waiting={name: sizes.get(name, 0) for name in verdicts.wait + verdicts.shorten})
        done.until = self._until(condemned, verdicts)
        if dry_run:
            done.freed = {name: sizes[name] for name in verdicts.free}
        else:
            self._carry_out(verdicts, condemned, sizes, done)
            if verdicts.shorten and not self._grace_s:
                again = self.work_off(host, volume, needs)
                again.freed.update(done.freed)
                again.locked.update(done.locked)
                return again
        return done

    def _until(self, condemned: Mapping[str, Sequence[Condemnation]], verdicts: Verdicts) -> datetime | None:
        times = [until(condemned[name], self._grace_s) for name in verdicts.wait]
        if verdicts.shorten:
            times.append(self._now + timedelta(seconds=self._grace_s))
        return max(times, default=None)

    def _carry_out(
        self,
        verdicts: Verdicts,
        condemned: Mapping[str, Sequence[Condemnation]],
        sizes: Mapping[str, int],
        done: WorkedOff,
    ) -> None:
        catalog = self._catalog
        catalog.lift(one for name in verdicts.lift + verdicts.forget for one in condemned[name])
        catalog.condemn(verdicts.shorten, self._grace_s)
        catalog.lift(one for name in verdicts.shorten for one in condemned[name] if one.grace_s != self._grace_s)
        self._abort(verdicts.free)

        def note(name: str) -> None:
            done.freed[name] = sizes[name]

        catalog.free(condemned, verdicts.free, note, done.locked)

    def _abort(self, names: Iterable[str]) -> None:
        """Abort those that are uploads."""
        for name in self._uploads.intersection(names):
            if (key := parse_backup_key(name)) is not None:
                self._repository.store.sweep(key.prefix, older_than_s=0.0)
