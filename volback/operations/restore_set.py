"""Restore a set: several volumes in one command - those of a compose project, some that are named, or all of a host.

Nothing is created if a volume stands in the way. After that, one that fails does not stop the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from volback.catalog.model import Manifest, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import (
    ConflictError,
    EngineUnreachable,
    Interrupted,
    NotFoundError,
    StoreUnreachable,
    UsageError,
    VolbackError,
)
from volback.operations.compose_files_back import FilesBack, read_files
from volback.operations.project_members import known_here
from volback.operations.recover import sweep
from volback.operations.restore import RestoreOptions, RestoreResult, restore
from volback.operations.restore_dry_run import Planned, plan
from volback.operations.restore_file import is_strange_file, restore_file
from volback.operations.single_files import is_file_backup
from volback.operations.sources import volumes_by_project
from volback.operations.stored_sets import find_compose_files_backup, find_set, split_project
from volback.operations.together import Chosen, choose_all, choose_named
from volback.policy.binds import is_below, known_place_of
from volback.policy.projects import COMPOSE_LABELS, WORKING_DIR, as_volume_of, check_project
from volback.state.seen_volumes import seen_volume


@dataclass(frozen=True, slots=True)
class SetRestoreOptions:
    """Which set, and how its volumes are restored."""

    set_prefix: str | None = None
    """The beginning of the set's id; None is the latest one that is whole."""
    replace: bool = False
    safety_backup: bool = True
    prove: bool = False
    keep_driver: bool = False
    """Use the drivers and options that the backups say, wherever they reach."""
    keep_labels: bool = False
    """Take over labels by which programs act on the volumes, also where only the backups know them."""
    privileged_xattrs: bool = False
    as_project: str | None = None
    """The project whose names and labels the volumes get."""
    with_binds: bool = False
    """Restore directories and files of the project too, each to where it was; nothing there is overwritten."""
    compose_dir: Path | None = None
    """Where compose files are written to; directories that lay beside them are restored beside them."""
    anonymous: bool = False
    """Of all: also anonymous volumes that no container used when they were backed up."""


@dataclass(frozen=True, slots=True)
class SetFiles:
    """The compose files of the set."""

    backup: Manifest | None = None
    """None where it has none."""
    written: FilesBack | None = None
    """What is written of them, and where to."""
    start: str | None = None
    """The command that starts the project."""


@dataclass(frozen=True, slots=True)
class SetRestoreResult:
    """The restored volumes; `errors` has the reason for each one that was not restored."""

    chosen: Chosen
    restored: tuple[RestoreResult, ...]
    not_restored: tuple[str, ...]
    errors: tuple[VolbackError, ...]
    interrupted: Interrupted | None
    warnings: tuple[str, ...]
    files: SetFiles


@dataclass(frozen=True, slots=True)
class SetDryRun:
    """What would be restored, and what stands in the way."""

    chosen: Chosen
    planned: tuple[Planned, ...]
    obstacles: tuple[VolbackError, ...]
    warnings: tuple[str, ...]
    files: SetFiles


def restore_project(
    ctx: Context, engine: Engine, repository: Repository, project: str, options: SetRestoreOptions
) -> SetRestoreResult:
    """Restore each volume of a project (NAME or HOST/NAME) from one set; one that fails does not stop the next.

    Raises NotFoundError, UsageError; ConflictError before anything is created if a volume exists or is in use.
    """
    return SetRestore.of_project(ctx, engine, repository, project, options).run()


def _set_files(repository: Repository, backup: Manifest | None, project: str, options: SetRestoreOptions) -> SetFiles:
    if backup is None and options.compose_dir is not None:
        raise NotFoundError(f"the set of project {project!r} has no compose files", "restore it without --compose-dir")
    if backup is None or options.compose_dir is None:
        return SetFiles(backup)
    files = read_files(repository, backup, options.compose_dir)
    return SetFiles(backup, files, files.start_command(options.as_project or project))


def _place_of(manifest: Manifest, files: SetFiles, options: SetRestoreOptions) -> str:
    """Where a directory is restored to: what lay in the project's directory lies beside the compose files."""
    home = "" if files.backup is None else files.backup.source.labels.get(WORKING_DIR, "")
    maps = {home: str(options.compose_dir)} if home and options.compose_dir is not None else {}
    return known_place_of(manifest.volume, maps)


def _is_beside(place: str, options: SetRestoreOptions) -> bool:
    """Whether it is in the directory that the person names for the compose files."""
    return options.compose_dir is not None and is_below(place, str(options.compose_dir))


