"""Parent: which earlier backup an increment is compared with, and whether all that it would take from it is there.

It is the latest intact backup of the same storage, line of engines and repository. A damaged one is passed over, and
said. What cannot be used makes a full backup, never a broken one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from volback.archive.blocks import CUT
from volback.archive.parent import EarlierBackup, Parent, Reused, begins_of
from volback.archive.plan import Plan
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ScanFacts, Source, UsedObject
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import (
    IdentityNeeded,
    IntegrityError,
    NotFoundError,
    StoreDenied,
    StoreError,
    StoreUnreachable,
    VolbackError,
)
from volback.latest import created_at, is_future, is_safety_copy
from volback.operations.lines import Lines
from volback.operations.open_backup import OpenBackup
from volback.policy.unchanged import ignored, is_known_below, is_settled
from volback.state.damaged import Frames, damaged_frames, is_damaged
from volback.state.parents import KnownParent

log = logging.getLogger(__name__)

_PASSED_OVER_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Comparing:
    """How an increment is compared with its parent."""

    full: bool = False
    """Whether a stand-alone backup is made."""
    reread: bool = False
    """Whether every file is read, also one that seems unchanged."""
    ignore_inode: bool = False
    ignore_ctime: bool = False
    full_every_s: float | None = None
    """A stand-alone one is made where the last of its line is older than this; None: no age is too old."""
    reread_every_s: float | None = None
    """Every file is read where the last time is longer ago."""


@dataclass(slots=True)
class ChosenParent:
    """The parent of a backup to be made; none makes it a full one."""

    backup: OpenBackup | None = None
    reread: bool = False
    damaged: Frames = frozenset()
    """What was found damaged of it, and of what it uses."""
    warnings: list[str] = field(default_factory=list)
    _units: list[Reused] | None = None

    @property
    def manifest(self) -> Manifest | None:
        """Its manifest."""
        return None if self.backup is None else self.backup.manifest

    def read_index(self) -> None:
        """Read its index, as far as a comparison needs all of it: while something else is waited for.

        If that is damaged there is no parent, and a warning.
        """
        if self.backup is not None and self._units is None:
            try:
                self._units = list(begins_of(self.backup.segments, self.backup.holders))
            except IntegrityError as exc:
                self._give_up(self.backup.manifest, exc)

    def compared(self, plan: Plan, comparing: Comparing) -> Parent:
        """Compare it with a plan. If its index turns out to be damaged there is none, and a warning."""
        set_ignored(plan, comparing)
        self.read_index()
        if self.backup is None:
            return Parent()
        scan = self.backup.manifest.scan
        reread = self.reread or comparing.reread or scan is None or scan.filesystem != plan.filesystem
        units, self._units = self._units or [], None
        try:
            return EarlierBackup(
                units,
                plan,
                settled(scan, plan.filesystem),
                reread=reread,
                is_damaged=lambda frame: is_damaged(self.damaged, frame.backup, frame.offset),
            )
        except IntegrityError as exc:
            self._give_up(self.backup.manifest, exc)
            return Parent()

    def _give_up(self, parent: Manifest, why: IntegrityError) -> None:
        self.warnings.append(_not_used(parent, why.message))
        self.backup = None

    def _usable(self) -> dict[tuple[str, bool], UsedObject]:
        """The objects that can be used: by object id, and whether it is an index."""
        if (parent := self.manifest) is None:
            return {}
        return {(one.object_id, one.is_index): one for one in parent.usable}

    def uses(self, data: dict[str, int], index: dict[str, int]) -> Iterator[UsedObject]:
        """The objects of it, and of those that it uses itself, of which so many bytes are used."""
        usable = self._usable()
        for used, is_index in ((data, False), (index, True)):
            for id_, used_bytes in sorted(used.items()):
                yield usable[id_, is_index].using(used_bytes)


def choose_parent(
    ctx: Context, repository: Repository, earlier: list[BackupKey], source: Source, engine_id: str, comparing: Comparing
) -> ChosenParent:
    """Choose among the volume's backups, oldest first. Raises StoreUnreachable.

    A host whose rights are to back up alone makes full backups, as the documentation says.
    """
    chosen = ChosenParent(damaged=damaged_frames(ctx.settings.state, repository.id, repository.host, source.name))
    if comparing.full:
        return chosen
    passed_over: list[str] = []
    foreign, closed = False, ""
    opens: bool | None = None
    known = known_parent(ctx, repository, source.name)
    try:
        for manifest in _of_line(repository, earlier, engine_id, passed_over):
            if manifest is None:
                foreign = True
                continue
            kept = known.opened(manifest) if manifest.is_closed else None
            if manifest.is_closed and kept is None and opens is None:
                opens = _has_identity(repository, passed_over)
            if manifest.is_closed and kept is None and not opens:
                closed = closed or manifest.id
            elif (backup := _opened(repository, manifest, passed_over, known, kept)) is not None:
                chosen.backup, chosen.reread = backup, not _is_same_storage(backup.manifest.source, source)
                break
    except StoreDenied as exc:
        log.info("a full backup is made, as the earlier ones cannot be read: %s", exc.message)
        return chosen
    chosen.warnings += _shortened(passed_over)
    if chosen.backup is None and (foreign or passed_over or closed):
        why = "the earlier backups are of another engine, or of another version" if foreign else "no other is intact"
        if closed:
            why = f"backup {closed} is encrypted, and this machine does not have its index"
        chosen.warnings.append(f"everything was read and stored: {why}")
    return chosen


def _has_identity(repository: Repository, passed_over: list[str]) -> bool:
    """Whether a given identity or passphrase opens what this machine does not keep; nobody is asked.

    `passed_over` gets why one does not. Raises UsageError for a file that cannot be read.
    """
    if not (repository.sources.identities or repository.sources.passphrases):
        return False
    try:
        return bool(repository.identities())
    except IdentityNeeded as exc:
        passed_over.append(exc.message)
        return False


def known_parent(ctx: Context, repository: Repository, volume: str) -> KnownParent:
    """What this machine keeps of the volume's newest backup in an encrypted repository."""
    return KnownParent(ctx.settings.state, repository.id, repository.host, volume)


