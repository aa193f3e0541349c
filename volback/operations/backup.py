"""Backup: read a volume or a host directory, store it, commit it. The source is only ever read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime

import volback
from volback.archive import tar
from volback.archive.blocks import CUT
from volback.archive.codec import DEFAULT_LEVEL, FrameCodec, ZstdCodec
from volback.archive.cut import CutReport, Cutter
from volback.archive.parent import Parent
from volback.archive.plan import Plan
from volback.archive.record import Recorder
from volback.archive.seal import seal
from volback.archive.segments import StoredIndex
from volback.catalog.model import AGE, FORMAT, BackupKind, Manifest, ScanFacts, SetOf, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader
from volback.errors import StoreError
from volback.latest import is_safety_copy
from volback.operations.compose_files import ComposeFiles
from volback.operations.hold import SourceHold
from volback.operations.locks import volume_lock
from volback.operations.notes import note_text
from volback.operations.noticed import all_excluded, odd, privileged, shrink_warning, vanished
from volback.operations.parent import Comparing, facts_of, known_parent
from volback.operations.prepare import Prepared, Preparing, prepare
from volback.operations.recover import check_whole, half_restored, sweep
from volback.operations.single_files import read_source
from volback.operations.upload import data_upload
from volback.operations.volumes import open_reader, scan, unreadable
from volback.policy.inherited import acting_labels
from volback.policy.shrink import is_suspicious
from volback.policy.storage import NO_STORAGE
from volback.state.runs import Run
from volback.state.seen_volumes import note_volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """How to back up."""

    excludes: list[str] = field(default_factory=list)
    level: int = DEFAULT_LEVEL
    tags: list[str] = field(default_factory=list)
    note: str = ""
    """What is said about it in its notes."""
    one_file_system: bool = False
    """Whether to leave out what is mounted below the source; the mount points are kept, as empty directories."""
    set: SetOf | None = None
    """The set to which the backup belongs."""
    comparing: Comparing = field(default_factory=Comparing)
    """How it is compared with its parent."""
    files: ComposeFiles | None = None
    """What is read in place of the source."""
    shrink_ratio: float | None = None
    """A backup of less than this part of the one before is suspicious; 0: none is; None: as the settings say."""
    live_wanted: bool = False
    """Whether containers may write to the source while it is read: then nobody is warned of it."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """One committed backup."""

    manifest: Manifest
    duration_s: float
    incomplete: bool
    """Whether files changed or vanished while they were read, or could be changed by a container and that was not
    wanted; or will not be restored in every respect."""
    passes: int = 1
    resumed_bytes: int = 0
    """Stored bytes that were taken over from a backup of the volume that was killed."""
    unused_bytes: int = 0
    """Stored bytes of the data object that the backup does not use: a first pass's that the second one replaced."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a backup would read; nothing was stored."""

    source: Source
    files: int
    raw_bytes: int
    excluded: int
    sockets: int


def backup(
    ctx: Context, engine: Engine, repository: Repository, source: Source, options: BackupOptions
) -> BackupResult:
    """Back up one source. Raises LockedError if another run uses it, EngineError, StoreError, Interrupted.

    On any error nothing of the backup is left; after SIGKILL the next run removes it.
    """
    sweep(ctx, engine, repository)
    check_whole(source, half_restored(ctx, engine))
    with volume_lock(ctx, engine.info.id, source):
        return make_backup(ctx, engine, repository, source, options)


def make_backup(
    ctx: Context, engine: Engine, repository: Repository, source: Source, options: BackupOptions
) -> BackupResult:
    """Back up a source whose lock the caller holds, as it is: nothing is stopped."""
    prepared = prepare(ctx, engine, repository, source, preparing(ctx, options))
    commit = read_prepared(ctx, engine, repository, prepared, options)
    return commit()


def preparing(ctx: Context, options: BackupOptions) -> Preparing:
    """What such a backup needs of its preparation."""
    return Preparing(
        excludes=options.excludes,
        one_file_system=options.one_file_system,
        is_compared=_shrink_ratio(ctx, options) > 0,
        comparing=options.comparing,
        level=options.level,
        files=options.files,
        storage=None if options.files is None else NO_STORAGE,
    )


def _shrink_ratio(ctx: Context, options: BackupOptions) -> float:
    """0: its size is not compared with that of an earlier backup; a safety copy is what it is."""
    if is_safety_copy(options.tags):
        return 0.0
    return ctx.settings.shrink_ratio if options.shrink_ratio is None else options.shrink_ratio


