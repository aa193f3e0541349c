"""Restore dry run: what a restore would fill, from which backup, and what stands in its way. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from volback.catalog.model import Manifest, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import ConflictError
from volback.operations.contents import member_path
from volback.operations.in_use import UnusedStorage
from volback.operations.open_backup import OpenBackup
from volback.operations.restore import RestoreOptions
from volback.operations.restore_target import check_target, known_target
from volback.operations.selection import Selection


@dataclass(frozen=True, slots=True)
class Planned:
    """One restore that was not made."""

    backup: Manifest
    target: Source
    exists: bool
    """Whether a volume of that name is there; whether a directory is, nobody has looked."""
    warnings: tuple[str, ...]


def dry_run(
    ctx: Context, engine: Engine, repository: Repository, reference: str, options: RestoreOptions
) -> tuple[Planned, ConflictError | None]:
    """Return what would be restored, and what stands in the way. Raises NotFoundError, UsageError, IntegrityError."""
    check_target(options, replace=options.replace)
    manifest = repository.opened(repository.find(reference))
    if options.paths:
        Selection.of(OpenBackup.of(repository, manifest), map(member_path, options.paths))
    planned = plan(ctx, engine, repository, manifest, options)
    return planned, _obstacle(engine, planned, options)


def plan(ctx: Context, engine: Engine, repository: Repository, manifest: Manifest, options: RestoreOptions) -> Planned:
    """Return what a backup would be restored to. Raises UsageError."""
    target, author = known_target(ctx, repository, manifest, options)
    exists = target.source.kind == "volume" and engine.has_volume(target.source.name)
    said = author.warnings if exists else (*author.warnings, *target.warnings(manifest))
    return Planned(manifest, target.source, exists, said)


def _obstacle(engine: Engine, planned: Planned, options: RestoreOptions) -> ConflictError | None:
    if not planned.exists:
        return None
    if not options.replace:
        hint = "choose another name with --as, or replace its content with --replace"
        return ConflictError(f"volume {planned.target.name!r} exists already", hint)
    try:
        UnusedStorage(engine, planned.target).check()
    except ConflictError as exc:
        return exc
    return None
