"""`recover`: starts the containers again that a crashed run stopped or paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from volback.cli.call import Outcome, call_of

if TYPE_CHECKING:
    from volback.cli.documents.machine import Recovered

_EPILOG = """\b
Examples:
  volback recover    after a crash; every backup does it first, too

\b
Run it at boot, so that no container stays stopped after a power cut.
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(recover)


def recover(context: typer.Context) -> Outcome:
    """Start the containers that a crashed run stopped or paused.

    Services that it scaled to 0 get their replicas back. One that cannot be
    started is an error; the next run tries it again.
    """
    from volback.context import open_engine
    from volback.operations import recover as operation

    with call_of(context).context() as ctx:
        left = operation.recover(ctx, open_engine(ctx))
    text = [f"container {name} runs again" for name in left.containers]
    text += [f"service {name} is scaled back" for name in left.services]
    if not (text or left.errors):
        text = ["no container was left down"]
    result: Recovered = {"resumed": list(left.containers), "rescaled": list(left.services)}
    return Outcome(result, text, errors=left.errors)
