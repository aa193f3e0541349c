"""Repair: rebuild what can be rebuilt of damaged backups, and say which files are lost, and which are not.

It works on what verify and other readers have noted as damaged, and on what a listing shows. An index comes back from
this machine's copies; files come back where newer backups have stored the same data anew. Nothing is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from volback.catalog.faults import faults_of
from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, Found, current, key_of
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.objects import Kept, StoredObject
from volback.catalog.references import references_of
from volback.catalog.space import sizes_of
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import IntegrityError, VolbackError
from volback.operations.document import PutBack, put_back_document
from volback.operations.heal import Damaged, Wounded, find_intact, judge, revise, wounded
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import known_parent
from volback.operations.remove import name_of_found, volume_locks
from volback.operations.revision import Name, name_of, next_revision
from volback.operations.scopes import VERIFY_ONE, scopes_of
from volback.operations.verify import verify_all
from volback.state.damaged import damaged_frames

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """A backup of which something cannot be rebuilt."""

    backup: str
    message: str
    paths: list[str] | None
    """The files that are lost with it, all others are intact; None where that cannot be known: its index is lost."""


@dataclass(frozen=True, slots=True)
class Healed:
    """A backup that takes from elsewhere what is damaged."""

    backup: str
    revision: int
    """The one that it has now."""
    paths: list[str]
    """The files that were damaged, and are not lost."""


@dataclass(slots=True)
class Repaired:
    """What was repaired, or would be."""

    document: PutBack | None = None
    """The repository's own document, where it was lost or damaged."""
    backups: int = 0
    """How many were looked at."""
    rebuilt: list[str] = field(default_factory=list)
    """Keys of objects that were written again as they were."""
    lifted: list[str] = field(default_factory=list)
    """Keys of objects that were condemned, and are used: they stay."""
    healed: list[Healed] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    errors: list[VolbackError] = field(default_factory=list)
    """One for each volume that was not looked at to the end."""


def repair(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    volumes: Sequence[str] = (),
    *,
    all_hosts: bool = False,
    data: bool = False,
    dry_run: bool = False,
) -> Repaired:
    """Repair the backups of the named volumes (`VOLUME` or `HOST/VOLUME`), or of all of this host, or of every host.

    First comes the repository's own document. With `data`, all of it is read first. Raises UsageError, IdentityNeeded,
    StoreUnreachable, and as `put_back_document`.
    """
    result = Repaired(document=put_back_document(repository, dry_run=dry_run))
    if not dry_run:
        _ = repository.info  # nothing is written without it
    try:
        for scope in scopes_of(repository, volumes, all_hosts=all_hosts, for_one=VERIFY_ONE):
            groups: dict[tuple[str, str], list[Found]] = {}
            for one in repository.catalog.manifests(*scope):
                groups.setdefault((one.host, one.volume), []).append(one)
            for found in groups.values():
                _repair_group(ctx, engine, repository, found, result, data=data, dry_run=dry_run)
    except VolbackError as exc:
        if result.document is None:
            raise
        result.errors.append(exc)  # it must be said that the document was put back
    return result


def _repair_group(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    found: list[Found],
    result: Repaired,
    *,
    data: bool,
    dry_run: bool,
) -> None:
    """The backups of one volume."""
    try:
        with nullcontext() if dry_run else volume_locks(ctx, engine, repository, found):
            if data:
                verify_all(ctx, repository, found, data=True)
            _Volume(ctx, repository, result, dry_run=dry_run).repair(found[0].host, found[0].volume)
    except IntegrityError as exc:
        log.debug("%s was not repaired", name_of_found(found[0]), exc_info=True)
        result.errors.append(exc)


