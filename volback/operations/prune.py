"""Prune: remove backups that no keep rule keeps, and abandoned half-made ones.

Needs no engine. Each volume is a group of its own and is judged under its lock; one that fails does not stop the
others. An interruption at any point leaves complete backups; the next run finishes a removal.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import TypeVar

from volback.catalog.condemned import GRACE_S, Locked
from volback.catalog.keys import BackupKey, host_prefix, parse_backup_key, volume_prefix
from volback.catalog.listing import Found, current, key_of
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.references import References, references_of
from volback.catalog.space import Removed, freed_objects, is_document, is_whole, manifests_in, sizes_of
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import (
    Interrupted,
    NotFoundError,
    StoreUnreachable,
    VolbackError,
)
from volback.latest import created_at, is_future
from volback.measures import count, human_size
from volback.operations.condemned import Worker
from volback.operations.half_made import HalfMadeSweep, Uploads, uploads_of
from volback.operations.lines import Lines
from volback.operations.prune_candidates import candidates_of
from volback.operations.prune_result import NOT_REMOVED, CondemnedOf, FreedOf, HalfMade, Judged, PruneResult, judged
from volback.operations.recover import sweep_repository
from volback.operations.remove import remove_from, volume_locks
from volback.operations.repack import Repacking
from volback.operations.repack_plan import Packing, candidates
from volback.operations.scopes import Scope, scopes_of
from volback.policy.anonymous import is_anonymous
from volback.policy.keep import Candidate, Decision, KeepRules, choose
from volback.state.journal import Reading
from volback.state.runs import live_prefixes
from volback.store.base import Unfinished

log = logging.getLogger(__name__)

_Keyed = TypeVar("_Keyed", StoredObject, Unfinished)
STALE_S = 86_400.0
Holdings = dict[BackupKey, list[StoredObject]]


def prune(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    rules: KeepRules,
    *,
    volumes: Sequence[str] = (),
    all_hosts: bool = False,
    dry_run: bool = False,
    older_than_s: float = STALE_S,
    zone: tzinfo | None = None,
    engine_id: str | None = None,
    grace_s: int = GRACE_S,
    packing: Packing | None = None,
    upcoming: Upcoming | None = None,
    anonymous_after_s: float | None = None,
) -> PruneResult:
    """Prune the named volumes (`VOLUME` or `HOST/VOLUME`), or all of this host, or of every host.

    `zone` is that of the calendar; None is this machine's. With `engine_id`, only backups of that engine, and of those
    that it adopted, are removed. Half-made backups are considered dead where nothing of them is younger than
    `older_than_s` and no run on this machine works on them. In a repository that other machines may use too, data is
    condemned first, and deleted by a prune after `grace_s`. Then what `packing` says is repacked, if it is given.
    `upcoming` is of a dry run: the backup of each volume that would be made before. An anonymous volume that was not
    backed up for `anonymous_after_s`, as others of its host were, is forgotten. Raises UsageError where no rule says
    what to keep, StoreUnreachable; what concerns one volume is among the result's errors.
    """
    rules.check()
    if not dry_run:
        sweep_repository(ctx, repository)
    work = _Prune(
        ctx, engine, repository, rules,
        dry_run=dry_run, older_than_s=older_than_s, zone=zone, engine_id=engine_id, grace_s=grace_s,
        packing=packing, upcoming=upcoming, anonymous_after_s=anonymous_after_s,
    )  # fmt: skip
    return work.work_off(scopes_of(repository, volumes, all_hosts=all_hosts))


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A backup that would be made before the prune, as far as rules look at it."""

    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """The backups of one volume: by id, with all objects that lie there."""

    host: str
    volume: str
    found: dict[str, Found]
    held: Holdings
    needs: References
    """What they reference, in every revision."""
    damage: dict[str, str | None]
    tags: dict[str, list[str]]


