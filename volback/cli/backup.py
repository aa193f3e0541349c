"""`backup`: volumes and host directories into the repository."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_volume
from volback.cli.facts import backup_facts
from volback.cli.words import count, human_duration, human_size
from volback.errors import Interrupted, NotFoundError, UsageError, VolbackError

if TYPE_CHECKING:
    from volback.catalog.model import Source
    from volback.operations.backup import BackupOptions, BackupResult, DryRun
    from volback.operations.session import Session

_EPILOG = """\b
Examples:
  volback backup db                           one volume
  volback backup db uploads --tag nightly     two, with a tag
  volback backup --all --exclude '*.log'      every volume, without the logs
  volback backup --label com.docker.compose.project=shop
  volback backup /srv/www                     a directory of the engine's host
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(backup)


def backup(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="VOLUME|/HOST/DIR", show_default=False, autocompletion=complete_volume),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every volume of the engine.")] = False,
    label: Annotated[str | None, typer.Option(metavar="K=V", help="Volumes that have this label.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave out what fits; may be repeated.")
    ] = None,
    level: Annotated[int, typer.Option(metavar="N", min=1, max=19, help="Of the zstd compression, 1 to 19.")] = 3,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Mark the backup; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read.")] = False,
) -> Outcome:
    """Back up volumes, each as one backup.

    A volume that fails does not stop the next one. Exit code 3: files changed or vanished while they were read.
    """
    from volback.operations import backup as operation

    call = call_of(context)
    if not (sources or every or label):
        raise UsageError("nothing to back up is named", "name volumes, or give --all or --label K=V")
    options = operation.BackupOptions(excludes=exclude or [], level=level, tags=tag or [])
    with call.session() as session:
        found, errors = _sources(session, sources or [], every=every, label=label)
        made = _Made(session, options, errors)
        made.work_off(found, dry_run=dry_run)
    return made.outcome(dry_run=dry_run)


def _sources(
    session: Session, names: list[str], *, every: bool, label: str | None
) -> tuple[list[Source], list[VolbackError]]:
    """What is to be backed up, and what of it does not exist: that does not stop the others."""
    from volback.operations.backup import resolve_sources

    found: dict[tuple[str, str], Source] = {}
    errors: list[VolbackError] = []
    for name in names:
        try:
            named = resolve_sources(session, [_absolute(name)])
        except NotFoundError as exc:
            errors.append(exc)
        else:
            found.update(((source.kind, source.name), source) for source in named)
    if every or label:
        matching = resolve_sources(session, [], every=every, label=label)
        if label and not matching:
            errors.append(NotFoundError(f"no volume has the label {label}", "see `volback volumes`"))
        found.update(((source.kind, source.name), source) for source in matching)
    return list(found.values()), errors


def _absolute(name: str) -> str:
    """A relative path becomes absolute; no volume's name holds a `/`."""
    return os.path.abspath(name) if "/" in name or name in (".", "..") else name


class _Made:
    """The backups (or dry runs) of one call, and what failed."""

    def __init__(self, session: Session, options: BackupOptions, errors: list[VolbackError]) -> None:
        self._session = session
        self._options = options
        self._errors = errors
        self._backups: list[BackupResult] = []
        self._dry_runs: list[DryRun] = []

    def work_off(self, sources: list[Source], *, dry_run: bool) -> None:
        """One after the other, until all are done or a signal comes."""
        from volback.operations import backup as operation

        for source in sources:
            try:
                if dry_run:
                    self._dry_runs.append(operation.dry_run(self._session, source, self._options))
                else:
                    self._backups.append(operation.backup(self._session, source, self._options))
            except Interrupted as exc:
                self._errors.insert(0, exc)
                return
            except VolbackError as exc:
                self._errors.append(exc)

    def outcome(self, *, dry_run: bool) -> Outcome:
        """What there is to say."""
        if not (self._backups or self._dry_runs) and len(self._errors) == 1:
            raise self._errors[0]
        if dry_run:
            planned = [_dry_run_facts(plan) for plan in self._dry_runs]
            return Outcome({"planned": planned}, [_dry_run_line(p) for p in self._dry_runs], errors=self._errors)
        return Outcome(
            {"backups": [backup_facts(made.manifest, made.duration_s) for made in self._backups]},
            [_line(made) for made in self._backups],
            [warning for made in self._backups for warning in made.manifest.warnings],
            self._errors,
            incomplete=any(made.incomplete for made in self._backups),
        )


def _line(made: BackupResult) -> str:
    manifest = made.manifest
    new = human_size(manifest.stored_bytes)
    return (
        f"{manifest.volume}@{manifest.id}  {count(manifest.files, 'file')}, {human_size(manifest.raw_bytes)}"
        f" -> {new} in {human_duration(made.duration_s)}"
    )


def _dry_run_facts(plan: DryRun) -> dict[str, object]:
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