class _Volume:
    """The backups of one volume."""

    def __init__(self, ctx: Context, repository: Repository, result: Repaired, *, dry_run: bool) -> None:
        self._ctx = ctx
        self._repository = repository
        self._result = result
        self._dry_run = dry_run

    def repair(self, host: str, volume: str) -> None:
        """Repair them; of a dry run, say what would be done."""
        catalog = self._repository.catalog
        revisions = list(catalog.revisions(host, volume))
        found = current(revisions)
        held, condemned, _ = catalog.survey(host, volume)
        sizes = sizes_of(held)
        needed = references_of(revisions).users
        used = [name for name in condemned if name in needed]
        self._result.lifted += used
        if not self._dry_run:
            catalog.lift(one for name in used for one in condemned[name])
        self._result.backups += len(found)
        manifests = [one for one in found if isinstance(one, Manifest)]
        for one in found:
            if isinstance(one, DamagedManifest) and isinstance(one.error, IntegrityError):
                self._result.lost.append(Lost(name_of_found(one), one.error.message, None))
            elif isinstance(one, DamagedManifest):  # the store did not return it: that says nothing of what is lost
                self._result.errors.append(one.error)
        opened = list(self._opened(manifests, sizes))
        frames = damaged_frames(self._ctx.settings.state, self._repository.id, host, volume)
        keys = {one.object_id: manifest.key_of(one) for manifest in manifests for one in _data_of(manifest)}
        damaged = Damaged(frames, sizes, keys)
        self._heal(opened, damaged, sizes, held)

    def _opened(self, manifests: Iterable[Manifest], sizes: dict[str, int]) -> Iterator[OpenBackup]:
        """The backups whose indexes can be read, or rebuilt."""
        for manifest in manifests:
            try:
                yield OpenBackup.as_stored(self._repository, manifest)
            except IntegrityError as exc:
                try:
                    yield self._with_copy(self._repository.opened(manifest), sizes)
                except IntegrityError:
                    self._result.lost.append(Lost(manifest.name, exc.message, None))

    def _with_copy(self, manifest: Manifest, sizes: dict[str, int]) -> OpenBackup:
        """Write an index again of which this machine has a copy. Raises IntegrityError where it has none."""
        expected = manifest.index
        for kept in self._copies(manifest):
            copy = kept.get(manifest.index_key, expected.sha256, expected.size_bytes)
            if copy is None:
                continue
            self._result.rebuilt.append(manifest.index_key)
            if self._dry_run:
                return OpenBackup(self._repository.store, manifest, kept=kept)
            self._repository.store.put(manifest.index_key, [copy])
            sizes[manifest.index_key] = len(copy)
            return OpenBackup(self._repository.store, manifest)
        raise IntegrityError(f"there is no copy of {manifest.index_key}")

    def _copies(self, manifest: Manifest) -> Iterator[Kept]:
        yield self._repository.kept
        if self._repository.encryption is not None:
            yield known_parent(self._ctx, self._repository, manifest.volume)

    def _heal(
        self,
        opened: Sequence[OpenBackup],
        damaged: Damaged,
        sizes: dict[str, int],
        held: dict[BackupKey, list[StoredObject]],
    ) -> None:
        patients, asked = list[Wounded](), set[bytes]()
        while True:  # what is read for one of them may be found damaged too
            patients = [one for backup in opened if _is_wounded(one := wounded(backup, damaged.is_bad), damaged, sizes)]
            needed = set[bytes]().union(*(one.needed for one in patients))
            intact = find_intact(needed, reversed(opened), damaged)
            if needed <= asked:
                break
            asked |= needed
        usable = _usable(opened, sizes)
        for one in patients:
            judge(one, intact, damaged.is_bad)
            manifest = one.backup.manifest
            if one.lost:
                self._result.lost.append(Lost(one.name, "some of its data is nowhere else", list(one.lost)))
                if not one.healed or _faulty(manifest, sizes):
                    continue
            revision = next_revision(manifest, held.get(key_of(manifest), ()))
            if not self._dry_run:
                revise(self._repository, one, intact, damaged, revision=revision, usable=usable)
            self._result.healed.append(Healed(one.name, revision, list(one.healed)))


def _is_wounded(one: Wounded, damaged: Damaged, sizes: dict[str, int]) -> bool:
    manifest = one.backup.manifest
    return bool(one.needed or _faulty(manifest, sizes) or damaged.is_not_as_written(manifest.id))


def _faulty(manifest: Manifest, sizes: dict[str, int]) -> bool:
    return next(faults_of(manifest, lambda key: sizes.get(key, -1)), None) is not None


def _data_of(manifest: Manifest) -> Iterator[UsedObject]:
    return (one for one in manifest.usable if not one.is_index)


def _usable(opened: Iterable[OpenBackup], sizes: dict[str, int]) -> dict[Name, UsedObject]:
    """All objects that these backups have and use, as they are stored now."""
    found: dict[Name, UsedObject] = {}
    for manifest in (backup.manifest for backup in opened):
        for used in manifest.usable:
            as_stored = used.of_size(sizes.get(manifest.key_of(used), 0))
            found.setdefault(name_of(used), as_stored)
    return found