class _Prune:
    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        rules: KeepRules,
        *,
        dry_run: bool,
        older_than_s: float,
        zone: tzinfo | None,
        engine_id: str | None,
        grace_s: int,
        packing: Packing | None,
        upcoming: Upcoming | None,
        anonymous_after_s: float | None,
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._rules = rules
        self._dry_run = dry_run
        self._older_than_s = older_than_s
        self._zone = zone
        self._engine_id = engine_id
        self._grace_s = grace_s
        self._judged: list[Judged] = []
        self._freed: list[FreedOf] = []
        self._half_made: list[HalfMade] = []
        self._errors: list[VolbackError] = []
        self._notices: list[str] = []
        self._lines = Lines(repository)
        self._needs: dict[tuple[str, str], References] = {}
        """What the backups need that are left of each volume."""
        self._condemned: list[CondemnedOf] = []
        self._locked: Locked = {}
        self._new: dict[tuple[str, str], dict[str, int]] = {}
        """What was condemned of each volume, or would be by a dry run: the sizes, by key."""
        self._is_shared = repository.store.is_shared
        self._packing = packing
        self._anonymous_after_s = anonymous_after_s
        self._upcoming = upcoming
        self._left: dict[tuple[str, str], frozenset[str]] = {}
        """Volumes of which something may be repacked, with the ids of the backups that are left of each."""

    def work_off(self, scopes: list[Scope]) -> PruneResult:
        interrupted: Interrupted | None = None
        unreachable: list[VolbackError] = []
        repacking = Repacking(
            self._ctx, self._engine, self._repository, self._packing or Packing(),
            dry_run=self._dry_run, grace_s=self._grace_s,
        )  # fmt: skip
        try:
            for scope in scopes:
                self._scope(scope)
            self._repack(repacking)
        except Interrupted as exc:
            interrupted = exc
        except StoreUnreachable as exc:
            unreachable = [exc]
        return PruneResult(
            judged=tuple(self._judged),
            freed=tuple(self._freed),
            half_made=tuple(self._half_made),
            locked=self._locked,
            condemned=(*self._condemned, *self._not_worked_off()),
            errors=(*unreachable, *self._errors, *repacking.errors),
            interrupted=interrupted,
            notices=tuple(self._notices),
            repacked=tuple(repacking.done),
        )

    def _scope(self, scope: Scope) -> None:
        # The store's time comes first: what is listed later was not condemned before it.
        now = self._repository.catalog.store_time() if self._is_shared and not self._dry_run else self._ctx.now()
        held, condemned, lists = self._repository.catalog.survey(*scope)
        groups = dict.fromkeys((key.host, key.volume) for key, stored in held.items() if is_whole(key, stored))
        if not groups and not condemned and scope[1] is not None:
            error = NotFoundError(f"no backup of {scope[1]} in {self._repository.store.url}", "see `volback list`")
            self._errors.append(error)
        for host, volume in groups:
            try:
                self._group(host, volume)
            except StoreUnreachable:
                raise
            except VolbackError as exc:
                log.debug("volume %s of host %s was not pruned", volume, host, exc_info=True)
                self._errors.append(exc)
        uploads = uploads_of(self._repository, _store_prefix(scope), scope[1])
        begun = {key: stored for key, stored in held.items() if not is_whole(key, stored)}
        self._sweep_half_made(begun, uploads, condemned, now)
        if self._is_shared:
            volumes = {(key.host, key.volume) for name in condemned if (key := parse_backup_key(name))}
            volumes |= {(found.key.host, found.key.volume) for found in self._half_made}
            self._work_off(volumes | self._new.keys(), uploads, now)
            if not self._dry_run:
                self._repository.catalog.drop_lists(lists, now)

    def _sweep_half_made(self, begun: Holdings, uploads: Uploads, condemned: Container[str], now: datetime) -> None:
        """What is condemned already waits."""
        sweep = HalfMadeSweep(
            self._ctx, self._repository, self._needs,
            now=now, older_than_s=self._older_than_s, grace_s=self._grace_s, dry_run=self._dry_run,
        )  # fmt: skip
        self._half_made += sweep.sweep(_but(begun, condemned), _but(uploads, condemned))

    def _group(self, host: str, volume: str) -> None:
        catalog = self._repository.catalog
        revisions = list(catalog.revisions(host, volume))
        of_engines = [found for found in revisions if isinstance(found, Manifest)]
        with (
            nullcontext()
            if self._dry_run
            else volume_locks(self._ctx, self._engine, self._repository, of_engines or revisions)
        ):
            held = catalog.holdings(host, volume)
            needs = references_of(revisions)
            if manifests_in(held) != set(needs.manifests):  # created or removed since they were read
                revisions = list(catalog.revisions(host, volume))
                needs = references_of(revisions)
            there = [found for found in current(revisions) if is_whole(key_of(found), held.get(key_of(found), ()))]
            notes = catalog.notes.listed(stored for found in there for stored in held[key_of(found)])
            lines = self._lines.among(there)
            ours = set(lines.values())
            if self._engine_id is not None:
                ours = {lines.get(self._engine_id) or self._lines.of(host, self._engine_id)}
            in_use = live_prefixes(self._ctx.settings.state, Reading, self._repository.has)
            judged_ones = [
                replace(
                    candidate,
                    is_in_use=BackupKey(host, volume, candidate.id).prefix in in_use,
                    is_ours=candidate.line in ours,
                )
                for candidate in candidates_of(there, sizes_of(held), lines, notes)
            ]
            decisions = self._decisions(judged_ones, host, volume, sorted(ours))
            if notice := self._lines.notice(host, volume, there):
                self._notices.append(notice)
            damage = {candidate.id: candidate.damage for candidate in judged_ones}
            tags = {candidate.id: list(dict.fromkeys(candidate.all_tags)) for candidate in judged_ones}
            group = _Group(host, volume, {found.id: found for found in there}, held, needs, damage, tags)
            self._carry_out(group, decisions)

    def _decisions(self, candidates: list[Candidate], host: str, volume: str, lines: Sequence[str]) -> list[Decision]:
        """What the rules say of each that is there; one that would be made before counts, too."""
        now, made = self._ctx.now(), list[Candidate]()
        if self._upcoming is not None:
            made = [Candidate("", now, self._upcoming.tags, line=line) for line in lines]
        decisions = choose(
            self._rules, [*candidates, *made],
            now=now, zone=self._zone, what=f"{host}/{volume}",
            forget_before=self._forget_before(host, volume),
        )  # fmt: skip
        return [decision for decision in decisions if decision.id]

    def _forget_before(self, host: str, volume: str) -> datetime | None:
        """Since when an anonymous volume must have a backup. It is counted from the newest backup of its host: where
        backups have stopped, or a clock is wrong, nothing is forgotten."""
        if self._anonymous_after_s is None or not is_anonymous(volume):
            return None
        now = self._ctx.now()
        times = [created_at(key.id) for key in self._repository.catalog.backups(host)]
        newest = max((time for time in times if not is_future(time, now)), default=None)
        return None if newest is None else newest - timedelta(seconds=self._anonymous_after_s)

    def _carry_out(self, group: _Group, decisions: list[Decision]) -> None:
        """Remove what no rule keeps; in any case record the result for each."""
        doomed = [key_of(group.found[decision.id]) for decision in decisions if not decision.keep]
        needs, removed, is_done = group.needs, Removed(), False
        try:
            if self._dry_run:
                removed.backups += doomed
                for stored in freed_objects(group.held, doomed, needs, needs.without(doomed)):
                    later = self._is_shared and not is_document(stored.key)
                    (removed.condemned if later else removed.objects).append(stored.key)
            elif doomed:
                self._ctx.say(_announced(group, doomed))
                remove_from(self._ctx, self._repository, doomed, needs, removed, grace_s=self._grace_s)
            is_done = True
        finally:
            self._locked.update(removed.locked)
            left = needs.without(removed.backups)
            self._record(group, decisions, removed, [] if is_done else _left_over(group, removed, left))
            self._note_left(group, left)
            self._needs[group.host, group.volume] = left

    def _note_left(self, group: _Group, needs: References) -> None:
        """Only a volume of which something may be repacked is looked at again; nothing is while a manifest cannot be
        read, which is said already."""
        if self._packing is None or needs.unreadable:
            return
        backups = needs.backups
        there = [one for one in group.found.values() if key_of(one) in backups]
        held = {key: stored for key, stored in group.held.items() if key in backups}
        has_strays = len(needs.manifests) > len(there) or self._repository.catalog.strays(held, needs)
        if candidates([one for one in there if isinstance(one, Manifest)]) or has_strays:
            self._left[group.host, group.volume] = frozenset(one.id for one in there)

    def _record(self, group: _Group, decisions: list[Decision], removed: Removed, left: Sequence[StoredObject]) -> None:
        gone = {key.id for key in removed.backups}
        for decision in decisions:
            found = group.found[decision.id]
            stays = decision.id not in gone
            reasons = decision.reasons if decision.keep or not stays else [NOT_REMOVED]
            verdict = (stays, reasons, group.damage[decision.id], group.tags[decision.id])
            self._judged.append(judged(found, group.held[key_of(found)], *verdict))
        sizes, freed = sizes_of(group.held), set(removed.objects)
        waiting = {name: sizes.get(name, 0) for name in removed.condemned}
        of_gone = [stored for key in removed.backups for stored in group.held[key]]
        elsewhere = freed | waiting.keys() | {stored.key for stored in left}
        still_used = sum(stored.size_bytes for stored in of_gone if stored.key not in elsewhere)
        if waiting:
            self._new[group.host, group.volume] = waiting
        freed_bytes, left_bytes = sum(sizes.get(name, 0) for name in freed), sum(one.size_bytes for one in left)
        self._freed.append(FreedOf(group.host, group.volume, freed_bytes, still_used, len(left), left_bytes))

    def _work_off(self, volumes: Iterable[tuple[str, str]], uploads: Uploads, now: datetime) -> None:
        """What is condemned of these volumes."""
        keys = [left.key for found in uploads.values() for left in found]
        worker = Worker(self._repository, now=now, grace_s=self._grace_s, uploads=keys)
        for host, volume in sorted(volumes):
            try:
                done = worker.work_off(host, volume, self._needs.get((host, volume)), dry_run=self._dry_run)
            except StoreUnreachable:
                raise
            except VolbackError as exc:
                self._errors.append(exc)
                continue
            self._locked.update(done.locked)
            if done.freed:
                self._freed.append(FreedOf(host, volume, sum(done.freed.values()), 0))
            new = self._new.pop((host, volume), {}) if self._dry_run else {}
            self._new.pop((host, volume), None)
            if waiting := done.waiting | new:
                until = max(filter(None, [done.until, now + timedelta(seconds=self._grace_s) if new else None]))
                self._condemned.append(CondemnedOf(host, volume, len(waiting), sum(waiting.values()), until))

    def _repack(self, repacking: Repacking) -> None:
        """Once space is freed of all volumes: what is copied may need it."""
        if self._packing is not None:
            for (host, volume), ids in self._left.items():
                repacking.volume(host, volume, only=ids)

    def _not_worked_off(self) -> Iterator[CondemnedOf]:
        """What was condemned before something ended this prune."""
        until = self._ctx.now() + timedelta(seconds=self._grace_s)
        for (host, volume), waiting in self._new.items():
            yield CondemnedOf(host, volume, len(waiting), sum(waiting.values()), until)


def _announced(group: _Group, doomed: Sequence[BackupKey]) -> str:
    """What is removed and freed."""
    freed = list(freed_objects(group.held, doomed, group.needs, group.needs.without(doomed)))
    size = human_size(sum(stored.size_bytes for stored in freed))
    what = f"{count(len(doomed), 'backup')} to remove, {size} in {count(len(freed), 'object')} to free"
    return f"{group.host}/{group.volume}: {what}"


def _left_over(group: _Group, removed: Removed, left: References) -> list[StoredObject]:
    """What nobody needs of a volume whose removal came to no end: neither gone nor condemned."""
    known = {*removed.objects, *removed.condemned, *removed.locked}
    freed = freed_objects(group.held, removed.backups, group.needs, left)
    return [stored for stored in freed if stored.key not in known]


def _store_prefix(scope: Scope) -> str:
    host, volume = scope
    if host is None:
        return ""
    return host_prefix(host) if volume is None else volume_prefix(host, volume)


def _but(found: Mapping[BackupKey, list[_Keyed]], condemned: Container[str]) -> dict[BackupKey, list[_Keyed]]:
    """What is not condemned."""
    left = {key: [one for one in some if one.key not in condemned] for key, some in found.items()}
    return {key: some for key, some in left.items() if some}
