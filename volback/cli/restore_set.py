"""Restore of several volumes: those of a project, some that are named, or all. Called by `restore`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from volback.cli.call import Call, Outcome
from volback.cli.facts import requests_facts
from volback.cli.restored import (
    chosen_facts,
    files_facts,
    files_lines,
    planned_facts,
    planned_lines,
    restored_facts,
    restored_lines,
)
from volback.context.naming import has_glob
from volback.errors import UsageError, failures
from volback.settings import absolute

if TYPE_CHECKING:
    from volback.cli.documents import moves
    from volback.cli.documents.common import Requests
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.engine.engine import Engine
    from volback.operations.restore import RestoreOptions
    from volback.operations.restore_set import SetDryRun, SetRestore, SetRestoreOptions, SetRestoreResult
    from volback.operations.together import Chosen


@dataclass(frozen=True, slots=True)
class Several:
    """What the command line names. Raises UsageError where that is nothing, or contradicts itself."""

    backups: tuple[str, ...]
    project: str | None
    as_project: str | None
    set_prefix: str | None
    is_all: bool
    anonymous: bool = False
    with_binds: bool = False
    compose_dir: str | None = None

    def __post_init__(self) -> None:
        if self.is_all and (self.backups or self.project):
            raise UsageError("--all restores every volume", "name BACKUPs, or a --project, without it")
        if self.anonymous and not self.is_all:
            raise UsageError("--anonymous requires --all", "name the volumes by themselves, without it")
        if self.as_project is not None and not self.project:
            raise UsageError("--as-project requires --project NAME", "a single volume is renamed with --as NAME")
        if (self.with_binds or self.compose_dir) and not self.project:
            given = "--with-binds" if self.with_binds else "--compose-dir"
            raise UsageError(f"{given} requires --project NAME", "a single directory is restored with --to DIR")
        if self.project and self.backups:
            raise UsageError("--project restores all volumes of a project; do not name a BACKUP with it")
        if not (self.backups or self.project or self.is_all):
            raise UsageError("no backup is named", "name some, like db or db@20261123, or give --project NAME or --all")

    @property
    def is_single(self) -> bool:
        """Whether it is one backup, and nothing else."""
        return len(self.backups) == 1 and self.set_prefix is None and not has_glob(self.backups[0])


def restore_several(call: Call, several: Several, options: RestoreOptions, *, dry_run: bool) -> Outcome:
    """Restore them, or show what would be restored."""
    from volback.operations.restore_set import SetRestoreOptions

    _refuse_options_of_one(several, options)
    wanted = SetRestoreOptions(
        several.set_prefix, options.replace, options.safety_backup, options.prove, options.keep_driver,
        options.keep_labels, options.privileged_xattrs, several.as_project, several.with_binds,
        None if several.compose_dir is None else absolute(Path(several.compose_dir), "--compose-dir"),
        several.anonymous,
    )  # fmt: skip
    with call.opened() as (ctx, engine, repository):
        planned = _planned(several, ctx, engine, repository, wanted)
        done = planned.dry_run() if dry_run else planned.run()
        requests = requests_facts(repository)
    return _outcome(done, several, requests)


def _refuse_options_of_one(several: Several, options: RestoreOptions) -> None:
    given = {
        "--as": options.name, "--path": options.paths, "--to": options.directory, "--label": options.labels,
        "--no-label": options.without_labels, "--driver": options.driver, "--driver-opt": options.driver_options,
    }  # fmt: skip
    wrong = [option for option, value in given.items() if value]
    if not wrong:
        return
    what = "--project" if several.project else "--all" if several.is_all else "a restore of several volumes"
    hint = "its volumes get the names and labels that they had; restore single ones by name"
    raise UsageError(f"{what} does not accept {' and '.join(wrong)}", hint)


def _planned(
    several: Several, ctx: Context, engine: Engine, repository: Repository, options: SetRestoreOptions
) -> SetRestore:
    from volback.operations.restore_set import SetRestore

    if several.project:
        return SetRestore.of_project(ctx, engine, repository, several.project, options)
    if several.is_all:
        return SetRestore.of_all(ctx, engine, repository, options)
    return SetRestore.of_volumes(ctx, engine, repository, list(several.backups), options)


def _outcome(done: SetRestoreResult | SetDryRun, several: Several, requests: Requests | None) -> Outcome:
    from volback.operations.restore_set import SetDryRun

    facts: moves.SetFacts = {
        **chosen_facts(done.chosen), "as_project": several.as_project, "compose_files": files_facts(done.files),
    }  # fmt: skip
    text = list(_heading(done.chosen, several))
    if isinstance(done, SetDryRun):
        text += [line for each in done.planned for line in planned_lines(each)]
        text += files_lines(done.files, "would write ")
        result: moves.RestorePlan = {
            **facts,
            "planned": [planned_facts(each) for each in done.planned],
            "requests": requests,
        }
        return Outcome(result, text, list(done.warnings), done.obstacles, done.chosen.is_partial)
    text += [line for each in done.restored for line in restored_lines(each)]
    text += files_lines(done.files)
    if done.not_restored:
        text.append(f"not restored: {', '.join(done.not_restored)}")
    restored: moves.RestoredSet = {
        **facts, "restored": [restored_facts(each) for each in done.restored],
        "not_restored": list(done.not_restored), "requests": requests,
    }  # fmt: skip
    incomplete = done.chosen.is_partial or any(each.incomplete for each in done.restored)
    return Outcome(
        restored, text, list(done.warnings),
        failures(done.interrupted, done.errors), incomplete,
    )  # fmt: skip


def _heading(chosen: Chosen, several: Several) -> Iterator[str]:
    if chosen.made is None:
        return
    project = f" of project {chosen.project}" if chosen.project else ""
    renamed = f", as project {several.as_project}" if several.as_project else ""
    yield f"set {chosen.made.id}{project}{renamed}"
