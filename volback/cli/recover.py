"""`recover`: containers that a crashed run kept still run again."""

from __future__ import annotations

import typer

from volback.cli.call import Outcome, call_of

_EPILOG = """\b
Examples:
  volback recover    after a crash; every backup does it first, too

\b
Put it where the machine starts, so that a power cut leaves nothing down.
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(recover)


def recover(context: typer.Context) -> Outcome:
    """Let containers run again that a crashed run stopped or paused.

    One that cannot run is an error, and is tried again by the next run.
    """
    from volback.context import open_engine
    from volback.operations import recover as operation

    with call_of(context).context() as ctx:
        left = operation.recover(ctx, open_engine(ctx))
    text = [f"container {name} runs again" for name in left.containers]
    if not (text or left.errors):
        text = ["no container was left down"]
    return Outcome({"resumed": left.containers}, text, errors=left.errors)
