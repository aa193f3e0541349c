"""Verify: whether all objects of a backup exist with the right size; with `data`, whether every byte is what was
written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from volback.catalog.keys import REPOSITORY_KEY, BackupKey
from volback.catalog.listing import DamagedManifest, current
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference
from volback.context import Context, Repository
from volback.errors import IntegrityError, NoRepository
from volback.operations.open_backup import OpenBackup
from volback.operations.verify_data import Damage, Parts, Seen, read_all
from volback.policy.subset import Subset

log = logging.getLogger(__name__)

_REMEMBERED_BYTES = 128 * 1024 * 1024
"""About 200 GB of large files: 32 bytes for each extent, and some for each frame."""

REPOSITORY = "repository"
"""Used in place of a backup's name where the repository's own document is damaged; the name of a backup contains
`@`."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and found."""

    checked: int
    damaged: list[Damage]

    @property
    def intact(self) -> int:
        """How many backups are intact."""
        return self.checked - len({damage.backup for damage in self.damaged} - {REPOSITORY})


def verify(
    ctx: Context, repository: Repository, references: list[str], *, data: bool = False, subset: Subset | None = None
) -> Verification:
    """Verify the named backups, or all of the repository. Raises NotFoundError for a reference that matches none.

    Of the data, only what belongs to `subset` is read.
    """
    if references:
        named = [repository.find(reference) for reference in references]
        return verify_all(ctx, repository, named, data=data, subset=subset)
    revisions = list(repository.catalog.revisions())
    found = current(revisions)
    result = verify_all(ctx, repository, found, data=data, subset=subset)
    passed_over = [one for one in revisions if isinstance(one, DamagedManifest) and one not in found]
    return Verification(result.checked, [*map(_unreadable, passed_over), *result.damaged])


def verify_all(
    ctx: Context,
    repository: Repository,
    found: Sequence[Manifest | DamagedManifest],
    *,
    data: bool,
    subset: Subset | None = None,
) -> Verification:
    """Verify these backups."""
    damaged = list(_repository(repository)) if found else []
    seen = Seen(subset, remembered_bytes=_REMEMBERED_BYTES if len(found) > 1 else 0)
    for manifest in found:
        if isinstance(manifest, DamagedManifest):
            damaged.append(_unreadable(manifest))
        else:
            damaged += verify_backup(ctx, repository, manifest, data=data, seen=seen)
    return Verification(len(found), damaged)


def _unreadable(found: DamagedManifest) -> Damage:
    return Damage(str(Reference(found.host, found.volume, found.id)), found.key, found.error.message, [])


def verify_backup(
    ctx: Context, repository: Repository, manifest: Manifest, *, data: bool, seen: Seen | None = None
) -> list[Damage]:
    """Verify one backup; return all damage found, objects first. What is in `seen` is not read again."""
    key, name = manifest.key, manifest.name
    damaged = list(_objects(repository, manifest, key, name))
    if any(damage.object == manifest.index_key for damage in damaged):
        return damaged
    if manifest.is_closed and not (data or repository.has_identities):
        return damaged  # that all is there at its size needs no identity; what is lost with a file does
    try:
        backup = OpenBackup.as_stored(repository, manifest)
        if data:
            damaged += read_all(ctx, repository, backup, seen or Seen())
        elif damaged:
            damaged = [_with_paths(backup, damage, repository) for damage in damaged]
    except IntegrityError as exc:
        damaged.append(Damage(name, manifest.index_key, exc.message, []))
    return damaged


def _repository(repository: Repository) -> Iterator[Damage]:
    """The repository's own document: not needed by a restore, but by every backup."""
    try:
        _ = repository.info
    except NoRepository:
        yield Damage(REPOSITORY, REPOSITORY_KEY, f"{REPOSITORY_KEY} is missing", [])
    except IntegrityError as exc:
        yield Damage(REPOSITORY, REPOSITORY_KEY, exc.message, [])


def _objects(repository: Repository, manifest: Manifest, key: BackupKey, name: str) -> Iterator[Damage]:
    used = ((manifest.key_of(one), one.size_bytes) for one in manifest.uses)
    own = ((manifest.index_key, manifest.index.size_bytes), (manifest.data_key, manifest.data.size_bytes))
    for needed, expected_bytes in (*own, *used):
        size_bytes = repository.size_of(needed)
        if size_bytes < 0:
            yield Damage(name, needed, f"{needed} is missing", [])
        elif size_bytes != expected_bytes:
            yield Damage(name, needed, f"{needed} has {size_bytes} bytes, not {expected_bytes}", [])


def _with_paths(backup: OpenBackup, damage: Damage, repository: Repository) -> Damage:
    """What is lost with a data object that is missing or cut short, from the index only."""
    size = max(0, repository.size_of(damage.object))
    lost: list[str] = []
    for part, item in Parts(backup, Seen()):
        frame = item.piece.frame
        if backup.data_key(frame.backup) == damage.object and frame.offset + frame.stored_bytes > size:
            lost += part.paths()
    return Damage(damage.backup, damage.object, damage.message, list(dict.fromkeys(lost)))
