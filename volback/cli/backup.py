"""`backup`: volumes and host directories into the repository."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_project, complete_tag, complete_volume
from volback.cli.facts import made_facts, requests_facts
from volback.cli.project_parts import compose_files_facts, compose_files_lines, left_out_facts, left_out_lines
from volback.cli.words import count, human_duration, human_size, read_option
from volback.errors import Interrupted, NotFoundError, UsageError, VolbackError, failures
from volback.policy.durations import read_seconds
from volback.settings import absolute

if TYPE_CHECKING:
    from volback.catalog.model import Source
    from volback.cli.documents import backups as documents
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.engine.engine import Engine
    from volback.operations.backup import BackupResult, DryRun
    from volback.operations.backup_set import SetOptions
    from volback.operations.project_parts import ProjectParts
    from volback.policy.quiesce import How

    Finder = Callable[[Context, Engine], list[Source]]

_EPILOG = """\b
Examples:
  volback backup db                           one volume
  volback backup db uploads --tag nightly     two, with a tag
  volback backup --all --exclude '*.log'      every volume, without log files
  volback backup --project shop               a compose project, as one set
  volback backup --project shop --with-binds  with what it mounts of the host
  volback backup /srv/www                     a directory of the engine's host
  volback backup --all --exclude-volume 'tmp_*' without those of that name
  volback backup db --stop                    while its containers are stopped
  volback backup uploads --live               containers may write meanwhile

