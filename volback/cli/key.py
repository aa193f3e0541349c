"""`key`: who can decrypt an encrypted repository, for whom this host encrypts, and which hosts are trusted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Call, Outcome, call_of, write_data
from volback.cli.holder import read_holder, read_new_passphrase
from volback.cli.render import terminal_width
from volback.cli.words import columns, printable
from volback.errors import UsageError

if TYPE_CHECKING:
    from volback.cli.documents import machine
    from volback.context.repository import Repository
    from volback.operations.keys import Key, Keys

_EPILOG = """\b
Examples:
  volback key list
  volback key add alice --recipient age1...
  volback key export sheet.txt     what to print and put into a safe
  volback key trust web1           backups of web1 are signed by this key
"""
_ADD_EPILOG = """\b
Examples:
  volback key add bob            asks for a passphrase
  volback key add team --recipients-file team.txt
"""
_LIST_EPILOG = """\b
Examples:
  volback key list           names, and for whom they are
  volback key list --json    the same for a script
"""
_REMOVE_EPILOG = """\b
Examples:
  volback key remove bob
"""
_PASSWD_EPILOG = """\b
Examples:
  volback key passwd main        asks for the new passphrase
  volback key passwd main --new-passphrase-file new.txt
"""
_EXPORT_EPILOG = """\b
Examples:
  volback key export sheet.txt
  volback key export | lpr
"""
_ROTATE_EPILOG = """\b
Examples:
  volback key rotate --identity ~/.config/age/me.txt
"""
_HOST_EPILOG = """\b
Examples:
  volback key host
"""
_TRUST_EPILOG = """\b
Examples:
  volback key trust web1                           asks first
  volback key trust web1 --key 5d1f8c02a97be430    compared already
"""
_PIN_EPILOG = """\b
Examples:
  volback key pin age1...
