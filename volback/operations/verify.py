"""Verify: whether all objects of a backup exist with the right size; with `data`, whether every byte is what was
written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from volback.catalog.faults import SizeOf, faults_of
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.listing import DamagedManifest, Found, current
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.naming import spelled_out
from volback.context.repository import Repository
from volback.errors import IdentityNeeded, IntegrityError, NoRepository
from volback.operations.follow import newer_revision
from volback.operations.notes import note_verified
from volback.operations.open_backup import OpenBackup
from volback.operations.seen import Seen
from volback.operations.trust import known_trust
from volback.operations.verify_data import Damage, Parts, read_all
from volback.policy.subset import Subset

log = logging.getLogger(__name__)

_REMEMBERED_BYTES = 128 * 1024 * 1024
"""About 200 GB of large files: 32 bytes for each extent, and some for each frame."""

REPOSITORY = "repository"
"""Used in place of a backup's name where the repository's own document is damaged; the name of a backup contains
`@`."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed the backups that were checked."""

    certified: int | None
    """How many are by certified hosts; None where this machine cannot prove that."""
    others: dict[str, str | None]
    """The names of those that are not, or may not be, with the key (hex) that signed each; None: nobody did."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and found."""

    checked: int
    damaged: list[Damage]
    signed: Signed | None = None
    """None in a repository in clear."""

    @property
    def intact(self) -> int:
        """How many backups are intact."""
        return self.checked - len({damage.backup for damage in self.damaged} - {REPOSITORY})


def verify(
    ctx: Context, repository: Repository, references: list[str], *, data: bool = False, subset: Subset | None = None
) -> Verification:
    """Verify the named backups, or all of the repository. Raises NotFoundError for a reference that matches none.

    Of the data, only what belongs to `subset` is read. Where all of it was, the notes of intact backups say so.
    """
    if references:
        found: list[Found] = [repository.find(one) for one in spelled_out(repository, references)]
        result = verify_all(ctx, repository, found, data=data, subset=subset)
    else:
        revisions = list(repository.catalog.revisions())
        found = current(revisions)
        result = verify_all(ctx, repository, found, data=data, subset=subset, size_of=sizes_listed(repository))
        passed_over = [one for one in revisions if isinstance(one, DamagedManifest) and one not in found]
        result = replace(result, damaged=[*map(_unreadable, passed_over), *result.damaged])
    if data and subset is None:
        damaged = {damage.backup for damage in result.damaged}
        for manifest in found:
            if isinstance(manifest, Manifest) and manifest.name not in damaged:
                note_verified(ctx, repository, manifest.key)
    return result


def sizes_listed(repository: Repository) -> SizeOf:
    """The sizes of all objects, by one listing: it must begin after the manifests were read."""
    sizes = {stored.key: stored.size_bytes for stored in repository.store.list()}
    return lambda key: sizes.get(key, -1)


def verify_all(
    ctx: Context,
    repository: Repository,
    found: Sequence[Manifest | DamagedManifest],
    *,
    data: bool,
    subset: Subset | None = None,
    size_of: SizeOf | None = None,
) -> Verification:
    """Verify these backups."""
    damaged = list(repository_damage(repository)) if found else []
    seen = Seen(subset, remembered_bytes=_REMEMBERED_BYTES if len(found) > 1 else 0)
    for manifest in found:
        if isinstance(manifest, DamagedManifest):
            damaged.append(_unreadable(manifest))
        else:
            damaged += verify_backup(ctx, repository, manifest, data=data, seen=seen, size_of=size_of)
    return Verification(len(found), damaged, _signed(repository, found))


def _unreadable(found: DamagedManifest) -> Damage:
    error = None if isinstance(found.error, IntegrityError) else found.error
    return Damage(str(Reference(found.host, found.volume, found.id)), found.key, found.error.message, [], error)


def verify_backup(
    ctx: Context,
    repository: Repository,
    manifest: Manifest,
    *,
    data: bool,
    seen: Seen | None = None,
    size_of: SizeOf | None = None,
) -> list[Damage]:
    """Verify one backup; return all damage found, objects first. What is in `seen` is not read again; without `size_of`
    the store is asked for each object. One that was repacked meanwhile is verified as it is now.
    """
    found = _verified(ctx, repository, manifest, data=data, seen=seen or Seen(), size_of=size_of)
    try:
        newer = newer_revision(repository, repository.opened(manifest)) if found else None
    except (IdentityNeeded, IntegrityError):
        return found
    if newer is None:
        return found
    return _verified(ctx, repository, newer, data=data, seen=Seen(seen.subset if seen else None), size_of=None)


def _verified(
    ctx: Context, repository: Repository, manifest: Manifest, *, data: bool, seen: Seen, size_of: SizeOf | None
) -> list[Damage]:
    name = manifest.name
    faults = faults_of(manifest, size_of or repository.size_of)
    damaged = [Damage(name, fault.key, fault.message, []) for fault in faults]
    if any(damage.object == manifest.index_key for damage in damaged):
        return damaged
    if manifest.is_closed and not (data or repository.has_identities):
        return damaged  # that all is there at its size needs no identity; what is lost with a file does
    try:
        backup = OpenBackup.as_stored(repository, manifest)
        if data:
            damaged += read_all(ctx, repository, backup, seen)
        elif damaged:
            damaged = [_with_paths(backup, damage, repository) for damage in damaged]
    except IntegrityError as exc:
        damaged.append(Damage(name, manifest.index_key, exc.message, []))
    return damaged


def _signed(repository: Repository, found: Sequence[Manifest | DamagedManifest]) -> Signed | None:
    if repository.encryption is None:
        return None
    trusted = known_trust(repository)
    read = [manifest for manifest in found if isinstance(manifest, Manifest)]
    others = {one.name: one.signer for one in read if trusted is None or not trusted.is_certified(one)}
    return Signed(None if trusted is None else len(read) - len(others), others)


def repository_damage(repository: Repository) -> Iterator[Damage]:
    """The repository's own document: not needed by a restore, but by every backup."""
    try:
        _ = repository.info
    except NoRepository:
        yield Damage(REPOSITORY, REPOSITORY_KEY, f"{REPOSITORY_KEY} is missing", [])
    except IntegrityError as exc:
        yield Damage(REPOSITORY, REPOSITORY_KEY, exc.message, [])


def _with_paths(backup: OpenBackup, damage: Damage, repository: Repository) -> Damage:
    """What is lost with a data object that is missing or cut short, from the index only."""
    size = max(0, repository.size_of(damage.object))
    lost: list[str] = []
    for part, item in Parts(backup, Seen()):
        frame = item.piece.frame
        if backup.data_key(frame.backup) == damage.object and frame.offset + frame.stored_bytes > size:
            lost += part.paths()
    return Damage(damage.backup, damage.object, damage.message, list(dict.fromkeys(lost)))