def _open_closed(repository: Repository, manifest: Manifest, known: KnownParent, kept: Manifest | None) -> OpenBackup:
    """Open an encrypted backup from what this machine keeps of it, or with an identity.

    With an identity, what the state lacks is fetched, so that the next backup needs none. Raises IdentityNeeded.
    """
    if kept is not None:
        return OpenBackup(repository.store, kept, kept=known)
    fetch_indexes(repository, manifest, known)
    return OpenBackup(repository.store, repository.opened(manifest), kept=known)


def fetch_indexes(repository: Repository, manifest: Manifest, known: KnownParent) -> None:
    """Let this machine keep the index objects of others that a backup uses. Raises IdentityNeeded, StoreError."""
    for used in manifest.uses:
        if used.is_index and not known.has_index(used.object_id):
            key = manifest.key_of(used)
            known.put(key, b"".join(repository.store.open(key)))


def _of_line(
    repository: Repository, earlier: list[BackupKey], engine_id: str, passed_over: list[str]
) -> Iterator[Manifest | None]:
    """The earlier backups, newest first; None stands for one with which none can be compared."""
    counts = Lines(repository).counts(engine_id)
    for manifest in _earlier(repository, earlier, passed_over):
        yield manifest if counts(manifest) and manifest.cut == CUT else None


def _earlier(repository: Repository, keys: list[BackupKey], passed_over: list[str]) -> Iterator[Manifest]:
    """The backups that people and jobs made up to now, newest first; `passed_over` gets those that cannot be read."""
    now = repository.now()
    for key in reversed(keys):
        if is_future(created_at(key.id), now):
            continue
        try:
            manifest = repository.catalog.read(key)
        except NotFoundError:
            log.debug("%s was removed meanwhile", key.prefix)
        except (StoreUnreachable, StoreDenied):
            raise
        except (IntegrityError, StoreError) as exc:
            passed_over.append(_passed_over(key.id, exc))
        else:
            if not is_safety_copy(manifest.tags):
                yield manifest


def _passed_over(id_: str, why: VolbackError) -> str:
    return f"backup {id_} cannot be built upon: {why.message}"


def _shortened(passed_over: list[str]) -> list[str]:
    """One object that is lost can be needed by each backup of a year."""
    more = len(passed_over) - _PASSED_OVER_SHOWN
    return passed_over if more <= 1 else [*passed_over[:_PASSED_OVER_SHOWN], f"{more} older backups cannot either"]


def _opened(
    repository: Repository, manifest: Manifest, passed_over: list[str], known: KnownParent, kept: Manifest | None
) -> OpenBackup | None:
    """Open a backup if its objects are all there, and its index is intact; else `passed_over` gets why not.

    `kept` is the manifest with its private part, if this machine keeps that.

    Those of which it uses objects may have been removed: what a manifest lists stays.
    """
    try:
        for name, size_bytes in _needed(manifest):
            if repository.size_of(name) != size_bytes:
                raise IntegrityError(f"{name} is missing, or has another size")
        if manifest.is_closed:
            return _open_closed(repository, manifest, known, kept)
        return OpenBackup.as_stored(repository, manifest)
    except (StoreUnreachable, StoreDenied):
        raise
    except (IntegrityError, StoreError, IdentityNeeded) as exc:
        passed_over.append(_passed_over(manifest.id, exc))
        return None


def _needed(manifest: Manifest) -> Iterator[tuple[str, int]]:
    yield manifest.data_key, manifest.data.size_bytes
    for used in manifest.uses:
        yield manifest.key_of(used), used.size_bytes


def _is_same_storage(one: Source, other: Source) -> bool:
    return (one.kind, one.driver, one.options) == (other.kind, other.driver, other.options)


def facts_of(plan: Plan) -> ScanFacts:
    """What is kept of a plan's scan for the next comparison, once it is known what is not compared."""
    return ScanFacts(started_ns=plan.started_ns, newest_ns=plan.newest_stamp_ns(), filesystem=plan.filesystem)


def set_ignored(plan: Plan, comparing: Comparing) -> None:
    """Let the plan's fingerprints leave out what is not compared."""
    ignore = ignored(plan.filesystem)
    plan.ignore_inode = ignore.inode or comparing.ignore_inode
    plan.ignore_ctime = ignore.ctime or comparing.ignore_ctime
    plan.reads_mounted = not is_known_below(plan.filesystem, plan.mounted)


def settled(scan: ScanFacts | None, filesystem: str) -> Callable[[int], bool]:
    """Says of a unit's newest time whether a change after that scan would have given it another one."""
    if scan is None:
        return lambda _: False
    return lambda newest_ns: is_settled(newest_ns, scan, filesystem)


def _not_used(manifest: Manifest, why: str) -> str:
    return f"everything was read and stored: backup {manifest.id} cannot be built upon: {why}"