"""

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key.", show_default=False)]
_Recipients = Annotated[
    list[str] | None, typer.Option("--recipient", metavar="age1...", help="For this person; may be repeated.")
]
_RecipientsFiles = Annotated[
    list[Path] | None,
    typer.Option("--recipients-file", metavar="FILE", help="For each person of the file, one a line; repeatable."),
]
_NewPassphrase = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", metavar="FILE", help="The passphrase of the key. [default: ask for it]"),
]
_HostKey = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="The key, or 16 digits or more of its beginning.")
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    family = typer.Typer(help="Keys of an encrypted repository.", epilog=_EPILOG, rich_markup_mode=None)
    family.command(epilog=_ADD_EPILOG)(add)
    family.command("list", epilog=_LIST_EPILOG)(list_)
    family.command(epilog=_REMOVE_EPILOG)(remove)
    family.command(epilog=_PASSWD_EPILOG)(passwd)
    family.command(epilog=_EXPORT_EPILOG)(export)
    family.command(epilog=_ROTATE_EPILOG)(rotate)
    family.command(epilog=_HOST_EPILOG)(host)
    family.command(epilog=_TRUST_EPILOG)(trust)
    family.command(epilog=_PIN_EPILOG)(pin)
    app.add_typer(family, name="key")


def add(
    context: typer.Context,
    name: _Name,
    *,
    recipients: _Recipients = None,
    recipients_files: _RecipientsFiles = None,
    new_passphrase_file: _NewPassphrase = None,
) -> Outcome:
    """Add a key.

    Those for which it is can then read every backup. It needs an identity of the repository, or another key of it:
    --identity.
    """
    call = _call(context, "add")
    with call.opened_repository() as (_, repository):
        keys = _keys(repository)
        _ = keys.unlock()
        holder = read_holder(call.ask, recipients or [], recipients_files or [], new_passphrase_file, key=name)
        key = keys.add(name, holder)
    return Outcome(_facts(key), [f"added key {key.name}, for {_for_whom(key)}"])


def list_(context: typer.Context) -> Outcome:
    """List the keys. Needs none of them."""
    call = _call(context, "list")
    with call.opened_repository() as (_, repository):
        keys = _keys(repository).all()
        current = repository.recipients[0]
    rows = [[key.name, _opens(key, current), _for_whom(key)] for key in keys]
    text = list(columns(["KEY", "OPENS", "FOR"], rows, width=terminal_width())) if keys else ["no keys"]
    result: machine.KeyList = {"recipient": current, "keys": [_facts(key) for key in keys]}
    return Outcome(result, text)


def remove(context: typer.Context, name: _Name) -> Outcome:
    """Remove a key. The last one that opens the repository is not removed.

    Who has opened it before, or has a copy of its file, can still read what there is: to keep them from reading
    what comes, use `volback key rotate` after it.
    """
    call = _call(context, "remove")
    with call.opened_repository() as (_, repository):
        key = _keys(repository).remove(name)
    warning = f"whoever has used key {name} may have kept the identity: volback key rotate"
    return Outcome(_facts(key), [f"removed key {key.name}"], [warning])


def passwd(context: typer.Context, name: _Name, *, new_passphrase_file: _NewPassphrase = None) -> Outcome:
    """Change the passphrase of a key.

    The former one opens copies of the key's former file, also those that a bucket keeps as versions.
    """
    call = _call(context, "passwd")
    with call.opened_repository() as (_, repository):
        keys = _keys(repository)
        keys.check_has_passphrase(name)
        _ = keys.unlock()
        key = keys.change_passphrase(name, read_new_passphrase(call.ask, new_passphrase_file, key=name))
    return Outcome(_facts(key), [f"changed the passphrase of key {key.name}"])


def export(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file, or - for standard output.", show_default=False)
    ] = "-",
) -> Outcome | None:
    """Write the sheet for the safe.

    It has the repository's identity in clear, and says how to restore with it. With it everything can be read:
    print it, put it into a safe, and delete the file. FILE must not exist.
    """
    from volback.operations.disaster_sheet import disaster_sheet
    from volback.operations.export import write_file

    call = _call(context, "export")
    if call.json and file == "-":
        raise UsageError("--json and the sheet cannot both go to standard output", "name a file to write to")
    with call.opened_repository() as (ctx, repository):
        sheet = disaster_sheet(repository, ctx.now()).encode()
    if file == "-":
        write_data([sheet])
        return None
    write_file(Path(file), [sheet])
    text = f"wrote {file}: whoever reads it can read every backup"
    result: machine.KeySheet = {"file": file, "recipient": repository.recipients[0]}
    return Outcome(result, [text])


def rotate(context: typer.Context) -> Outcome:
    """Make a new identity for backups to come.

    What there is stays readable with the earlier ones. Each key gets the new identity too, where that is possible:
    the passphrase of one that has one must be known. Hosts that know the repository follow: who holds the former
    identity has signed that. Others refuse the new recipient until it is accepted there: `volback key pin`.
    """
    from volback.operations.rotate import rotate as operation

    call = _call(context, "rotate")
    with call.opened_repository() as (ctx, repository):
        done = operation(ctx, repository)
    text = [
        f"rotated {repository.store.url}",
        *(f"  key {name} has the new identity" for name in done.rewritten),
        "hosts that have used it before follow; on one that refuses it (exit code 7):",
        f"  volback key pin {done.recipient}",
        "for the safe, a new sheet: volback key export",
    ]
    result: machine.Rotated = {
        "recipient": done.recipient,
        "past": done.past,
        "rewritten": done.rewritten,
        "left": done.left,
    }
    return Outcome(result, text, done.warnings, incomplete=bool(done.left))


def host(context: typer.Context) -> Outcome:
    """Show the key with which this host signs."""
    from volback.archive.signing import SigningKey
    from volback.operations.trust import fingerprint
    from volback.state.host_key import host_secret

    call = _call(context, "host")
    with call.context() as ctx:
        key = SigningKey(host_secret(ctx.settings.state)).public.hex()
    shown: machine.HostKey = {"key": key}
    return Outcome(shown, [fingerprint(key)])


def trust(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="HOST", help="The host.", show_default=False)],
    *,
    key: _HostKey = None,
) -> Outcome:
    """Certify the key of a host.

    Its backups then count as its own, and other backups in its name do not. Compare the key with what `volback key
    host` shows on that host. It needs an identity of the repository.
    """
    from volback.operations.trust import certify, choose_key, fingerprint

    call = _call(context, "trust")
    with call.opened_repository() as (ctx, repository):
        identity = _keys(repository).unlock()
        chosen = choose_key(repository.catalog, name, key, lambda found: _confirmed(call, name, fingerprint(found)))
        made = certify(repository.store, repository.info.id, identity, name, chosen, now=ctx.now())
    result: machine.Trusted = {"host": made.host, "key": made.key}
    return Outcome(result, [f"certified for host {made.host}:", f"  {fingerprint(made.key)}"])


def pin(
    context: typer.Context,
    recipient: Annotated[
        str,
        typer.Argument(metavar="age1...", help="Its recipient, as `volback key list` shows it.", show_default=False),
    ],
) -> Outcome:
    """Accept the recipient of a repository.

    This host encrypts for it from now on. It must be the one that the repository has. With --identity, this host
    follows later rotations by itself, too.
    """
    call = _call(context, "pin")
    with call.opened_repository() as (_, repository):
        repository.pin(recipient)
    result: machine.Pinned = {"recipient": recipient}
    return Outcome(result, [f"pinned {recipient} for {repository.store.url}"])


def _confirmed(call: Call, host: str, key: str) -> bool:
    if call.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{key}\nDoes `volback key host` show that on {printable(host)}?", err=True)


def _keys(repository: Repository) -> Keys:
    from volback.operations.keys import keys_of

    return keys_of(repository)


def _call(context: typer.Context, command: str) -> Call:
    call = call_of(context)
    call.command = f"key {command}"
    return call


def _facts(key: Key) -> machine.KeyOf:
    return {
        "name": key.name,
        "kind": key.kind,
        "recipients": list(key.recipients),
        "opens": list(key.opens),
        "made_at": key.made_at,
    }


def _for_whom(key: Key) -> str:
    match key.kind:
        case "passphrase":
            return "who knows its passphrase"
        case "recipients":
            return ", ".join(key.recipients)
        case None:
            return "unknown"


def _opens(key: Key, current: str) -> str:
    if key.kind is None:
        return "unknown"
    return "all" if current in key.opens else "earlier"