class SetRestore:
    """A restore of several volumes: from which backups, to which volumes."""

    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        chosen: Chosen,
        options: SetRestoreOptions,
        *,
        skips_existing: bool = False,
        files: SetFiles | None = None,
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._options = options
        self._chosen = chosen
        self._skips_existing = skips_existing
        self._files = files or SetFiles()
        self._left_out: list[str] = []
        self._steps = [_Step(manifest, self._options_of(manifest)) for manifest in chosen.backups]

    @classmethod
    def of_project(
        cls, ctx: Context, engine: Engine, repository: Repository, project: str, options: SetRestoreOptions
    ) -> SetRestore:
        """Each volume of a project (NAME or HOST/NAME), from one set. Raises NotFoundError, UsageError."""
        if options.as_project is not None:
            check_project(options.as_project)
        _, name = split_project(repository, project)
        known = known_here(ctx, engine, name)
        found, warnings = find_set(repository, project, options.set_prefix, is_known=known)
        backups = [backup for _, backup in sorted(found.backups.items())]
        directories = [backup for backup in backups if backup.source.kind == "directory"]
        if not options.with_binds:
            backups = [backup for backup in backups if backup not in directories]
            warnings += [
                f"{'file' if is_file_backup(one.source) else 'directory'} {one.volume} is left out: it comes back with"
                " --with-binds"
                for one in directories
            ]
        elif not directories:
            warnings.append(f"set {found.made.id} has no directories: backup --project keeps them --with-binds")
        host = backups[0].host if backups else repository.host
        kept = find_compose_files_backup(repository, host, name, found.made.id)
        if kept is not None and options.compose_dir is not None and (kept.set is None or kept.set.id != found.made.id):
            warnings.append(f"set {found.made.id} has no compose files: those of {kept.name} are taken")
        files = _set_files(repository, kept, name, options)
        strange = [
            one
            for one in backups
            if not _is_beside(_place_of(one, files, options), options) and is_strange_file(ctx, repository, one, name)
        ]
        warnings += [
            f"file {one.volume} is left out, as this machine has not backed it up: volback restore {one.name} --to DIR"
            for one in strange
        ]
        backups = [one for one in backups if one not in strange]
        chosen = Chosen(backups, name, found.made, tuple(found.missing), warnings)
        return cls(ctx, engine, repository, chosen, options, files=files)

    @classmethod
    def of_volumes(
        cls, ctx: Context, engine: Engine, repository: Repository, references: list[str], options: SetRestoreOptions
    ) -> SetRestore:
        """The volumes that references name. Raises NotFoundError, UsageError."""
        chosen = choose_named(repository, references, options.set_prefix)
        for backup in chosen.backups:
            if backup.source.kind == "directory":
                raise UsageError(
                    f"backup {backup.name} is of a host directory",
                    f"restore it by itself: volback restore {backup.name} --to DIR",
                )
        return cls(ctx, engine, repository, chosen, options)

    @classmethod
    def of_all(cls, ctx: Context, engine: Engine, repository: Repository, options: SetRestoreOptions) -> SetRestore:
        """Every volume of this host; without `replace` those that exist are left out. Raises NotFoundError."""
        chosen = choose_all(repository, options.set_prefix, anonymous=options.anonymous)
        return cls(ctx, engine, repository, chosen, options, skips_existing=not options.replace)

    def run(self) -> SetRestoreResult:
        """Restore each. Raises ConflictError before anything is created if a volume exists or is in use."""
        sweep(self._ctx, self._engine, self._repository)
        self._leave_out_existing()
        for obstacle in self._obstacles():
            raise obstacle
        done = _Done(list(self._chosen.errors), list(self._left_out))
        if self._files.written is not None:  # before what lies beside them
            self._files.written.write()
        left = list(self._steps)
        while left and not done.is_over:
            self._restore_one(left.pop(0), done)
        if left:
            commands = "; ".join(f"volback restore {step.backup.name}" for step in left)
            names = [step.volume for step in left]
            done.errors.append(VolbackError(f"restoring stopped before {', '.join(names)}", commands))
            done.failed += names
        warnings = [*self._chosen.warnings, *(warning for each in done.restored for warning in each.warnings)]
        return SetRestoreResult(
            self._chosen, tuple(done.restored), tuple(done.failed), tuple(done.errors), done.interrupted,
            tuple(warnings), self._files,
        )  # fmt: skip

    def dry_run(self) -> SetDryRun:
        """Return what `run` would do. Raises UsageError."""
        self._leave_out_existing()
        planned = [plan(self._ctx, self._engine, self._repository, step.backup, step.options) for step in self._steps]
        warnings = [*self._chosen.warnings, *(warning for each in planned for warning in each.warnings)]
        errors = (*self._chosen.errors, *self._obstacles())
        return SetDryRun(self._chosen, tuple(planned), errors, tuple(warnings), self._files)

    def _restore_one(self, step: _Step, done: _Done) -> None:
        try:
            fill = restore if step.options.file is None else restore_file
            done.restored.append(fill(self._ctx, self._engine, self._repository, step.backup.name, step.options))
        except (VolbackError, Interrupted) as exc:
            done.failed.append(step.volume)
            project = f" of project {self._project!r}" if self._project else ""
            kind = "directory" if step.options.directory else "file" if step.options.file else "volume"
            exc.message = f"{kind} {step.volume!r}{project} was not restored: {exc.message}"
            exc.hint = exc.hint or f"volback restore {step.backup.name}"
            if isinstance(exc, Interrupted):
                done.interrupted = exc
            else:
                done.errors.append(exc)

    @property
    def _project(self) -> str | None:
        return self._options.as_project or self._chosen.project

    def _options_of(self, manifest: Manifest) -> RestoreOptions:
        options = self._options
        if manifest.source.kind == "directory" and self._chosen.project:
            place = _place_of(manifest, self._files, options)
            if is_file_backup(manifest.source):
                return RestoreOptions(file=place, prove=options.prove, privileged_xattrs=options.privileged_xattrs)
            return RestoreOptions(directory=place, prove=options.prove, privileged_xattrs=options.privileged_xattrs)
        made = RestoreOptions(
            replace=options.replace,
            safety_backup=options.safety_backup,
            prove=options.prove,
            keep_driver=options.keep_driver,
            keep_labels=options.keep_labels,
            project=self._chosen.project,
            privileged_xattrs=options.privileged_xattrs,
        )
        if options.as_project is None:
            return made
        renamed = as_volume_of(
            options.as_project, manifest.volume, manifest.source.labels, of=self._chosen.project or ""
        )
        return replace(made, name=renamed.name, labels=renamed.labels, without_labels=COMPOSE_LABELS)

    def _leave_out_existing(self) -> None:
        """Of all volumes, and of names that two projects use, what is there is not touched."""
        may_skip = [
            step
            for step in self._steps
            if self._skips_existing or (self._options.as_project and step.volume == step.backup.volume)
        ]
        steps = [step for step in may_skip if self._is_there(step)]
        self._left_out = [step.volume for step in steps]
        self._steps = [step for step in self._steps if step not in steps]
        why = "exists already" if self._skips_existing else "exists, and both projects use that name"
        warnings = [f"volume {volume!r} {why}: it stays as it is" for volume in self._left_out]
        if warnings:
            self._chosen = replace(self._chosen, warnings=self._chosen.warnings + warnings, is_partial=True)

    def _obstacles(self) -> Iterator[ConflictError]:
        """What stands in the way of all of them: then none is created."""
        if self._files.written is not None and (obstacle := self._files.written.obstacle()):
            yield obstacle
        there = {step.volume: step for step in self._steps if self._is_there(step)}
        if not there:
            return
        volumes = f"volumes of project {self._project!r}" if self._project else "volumes"
        if not self._options.replace:
            yield ConflictError(
                f"{volumes} exist already, so none was restored: {', '.join(there)}",
                "replace their content with --replace, or remove them first"
                + (": docker compose down --volumes" if self._project else ""),
            )
            return
        if self._project and (others := self._of_others(self._project, list(there))):
            hint = "if they are to be replaced, do it one by one: volback restore"
            yield ConflictError(
                f"volumes are not of project {self._project!r} on this engine, so none was restored:"
                f" {', '.join(others)}",
                f"{hint} {there[others[0]].backup.name} --replace",
            )
        if used := [f"{volume} by container {user!r}" for volume in there for user in self._users(volume)[:1]]:
            stop = "stop its containers first: docker compose stop" if self._project else "stop the containers first"
            yield ConflictError(f"{volumes} are in use, so none was restored: {', '.join(used)}", stop)

    def _is_there(self, step: _Step) -> bool:
        """Whether its volume exists; a directory is looked into when its turn comes."""
        return step.options.directory is None and step.options.file is None and self._engine.has_volume(step.volume)

    def _of_others(self, project: str, there: list[str]) -> list[str]:
        """Volumes that only the backups count among the project's: neither their labels nor their containers do, and
        this machine has not backed them up with it."""
        mine, state = volumes_by_project(self._engine).get(project, set()), self._ctx.settings.state
        hosts = {step.volume: step.backup.host for step in self._steps}
        return [
            volume
            for volume in there
            if volume not in mine and not seen_volume(state, hosts[volume], volume).was_of_project(project)
        ]

    def _users(self, volume: str) -> list[str]:
        """Names of the running containers that reach the volume's storage."""
        found = self._engine.storage_users(self._engine.storage(Source(kind="volume", name=volume)))
        return [user.name for user in found if user.is_active and not user.broad]


@dataclass(frozen=True, slots=True)
class _Step:
    """One volume."""

    backup: Manifest
    options: RestoreOptions

    @property
    def volume(self) -> str:
        """The name that it gets; of a directory, its path."""
        return self.options.directory or self.options.file or self.options.name or self.backup.volume


@dataclass(slots=True)
class _Done:
    """What has come of the volumes so far."""

    errors: list[VolbackError]
    failed: list[str]
    restored: list[RestoreResult] = field(default_factory=list)
    interrupted: Interrupted | None = None

    @property
    def is_over(self) -> bool:
        """Whether no other volume can be restored."""
        is_lost = bool(self.errors) and isinstance(self.errors[-1], EngineUnreachable | StoreUnreachable)
        return is_lost or self.interrupted is not None
