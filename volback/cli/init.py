"""`init`: makes a repository."""

from __future__ import annotations

import typer

from volback.cli.call import Outcome, call_of

_EPILOG = """\b
Examples:
  volback init --repo /srv/backups
  volback init --repo s3://backups/docker
  volback init --repo main           a repository of volback.toml
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(init)


def init(context: typer.Context) -> Outcome:
    """Make a repository.

    Its place is a directory that is empty or does not exist yet, or an unused prefix of a bucket. A repository that is
    there already stays as it is; the exit code is then 0, too.
    """
    from volback.operations import init as operation

    with call_of(context).opened_repository() as (ctx, repository):
        done = operation.init(ctx, repository)
    text = f"made repository {done.url}" if done.made else f"{done.url} is a repository already"
    return Outcome(
        {"url": done.url, "id": done.id, "format": done.format, "made": done.made}, [f"{text}, id {done.id}"]
    )
