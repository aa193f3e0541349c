"""Half-made backups: what was stored of backups that were never committed, by runs that are considered dead.

A run of this machine is known to be alive. Those of other machines are known by their age alone: of nothing that is
younger is anything removed, and in a repository that they may use too it is condemned first, as the upload of a first
backup may take longer than that. Called by prune.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from volback.catalog.keys import BackupKey, parse_backup_key, short_name
from volback.catalog.objects import StoredObject
from volback.catalog.references import References
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import ConflictError, IntegrityError, LockedError, ManifestUnreadable
from volback.latest import created_at
from volback.operations.locks import prefix_lock
from volback.operations.prune_result import HalfMade
from volback.state.journal import NewBackup
from volback.state.runs import live_prefixes
from volback.state.unfinished import is_kept
from volback.store.base import Unfinished, is_part

log = logging.getLogger(__name__)

Uploads = dict[BackupKey, list[Unfinished]]


def uploads_of(repository: Repository, prefix: str, volume: str | None) -> Uploads:
    """The unfinished uploads below a prefix of the store, of that volume, by backup."""
    found: Uploads = {}
    for left in repository.store.unfinished(prefix):
        key = parse_backup_key(left.key)
        if key is not None and volume in {None, key.volume, short_name(volume or "")}:
            found.setdefault(key, []).append(left)
    return found


@dataclass(frozen=True, slots=True)
class HalfMadeSweep:
    """Removes half-made backups, or condemns what is left of them."""

    ctx: Context
    repository: Repository
    needs: Mapping[tuple[str, str], References]
    """What is known already of what the manifests of volumes reference."""
    now: datetime
    """By the store's clock where the repository is shared."""
    older_than_s: float
    grace_s: int
    dry_run: bool

    def sweep(self, begun: Mapping[BackupKey, list[StoredObject]], uploads: Uploads) -> Iterator[HalfMade]:
        """Yield what was removed, or condemned. All was listed before the live runs are looked up, which do not write
        to older ones."""
        state = self.ctx.settings.state
        alive = live_prefixes(state, NewBackup, self.repository.has)
        for key in sorted(begun.keys() | uploads.keys()):
            stored, open_uploads = begun.get(key, []), uploads.get(key, [])
            if key.prefix in alive or not self._is_dead(key, stored, open_uploads):
                continue
            if is_kept(state, self.repository.id, key.prefix, self.now):
                continue
            needs = self.needs.get((key.host, key.volume))
            if needs and not open_uploads and not needs.unneeded(one.key for one in stored):
                continue  # the data of a removed backup, which others use
            if (found := self._sweep_one(key, open_uploads)) is not None:
                yield found

    def _is_dead(self, key: BackupKey, stored: Iterable[StoredObject], uploads: Iterable[Unfinished]) -> bool:
        """A running upload must be older than the grace time to be condemned."""
        limit_s = max(self.older_than_s, self.grace_s) if self.repository.store.is_shared else self.older_than_s
        times = [created_at(key.id), *(one.modified_at for one in stored), *(one.started_at for one in uploads)]
        return not limit_s or (self.now - max(times)).total_seconds() >= limit_s

    def _sweep_one(self, key: BackupKey, uploads: list[Unfinished]) -> HalfMade | None:
        """None where nothing is to be removed; where that is unknown, the warning of an unreadable manifest says so."""
        try:
            litter = self.repository.catalog.litter_of(key.prefix)
            if not (litter or uploads):
                return None
            size = sum(stored.size_bytes for stored in litter)
            if not self.dry_run:
                self._remove(key, uploads)
        except (ConflictError, IntegrityError, LockedError, ManifestUnreadable) as exc:
            log.debug("%s is not a half-made backup any more: %s", key.prefix, exc.message)
            return None
        return HalfMade(key, size, len(uploads), is_condemned=self.repository.store.is_shared)

    def _remove(self, key: BackupKey, uploads: Iterable[Unfinished]) -> None:
        """Uploads that have no object's name are temporary files, of which a store can tell that they are dead."""
        is_shared = self.repository.store.is_shared
        later = [one.key for one in uploads if is_shared and is_part(one.key.rpartition("/")[2])]
        with prefix_lock(self.ctx, self.repository, key.prefix):
            if later:
                self.repository.catalog.condemn(later, self.grace_s)
            else:
                self.repository.store.sweep(key.prefix, older_than_s=self.older_than_s)
            self.repository.catalog.remove_litter(key.prefix, grace_s=self.grace_s)
