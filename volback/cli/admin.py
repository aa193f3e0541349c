"""`volumes`, `remove`, `version`: the engine's volumes, removal of backups, and the version."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Annotated

import typer

import volback
from volback.cli.call import Call, Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.facts import utc_fact, volume_facts
from volback.cli.render import terminal_width
from volback.cli.repack import Grace
from volback.cli.words import columns, condemned_words, count, human_age, human_size, printable, read_option
from volback.errors import UsageError
from volback.policy.anonymous import shown_volume
from volback.policy.durations import read_grace

if TYPE_CHECKING:
    from volback.cli.documents import keeping, machine
    from volback.engine.volumes import VolumeUser
    from volback.operations.overview import Overview

_VOLUMES_EPILOG = """\b
Examples:
  volback volumes              volumes, and which have no backup yet
  volback volumes --no-sizes   faster: the engine does not measure them
"""
_REMOVE_EPILOG = """\b
Examples:
  volback remove db@20261123T160254Z-3f9c
  volback remove db@20261121 db@20261122 --yes
"""
_VERSION_EPILOG = """\b
Examples:
  volback version           for a problem report
  volback version --json    the same for a script
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_VOLUMES_EPILOG)(volumes)
    app.command(epilog=_REMOVE_EPILOG)(remove)
    app.command(epilog=_VERSION_EPILOG)(version)


def volumes(
    context: typer.Context,
    *,
    no_sizes: Annotated[bool, typer.Option("--no-sizes", help="Do not measure the volumes.")] = False,
) -> Outcome:
    """List volumes, who uses them, and their last backups.

    They are listed without a repository, too: the exit code is 3 where none was there yet, and that of the error where
    one was, or is not reached.
    """
    from volback.operations.overview import overview

    with call_of(context).opened() as (ctx, engine, repository):
        found = overview(ctx, engine, repository, sizes=not no_sizes)
    text = _volume_table(found) if found.volumes else ["no volumes"]
    errors = [] if found.unknown is None or found.is_first else [found.unknown]
    warnings = _unknown_warnings(found)
    facts: machine.Volumes = {"volumes": [volume_facts(volume) for volume in found.volumes]}
    return Outcome(facts, text, warnings, errors, incomplete=found.is_first)


def remove(
    context: typer.Context,
    backups: Annotated[
        list[str],
        typer.Argument(
            metavar="BACKUP...",
            help="Backups, each with its id: VOLUME@ID.",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    grace: Grace = "24h",
) -> Outcome:
    """Remove backups from the repository, each named with its id. What others use of them stays until these are
    removed. On a terminal, asks for confirmation first.
    """
    from volback.operations import remove as operation
    from volback.operations.prune_result import locked_warnings

    call, grace_s = call_of(context), read_option("--grace", grace, read_grace)
    with call.opened() as (ctx, engine, repository):
        found = operation.find_all(repository, backups)
        if not yes:
            _confirm(call, [operation.name_of_found(backup) for backup in found])
        done = operation.remove(ctx, engine, repository, found, grace_s=grace_s)
    removed = [name for volume in done for name in volume.names]
    freed = sum(volume.freed_bytes for volume in done)
    text = [*(f"removed {name}" for name in removed), *([f"{human_size(freed)} freed"] if removed else [])]
    errors = [volume.error for volume in done if volume.error is not None]
    condemned = sum(volume.condemned_bytes for volume in done)
    until = max((volume.until for volume in done if volume.until is not None), default=None)
    if condemned:
        text.append(condemned_words(condemned, until))
    facts: keeping.Removed = {
        "removed": removed,
        "freed_bytes": freed,
        "condemned_bytes": condemned,
        "until": utc_fact(until),
    }
    warnings = locked_warnings({name: exc for volume in done for name, exc in volume.locked.items()})
    return Outcome(facts, text, warnings, errors, incomplete=bool(warnings))


def version() -> Outcome:
    """Show the version."""
    from volback.catalog.model import FORMAT

    result: machine.VersionOf = {"version": volback.__version__, "format": FORMAT, "python": platform.python_version()}
    return Outcome(result, [f"volback {volback.__version__} (format {FORMAT}, Python {platform.python_version()})"])


def _confirm(call: Call, names: list[str]) -> None:
    if call.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for name in names:
        typer.echo(printable(name), err=True)
    if not typer.confirm(f"Remove {count(len(names), 'backup')} permanently?", err=True):
        raise UsageError("nothing removed")


def _unknown_warnings(found: Overview) -> list[str]:
    """What could not be found out, beside what is an error."""
    warnings = []
    if found.unknown is not None and found.is_first:
        warnings.append("; ".join(filter(None, [f"no backups yet: {found.unknown.message}", found.unknown.hint])))
    if (why := found.unmeasured) is not None:
        warnings.append(f"the sizes are not known: {why.message}; --no-sizes does not ask for them")
    return warnings


def _volume_table(found: Overview) -> list[str]:
    never = "never" if found.unknown is None else "unknown"
    width = terminal_width()
    rows = [
        [
            volume.name if width is None else shown_volume(volume.name),
            volume.driver,
            "-" if volume.size_bytes is None else human_size(volume.size_bytes),
            never if volume.age_s is None else human_age(volume.age_s),
            volume.project or "-",
            ", ".join(_user(user) for user in volume.users) or "-",
        ]
        for volume in found.volumes
    ]
    headings = ["VOLUME", "DRIVER", "SIZE", "LAST BACKUP", "PROJECT", "CONTAINERS"]
    return list(columns(headings, rows, right="SIZE", width=width))


def _user(user: VolumeUser) -> str:
    how = "rw" if user.writable else "ro"
    return f"{user.name} ({how})" if user.state == "running" else f"{user.name} ({how}, {user.state})"
