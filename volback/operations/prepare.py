"""Prepare: what of a backup can be done while its containers still run, done before they are stopped or paused.

The repository is there, the id is chosen, the helper runs, and the engine reports which containers start. Where
containers are to be stopped, a first scan has warmed the kernel's caches, and has matched every path against the
exclude patterns; or a first pass has read and stored it all. What fails here fails while everything still runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from volback.archive import tar
from volback.archive.codec import DEFAULT_LEVEL
from volback.archive.plan import learn
from volback.archive.verdicts import Verdicts
from volback.catalog.keys import BackupKey, new_id
from volback.catalog.model import Manifest, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable
from volback.operations.compose_files import ComposeFiles, open_files
from volback.operations.due import with_due
from volback.operations.first_pass import FirstPass, FirstReading, Note, first_pass, note_nothing
from volback.operations.lines import Lines
from volback.operations.observe import Observer
from volback.operations.parent import ChosenParent, Comparing, choose_parent
from volback.operations.recover import discard
from volback.operations.salvage import Salvage
from volback.operations.single_files import read_source
from volback.operations.starting import started
from volback.operations.volumes import check_mounted, open_reader, unreadable
from volback.policy.storage import Storage
from volback.state.journal import NewBackup
from volback.state.runs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preparing:
    """What has to be known of a backup before its source is read."""

    excludes: list[str]
    one_file_system: bool = False
    storage: Storage | None = None
    """Where the source's bytes are; None: not asked yet."""
    is_compared: bool = False
    """Whether its size is compared with that of an earlier backup."""
    scan_first: bool = False
    """Whether the source is scanned now, and again when it is read."""
    comparing: Comparing = field(default_factory=Comparing)
    level: int = DEFAULT_LEVEL
    """Of the compression."""
    two_passes: bool | None = False
    """Whether the source is read and stored now, and what has changed when it is read; None: where there is a parent,
    with which that is cheap."""
    files: ComposeFiles | None = None
    """What is read in place of a volume or a directory of the engine's host."""
    helper_waits: bool = True
    """Whether a helper waits until the source is read; else one is started then."""

    @property
    def reads_at_once(self) -> bool:
        """Whether nothing is waited for between its preparation and its reading."""
        return self.helper_waits and not self.scan_first and self.two_passes is False


@dataclass(slots=True)
class Prepared:
    """A source that can be read at once. Like an opened file: a context manager that closes it, once or more often.

    It is closed as soon as its backup is committed: an error that closes it removes what was stored of the backup.
    """

    source: Source
    key: BackupKey
    usual: Manifest | None
    """The earlier backup with which its size is compared."""
    comparing: Comparing
    parent: ChosenParent
    first: FirstPass | None
    """What was read and stored already."""
    note: Note
    """Notes what is stored, for the next backup if this one is killed; nothing of an increment."""
    observer: Observer
    verdicts: Verdicts
    _start: Callable[[], AbstractContextManager[VolumeReader]]
    _resources: ExitStack
    _reader: VolumeReader | None = None
    _opening: Future[VolumeReader] | None = None

    def open(self) -> VolumeReader:
        """Return the helper that waits for it, or start one. Raises EngineError."""
        if self._opening is not None:
            return self._opening.result()
        return self._reader or self._open()

    def open_soon(self, pool: Executor) -> None:
        """Start its helper in a thread, if none waits. The pool must have ended before this is closed."""
        if self._reader is None:
            self._opening = pool.submit(self._open)

    def _open(self) -> VolumeReader:
        self._reader = self._resources.enter_context(self._start())
        return self._reader

    def check(self) -> None:
        """Raises EngineError if its helper has ended while it waited."""
        if self._reader is not None:
            self._reader.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)