def read_prepared(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    prepared: Prepared,
    options: BackupOptions,
    hold: SourceHold | None = None,
) -> Callable[[], BackupResult]:
    """Read a source that was prepared with the same options, and store its data; return what commits the backup.

    `hold` says whether the caller has quiesced the source. What was prepared is closed by the commit, or by an error.
    """
    backup = _Backup(ctx, engine, repository, prepared, options, hold or SourceHold())
    with ExitStack() as failing:
        failing.push(prepared)
        backup.read()
        failing.pop_all()
    return backup.commit


def dry_run(ctx: Context, engine: Engine, source: Source, options: BackupOptions) -> DryRun:
    """Scan and plan only."""
    with (
        Run(ctx.settings.state, "backup", f"--dry-run {source.name}") as run,
        open_reader(engine, run, read_source(source), one_file_system=options.one_file_system) as reader,
    ):
        plan = scan(reader, options.excludes)
        reader_bytes = plan.total_bytes
    return DryRun(source, len(plan.records), reader_bytes, plan.excluded, plan.sockets)


class _Backup:
    """One backup in progress: the stages' totals, read after the stream has ended."""

    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        prepared: Prepared,
        options: BackupOptions,
        hold: SourceHold,
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._source = prepared.source
        self._options = options
        self._prepared = prepared
        self._key = prepared.key
        self._hold = hold
        self._observer = prepared.observer
        self._disturbed: list[str] = []
        self._warnings: list[str] = []
        self._report = CutReport()
        self._sockets = self._excluded = 0
        self._at_read_end: list[Future[None]] = []
        self._first = first = prepared.first
        self._started = first.began if first else ctx.now()
        self._codec: FrameCodec = ZstdCodec(options.level)
        self._recorder = first.recorder if first else Recorder(prepared.key.id, ctx.progress, options.level)
        self._scan: ScanFacts | None = None
        self._index: Sequence[bytes] = ()

    def read(self) -> None:
        """Read and store the data. Raises EngineError, StoreError."""
        progress, reader = self._ctx.progress, self._prepared.open()
        self._observer.begin()
        plan = scan(reader, self._options.excludes, verdicts=self._prepared.verdicts)
        parent = (self._first or self._prepared.parent).compared(plan, self._prepared.comparing)
        self._scan = facts_of(plan)
        cutter = Cutter(plan, parent)
        self._prepared.note(self._recorder, self._scan, cutter.report.privileged)
        progress.start(self._source.name, total_bytes=plan.total_bytes, total_files=len(plan.records))
        with ThreadPoolExecutor(1, "read-end") as pool:
            cuts = cutter.cut(self._read(reader, plan, parent, pool))
            sealed = seal(cuts, self._codec, in_stream_order=self._kind == "full")
            with closing(self._recorder.data(sealed, parent)) as data:
                self._store(data)
        for step in self._at_read_end:
            step.result()
        warnings, failures = tar.read_warnings(reader.messages())
        if failures:
            raise unreadable(failures)
        warnings += vanished(cutter, warnings) + odd(plan) + self._privileged(cutter) + self._disturbances()
        self._warnings = warnings + all_excluded(plan)
        self._sockets, self._excluded, self._report = plan.sockets, plan.excluded, cutter.report

    def _privileged(self, cutter: Cutter) -> list[str]:
        first = self._first.privileged if self._first else {}
        return privileged({**cutter.report.privileged, **first})

    @property
    def _kind(self) -> BackupKind:
        """A backup in two passes is an increment in form: its frames are not in stream order."""
        return "full" if self._prepared.parent.backup is None and self._first is None else "incremental"

    def _store(self, data: Iterable[bytes]) -> None:
        if self._first is not None:
            self._first.upload.add(data)
            self._first.upload.end()
        else:
            key = self._key.data if self._kind == "full" else self._key.increment
            with data_upload(self._repository.store, key, self._recorder) as upload:
                upload.add(data)
                upload.end()

    def commit(self) -> BackupResult:
        """Store the index and the manifest. Raises StoreError, IntegrityError."""
        with self._prepared:
            manifest = self._manifest()
            parent = self._prepared.parent.manifest
            kept_by = [parent] if parent is not None and manifest.uses else []
            self._repository.catalog.commit(manifest, kept_by=kept_by)
            note_text(self._repository, manifest, self._options.note)
            self._note_volume(manifest)
            self._note_parent(manifest)
            self._repository.notice_newest(manifest, is_new=True)
        duration_s = (self._ctx.now() - self._started).total_seconds()
        facts = {
            "volume": manifest.volume, "backup": manifest.id, "files": manifest.files, "raw_bytes": manifest.raw_bytes,
            "stored_bytes": manifest.stored_bytes, "duration_s": duration_s,
        }  # fmt: skip
        text = "backup %s: %s files, %s bytes"
        log.info(text, manifest.name, manifest.files, manifest.raw_bytes, extra={"facts": facts})
        return BackupResult(
            manifest,
            duration_s,
            incomplete=bool(self._warnings or self._prepared.parent.warnings or self._is_unwanted_live),
            passes=self._first.passes + 1 if self._first else 1,
            resumed_bytes=self._first.resumed_bytes if self._first else 0,
            unused_bytes=self._recorder.unused_bytes,
        )

    @property
    def _is_unwanted_live(self) -> bool:
        """Whether containers could write meanwhile, and nobody has said that this is wanted."""
        return self._observer.is_written and not self._options.live_wanted

    def _manifest(self) -> Manifest:
        warnings, report = self._warnings, self._report
        shrunk = self._shrunk()
        if shrunk is not None:
            warnings.append(shrink_warning(report, shrunk))
        recorder, index, parent = self._recorder, self._put_index(), self._prepared.parent
        return Manifest(
            format=FORMAT,
            id=self._key.id,
            host=self._key.host,
            volume=self._source.name,
            kind=self._kind,
            engine_id=self._engine.info.id,
            source=self._source,
            started_at=rfc3339(self._started),
            ended_at=rfc3339(self._ctx.now()),
            consistency="live" if self._disturbed else self._observer.consistency(self._hold.how),
            containers=sorted({*self._hold.containers, *self._observer.users}),
            files=report.members,
            raw_bytes=report.raw_bytes,
            stored_bytes=recorder.stored_bytes,
            reused_bytes=recorder.reused_bytes,
            sockets_skipped=self._sockets,
            excludes=self._options.excludes,
            excluded=self._excluded,
            smaller_than=None if shrunk is None else shrunk.id,
            parent=None if parent.manifest is None else parent.manifest.id,
            reread=self._prepared.comparing.reread,
            uses=list(parent.uses(recorder.used, index.used)),
            cut=CUT,
            scan=self._scan,
            data=recorder.data_digest(),
            index=index.digest,
            index_table_bytes=index.table_bytes,
            digest=recorder.stream_digest(),
            warnings=self._observer.notices(but=self._disturbed) + parent.warnings + warnings,
            encryption=None if self._repository.encryption is None else AGE,
            tags=self._options.tags,
            set=self._options.set,
            volback=volback.__version__,
        )

    def _note_volume(self, manifest: Manifest) -> None:
        """Remember what a restore on this machine is to know again."""
        labels, project = acting_labels(manifest.source.labels), manifest.set and manifest.set.project
        try:
            note_volume(
                self._ctx.settings.state, manifest.host, manifest.volume, labels=labels, project=project or None
            )
        except StoreError as exc:
            log.info("a restore will not know the labels of volume %s again: %s", manifest.volume, exc.message)

    def _note_parent(self, manifest: Manifest) -> None:
        """Remember what the next backup compares with, where the repository does not show it to this machine."""
        if self._repository.encryption is None or is_safety_copy(manifest.tags):
            return
        try:
            known_parent(self._ctx, self._repository, manifest.volume).keep(manifest, self._index)
        except StoreError as exc:
            log.warning("the next backup of %s will store everything: %s", manifest.volume, exc.message)

    def _read(self, reader: VolumeReader, plan: Plan, parent: Parent, pool: Executor) -> Iterator[bytes | bytearray]:
        """The tar stream. What holds the source is released at its end, while the rest is still being stored.

        In a thread: the engine is asked for it, and the store that drains this stream must not wait for an engine.
        """
        return reader.read(plan.names(parent.is_read), lambda: self._at_read_end.append(pool.submit(self._end_reading)))

    def _end_reading(self) -> None:
        self._observer.end()
        self._disturbed = self._disturbers()
        self._hold.on_read_end()

    def _disturbers(self) -> list[str]:
        """Names of those that ran though the source was to be quiesced: what was read is not what was promised."""
        came = self._observer.came if self._hold.containers else []
        return sorted({*self._hold.disturbed(), *came})

    def _shrunk(self) -> Manifest | None:
        """The earlier backup against which this one is suspiciously small; a safety copy is what it is."""
        ratio, usual = _shrink_ratio(self._ctx, self._options), self._prepared.usual
        if not ratio or usual is None:
            return None
        is_small = is_suspicious(
            files=self._report.members, raw_bytes=self._report.raw_bytes,
            files_before=usual.files, raw_bytes_before=usual.raw_bytes, ratio=ratio,
        )  # fmt: skip
        return usual if is_small else None

    def _disturbances(self) -> list[str]:
        return [
            f"container {name!r} was started by others while {self._source.kind} {self._source.name!r} was read"
            for name in self._disturbed
        ]

    def _put_index(self) -> StoredIndex:
        index = self._recorder.index()
        self._repository.store.put(self._key.index, index.buffers)
        self._index = index.buffers
        return index


def rfc3339(time: datetime) -> str:
    """A time as in manifests."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
