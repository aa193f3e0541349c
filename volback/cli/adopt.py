"""`adopt`: after a reinstall, an engine takes over the backups of the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.words import count

if TYPE_CHECKING:
    from volback.cli.documents.machine import Adopted

_EPILOG = """\b
Examples:
  volback adopt web1                 all other engines of the name web1
  volback adopt web1 --engine 2CVF   the one whose id begins so
"""

_Engine = Annotated[
    list[str] | None,
    typer.Option("--engine", metavar="ID-PREFIX", help="Only the engine with this id; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(adopt)


def adopt(
    context: typer.Context,
    host: Annotated[
        str,
        typer.Argument(metavar="HOST", help="The host, as `volback list --all-hosts` names it.", show_default=False),
    ],
    *,
    engine_ids: _Engine = None,
) -> Outcome:
    """Count the backups of a reinstalled engine's past with its own.

    Two engines may have one host name, and keep rules count the backups of each by themselves. After a reinstall the
    engine has another id, and without this the backups of the one before are never removed.
    """
    from volback.operations import adopt as operation

    with call_of(context).opened() as (_, engine, repository):
        done = operation.adopt(repository, host, engine.info.id, wanted=engine_ids or [])
    text = [f"adopted engine {id_}: {count(backups, 'backup')}" for id_, backups in done.engines.items()]
    result: Adopted = {"host": done.host, "engine_id": done.engine_id, "adopted": list(done.engines)}
    return Outcome(result, text or [f"nothing to adopt: all backups of {host} are this engine's"])