def prepare(ctx: Context, engine: Engine, repository: Repository, source: Source, wanted: Preparing) -> Prepared:
    """Prepare the backup of a source whose lock the caller holds.

    Raises what a backup can fail of before its first byte: ConflictError, NotFoundError, EngineError, StoreError,
    UsageError for a pattern that is not valid.
    """
    verdicts = Verdicts(wanted.excludes)
    check_mounted(engine, source, hint="start its container, and back it up live or with --pause")
    _ = repository.info  # without which nothing is written
    ctx.progress.start(f"scan {source.name}", total_bytes=None, total_files=None)
    with ExitStack() as stack:
        run = stack.enter_context(Run(ctx.settings.state, "backup", source.name))
        observer = Observer(engine, source, wanted.storage)
        stack.enter_context(observer.observing())
        start = _opener(engine, run, source, wanted)
        salvage = Salvage(ctx, repository, source, engine.info.id)
        soon = None
        if wanted.reads_at_once and not salvage.waits:
            observer.begin()  # that helper scans as soon as it runs
            soon = stack.enter_context(started(start()))
        earlier = _earlier(repository, source.name)
        usual = _usual(repository, earlier, engine.info.id) if wanted.is_compared else None
        comparing = with_due(repository, earlier, engine.info.id, wanted.comparing)
        parent = choose_parent(ctx, repository, earlier, source, engine.info.id, comparing)
        if soon is not None:
            parent.read_index()
        key = BackupKey(
            repository.host, source.name, new_id(ctx.now(), ctx.random_hex(2), after=[key.id for key in earlier])
        )
        entry = NewBackup(repository=repository.store.url, repository_id=repository.id, prefix=key.prefix)
        stack.enter_context(run.begun(entry, undo=lambda: discard(repository, key)))
        first: FirstPass | None = None
        note: Note = note_nothing
        if parent.backup is None:
            first, note = stack.enter_context(salvage.first_pass(key, wanted.level)), salvage.note
        else:
            salvage.give_up()
        if wanted.two_passes or (wanted.two_passes is None and parent.backup is not None):
            reading = FirstReading(source, key, parent, comparing, wanted.excludes, wanted.level, start, note, first)
            first = stack.enter_context(first_pass(ctx, repository, reading))
        reader = soon.opened() if soon else None
        if wanted.helper_waits and reader is None:
            reader = stack.enter_context(start(rescan=wanted.scan_first))
        if wanted.scan_first:
            with nullcontext(reader) if reader is not None else start() as scanning:
                _scan_first(scanning, verdicts)
        return Prepared(
            source, key, usual, comparing, parent, first, note, observer, verdicts, start, stack.pop_all(), reader
        )


def _opener(
    engine: Engine, run: Run, source: Source, wanted: Preparing
) -> Callable[..., AbstractContextManager[VolumeReader]]:
    if wanted.files is not None:
        return partial(open_files, run, wanted.files)
    return partial(open_reader, engine, run, read_source(source), one_file_system=wanted.one_file_system)


def _scan_first(reader: VolumeReader, verdicts: Verdicts) -> None:
    """Raises EngineError if not everything can be read. What vanishes does not matter: it is scanned again."""
    found = learn(reader.scan(), verdicts)
    _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)
    log.debug("first scan: %d paths, %d matched against exclude patterns", found, verdicts.matched)


def _earlier(repository: Repository, volume: str) -> list[BackupKey]:
    """The volume's backups, oldest first; none where listing is not allowed."""
    try:
        return repository.catalog.backups(repository.host, volume)
    except StoreUnreachable:
        raise
    except StoreError as exc:
        log.debug("two backups of one second may be in any order: %s", exc.message)
        return []


def _usual(repository: Repository, earlier: list[BackupKey], engine_id: str) -> Manifest | None:
    """The latest of this engine's earlier backups that is not suspiciously small itself; None if it cannot be read."""
    catalog, lines = repository.catalog, Lines(repository)
    try:
        newest = catalog.newest(earlier, now=repository.now(), counts=lines.counts(engine_id))
        if newest is None:
            return None
        found = catalog.read(newest)
        usual = BackupKey(newest.host, newest.volume, found.smaller_than) if found.smaller_than else None
        return catalog.read(usual) if usual in earlier else found
    except StoreUnreachable:
        raise
    except (NotFoundError, IntegrityError, StoreError) as exc:
        log.debug("the size is not compared with that of an earlier backup: %s", exc.message)
        return None
