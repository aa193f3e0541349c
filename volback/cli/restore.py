"""`restore`: a backup, or a part of it, back into a volume or a directory."""

from __future__ import annotations

from typing import Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.words import count, human_size, pairs

_EPILOG = """\b
Examples:
  volback restore db                 the latest, into a volume that is gone
  volback restore db@20261123 --as db-copy --prove
  volback restore db --path etc --path var/lib --as parts
  volback restore db --to /srv/db    into a directory of the engine's host
  volback restore db --replace       in place; keeps a safety backup
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(restore)


def restore(
    context: typer.Context,
    backup: Annotated[str, typer.Argument(metavar="BACKUP", show_default=False, autocompletion=complete_backup)],
    *,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name of the volume to make.")] = None,
    path: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Only this file or directory; may be repeated.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="DIR", help="Into a new or empty directory of the engine's host.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Into a volume that exists: replace all in it.")] = False,
    no_safety_backup: Annotated[
        bool, typer.Option("--no-safety-backup", help="With --replace: do not back up first what is replaced.")
    ] = False,
    prove: Annotated[bool, typer.Option("--prove", help="Compare the result with the backup, bit for bit.")] = False,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a label of the volume; may be repeated.")
    ] = None,
    driver: Annotated[str | None, typer.Option(metavar="NAME", help="Another volume driver.")] = None,
    driver_opt: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a driver option; may be repeated.")
    ] = None,
) -> Outcome:
    """Restore a backup into a new volume.

    The volume gets the driver, options and labels that it had. One that exists is only touched with --replace.
    """
    from volback.operations import restore as operation

    options = operation.RestoreOptions(
        name=name,
        directory=to,
        paths=path or [],
        replace=replace,
        safety_backup=not no_safety_backup,
        prove=prove,
        labels=pairs(label, "--label"),
        driver=driver,
        driver_options=pairs(driver_opt, "--driver-opt"),
    )
    with call_of(context).session() as session:
        done = operation.restore(session, backup, options)
    proven = ", proven bit for bit" if done.proven else ""
    text = [
        f"{done.backup} -> {done.target.kind} {done.target.name}",
        f"  {count(done.files, 'file')}, {human_size(done.raw_bytes)}{proven}",
    ]
    if done.safety_backup:
        text.append(f"  what it held before: {done.safety_backup}")
    result = {
        "volume": done.target.name,
        "files": done.files,
        "raw_bytes": done.raw_bytes,
        "proven": done.proven,
        "backup": done.backup,
        "safety_backup": done.safety_backup,
    }
    return Outcome(result, text)
