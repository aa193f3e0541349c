"""`restore`: a backup, or a part of it, back into a volume or a directory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.facts import requests_facts
from volback.cli.words import count, human_size, pairs
from volback.errors import UsageError, failures
from volback.policy.storage import described, is_plain

if TYPE_CHECKING:
    from volback.operations.restore import RestoreOptions, RestoreResult

_EPILOG = """\b
Examples:
  volback restore db                 the latest, into a new volume db
  volback restore db@20261123 --as db-copy --prove
  volback restore db --path etc --path var/lib --as parts
  volback restore db --to /srv/db    into a directory of the engine's host
  volback restore db --replace       in place; keeps a safety backup
  volback restore --project shop     all volumes of a compose project
"""

_Backup = Annotated[str | None, typer.Argument(metavar="BACKUP", show_default=False, autocompletion=complete_backup)]
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
_Project = Annotated[str | None, typer.Option(metavar="NAME", help="All volumes of a compose project, from one set.")]
_SetPrefix = Annotated[
    str | None,
    typer.Option("--set", metavar="ID-PREFIX", help="With --project: use this set, not the latest complete one."),
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
    backup: _Backup = None,
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
    set_prefix: _SetPrefix = None,
    driver: _Driver = None,
    driver_opt: _DriverOpt = None,
    keep_driver: _KeepDriver = False,
    keep_labels: _KeepLabels = False,
) -> Outcome:
    """Restore a backup into a new volume.

    The volume gets the labels that it had; under another name, none of those by which compose and volback act on it,
    and where only the backup knows these, they need --keep-labels. It is a plain local volume unless driver options or
    --keep-driver are given. One that exists is only touched with --replace.
    With --project, the volumes of a compose project come back together; HOST/NAME is one of another host.
    """
    from volback.operations import restore as operation

    options = operation.RestoreOptions(
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
    if project is not None or set_prefix is not None:
        _refuse_beside_project(backup, project, options)
        return _project(context, project or "", set_prefix, options)
    if backup is None:
        raise UsageError("no backup is named", "name one, like db or db@20261123, or give --project NAME")
    with call_of(context).opened() as (ctx, engine, repository):
        done = operation.restore(ctx, engine, repository, backup, options)
        requests = requests_facts(repository)
    return Outcome(
        {**_facts(done), "requests": requests}, list(_lines(done)), list(done.warnings), incomplete=done.incomplete
    )


def _refuse_beside_project(backup: str | None, project: str | None, options: RestoreOptions) -> None:
    if not project:
        raise UsageError("--set requires --project NAME", "a single backup is named VOLUME@ID-PREFIX")
    if backup is not None:
        raise UsageError("--project restores all volumes of a project; do not name a BACKUP with it")
    given = {
        "--as": options.name, "--path": options.paths, "--to": options.directory, "--label": options.labels,
        "--no-label": options.without_labels, "--driver": options.driver, "--driver-opt": options.driver_options,
    }  # fmt: skip
    if wrong := [option for option, value in given.items() if value]:
        hint = "its volumes get the names and labels that they had; restore single ones by name"
        raise UsageError(f"--project does not accept {' and '.join(wrong)}", hint)


def _project(context: typer.Context, project: str, set_prefix: str | None, options: RestoreOptions) -> Outcome:
    from volback.operations.restore_set import SetRestoreOptions, restore_project

    wanted = SetRestoreOptions(
        set_prefix, options.replace, options.safety_backup, options.prove, options.keep_driver, options.keep_labels,
        options.privileged_xattrs,
    )  # fmt: skip
    with call_of(context).opened() as (ctx, engine, repository):
        done = restore_project(ctx, engine, repository, project, wanted)
        requests = requests_facts(repository)
    made = done.set.made
    text = [f"set {made.id} of project {made.project}", *(line for each in done.restored for line in _lines(each))]
    if done.not_restored:
        text.append(f"not restored: {', '.join(done.not_restored)}")
    result = {
        "project": made.project,
        "set": made.id,
        "whole": not done.set.missing,
        "restored": [_facts(each) for each in done.restored],
        "not_restored": list(done.not_restored),
        "requests": requests,
    }
    incomplete = any(each.incomplete for each in done.restored)
    return Outcome(result, text, list(done.warnings), failures(done.interrupted, done.errors), incomplete)


def _lines(done: RestoreResult) -> Iterator[str]:
    proven = ", proven bit for bit" if done.proven else ""
    yield f"{done.backup} -> {done.target.kind} {done.target.name}"
    yield f"  {count(done.files, 'file')}, {human_size(done.raw_bytes)}{proven}"
    if done.target.kind == "volume" and not is_plain(done.target.driver, done.target.options):
        yield f"  on {described(done.target.driver, done.target.options)}"
    if done.author.is_certified:
        yield "  signed by a certified key of its host"
    if done.safety_backup:
        yield f"  safety backup of the replaced data: {done.safety_backup}"


def _facts(done: RestoreResult) -> dict[str, object]:
    return {
        "volume": done.target.name,
        "files": done.files,
        "raw_bytes": done.raw_bytes,
        "proven": done.proven,
        "backup": done.backup,
        "safety_backup": done.safety_backup,
        "signed_by": done.author.signed_by,
        "certified": done.author.is_certified,
    }
