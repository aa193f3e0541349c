"""`restore`: a backup, or a part of it, back into a volume or a directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.arguments import BACKUPS
from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_stored_project
from volback.cli.facts import requests_facts
from volback.cli.restored import chosen_facts, planned_facts, planned_lines, restored_facts, restored_lines
from volback.cli.words import pairs
from volback.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from volback.cli.call import Call
    from volback.cli.documents import moves
    from volback.operations.restore import RestoreOptions

_EPILOG = """\b
Examples:
  volback restore db                 the latest, into a new volume db
  volback restore db@20261123 --as db-copy --prove
  volback restore db --path etc --path var/lib --as parts
  volback restore db --to /srv/db    into a directory of the engine's host
  volback restore db --replace       in place; keeps a safety backup
  volback restore db uploads         two, from one set if they have one
  volback restore --all --dry-run    what would be restored, and from what
  volback restore --project shop     all volumes of a compose project
  volback restore --project shop --as-project staging
"""

_Backups = Annotated[
    list[str] | None,
    BACKUPS,
]
_Path = Annotated[list[str] | None, typer.Option(metavar="PATH", help="Only this file or directory; may be repeated.")]
_To = Annotated[str | None, typer.Option(metavar="DIR", help="Into a new or empty directory of the engine's host.")]
_Replace = Annotated[
    bool, typer.Option("--replace", help="Replace what an existing volume holds, or with --path that part.")
]
_NoSafetyBackup = Annotated[
    bool, typer.Option("--no-safety-backup", help="With --replace: do not back up the volume first.")
]
_PrivilegedXattrs = Annotated[
    bool,
    typer.Option("--privileged-xattrs", help="Let the helper set attributes that need CAP_SYS_ADMIN."),
]
_Label = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a label of the volume; may be repeated.")]
_NoLabel = Annotated[
    list[str] | None,
    typer.Option("--no-label", metavar="KEY", help="Leave out a label of the backup; KEY may hold *."),
]
_KeepLabels = Annotated[
    bool, typer.Option("--keep-labels", help="The backup's labels, also those by which programs act on the volume.")
]
_Project = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="All volumes of a compose project, from one set.", autocompletion=complete_stored_project
    ),
]
_SetPrefix = Annotated[
    str | None,
    typer.Option("--set", metavar="ID-PREFIX", help="From this set, not from the latest complete one."),
]
_All = Annotated[bool, typer.Option("--all", "-a", help="Every volume of this host that does not exist.")]
_Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="With --all: also anonymous volumes that no container used.")
]
_AsProject = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="With --project: give the volumes names and labels of this project."),
]
_WithBinds = Annotated[
    bool, typer.Option("--with-binds", help="With --project: its directories and files too, each to where it was.")
]
_ComposeDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="With --project: write its compose files into this directory.")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Only show what would be restored, and what stands in the way.")
]
_Driver = Annotated[str | None, typer.Option(metavar="NAME", help="This driver, without the backup's driver options.")]
_DriverOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V",
        help="A driver option, in place of the backup's; with --keep-driver a secret that it lacks; repeatable.",
    ),
]
_KeepDriver = Annotated[
    bool, typer.Option("--keep-driver", help="The backup's driver and options, also where they name a device.")
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(restore)


def restore(
    context: typer.Context,
    backups: _Backups = None,
    *,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name of the volume to create.")] = None,
    path: _Path = None,
    to: _To = None,
    replace: _Replace = False,
    no_safety_backup: _NoSafetyBackup = False,
    prove: Annotated[bool, typer.Option("--prove", help="Compare the result with the backup, bit for bit.")] = False,
    privileged_xattrs: _PrivilegedXattrs = False,
    label: _Label = None,
    no_label: _NoLabel = None,
    project: _Project = None,
    as_project: _AsProject = None,
    with_binds: _WithBinds = False,
    compose_dir: _ComposeDir = None,
    every: _All = False,
    anonymous: _Anonymous = False,
    set_prefix: _SetPrefix = None,
    driver: _Driver = None,
    driver_opt: _DriverOpt = None,
    keep_driver: _KeepDriver = False,
    keep_labels: _KeepLabels = False,
    dry_run: _DryRun = False,
) -> Outcome:
    """Restore backups, each into a new volume.

    The volume gets the labels that it had; under another name, none of those by which compose and volback act on it,
    and where only the backup knows these, they need --keep-labels. It is a plain local volume unless driver options or
    --keep-driver are given. One that exists is only touched with --replace.
    With --project, the volumes of a compose project come back together; HOST/NAME is one of another host.
    """
    from volback.cli.restore_set import Several, restore_several
    from volback.operations.restore import RestoreOptions

    options = RestoreOptions(
        name=name,
        directory=to,
        paths=path or [],
        replace=replace,
        safety_backup=not no_safety_backup,
        prove=prove,
        privileged_xattrs=privileged_xattrs,
        labels=pairs(label, "--label"),
        driver=driver,
        driver_options=pairs(driver_opt, "--driver-opt"),
        without_labels=tuple(no_label or ()),
        keep_driver=keep_driver,
        keep_labels=keep_labels,
    )
    several = Several(
        tuple(backups or ()), project, as_project, set_prefix,
        is_all=every, anonymous=anonymous, with_binds=with_binds, compose_dir=compose_dir,
    )  # fmt: skip
    call = call_of(context)
    try:
        if not several.is_single:
            return restore_several(call, several, options, dry_run=dry_run)
        (backup,) = several.backups
        return _dry_run(call, backup, options) if dry_run else _restore(call, backup, options)
    except (NotFoundError, UsageError) as exc:
        exc.hint = target_meant(several.backups, exc.message) or exc.hint
        raise


def target_meant(backups: Sequence[str], message: str) -> str | None:
    """The right form, where the name of no backup was meant as the target: `db:new`, or `db new`."""
    if len(backups) == 1:
        source, colon, target = backups[0].rpartition(":")
        is_meant = bool(source and colon and target)
    else:
        source, target = backups[0] if backups else "", backups[-1] if backups else ""
        is_meant = len(backups) == 2 and target in message
    if not is_meant:
        return None
    return f"to restore {source} elsewhere: volback restore {source} {'--to' if '/' in target else '--as'} {target}"


def _restore(call: Call, backup: str, options: RestoreOptions) -> Outcome:
    from volback.operations import restore as operation

    with call.opened() as (ctx, engine, repository):
        done = operation.restore(ctx, engine, repository, backup, options)
        requests = requests_facts(repository)
    restored: moves.Restored = {**restored_facts(done), "requests": requests}
    return Outcome(
        restored, list(restored_lines(done)), list(done.warnings),
        incomplete=done.incomplete,
    )  # fmt: skip


def _dry_run(call: Call, backup: str, options: RestoreOptions) -> Outcome:
    from volback.operations.restore_dry_run import dry_run

    with call.opened() as (ctx, engine, repository):
        planned, obstacle = dry_run(ctx, engine, repository, backup, options)
        requests = requests_facts(repository)
    result: moves.RestorePlan = {
        **chosen_facts(None),
        "as_project": None,
        "compose_files": None,
        "planned": [planned_facts(planned)],
        "requests": requests,
    }
    return Outcome(result, list(planned_lines(planned)), list(planned.warnings), [obstacle] if obstacle else [])
