"""`hold`, `release`, `tag`, `note`: what is said of a backup after it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.arguments import BACKUPS, OneBackup
from volback.cli.call import Outcome, call_of
from volback.cli.facts import noted_facts

if TYPE_CHECKING:
    from volback.cli.documents import backups
    from volback.operations.notes import Noted

_HOLD_EPILOG = """\b
Examples:
  volback hold db                          the latest backup of db
  volback hold db@20261123 web@20261123    those whose ids begin so
"""
_RELEASE_EPILOG = """\b
Examples:
  volback release db@20261123
"""
_TAG_EPILOG = """\b
Examples:
  volback tag add db@20261123 release v2.1
  volback tag remove db@20261123 release
"""
_NOTE_EPILOG = """\b
Examples:
  volback note db@20261123 "before the upgrade to 17"
  volback note db@20261123 ""    says nothing any more
"""

_Backups = Annotated[
    list[str],
    BACKUPS,
]
_Tags = Annotated[list[str], typer.Argument(metavar="TAG...", help="Any word without a comma.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_HOLD_EPILOG)(hold)
    app.command(epilog=_RELEASE_EPILOG)(release)
    app.command(epilog=_NOTE_EPILOG)(note)
    family = typer.Typer(help="Tags of a backup.", epilog=_TAG_EPILOG, rich_markup_mode=None)
    family.command("add", epilog=_TAG_EPILOG)(add)
    family.command("remove", epilog=_TAG_EPILOG)(remove)
    app.add_typer(family, name="tag")


def hold(context: typer.Context, backups: _Backups) -> Outcome:
    """Hold backups: they are not removed until they are released.

    Neither `prune` nor `remove` takes them. It protects from a mistake: who can write to the repository can release a
    backup, too.
    """
    from volback.operations import notes as operation

    with call_of(context).opened_repository() as (ctx, repository):
        done = operation.hold(ctx, repository, backups)
    return _outcome(done, "held")


def release(context: typer.Context, backups: _Backups) -> Outcome:
    """Let held backups be removed again."""
    from volback.operations import notes as operation

    with call_of(context).opened_repository() as (_, repository):
        done = operation.release(repository, backups)
    return _outcome(done, "released")


def note(
    context: typer.Context,
    backup: OneBackup,
    text: Annotated[
        str,
        typer.Argument(metavar="TEXT", help="What to say; an empty text says nothing any more.", show_default=False),
    ],
) -> Outcome:
    """Say something about a backup, in place of what was said before. `show` shows it.

    In an encrypted repository only who has an identity can read it.
    """
    from volback.operations import notes as operation

    with call_of(context).opened_repository() as (_, repository):
        done = operation.set_text(repository, backup, text)
    return _outcome([done], "noted")


def add(context: typer.Context, backup: OneBackup, tags: _Tags) -> Outcome:
    """Add tags to a backup. `prune --keep-tag` and `list --tag` know them."""
    from volback.operations import notes as operation

    call = call_of(context)
    call.command = "tag add"
    with call.opened_repository() as (_, repository):
        done = operation.add_tags(repository, backup, tags)
    return _outcome([done], f"tags: {', '.join(done.tags)}")


def remove(context: typer.Context, backup: OneBackup, tags: _Tags) -> Outcome:
    """Take tags away from a backup. Those that it was given when it was made stay."""
    from volback.operations import notes as operation

    call = call_of(context)
    call.command = "tag remove"
    with call.opened_repository() as (_, repository):
        done = operation.remove_tags(repository, backup, tags)
    return _outcome([done], f"tags: {', '.join(done.tags) or 'none'}")


def _outcome(done: list[Noted], what: str) -> Outcome:
    facts: list[backups.NotedBackup] = [
        {
            "id": one.manifest.id,
            "host": one.manifest.host,
            "volume": one.manifest.volume,
            **noted_facts(one.manifest, one.notes),
        }
        for one in done
    ]
    result: backups.NotedBackups = {"backups": facts}
    return Outcome(result, [f"{one.manifest.name}: {what}" for one in done])
