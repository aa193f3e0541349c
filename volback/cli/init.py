"""`init`: makes a repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.holder import read_new_passphrase, read_recipients
from volback.errors import UsageError

if TYPE_CHECKING:
    from volback.cli.documents.machine import Initialised
    from volback.context import Context
    from volback.encryption.sources import Ask
    from volback.operations.init import FirstKey

_EPILOG = """\b
Examples:
  volback init --repo /srv/backups
  volback init --repo s3://backups/docker
  volback init --repo main           a repository of volback.toml
  volback init --encrypt --recipient age1...
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(init)


_Recipients = Annotated[
    list[str] | None,
    typer.Option("--recipient", metavar="age1...", help="Who can open the repository's identity; may be repeated."),
]
_RecipientsFiles = Annotated[
    list[Path] | None,
    typer.Option("--recipients-file", metavar="FILE", help="Recipients, one a line; may be repeated."),
]
_KeyName = Annotated[str, typer.Option("--key", metavar="NAME", help="Name of the first key.")]


def init(
    context: typer.Context,
    *,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Encrypt all backups; decided once.")] = False,
    recipients: _Recipients = None,
    recipients_files: _RecipientsFiles = None,
    key: _KeyName = "first",
) -> Outcome:
    """Make a repository.

    Its place is a directory that is empty or does not exist yet, or an unused prefix of a bucket. A repository that is
    there already stays as it is; the exit code is then 0, too.

    With --encrypt it gets an identity of its own, for which everything is encrypted. That lies in keys/NAME.age,
    encrypted for the recipients, or with the passphrase that VOLBACK_PASSPHRASE_FILE or VOLBACK_PASSPHRASE_COMMAND
    gives, or that you type. Who loses all keys has lost the data.
    """
    from volback.operations import init as operation

    call = call_of(context)
    if not encrypt and (recipients or recipients_files):
        raise UsageError("recipients are of an encrypted repository", "add --encrypt")
    with call.opened_repository() as (ctx, repository):
        first = _first_key(ctx, call.ask, recipients or [], recipients_files or [], key) if encrypt else None
        done = operation.init(ctx, repository, first)
    text = [f"made repository {done.url}" if done.made else f"{done.url} is a repository already"]
    text[0] += f", id {done.id}"
    if done.made and done.recipient:
        text += [f"encrypted for {done.recipient}", f"key {key} opens it: who loses all keys has lost the data"]
    result: Initialised = {
        "url": done.url,
        "id": done.id,
        "format": done.format,
        "made": done.made,
        "recipient": done.recipient,
    }
    return Outcome(result, text)


def _first_key(ctx: Context, ask: Ask | None, texts: list[str], files: list[Path], name: str) -> FirstKey:
    from volback.encryption.sources import passphrase_in
    from volback.operations.init import FirstKey
    from volback.operations.keys import Holder

    if found := read_recipients(texts, files):
        return FirstKey(name, Holder(tuple(found)))
    if ctx.sources.passphrases:
        return FirstKey(name, Holder(passphrase=passphrase_in(ctx.sources.passphrases[0])))
    if ask is not None:
        return FirstKey(name, Holder(passphrase=read_new_passphrase(ask, None, key=name)))
    raise UsageError(
        "who is to open the repository is not said", "give --recipient age1... (`age-keygen` makes one) for each person"
    )
