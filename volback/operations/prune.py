"""Prune: remove backups that no keep rule keeps, and abandoned half-made ones.

Needs no engine. Each volume is a group of its own and is judged under its lock; one that fails does not stop the
others. An interruption at any point leaves complete backups; the next run finishes a removal.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from volback.catalog.keys import BackupKey, host_prefix, parse_backup_key, short_name, volume_prefix
from volback.catalog.listing import Found, current
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.reference import parse_reference
from volback.catalog.references import References, references_of
from volback.catalog.space import Removed, freed_objects, is_whole, manifests_in
from volback.context import Context, Repository
from volback.engine.engine import Engine
from volback.errors import (
    ConflictError,
    IntegrityError,
    Interrupted,
    LockedError,
    NotFoundError,
    StoreUnreachable,
    UsageError,
    VolbackError,
)
from volback.latest import created_at
from volback.operations.lines import Lines
from volback.operations.locks import prefix_lock
from volback.operations.prune_candidates import candidates_of
from volback.operations.prune_result import FreedOf, HalfMade, Judged, PruneResult, judged
from volback.operations.recover import sweep_repository
from volback.operations.remove import key_of, remove_from, sizes_of, volume_locks
from volback.policy.keep import Decision, KeepRules, choose
from volback.state.journal import NewBackup, Reading
from volback.state.runs import live_prefixes
from volback.state.unfinished import is_kept

log = logging.getLogger(__name__)

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
) -> PruneResult:
    """Prune the named volumes (`VOLUME` or `HOST/VOLUME`), or all of this host, or of every host.

    `zone` is that of the calendar; None is this machine's. With `engine_id`, only backups of that engine, and of those
    that it adopted, are removed. Half-made backups are considered dead where nothing of them
    is younger than `older_than_s` and no run on this machine works on them. Raises UsageError where no rule says what
    to keep, StoreUnreachable; what concerns one volume is among the result's errors.
    """
    rules.check()
    if not dry_run:
        sweep_repository(ctx, repository)
    work = _Prune(
        ctx, engine, repository, rules, dry_run=dry_run, older_than_s=older_than_s, zone=zone, engine_id=engine_id
    )
    return work.work_off(_scopes(repository, volumes, all_hosts=all_hosts))


Scope = tuple[str | None, str | None]


def _scopes(repository: Repository, volumes: Sequence[str], *, all_hosts: bool) -> list[Scope]:
    """Hosts and volumes to prune; None is all of them."""
    scopes: list[Scope] = []
    for text in volumes:
        named = parse_reference(text)
        if named.id_prefix is not None:
            raise UsageError(f"{text!r} names one backup", "name a volume; to remove one backup: volback remove")
        scopes.append((named.host or (None if all_hosts else repository.host), named.volume))
    return list(dict.fromkeys(scopes)) or [(None if all_hosts else repository.host, None)]


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
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._rules = rules
        self._dry_run = dry_run
        self._older_than_s = older_than_s
        self._zone = zone
        self._engine_id = engine_id
        self._judged: list[Judged] = []
        self._freed: list[FreedOf] = []
        self._half_made: list[HalfMade] = []
        self._errors: list[VolbackError] = []
        self._notices: list[str] = []
        self._lines = Lines(repository)
        self._needs: dict[tuple[str, str], References] = {}
        """What the backups need that are left of each volume."""

    def work_off(self, scopes: list[Scope]) -> PruneResult:
        interrupted: Interrupted | None = None
        unreachable: list[VolbackError] = []
        try:
            for scope in scopes:
                self._scope(scope)
        except Interrupted as exc:
            interrupted = exc
        except StoreUnreachable as exc:
            unreachable = [exc]
        return PruneResult(
            judged=tuple(self._judged),
            freed=tuple(self._freed),
            half_made=tuple(self._half_made),
            errors=(*unreachable, *self._errors),
            interrupted=interrupted,
            notices=tuple(self._notices),
        )

    def _scope(self, scope: Scope) -> None:
        held = self._repository.catalog.holdings(*scope)
        groups = dict.fromkeys((key.host, key.volume) for key, stored in held.items() if is_whole(key, stored))
        if not groups and scope[1] is not None:
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
        self._sweep_half_made(scope, {key: stored for key, stored in held.items() if not is_whole(key, stored)})

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
            candidates = [
                replace(
                    candidate,
                    is_in_use=BackupKey(host, volume, candidate.id).prefix in in_use,
                    is_ours=candidate.line in ours,
                )
                for candidate in candidates_of(there, sizes_of(held), lines, notes)
            ]
            decisions = choose(self._rules, candidates, now=self._ctx.now(), zone=self._zone, what=f"{host}/{volume}")
            if notice := self._lines.notice(host, volume, there):
                self._notices.append(notice)
            damage = {candidate.id: candidate.damage for candidate in candidates}
            tags = {candidate.id: list(dict.fromkeys(candidate.all_tags)) for candidate in candidates}
            group = _Group(host, volume, {found.id: found for found in there}, held, needs, damage, tags)
            self._carry_out(group, decisions)

    def _carry_out(self, group: _Group, decisions: list[Decision]) -> None:
        """Remove what no rule keeps; in any case record the result for each."""
        doomed = [key_of(group.found[decision.id]) for decision in decisions if not decision.keep]
        needs, removed = group.needs, Removed()
        try:
            if self._dry_run:
                left = needs.without(doomed)
                removed.backups += doomed
                removed.objects += [stored.key for stored in freed_objects(group.held, doomed, needs, left)]
            elif doomed:
                remove_from(self._ctx, self._repository, doomed, needs, removed)
        finally:
            self._record(group, decisions, removed)
            self._needs[group.host, group.volume] = needs.without(removed.backups)

    def _record(self, group: _Group, decisions: list[Decision], removed: Removed) -> None:
        gone = {key.id for key in removed.backups}
        for decision in decisions:
            found = group.found[decision.id]
            stays = decision.id not in gone
            reasons = decision.reasons if decision.keep or not stays else ["could not be removed"]
            verdict = (stays, reasons, group.damage[decision.id], group.tags[decision.id])
            self._judged.append(judged(found, group.held[key_of(found)], *verdict))
        sizes, freed = sizes_of(group.held), set(removed.objects)
        of_gone = [stored for key in removed.backups for stored in group.held[key]]
        still_used = sum(stored.size_bytes for stored in of_gone if stored.key not in freed)
        self._freed.append(FreedOf(group.host, group.volume, sum(sizes.get(name, 0) for name in freed), still_used))

    def _sweep_half_made(self, scope: Scope, begun: Holdings) -> None:
        """Remove half-made backups. They were listed before the live runs are looked up, which do not write to older
        ones."""
        store, now = self._repository.store, self._ctx.now()
        uploads: dict[BackupKey, list[datetime]] = {}
        for left in store.unfinished(_store_prefix(scope)):
            if (key := parse_backup_key(left.key)) and _is_of(key, scope[1]):
                uploads.setdefault(key, []).append(left.started_at)
        alive = live_prefixes(self._ctx.settings.state, NewBackup, self._repository.has)
        for key in sorted(begun.keys() | uploads.keys()):
            times = [created_at(key.id), *(stored.modified_at for stored in begun.get(key, ())), *uploads.get(key, ())]
            if key.prefix in alive or (now - max(times)).total_seconds() < self._older_than_s:
                continue
            if is_kept(self._ctx.settings.state, self._repository.id, key.prefix, now):
                continue
            needs = self._needs.get((key.host, key.volume))
            if needs and key not in uploads and not needs.unneeded(stored.key for stored in begun[key]):
                continue  # the data of a removed backup, which others use
            litter = self._litter(key)
            if litter is None or not (litter or key in uploads):
                continue
            size = sum(stored.size_bytes for stored in litter)
            if self._dry_run or self._sweep(key):
                self._half_made.append(HalfMade(key, size, len(uploads.get(key, ()))))

    def _litter(self, key: BackupKey) -> list[StoredObject] | None:
        """What lies there and nobody needs; None where that is unknown, as the warning of an unreadable one says."""
        try:
            return self._repository.catalog.litter_of(key.prefix)
        except (ConflictError, IntegrityError) as exc:
            log.debug("%s", exc.message)
            return None

    def _sweep(self, key: BackupKey) -> bool:
        """Whether all half-made objects there were removed."""
        try:
            with prefix_lock(self._ctx, self._repository, key.prefix):
                self._repository.store.sweep(key.prefix, older_than_s=self._older_than_s)
                self._repository.catalog.remove_litter(key.prefix)
        except (ConflictError, IntegrityError, LockedError) as exc:
            log.debug("%s is not a half-made backup any more: %s", key.prefix, exc.message)
            return False
        return True


def _store_prefix(scope: Scope) -> str:
    host, volume = scope
    if host is None:
        return ""
    return host_prefix(host) if volume is None else volume_prefix(host, volume)


def _is_of(key: BackupKey, volume: str | None) -> bool:
    return volume is None or key.volume == short_name(volume)