\b
To S3, the memory for uploads is about (VOLBACK_S3_PARALLEL + 1) parts:
40 MiB up to 7 GiB of stored data, 320 MiB at 100 GiB.
"""

_Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VOLUME|/HOST/DIR...",
        help="Volumes ('shop_*' for all of such names), or directories of the engine's host.",
        show_default=False,
        autocompletion=complete_volume,
    ),
]
_OneFileSystem = Annotated[bool, typer.Option("--one-file-system", help="Leave out what is mounted below a source.")]
_Volume = Annotated[list[str] | None, typer.Option("--volume", metavar="VOLUME", hidden=True)]
"""What other tools take as an option."""
_Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="With --all: also anonymous volumes that no container uses.")
]
_ExcludeVolume = Annotated[
    list[str] | None,
    typer.Option("--exclude-volume", metavar="PATTERN", help="Leave out volumes of that name; may be repeated."),
]
_Exclude = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Leave out paths that match; may be repeated.")
]
_Note = Annotated[str, typer.Option(metavar="TEXT", help="Say something about the backup; `show` shows it.")]
_Tag = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", "-t", metavar="TAG", help="Add a tag to the backup; may be repeated.", autocompletion=complete_tag
    ),
]
_Stop = Annotated[bool, typer.Option("--stop", help="Stop the containers that write to a volume while it is read.")]
_Pause = Annotated[bool, typer.Option("--pause", help="Pause the containers that write to a volume while it is read.")]
_Live = Annotated[
    bool, typer.Option("--live", help="Containers may write meanwhile: this causes no warning (exit code 3).")
]
_StopTimeout = Annotated[
    str | None, typer.Option(metavar="TIME", help="Grace time for --stop: 30s, 2m. [default: each container's]")
]
_HealthTimeout = Annotated[
    str, typer.Option(metavar="TIME", help="How long to wait for the containers' health checks afterwards.")
]
_ShrinkRatio = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO", min=0.0, max=1.0,
        help="Warn of less than this part of the last backup's files or bytes; 0 accepts any. [default: 0.2]",
    ),
]  # fmt: skip
_Full = Annotated[bool, typer.Option("--full", help="Store everything anew: a backup that needs no other one.")]
_Reread = Annotated[bool, typer.Option("--reread", help="Read every file, also one that seems unchanged.")]
_TwoPass = Annotated[
    bool | None,
    typer.Option(
        "--two-pass/--no-two-pass", show_default=False,
        help="With --stop or --pause: read everything before, and only what changed while they are down."
        " [default: where there is an earlier backup]",
    ),
]  # fmt: skip
_IgnoreInode = Annotated[
    bool,
    typer.Option("--ignore-inode", help="A file with another inode number may be unchanged."),
]
_IgnoreCtime = Annotated[
    bool, typer.Option("--ignore-ctime", help="A file with another ctime may be unchanged, if its mtime is the same.")
]
_WithBinds = Annotated[
    bool, typer.Option("--with-binds", help="With --project: directories and files that its containers mount, too.")
]
_Wait = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long to wait for a volume that another run uses: 90s, 30m.")
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(backup)


def backup(
    context: typer.Context,
    sources: _Sources = None,
    *,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every volume of the engine.")] = False,
    anonymous: _Anonymous = False,
    label: Annotated[
        str | None, typer.Option("--label", "-l", metavar="K=V", help="Volumes that have this label.")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The volumes of a compose project.", autocompletion=complete_project),
    ] = None,
    with_binds: _WithBinds = False,
    container: Annotated[str | None, typer.Option(metavar="NAME", help="The volumes that a container mounts.")] = None,
    exclude_volume: _ExcludeVolume = None,
    one_file_system: _OneFileSystem = False,
    exclude: _Exclude = None,
    level: Annotated[int, typer.Option(metavar="N", min=1, max=19, help="Of the zstd compression, 1 to 19.")] = 3,
    tag: _Tag = None,
    note: _Note = "",
    stop: _Stop = False,
    pause: _Pause = False,
    live: _Live = False,
    stop_timeout: _StopTimeout = None,
    health_timeout: _HealthTimeout = "2m",
    shrink_ratio: _ShrinkRatio = None,
    full: _Full = False,
    reread: _Reread = False,
    two_pass: _TwoPass = None,
    ignore_inode: _IgnoreInode = False,
    ignore_ctime: _IgnoreCtime = False,
    wait: _Wait = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be read.")] = False,
    volume: _Volume = None,
) -> Outcome:
    """Back up volumes, each as one backup. Only what changed since the last one is read and stored.

    A volume that fails does not stop the next one. Exit code 3: files changed or vanished while they were read, or
    containers could write to them, and neither --live nor quiesce=none said that this is wanted.
    With --stop or --pause, the containers run again as soon as everything has been read, also after an error.
    With --project, the compose files that its containers name are kept too, with .env, and what is left out is named.
    """
    from volback.operations.backup import BackupOptions
    from volback.operations.backup_set import SetOptions
    from volback.operations.parent import Comparing

    sources = [*(sources or []), *(volume or [])]
    if not (sources or every or label or project or container):
        raise UsageError("no volume is named", "name volumes, or give --all, --project NAME or --label K=V")
    alone = not (sources or every or label or container)
    if anonymous and not every:
        raise UsageError("--anonymous requires --all", "name an anonymous volume, or give --container NAME")
    if with_binds and not (project and alone):
        raise UsageError("--with-binds requires --project NAME alone", "other directories are named: /srv/www")
    if live and (stop or pause):
        raise UsageError("--live excludes --stop and --pause", "choose one")
    options = SetOptions(
        BackupOptions(
            excludes=exclude or [], level=level, tags=tag or [], note=note,
            one_file_system=one_file_system, shrink_ratio=shrink_ratio, live_wanted=live,
            comparing=Comparing(full, reread, ignore_inode, ignore_ctime),
        ),
        quiesce=_quiesce(stop=stop, pause=pause),
        two_passes=two_pass,
        stop_timeout_s=None if stop_timeout is None else read_option("--stop-timeout", stop_timeout, read_seconds),
        health_timeout_s=read_option("--health-timeout", health_timeout, read_seconds),
        wait_s=0.0 if wait is None else read_option("--wait", wait, read_seconds),
    )  # fmt: skip
    wanted = finders(every=every, label=label, project=project, container=container, anonymous=anonymous)
    with call_of(context).opened() as (ctx, engine, repository):
        found, errors = find_sources(ctx, engine, sources, wanted)
        found = [source for source in found if not is_left_out(source.name, exclude_volume or [])]
        results = _Results(ctx, engine, repository, options, errors)
        if project and alone and found:
            results.add_parts(project, with_binds=with_binds)
        results.work_off(found, project=project if alone else None, dry_run=dry_run)
    return results.outcome(dry_run=dry_run)


def _quiesce(*, stop: bool, pause: bool) -> How | None:
    if stop and pause:
        raise UsageError("--stop and --pause exclude each other", "choose one")
    return "stop" if stop else "pause" if pause else None


def finders(
    *, every: bool, label: str | None, project: str | None, container: str | None, anonymous: bool = True
) -> list[Finder]:
    """What finds the sources that are not given by name."""
    from volback.operations.sources import resolve_sources, sources_of_container, sources_of_project

    def labelled(ctx: Context, engine: Engine) -> list[Source]:
        matching = resolve_sources(ctx, engine, [], label=label)
        if not matching:
            raise NotFoundError(f"no volume has the label {label}", "see `volback volumes`")
        return matching

    return [
        finder
        for wanted, finder in (
            (project, lambda _, engine: sources_of_project(engine, project or "")),
            (container, lambda _, engine: sources_of_container(engine, container or "")),
            (label, labelled),
            (every, lambda ctx, engine: resolve_sources(ctx, engine, [], every=True, anonymous=anonymous)),
        )
        if wanted
    ]


def find_sources(
    ctx: Context, engine: Engine, names: list[str], finders: list[Finder]
) -> tuple[list[Source], list[VolbackError]]:
    """The sources to back up, and an error for each that does not exist: it does not stop the others."""
    found: dict[tuple[str, str], Source] = {}
    errors: list[VolbackError] = []
    for find in [*map(_named, names), *finders]:
        try:
            found.update(((source.kind, source.name), source) for source in find(ctx, engine))
        except NotFoundError as exc:
            errors.append(exc)
    return list(found.values()), errors


def _named(name: str) -> Finder:
    """What finds the source of that name, or those that a glob matches."""
    from volback.operations.sources import resolve_sources, what_is_named

    def find(ctx: Context, engine: Engine) -> list[Source]:
        try:
            return resolve_sources(ctx, engine, [_absolute(name)])
        except NotFoundError as exc:
            exc.hint = what_is_named(engine, name) or exc.hint
            raise

    return find


def is_left_out(name: str, patterns: list[str]) -> bool:
    """Whether one of the patterns matches a volume's name."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _absolute(name: str) -> str:
    """A relative path becomes absolute; the name of a volume does not contain `/`."""
    return os.path.normpath(absolute(Path(name), "directory")) if "/" in name or name in (".", "..") else name


