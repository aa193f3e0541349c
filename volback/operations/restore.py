"""Restore: a backup, or a part of it, into a new volume, a host directory, or a volume in place.

No byte reaches tar before its frame's digest is verified. A failed restore removes the volume that it created.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.streams import VolumeWriter
from volback.errors import (
    ConflictError,
    IntegrityError,
    Interrupted,
    NotFoundError,
    VolbackError,
    cleaning_up,
)
from volback.interrupts import deferred_signals
from volback.latest import SAFETY_TAG
from volback.operations.contents import member_path
from volback.operations.directories import make_directory, remove_directory
from volback.operations.emptiness import LookingForAnything, look_first
from volback.operations.in_use import UnusedStorage
from volback.operations.locks import volume_lock
from volback.operations.open_backup import OpenBackup
from volback.operations.recover import forget_replacements, sweep
from volback.operations.removal import paths_written, remove_paths
from volback.operations.restore_part import check_part, fit_part, missing_bytes, put_back
from volback.operations.restore_target import Target, TargetOptions, check_target, known_target
from volback.operations.selection import Selection
from volback.operations.sources import volume_source
from volback.operations.trust import Authorship
from volback.operations.volumes import (
    check_extracted,
    check_written,
    new_volume,
    open_extractor,
    unset_warnings,
    unwritten_bytes,
    write_into,
)
from volback.state.journal import NewDirectory, Reading, Replacing
from volback.state.runs import Run

if TYPE_CHECKING:
    from volback.operations.prove import Comparison

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreOptions(TargetOptions):
    """What to restore, where to, and how to check it."""

    paths: list[str] = field(default_factory=list)
    replace: bool = False
    safety_backup: bool = True
    prove: bool = False
    privileged_xattrs: bool = False
    """Whether the writing helper gets CAP_SYS_ADMIN, for attributes such as security.ima."""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored."""

    backup: str
    target: Source
    files: int
    raw_bytes: int
    proven: bool
    author: Authorship
    safety_backup: str | None = None
    """The backup of a replaced volume's former content."""
    warnings: tuple[str, ...] = ()
    incomplete: bool = False
    """Whether attributes could not be set: the warnings name them."""


def restore(
    ctx: Context, engine: Engine, repository: Repository, reference: str, options: RestoreOptions
) -> RestoreResult:
    """Restore. Raises NotFoundError, ConflictError (exists, in use, not empty), IntegrityError, EngineError.

    Raises IntegrityError too if `prove` finds a difference; the volume is then kept for inspection.
    """
    if options.prove:  # now: the program may be updated while it restores
        import volback.operations.prove  # noqa: F401
    check_target(options, replace=options.replace)
    sweep(ctx, engine, repository)
    opened = OpenBackup.of(repository, repository.find(reference))
    selection = Selection.of(opened, map(member_path, options.paths)) if options.paths else None
    target, author = known_target(ctx, repository, opened.manifest, options)
    with (
        volume_lock(ctx, engine.info.id, target.source),
        Run(ctx.settings.state, "restore", opened.name) as run,
        run.begun(Reading(repository=repository.store.url, repository_id=repository.id, prefix=opened.key.prefix)),
    ):
        restoring = _Restore(
            ctx, engine, repository, run, opened=opened, selection=selection, target=target, author=author
        )
        if options.directory is not None:
            return restoring.into_directory(options)
        if options.replace and engine.has_volume(target.source.name):
            return restoring.in_place(options)
        return restoring.into_new_volume(options)


