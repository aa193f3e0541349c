"""Backups stored without an engine: a plan and its tar stream become a backup in a store, as `backup` makes it."""

from __future__ import annotations

from collections.abc import Iterable

from volback.archive.codec import FrameCodec, ZstdCodec
from volback.archive.cut import Cutter, Reused, UnitEnd
from volback.archive.parent import KnownFrame, KnownUnit, no_frame, no_unit
from volback.archive.plan import Plan
from volback.archive.record import Recorder
from volback.archive.seal import Sealed, seal
from volback.catalog.keys import BackupKey
from volback.catalog.model import FORMAT, Manifest, Source, Unit
from volback.progress import Silent
from volback.store.base import Store

FIRST, SECOND = "20261122T160254Z-aaaa", "20261123T160254Z-3f9c"
HOST, VOLUME = "host", "volume"


def store_backup(
    store: Store,
    backup_id: str,
    plan: Plan,
    stream: Iterable[bytes],
    *,
    known: KnownFrame = no_frame,
    reused: KnownUnit = no_unit,
    codec: FrameCodec | None = None,
) -> Manifest:
    """Store data and index; return the manifest, which is not committed."""
    key = BackupKey(HOST, VOLUME, backup_id)
    cutter, recorder = Cutter(plan, reused), Recorder(backup_id, Silent())
    store.put(key.data, recorder.data(seal(cutter.cut(stream), codec or ZstdCodec(), known=known, threads=2)))
    return _manifest(store, recorder, backup_id, raw_bytes=cutter.report.raw_bytes, files=cutter.report.members)


def store_units(store: Store, backup_id: str, data: bytes, units: Iterable[Unit]) -> Manifest:
    """Store a data object and an index that says what the caller wants, true or not."""
    key = BackupKey(HOST, VOLUME, backup_id)
    store.put(key.data, [data])
    recorder = Recorder(backup_id, Silent())
    cuts: list[Sealed] = []
    for unit in units:
        cuts += [*map(Reused, unit.frames), UnitEnd(unit.kind, unit.members)]
    assert list(recorder.data(cut for cut in cuts)) == []
    return _manifest(store, recorder, backup_id, raw_bytes=0, files=0)


def _manifest(store: Store, recorder: Recorder, backup_id: str, *, raw_bytes: int, files: int) -> Manifest:
    index, index_digest = recorder.index()
    store.put(BackupKey(HOST, VOLUME, backup_id).index, index)
    return Manifest(
        format=FORMAT, id=backup_id, host=HOST, volume=VOLUME,
        kind="incremental" if recorder.depends_on else "full",
        engine_id="ENGINE", source=Source(kind="volume", name=VOLUME),
        started_at="2026-11-23T16:02:54Z", ended_at="2026-11-23T16:02:55Z", consistency="stopped",
        files=files, raw_bytes=raw_bytes, stored_bytes=recorder.stored_bytes, reused_bytes=recorder.reused_bytes,
        depends_on=sorted(recorder.depends_on), data=recorder.data_digest(), index=index_digest,
        digest=recorder.stream_digest(), volback="0.1.0",
    )  # fmt: skip