class _Results:
    """The backups (or dry runs) of one call, and what failed."""

    def __init__(
        self, ctx: Context, engine: Engine, repository: Repository, options: SetOptions, errors: list[VolbackError]
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._options = options
        self._errors = errors
        self._interrupted: Interrupted | None = None
        self._backups: list[BackupResult] = []
        self._dry_runs: list[DryRun] = []
        self._warnings: list[str] = []
        self._downtime_s: dict[str, float] = {}
        self._parts: ProjectParts | None = None
        self._files: BackupResult | None = None

    def add_parts(self, project: str, *, with_binds: bool) -> None:
        """Back up what else a project has."""
        from volback.operations.project_parts import project_parts

        self._parts = project_parts(self._ctx, self._engine, project, with_binds=with_binds)

    def work_off(self, sources: list[Source], *, project: str | None, dry_run: bool) -> None:
        """Back up all sources, until they are done or a signal comes."""
        sources = [*sources, *(self._parts.directories if self._parts else ())]
        if dry_run:
            self._plan(sources)
        elif sources:
            self._back_up(sources, project)

    def _back_up(self, sources: list[Source], project: str | None) -> None:
        from volback.operations.backup_set import backup_set

        files = self._parts.files if self._parts else None
        done = backup_set(
            self._ctx, self._engine, self._repository, sources, self._options, project=project, files=files
        )  # fmt: skip
        self._backups += done.backups
        self._files = done.files
        self._errors += done.errors
        self._interrupted = done.interrupted
        self._warnings += done.warnings
        self._downtime_s.update(done.downtime_s)

    def _plan(self, sources: list[Source]) -> None:
        from volback.operations.backup import dry_run

        for source in sources:
            try:
                self._dry_runs.append(dry_run(self._ctx, self._engine, source, self._options.backup))
            except Interrupted as exc:
                self._interrupted = exc
                return
            except VolbackError as exc:
                self._errors.append(exc)

    def outcome(self, *, dry_run: bool) -> Outcome:
        """The output."""
        errors = failures(self._interrupted, self._errors)
        if not (self._backups or self._dry_runs or self._warnings) and len(errors) == 1:
            raise errors[0]
        if dry_run:
            planned = [_dry_run_facts(plan) for plan in self._dry_runs]
            text = [_dry_run_line(plan) for plan in self._dry_runs] + left_out_lines(self._parts)
            plan: documents.BackupPlan = {"planned": planned, "left_out": left_out_facts(self._parts)}
            return Outcome(plan, text, errors=errors)
        made = [*self._backups, *([self._files] if self._files else [])]
        result: documents.BackedUp = {
            "backups": [made_facts(made) for made in self._backups],
            "compose_files": compose_files_facts(self._parts, self._files),
            "left_out": left_out_facts(self._parts),
            "downtime_s": self._downtime_s,
            "requests": requests_facts(self._repository),
        }
        downtimes = [f"{name} was down for {human_duration(time)}" for name, time in self._downtime_s.items()]
        is_encrypted = self._repository.encryption is not None
        parts = [
            *compose_files_lines(self._parts, self._files, is_encrypted=is_encrypted),
            *left_out_lines(self._parts),
        ]
        return Outcome(
            result,
            [_line(made) for made in self._backups] + downtimes + parts,
            [warning for each in made for warning in each.manifest.warnings] + self._warnings,
            errors,
            incomplete=bool(self._warnings) or any(each.incomplete for each in made),
        )


def _line(made: BackupResult) -> str:
    manifest = made.manifest
    new = human_size(manifest.stored_bytes)
    excluded = f", {manifest.excluded:,} excluded" if manifest.excluded else ""
    replaced = f" ({human_size(made.unused_bytes)} of it replaced)" if made.unused_bytes else ""
    resumed = f" ({human_size(made.resumed_bytes)} of it by a backup that was killed)" if made.resumed_bytes else ""
    passes = ", in two passes" if made.passes == 2 else ""
    return (
        f"{manifest.volume}@{manifest.id}  {count(manifest.files, 'file')}, {human_size(manifest.raw_bytes)}"
        f"{excluded} -> {new}{replaced}{resumed} in {human_duration(made.duration_s)}{passes}"
    )


def _dry_run_facts(plan: DryRun) -> documents.PlannedBackup:
    return {
        "volume": plan.source.name,
        "files": plan.files,
        "raw_bytes": plan.raw_bytes,
        "excluded": plan.excluded,
        "sockets_skipped": plan.sockets,
    }


def _dry_run_line(plan: DryRun) -> str:
    left_out = f", {plan.excluded:,} excluded" if plan.excluded else ""
    return f"{plan.source.name}  would read {count(plan.files, 'file')}, {human_size(plan.raw_bytes)}{left_out}"
