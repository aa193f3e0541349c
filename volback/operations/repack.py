"""Repack: give back the space of objects of removed backups that others use only a small part of.

What is used of such objects is copied into new ones; then they are removed. Needs no engine; of an encrypted repository
it needs an identity. Each volume is worked on under its lock; one that fails does not stop the others. Killed at any
point, it leaves every backup readable, and the next prune or repack removes what is left over.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

from volback.catalog.condemned import GRACE_S
from volback.catalog.keys import parse_backup_key
from volback.catalog.listing import Found, current
from volback.catalog.model import Manifest
from volback.catalog.references import references_of
from volback.catalog.space import Removed, sizes_of
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import (
    IdentityNeeded,
    IntegrityError,
    Interrupted,
    NotFoundError,
    StoreError,
    StoreUnreachable,
    VolbackError,
)
from volback.interrupts import deferred_signals
from volback.measures import count, human_size
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import fetch_indexes
from volback.operations.recover import sweep_repository
from volback.operations.remove import volume_locks
from volback.operations.repack_plan import WORTH_BYTES, Candidate, Chosen, Packing, candidates, choose, measured
from volback.operations.repack_volume import VolumeRepack, Written
from volback.operations.scopes import scopes_of
from volback.state.journal import NewBackup
from volback.state.parents import KnownParent
from volback.state.runs import Run

log = logging.getLogger(__name__)

RESERVE_BYTES = 64 * 1024 * 1024
"""What stays free beside what is written, where space is limited."""
_ROUNDS_MAX = 8
"""Of a volume, where there is not enough space for all at once."""


@dataclass(slots=True)
class Repacked:
    """What was done with one volume; of a dry run, what would be."""

    host: str
    volume: str
    objects: int = 0
    """How many were repacked."""
    written_bytes: int = 0
    freed_bytes: int = 0
    """Of objects that are gone."""
    waiting_bytes: int = 0
    """Of objects that are condemned: a later prune deletes them."""
    unused_bytes: int = 0
    """What could not be freed."""
    why: str | None = None
    """Why not."""


@dataclass(frozen=True, slots=True)
class RepackResult:
    """What was done, by host and volume; volumes of which nothing was to be repacked are left out."""

    volumes: tuple[Repacked, ...]
    errors: tuple[VolbackError, ...]
    """One for each volume that was not repacked, or not to the end."""
    interrupted: Interrupted | None = None


def repack(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    packing: Packing,
    *,
    volumes: Sequence[str] = (),
    all_hosts: bool = False,
    dry_run: bool = False,
    grace_s: int = GRACE_S,
) -> RepackResult:
    """Repack the named volumes (`VOLUME` or `HOST/VOLUME`), or all of this host, or of every host.

    In a repository that other machines may use too, what is replaced is condemned, and deleted by a prune after
    `grace_s`. Raises UsageError, StoreUnreachable; what concerns one volume is among the result's errors.
    """
    if not dry_run:
        sweep_repository(ctx, repository)
    work = Repacking(ctx, engine, repository, packing, dry_run=dry_run, grace_s=grace_s)
    errors: list[VolbackError] = []
    try:
        for scope in scopes_of(repository, volumes, all_hosts=all_hosts):
            places = dict.fromkeys((key.host, key.volume) for key in repository.catalog.backups(*scope))
            if not places and scope[1] is not None:
                what = f"no backup of {scope[1]} in {repository.store.url}"
                errors.append(NotFoundError(what, "see `volback list`"))
            for place in places:
                work.volume(*place)
    except Interrupted as exc:
        return RepackResult(tuple(work.done), (*errors, *work.errors), exc)
    return RepackResult(tuple(work.done), (*errors, *work.errors))


class Repacking:
    """Repacks volumes of one repository, one after the other."""

    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        packing: Packing,
        *,
        dry_run: bool = False,
        grace_s: int = GRACE_S,
    ) -> None:
        self.done: list[Repacked] = []
        self.errors: list[VolbackError] = []
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._packing = packing
        self._dry_run = dry_run
        self._grace_s = grace_s

    def volume(self, host: str, volume: str, *, only: Collection[str] | None = None) -> None:
        """Repack one volume. A dry run counts `only` these backups, as if others were removed.

        Raises StoreUnreachable; any other error is noted.
        """
        result = Repacked(host, volume)
        try:
            found = list(self._repository.catalog.manifests(host, volume))
            with nullcontext() if self._dry_run else volume_locks(self._ctx, self._engine, self._repository, found):
                self._rounds(result, only if self._dry_run else None)
        except StoreUnreachable:
            raise
        except VolbackError as exc:
            log.debug("volume %s of host %s was not repacked", volume, host, exc_info=True)
            self.errors.append(exc)
        finally:
            if result != Repacked(host, volume):
                self.done.append(result)

    def _rounds(self, result: Repacked, only: Collection[str] | None) -> None:
        """Where there is not enough space for all at once, what one round frees makes room for the next one."""
        for _ in range(_ROUNDS_MAX):
            one = _Round(
                self._ctx, self._repository, result, self._packing, dry_run=self._dry_run, grace_s=self._grace_s
            )
            written = one.work_off(only)
            if self._packing.max_bytes is not None:
                self._packing = replace(self._packing, max_bytes=max(self._packing.max_bytes - written, 0))
            if not (written and one.is_short):
                return


class _Round:
    """One look at a volume, and what can be repacked of it at once."""

    def __init__(
        self, ctx: Context, repository: Repository, result: Repacked, packing: Packing, *, dry_run: bool, grace_s: int
    ) -> None:
        self.is_short = False
        """Whether there was not enough space for all."""
        self._ctx = ctx
        self._repository = repository
        self._result = result
        self._packing = packing
        self._dry_run = dry_run
        self._grace_s = grace_s
        self._damaged: set[str] = set()
        """Object ids of what was found damaged."""

    def work_off(self, only: Collection[str] | None) -> int:
        """Return how many bytes were written."""
        catalog, place = self._repository.catalog, (self._result.host, self._result.volume)
        self._result.unused_bytes, self._result.why = 0, None
        revisions = list(catalog.revisions(*place))
        references_of(revisions).check_known(f"what {'/'.join(place)} has stored")
        if not self._dry_run and self._ended(revisions):
            revisions = list(catalog.revisions(*place))
        there = [one for one in current(revisions) if isinstance(one, Manifest)]
        manifests = [one for one in there if only is None or one.id in only]
        if not (found := candidates(manifests)):
            return 0
        try:
            opened = list(self._opened(manifests, found))
        except IdentityNeeded as exc:
            self._give_up(sum(one.unused_bytes for one in found), exc)
            return 0
        known = {backup.manifest.id for backup in opened}
        usable = [one for one in found if known.issuperset(one.users)]
        return self._repack(opened, list(measured(usable, opened)))

    def _ended(self, revisions: Sequence[Found]) -> bool:
        """Remove what a killed repack has left. Returns whether there was anything."""
        catalog, place = self._repository.catalog, (self._result.host, self._result.volume)
        sizes, removed = sizes_of(catalog.holdings(*place)), Removed()
        try:
            return catalog.end_repack(*place, revisions, removed, grace_s=self._grace_s)
        finally:
            self._note(sizes, removed)

    def _give_up(self, unused_bytes: int, why: VolbackError) -> None:
        if unused_bytes:
            self._result.unused_bytes, self._result.why = unused_bytes, why.message

    def _opened(self, manifests: Iterable[Manifest], found: Iterable[Candidate]) -> Iterator[OpenBackup]:
        """The backups that use something of these; nothing is repacked of what a damaged one uses."""
        users = {id_ for one in found for id_ in one.users}
        for manifest in manifests:
            if manifest.id not in users:
                continue
            try:
                opened = self._repository.opened(manifest)
                yield OpenBackup(self._repository.store, opened, note=self._note_damaged)
            except IdentityNeeded:
                raise
            except IntegrityError as exc:
                log.warning("nothing is repacked of what %s uses: %s", manifest.name, exc.message)

    def _note_damaged(self, manifest: Manifest, frames: Collection[tuple[str, int]]) -> None:
        self._repository.note_damaged(manifest, frames)
        self._damaged |= {id_ for id_, _ in frames}

    def _repack(self, opened: Sequence[OpenBackup], measured: Sequence[Chosen]) -> int:
        while True:
            intact = [one for one in measured if one.object.object_id not in self._damaged]
            chosen = self._chosen(intact)
            if not chosen:
                return 0
            if self._dry_run:
                self._note_plan(chosen)
                return 0
            damaged_before = len(self._damaged)
            try:
                return self._carry_out(opened, chosen)
            except IntegrityError as exc:
                if len(self._damaged) == damaged_before:
                    raise
                log.warning("an object is left as it is: %s", exc.message)

    def _chosen(self, measured: Sequence[Chosen]) -> list[Chosen]:
        """What is repacked, as far as the store has room for it: the indexes are written too."""
        wanted = choose(measured, self._packing)
        free = self._repository.store.free_bytes()
        if free is None:
            return wanted
        room = max(free - RESERVE_BYTES, 0)
        limit = room if self._packing.max_bytes is None else min(room, self._packing.max_bytes)
        fits = choose(wanted, replace(self._packing, max_bytes=limit))
        self.is_short = len(fits) < len(wanted)
        left = sum(one.freed_bytes for one in wanted) - sum(one.freed_bytes for one in fits)
        if self.is_short and left >= WORTH_BYTES:
            self._result.unused_bytes, self._result.why = left, "there is not enough free space to copy what is used"
        return fits

    def _note_plan(self, chosen: Iterable[Chosen]) -> None:
        for one in chosen:
            self._result.objects += 1
            self._result.written_bytes += one.used_bytes
            self._result.freed_bytes += one.object.size_bytes

    def _carry_out(self, opened: Sequence[OpenBackup], chosen: Sequence[Chosen]) -> int:
        catalog, host, volume = self._repository.catalog, self._result.host, self._result.volume
        self._say(chosen)
        held = catalog.holdings(host, volume)
        work, removed = VolumeRepack(self._repository, opened, held), Removed()
        try:
            work.work_off(chosen)
            self._result.objects += len(chosen)
        finally:
            self._end(work.written, removed)
            self._result.written_bytes += work.written.bytes
            self._note(sizes_of(held), removed)
        return work.written.bytes

    def _say(self, chosen: Sequence[Chosen]) -> None:
        """Say what is read, written and freed, before it is."""
        size = human_size(sum(one.used_bytes for one in chosen))
        freed = human_size(sum(one.freed_bytes for one in chosen))
        what = f"{count(len(chosen), 'object')} to repack, {size} to read and to write anew, {freed} to free"
        self._ctx.say(f"{self._result.host}/{self._result.volume}: {what}")

    def _end(self, written: Written, removed: Removed) -> None:
        """Remove what has been replaced; of a repack that came to no end, also what it has written for nothing."""
        catalog = self._repository.catalog
        for manifest in written.made:
            self._keep_parent(manifest)
        with self._journalled(written.replaced):
            catalog.drop_revisions(written.replaced, removed, grace_s=self._grace_s)
        catalog.remove_strays(self._result.host, self._result.volume, removed, grace_s=self._grace_s)

    def _keep_parent(self, manifest: Manifest) -> None:
        """Where this machine keeps the backup as the next one's parent, it keeps the new revision instead: in an
        encrypted repository the next backup has no identity to read it."""
        if self._repository.encryption is None:
            return
        known = KnownParent(self._ctx.settings.state, self._repository.id, manifest.host, manifest.volume)
        if known.id != manifest.id:
            return
        try:
            fetch_indexes(self._repository, manifest, known)
            known.keep(manifest, self._repository.store.open(manifest.index_key))
        except StoreError as exc:
            log.warning("the next backup of %s will store everything: %s", manifest.volume, exc.message)

    def _note(self, sizes: Mapping[str, int], removed: Removed) -> None:
        self._result.freed_bytes += sum(sizes.get(name, 0) for name in removed.objects)
        self._result.waiting_bytes += sum(sizes.get(name, 0) for name in removed.condemned)
        if removed.locked:
            self._result.unused_bytes += sum(sizes.get(name, 0) for name in removed.locked)
            self._result.why = "an object lock keeps what was replaced"

    @contextmanager
    def _journalled(self, replaced: Iterable[Manifest]) -> Iterator[None]:
        """Note where objects will go: after a kill the next run finishes it."""
        keys = {parse_backup_key(name) for one in replaced for name in one.references}
        where = [
            NewBackup(repository=self._repository.store.url, repository_id=self._repository.id, prefix=key.prefix)
            for key in keys
            if key is not None
        ]
        with ExitStack() as stack:
            run: Run | None = None
            try:
                with deferred_signals():
                    run = stack.enter_context(Run(self._ctx.settings.state, "remove"))
                    run.note(*where)
            except StoreError as exc:
                log.info("objects that a kill leaves will be swept when they are old: %s", exc.message)
            yield
            if run is not None:
                run.journal.drop(*where)
