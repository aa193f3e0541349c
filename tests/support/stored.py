"""Backups stored without an engine: a plan and its tar stream become a backup in a store, as `backup` makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec

from tests.support.archive import plan_of, read
from volback.archive.blocks import CUT
from volback.archive.codec import FrameCodec, ZstdCodec
from volback.archive.cut import Cutter
from volback.archive.lookup import Line, StoredExtents
from volback.archive.parent import EarlierBackup, Parent, begins_of
from volback.archive.plan import Plan, PlannedUnit
from volback.archive.record import Recorder
from volback.archive.seal import seal
from volback.archive.segments import IndexWriter, StoredIndex
from volback.catalog.index import encode_unit
from volback.catalog.keys import BackupKey
from volback.catalog.model import FORMAT, Manifest, ObjectDigest, Source, UsedObject
from volback.catalog.units import Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.operations.first_pass import FirstPass
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import ChosenParent, Comparing, choose_parent, facts_of
from volback.progress import Silent
from volback.store.base import Store

FIRST, SECOND = "20261122T160254Z-aaaa", "20261123T160254Z-3f9c"
HOST, VOLUME, ENGINE = "host", "volume", "ENGINE"


def store_backup(
    store: Store,
    backup_id: str,
    plan: Plan,
    stream: Iterable[bytes],
    *,
    codec: FrameCodec | None = None,
) -> Manifest:
    """Store data and index of a full backup; return the manifest, which is not committed."""
    return _store(store, backup_id, plan, stream, (ChosenParent(), Parent()), codec)


def store_increment(
    store: Store,
    backup_id: str,
    plan: Plan,
    read: Callable[[Plan, Callable[[PlannedUnit], bool]], Iterable[bytes]],
    parent: Manifest,
    *,
    reread: bool = False,
    again: Collection[PlannedUnit] = (),
) -> Manifest:
    """Store data and index of an increment; `read` gives the stream of those units of the plan that are wanted.

    Every ctime is taken for settled; units in `again` are read though they have not changed.
    """
    opened = OpenBackup(store, parent)
    compared = _Choosing(begins_of(opened.segments), plan, lambda _: True, reread=reread)
    if again:
        compared.leave_out(again)
    return _store(store, backup_id, plan, read(plan, compared.is_read), (ChosenParent(opened), compared))


def commit_next(ctx: Context, repository: Repository, backup_id: str, root: Path) -> Manifest:
    """Back a tree up as `backup` does, compared with the parent that it would choose.

    The scan is dated ten seconds later than it was, so that what was written just now counts as unchanged.
    """
    plan, catalog = plan_of(root), repository.catalog
    chosen = choose_parent(
        ctx, repository, catalog.backups(HOST, VOLUME), Source(kind="volume", name=VOLUME), ENGINE, Comparing()
    )
    parent = chosen.compared(plan, Comparing())
    made = _store(repository.store, backup_id, plan, [read(root, plan, parent.is_read)], (chosen, parent))
    assert made.scan is not None
    late = msgspec.structs.replace(made.scan, started_ns=made.scan.started_ns + 10**10)
    made = msgspec.structs.replace(made, scan=late, warnings=chosen.warnings)
    catalog.commit(made)
    return made


class _Choosing(EarlierBackup):
    """A parent of which some units are read again."""

    def leave_out(self, again: Collection[PlannedUnit]) -> None:
        """What they hold is known all the same."""
        lines = list(self._stored.lines)
        for number, unit in enumerate(self._plan.units):
            if unit in again and (reused := self._reused.pop(number, None)) is not None:
                lines.append(Line.of(reused.segment, reused.number))
                self._starts.discard(unit.start)
        self._stored = StoredExtents(lines, lambda _: False)


def _store(
    store: Store,
    backup_id: str,
    plan: Plan,
    stream: Iterable[bytes],
    parents: tuple[ChosenParent, Parent],
    codec: FrameCodec | None = None,
) -> Manifest:
    key, (chosen, parent) = BackupKey(HOST, VOLUME, backup_id), parents
    cutter, recorder = Cutter(plan, parent), Recorder(backup_id, Silent())
    data_key = key.data if chosen.backup is None else key.increment
    data = recorder.data(seal(cutter.cut(stream), codec or ZstdCodec(), threads=2), parent)
    store.put(data_key, recorder.hashed(data))
    return _recorded(store, backup_id, cutter, recorder, chosen)


def _recorded(store: Store, backup_id: str, cutter: Cutter, recorder: Recorder, chosen: ChosenParent) -> Manifest:
    """Store the index of what has been recorded; return the manifest."""
    index = recorder.index()
    manifest = _manifest(
        store, backup_id, index, data=recorder.data_digest(), uses=list(chosen.uses(recorder.used, index.used)),
        parent=None if chosen.manifest is None else chosen.manifest.id, digest=recorder.stream_digest(),
    )  # fmt: skip
    return msgspec.structs.replace(
        manifest, raw_bytes=cutter.report.raw_bytes, files=cutter.report.members, reused_bytes=recorder.reused_bytes,
        scan=facts_of(cutter.plan),
    )  # fmt: skip


def store_second_pass(
    store: Store,
    first: FirstPass,
    plan: Plan,
    read: Callable[[Plan, Callable[[PlannedUnit], bool]], Iterable[bytes]],
    chosen: ChosenParent,
) -> tuple[Manifest, Recorder]:
    """End the backup of a first pass; return the manifest, which is not committed, and the totals."""
    parent, recorder = first.compared(plan, Comparing()), first.recorder
    cutter = Cutter(plan, parent)
    first.upload.add(recorder.data(seal(cutter.cut(read(plan, parent.is_read)), ZstdCodec(), threads=2), parent))
    first.upload.end()
    manifest = _recorded(store, SECOND, cutter, recorder, chosen)
    return msgspec.structs.replace(manifest, kind="incremental"), recorder


def store_units(store: Store, backup_id: str, data: bytes, units: Iterable[Unit]) -> Manifest:
    """Store a data object and an index that says what the caller wants, true or not."""
    store.put(BackupKey(HOST, VOLUME, backup_id).data, [data])
    writer, stream = IndexWriter(backup_id, 3), hashlib.sha256()
    others = set[str]()
    for unit in units:
        writer.add(encode_unit(unit))
        stream.update(unit.digest)
        others |= {piece.frame.backup for piece in unit.pieces} - {backup_id}
    digest = ObjectDigest(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    uses = [UsedObject(id=id_, name="data.tar.zst", size_bytes=0, used_bytes=0) for id_ in sorted(others)]
    return _manifest(store, backup_id, writer.end(), data=digest, digest=stream.hexdigest(), uses=uses)


def _manifest(
    store: Store,
    backup_id: str,
    index: StoredIndex,
    *,
    data: ObjectDigest,
    digest: str,
    uses: list[UsedObject],
    parent: str | None = None,
) -> Manifest:
    store.put(BackupKey(HOST, VOLUME, backup_id).index, index.buffers)
    return Manifest(
        format=FORMAT, id=backup_id, host=HOST, volume=VOLUME,
        kind="full" if parent is None else "incremental", parent=parent, uses=uses, cut=CUT,
        engine_id=ENGINE, source=Source(kind="volume", name=VOLUME),
        started_at="2026-11-23T16:02:54Z", ended_at="2026-11-23T16:02:55Z", consistency="stopped",
        files=0, raw_bytes=0, stored_bytes=data.size_bytes, data=data,
        index=index.digest, index_table_bytes=index.table_bytes, digest=digest, volback="0.1.0",
    )  # fmt: skip