class _Restore:
    """One restore: the stream is the same, the targets differ in what is created before and removed after a failure."""

    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        run: Run,
        *,
        opened: OpenBackup,
        selection: Selection | None,
        target: Target,
        author: Authorship,
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._run = run
        self._backup = opened
        self._selection = selection
        self._target = target.source
        self._author = author
        self._not_taken_over = target.warnings(opened.manifest)
        self._unset: set[tuple[str, str]] = set()
        """Name of an attribute that could not be set, and path of the file, as text."""
        self._unset_warnings: list[str] = []
        self._is_part_in_place = False
        self._is_put_back = False

    def into_new_volume(self, options: RestoreOptions) -> RestoreResult:
        hint = "choose another name with --as, or replace its content with --replace"
        writer = partial(self._open_writer, options)
        with new_volume(self._engine, self._run, self._target, writer, hint=hint) as starting:
            self._write(starting.opened(), options)
        return self._result(options, warnings=self._not_taken_over)

    def into_directory(self, options: RestoreOptions) -> RestoreResult:
        storage = UnusedStorage(self._engine, self._target)
        with ExitStack() as helper:
            if (writer := self._looked_into(helper, options)) is not None:
                with storage.replacing(), self._empty_directory(), helper:  # it ends before what it wrote is removed
                    self._write(writer, options)
                return self._result(options, warnings=storage.warnings())
        with self._new_directory():
            self._write_anew(options)
        return self._result(options, warnings=storage.warnings(above=True))

    @contextmanager
    def _empty_directory(self) -> Iterator[None]:
        """Fill a directory of somebody else: if the block raises, what it has written is removed, and nothing else."""
        try:
            yield
        except BaseException:
            members = (self._selection or self._backup).members()
            with cleaning_up(f"a part of the restore stays in {self._target.name}"):
                remove_paths(self._engine, self._run, self._target, paths_written(members))
            raise

    @contextmanager
    def _new_directory(self) -> Iterator[None]:
        """Make the directory for the block; if that raises, it is removed."""
        is_made = False

        def undo() -> bool:
            if is_made:
                remove_directory(self._engine, self._run, self._target)
            return True

        info = self._engine.info
        with self._run.begun(NewDirectory(engine=info.id, host=info.name, path=self._target.name), undo=undo):
            with deferred_signals():
                make_directory(self._ctx, self._engine, self._run, self._target)
                is_made = True
            yield

    def _looked_into(self, helper: ExitStack, options: RestoreOptions) -> VolumeWriter | None:
        """What writes into the directory; None where there is none. Raises ConflictError if it is not empty."""
        looking = LookingForAnything(self._target)
        try:
            writer = helper.enter_context(self._open_writer(options, looking.command))
        except NotFoundError:
            return None
        if first := look_first(looking, writer):
            raise ConflictError(
                f"directory {self._target.name} is not empty", f"it holds {first!r}: restore into an empty one"
            )
        return writer

    def in_place(self, options: RestoreOptions) -> RestoreResult:
        engine, name = self._engine, self._target.name
        storage = UnusedStorage(engine, self._target)
        storage.check()
        self._prepare_in_place()
        safety = self._safety_backup() if options.safety_backup else None
        with storage.replacing(), self._run.begun(self._replacing(safety, options), undo=lambda: self._is_put_back):
            try:
                if self._selection is None:
                    self._wipe()
                self._write_anew(options)
            except (VolbackError, Interrupted) as exc:
                if safety is not None:
                    self._after_failure(safety, exc)
                raise
        forget_replacements(self._ctx, self._engine, name)
        log.debug("volume %s replaced on engine %s", name, engine.info.name)
        return self._result(options, safety, storage.warnings())

    def _after_failure(self, safety: str, failure: VolbackError | Interrupted) -> None:
        """Put back the former files of a part; the hint says what is there now."""
        name = self._target.name
        if self._selection is not None and isinstance(failure, VolbackError):
            try:
                former = OpenBackup.of(self._repository, self._repository.find(safety))
                put_back(self._engine, self._run, self._selection, self._target, former)
            except VolbackError as exc:
                log.warning("%s", exc.message)
            else:
                self._is_put_back = True
                failure.hint = f"volume {name!r} has its former content; {failure.hint}"
                return
        failure.hint = f"volume {name!r} is incomplete now; its former content: volback restore {safety} --replace"

    def _prepare_in_place(self) -> None:
        """Find out what can be known before the volume is changed. Raises IntegrityError, ConflictError."""
        if self._selection is not None:
            self._selection = fit_part(self._engine, self._run, self._selection, self._target)
            self._is_part_in_place = True
            check_part(self._selection)
            return
        from volback.operations.verify import verify_backup

        damage = verify_backup(self._ctx, self._repository, self._backup.manifest, data=True)
        if damage:
            raise IntegrityError(f"backup {self._backup.name} is damaged: {damage[0].message}", "restore an older one")

    def _replacing(self, safety: str | None, options: RestoreOptions) -> Replacing:
        info, url = self._engine.info, self._repository.store.url
        return Replacing(
            engine=info.id,
            host=info.name,
            volume=self._target.name,
            repository=url,
            safety_backup=safety,
            backup=self._backup.name,
            paths=options.paths,
        )

    def _safety_backup(self) -> str:
        from volback.operations.backup import BackupOptions, make_backup

        source = volume_source(self._engine, self._target.name)
        options = BackupOptions(tags=[SAFETY_TAG])
        return make_backup(self._ctx, self._engine, self._repository, source, options).manifest.name

    def _wipe(self) -> None:
        self._command(["find", ".", "-mindepth", "1", "-delete"], ())

    def _open_writer(self, options: RestoreOptions, look: Sequence[str] = ()) -> AbstractContextManager[VolumeWriter]:
        privileged_xattrs = options.privileged_xattrs
        return open_extractor(self._engine, self._run, self._target, privileged_xattrs=privileged_xattrs, look=look)

    def _write_anew(self, options: RestoreOptions) -> None:
        with self._open_writer(options) as writer:
            self._write(writer, options)

    def _write(self, writer: VolumeWriter, options: RestoreOptions) -> None:
        manifest, progress = self._backup.manifest, self._ctx.progress
        progress.start(f"restore {self._target.name}", total_bytes=manifest.raw_bytes, total_files=None)
        origin = self._selection or self._backup
        with closing(counted(self._ctx, origin)) as stream:
            status = writer.write(stream)
        said = check_extracted(self._target, writer.messages(), status, self._missing_bytes)
        self._unset_warnings += unset_warnings(said, privileged_xattrs=options.privileged_xattrs)
        self._unset.update((name, path) for (name, _), paths in said.unset.items() for path in paths)

    def _command(self, command: list[str], stream: Iterable[bytes | memoryview]) -> None:
        status, said_bytes = write_into(self._engine, self._run, self._target, command, stream)
        check_written(self._target, status, said_bytes.decode(errors="backslashreplace").splitlines(), command)

    def _missing_bytes(self) -> tuple[int, int]:
        """How many bytes did not fit into the target, and of how many. Raises EngineError."""
        if self._is_part_in_place and self._selection is not None:
            return missing_bytes(self._engine, self._run, self._selection, self._target)
        wanted = self._backup.manifest.raw_bytes
        if self._selection is not None:
            wanted = sum(member.size_bytes for member in self._selection.members())
        return unwritten_bytes(self._engine, self._run, self._target, wanted)

    def _result(
        self, options: RestoreOptions, safety: str | None = None, warnings: Iterable[str] = ()
    ) -> RestoreResult:
        manifest = self._backup.manifest
        unset = list(self._unset_warnings)
        proven = options.prove and self._is_proven()
        if options.prove and not proven:
            unset.append(f"{self._target.kind} {self._target.name!r} equals the backup but for these attributes")
        files, size = manifest.files, manifest.raw_bytes
        if self._selection is not None:
            sizes = [member.size_bytes for member in self._selection.members()]
            files, size = len(sizes), sum(sizes)
        said = (*self._author.warnings, *warnings, *unset)
        return RestoreResult(
            self._backup.name, self._target, files, size, proven, self._author, safety, said, bool(unset)
        )

    def _is_proven(self) -> bool:
        """Whether the target equals the backup; False where it lacks what could not be set, and nothing else.

        Raises IntegrityError.
        """
        comparison = self._compare()
        if comparison.differs:
            raise IntegrityError(
                f"{self._target.kind} {self._target.name!r} differs from backup {self._backup.name}"
                f" after the restore: {_first(comparison)}",
                f"see all: volback prove {self._backup.name} {self._target.name}",
            )
        return comparison.identical

    def _compare(self) -> Comparison:
        from volback.operations.prove import compare, compare_part

        def may_lack(name: str, path: str) -> bool:
            return (name, path) in self._unset

        if self._selection is not None:
            alone = not self._is_part_in_place
            return compare_part(self._engine, self._run, self._selection, self._target, may_lack=may_lack, alone=alone)
        return compare(self._ctx, self._engine, self._run, self._backup, self._target, excludes=[], may_lack=may_lack)


def counted(ctx: Context, origin: OpenBackup | Selection) -> Generator[bytes | memoryview, None, None]:
    """The tar stream, counted as progress: stored bytes as they are read, raw bytes as they leave."""
    for buffer in origin.stream(lambda size: ctx.progress.advance(stored_bytes=size)):
        ctx.progress.advance(raw_bytes=len(buffer))
        yield buffer


def _first(comparison: Comparison) -> str:
    for word, paths in (
        ("differs", comparison.different), ("is missing", comparison.missing), ("is extra", comparison.extra),
    ):  # fmt: skip
        if paths:
            return f"{paths[0]} {word}"
    return "nothing"
