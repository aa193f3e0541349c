"""Copy complete: an increment without the backups that it uses. The frames that the target lacks come into one data
object under the copy's own id.

What is needed of the source is read, and each of its extents verified; frames are copied as they are stored. With
nothing at the target the copy stands alone: an increment in form that uses no other backup.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from volback.archive.complete import CompleteIndex
from volback.archive.frames import Verified
from volback.archive.parent import Reused
from volback.catalog.copies import stored_anew
from volback.catalog.faults import faults_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import (
    IdentityNeeded,
    IntegrityError,
    NotFoundError,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from volback.operations.copy_objects import shown
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent
from volback.operations.read_index import VERIFY_HINT
from volback.state.damaged import damaged_frames, is_damaged
from volback.store.base import Buffer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completed:
    """A copy whose data and index are stored, to be committed."""

    manifest: Manifest
    keepers: list[Manifest]
    """Backups at the target that reference what it uses there."""


@dataclass(frozen=True, slots=True)
class Base:
    """A backup at the target from which a copy takes what it has already."""

    backup: OpenBackup
    units: list[Reused]


def put_complete(ctx: Context, source: Repository, target: Repository, manifest: Manifest) -> Completed:
    """Store data and index of a copy. `manifest` is the backup's, opened, as the target is to have it.

    Raises IntegrityError where what is needed of the source is damaged (MissingObject, where it may have been repacked
    meanwhile), ConflictError where another run stores the same.
    """
    backup, base = OpenBackup.of(source, manifest), find_base(target, manifest)
    damaged = damaged_frames(ctx.settings.state, target.id, manifest.host, manifest.volume)
    index = CompleteIndex(
        manifest.id,
        _units(backup),
        base.units if base is not None else (),
        is_damaged=lambda frame: is_damaged(damaged, frame.backup, frame.offset),
    )
    put = _putting(target, manifest.key)
    ctx.progress.start(f"copy {manifest.volume}", total_bytes=None, total_files=None)
    with closing(backup.unsealed_as_indexed(index.slices())) as verified:
        put(manifest.key.increment, _counted(ctx, index, verified))
    stored = index.index.end()
    if index.index.stream_digest() != manifest.digest:
        raise IntegrityError(f"backup {manifest.name} is damaged: its index is of another backup")
    put(manifest.key.index, stored.buffers)
    made = stored_anew(
        manifest,
        data=index.frames.digest(),
        index=stored.digest,
        index_table_bytes=stored.table_bytes,
        reused_bytes=index.index.reused_bytes,
        uses=list(ChosenParent(None if base is None else base.backup).uses(index.index.frames.used, stored.used)),
        parent=_parent_there(target, manifest),
    )
    return Completed(made, [base.backup.manifest] if base is not None and made.uses else [])


def find_base(target: Repository, manifest: Manifest) -> Base | None:
    """The backup at the target that has most in common with one to copy: of the same volume, the next older intact
    one, or else the next newer. None where there is none, or it cannot be read without an identity.
    """
    keys = target.catalog.backups(manifest.host, manifest.volume)
    older = [key for key in keys if key.id < manifest.id]
    for key in [*reversed(older), *keys[len(older) :]]:
        try:
            backup = _opened(target, target.catalog.read(key))
            return Base(backup, _units(backup))
        except (StoreUnreachable, StoreDenied):
            raise
        except IdentityNeeded as exc:
            log.info("a copy uses nothing of %s: %s", target.store.url, exc.message)
            return None
        except (NotFoundError, IntegrityError, StoreError) as exc:
            log.info("a copy uses nothing of backup %s: %s", key.id, exc.message)
    return None


def _opened(target: Repository, manifest: Manifest) -> OpenBackup:
    """Raises IntegrityError where one of its objects is missing, IdentityNeeded."""
    opened = shown(target, manifest)
    if opened.is_closed:
        raise IdentityNeeded(f"its backup {manifest.id} is encrypted")
    for fault in faults_of(manifest, target.size_of):
        raise IntegrityError(fault.message)
    return OpenBackup.as_stored(target, opened)


def _putting(target: Repository, key: BackupKey) -> Callable[[str, Iterable[Buffer]], object]:
    """How the copy's own objects are put: what is there may be of a copy that another machine is making, unless it is
    condemned. Then it is of one that failed, or was removed."""
    condemned = target.catalog.known_condemned(key.host, key.volume)
    target.catalog.renew(condemned, [key.increment, key.index])
    return lambda name, chunks: target.store.put(name, chunks, if_absent=name not in condemned)


def _units(backup: OpenBackup) -> list[Reused]:
    try:
        return list(backup.lines())
    except IntegrityError as exc:
        raise IntegrityError(f"backup {backup.name} is damaged: {exc.message}", VERIFY_HINT) from exc


def _counted(ctx: Context, index: CompleteIndex, verified: Verified) -> Iterator[Buffer]:
    for stored in index.frames.data(verified):
        ctx.progress.advance(raw_bytes=len(stored))
        yield stored


def _parent_there(target: Repository, manifest: Manifest) -> str | None:
    """The backup with which it was compared, if the target has that too."""
    parent = manifest.parent
    if parent is None or not target.catalog.exists(BackupKey(manifest.host, manifest.volume, parent)):
        return None
    return parent
