"""Restore file: the single file of a backup, to its place on the engine's host. What is there is not overwritten."""

from __future__ import annotations

from contextlib import closing

from volback.archive import tar
from volback.catalog.model import Manifest, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import ConflictError, IntegrityError
from volback.operations.locks import volume_lock
from volback.operations.open_backup import OpenBackup
from volback.operations.prove import Comparison, compare_part
from volback.operations.restore import RestoreOptions, RestoreResult, counted
from volback.operations.restore_target import known_target
from volback.operations.selection import Selection
from volback.operations.single_files import (
    REGULAR,
    is_file_backup,
    look_at,
    open_renamer,
    part_arguments,
    part_of,
    remove_part,
    rename_with,
    single_file,
)
from volback.operations.trust import authorship
from volback.operations.volumes import check_extracted, open_extractor, unset_warnings, unwritten_bytes
from volback.policy.binds import is_machine_file
from volback.state.journal import NewFile, Reading
from volback.state.runs import Run
from volback.state.seen_volumes import seen_volume


def restore_file(
    ctx: Context, engine: Engine, repository: Repository, reference: str, options: RestoreOptions
) -> RestoreResult:
    """Restore it to `options.file`; the same file there is as good as restored.

    Raises NotFoundError where the directory above does not exist, ConflictError where something else is there,
    IntegrityError, EngineError.
    """
    opened = OpenBackup.of(repository, repository.find(reference))
    target, author = known_target(ctx, repository, opened.manifest, options)
    if is_machine_file(target.source.name, engine.info.root_directory):
        raise ConflictError(f"file {target.source.name!r} belongs to the machine", "restore it with --to DIR")
    selection = Selection.of_file(opened)
    with (
        volume_lock(ctx, engine.info.id, target.source),
        Run(ctx.settings.state, "restore", opened.name) as run,
        run.begun(Reading(repository=repository.store.url, repository_id=repository.id, prefix=opened.key.prefix)),
    ):
        restoring = _RestoreFile(ctx, engine, run, opened, selection, target.source)
        unset, proven = restoring.restored(options)
    (size,) = (member.size_bytes for member in selection.members())
    if options.prove and not proven:
        unset.append(f"file {target.source.name!r} equals the backup but for these attributes")
    said = (*author.warnings, *unset)
    return RestoreResult(
        opened.name, target.source, 1, size, options.prove and proven, author, warnings=said, incomplete=bool(unset)
    )


def is_strange_file(ctx: Context, repository: Repository, backup: Manifest, project: str) -> bool:
    """Whether only the repository says that a file of the project belongs to its place: one file can take over a
    machine. Else this machine has backed it up, or a certified one has."""
    if not is_file_backup(backup.source) or authorship(repository, backup).is_certified:
        return False
    return not seen_volume(ctx.settings.state, backup.host, backup.volume).was_of_project(project)


class _RestoreFile:
    def __init__(
        self, ctx: Context, engine: Engine, run: Run, backup: OpenBackup, selection: Selection, target: Source
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._run = run
        self._backup = backup
        self._selection = selection
        self._target = target
        self._unset: set[str] = set()
        """Names of attributes that could not be set."""

    def restored(self, options: RestoreOptions) -> tuple[list[str], bool]:
        """Write it unless the same is there; return warnings, and whether it is the same there."""
        path = self._target.name
        found = look_at(self._engine, self._run, path)
        if found is not None:
            if found.what != REGULAR:
                raise ConflictError(f"file {path!r} exists already, and is a {found.what}", "remove it first")
            if not self._compared().identical:
                raise ConflictError(
                    f"file {path!r} exists already, and is another one",
                    f"remove it first, or restore beside it: volback restore {self._backup.name} --to DIR",
                )
            return [], True
        info = self._engine.info
        entry = NewFile(engine=info.id, host=info.name, path=part_of(path))
        with self._run.begun(entry, undo=self._undone):
            warnings = self._written(options)
        return warnings, options.prove and self._is_proven()

    def _written(self, options: RestoreOptions) -> list[str]:
        engine, run, target = self._engine, self._run, self._target
        extract = [*tar.EXTRACT, *part_arguments(target.name)]
        wanted = sum(member.size_bytes for member in self._selection.members())
        self._ctx.progress.start(f"restore {target.name}", total_bytes=wanted, total_files=None)
        with open_extractor(engine, run, target, extract, privileged_xattrs=options.privileged_xattrs) as writer:
            with closing(counted(self._ctx, self._selection)) as stream:
                status = writer.write(stream)
            part = single_file(part_of(target.name))
            said = check_extracted(
                target, writer.messages(), status, lambda: unwritten_bytes(engine, run, part, wanted)
            )
        with open_renamer(engine, run, target, replace=False) as renamer:
            rename_with(renamer, target)
        self._unset.update(name for name, _ in said.unset)
        return unset_warnings(said, privileged_xattrs=options.privileged_xattrs)

    def _undone(self) -> bool:
        part = part_of(self._target.name)
        return remove_part(self._engine, part, run=self._run.id, directory=self._run.scratch("part"))

    def _compared(self) -> Comparison:
        def may_lack(name: str, path: str) -> bool:
            return name in self._unset

        return compare_part(self._engine, self._run, self._selection, self._target, may_lack=may_lack, alone=False)

    def _is_proven(self) -> bool:
        """Raises IntegrityError for a difference."""
        found = self._compared()
        if found.differs:
            what = f"file {self._target.name!r} differs from backup {self._backup.name} after the restore"
            raise IntegrityError(what)
        return found.identical
