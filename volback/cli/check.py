"""`verify` and `prove`: whether backups are intact, and whether a volume equals its backup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.arguments import OneBackup
from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup, complete_volume
from volback.cli.differences import comparison_lines
from volback.cli.facts import comparison_facts
from volback.cli.words import count, first_of, read_option
from volback.errors import IntegrityError, VolbackError, kind_of_all
from volback.measures import named
from volback.policy.subset import read_subset

if TYPE_CHECKING:
    from volback.cli.documents import backups as documents
    from volback.operations.verify import Signed
    from volback.operations.verify_data import Damage

_VERIFY_EPILOG = """\b
Examples:
  volback verify                  every backup: objects present, sizes right
  volback verify db --data        read and check every byte of the latest one
  volback verify --subset today/7 read a seventh, another one each day
"""
_PROVE_EPILOG = """\b
Examples:
  volback prove db                the volume db against its latest backup
  volback prove db@2026 db-copy   another volume against a backup of db
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_VERIFY_EPILOG)(verify)
    app.command(epilog=_PROVE_EPILOG)(prove)


def verify(
    context: typer.Context,
    backups: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BACKUP...",
            help="Backups to check; without any, all of the repository.",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Read and check every byte.")] = False,
    subset: Annotated[
        str | None, typer.Option(metavar="K/N", help="Read part K of N of the data; today/N: another one each day.")
    ] = None,
) -> Outcome:
    """Check that backups in the repository are intact.

    `verify` asks whether what is stored is undamaged, and needs no volume and no engine. `prove` asks whether a volume
    holds what its backup holds. `check` asks whether all that backups reference is there, and reads least. Without
    --data and --subset it checks that all objects exist and have the right size. The N parts of --subset together
    read every byte once, whatever is added meanwhile. Exit code 7 if anything is damaged.
    """
    from volback.operations import verify as operation

    with call_of(context).opened_repository() as (ctx, repository):
        today = ctx.now().astimezone().date()
        part = None if subset is None else read_option("--subset", subset, lambda text: read_subset(text, today))
        found = operation.verify(ctx, repository, backups or [], data=data or part is not None, subset=part)
    damaged: list[documents.Damage] = [
        {"backup": item.backup, "object": item.object, "paths": item.paths} for item in found.damaged
    ]
    how = f"part {part.part} of {part.of} of the data" if part else "every byte" if data else "presence and sizes"
    summary = f"{count(found.checked, 'backup')} checked ({how}), {found.intact} intact"
    text = [*_damage_lines(found.damaged), summary if found.checked else f"no backups in {repository.store.url}"]
    if found.signed and found.checked:
        text += _signed_lines(found.signed)
    who = found.signed
    signed: documents.SignedBy | None = None if who is None else {"certified": who.certified, "others": who.others}
    result: documents.Verified = {
        "checked": found.checked,
        "damaged": damaged,
        "subset": str(part) if part else None,
        "signed": signed,
    }
    return Outcome(result, text, errors=list(_failures(found.damaged)))


def prove(
    context: typer.Context,
    backup: OneBackup,
    volume: Annotated[
        str | None,
        typer.Argument(
            metavar="VOLUME|/HOST/DIR",
            help="What to compare. [default: what was backed up]",
            show_default=False,
            autocompletion=complete_volume,
        ),
    ] = None,
) -> Outcome:
    """Compare a volume with a backup, bit for bit.

    `prove` asks whether a volume holds what its backup holds: after a restore, or before a volume is removed. It reads
    the volume again. `verify` asks whether what is stored is undamaged, and needs no volume. `prove` names each
    file that differs, is missing or is extra. Exit code 7 if there is any. Attributes that only --privileged-xattrs
    restores may be missing: that is a warning.
    """
    from volback.operations import prove as operation

    with call_of(context).opened() as (ctx, engine, repository):
        found = operation.prove(ctx, engine, repository, backup, volume)
    result = comparison_facts(found)
    warnings = [
        f"attribute {name} is missing on {count(len(paths), 'file')}, and would be set only by restore"
        f" --privileged-xattrs: {named(paths)}"
        for name, paths in found.lacking.items()
    ]
    if not found.differs:
        text = "identical but for these attributes" if warnings else "identical, bit for bit"
        return Outcome(result, [text], warnings, incomplete=bool(warnings))
    odd = found.odd
    verb = "differs" if odd == 1 else "differ"
    error = IntegrityError(f"{count(odd, 'file')} {verb} from backup {backup}", "the volume may have changed since")
    return Outcome(result, comparison_lines(found), warnings, errors=[error])


def _failures(damaged: list[Damage]) -> Iterator[VolbackError]:
    """At most two: what is damaged, and what could not be read."""
    if names := dict.fromkeys(item.backup for item in damaged if item.error is None):
        yield IntegrityError(f"damaged: {', '.join(names)}", "restore from an older backup; create a new one now")
    if unread := {item.backup: item.error for item in damaged if item.error is not None}:
        errors = list(unread.values())
        yield kind_of_all(errors)(f"cannot be read: {', '.join(unread)}", errors[0].hint)


def _damage_lines(damaged: list[Damage]) -> Iterator[str]:
    for item in damaged:
        yield f"{'damaged ' if item.error is None else 'unread  '} {item.backup}: {item.message}"
        yield from first_of(item.paths, "  lost   ")


def _signed_lines(signed: Signed) -> Iterator[str]:
    if signed.certified is None:
        yield "who made them is not known here: give --identity, or see `volback key trust`"
        return
    yield f"{count(signed.certified, 'backup')} signed by certified hosts, {len(signed.others):,} not"
    if signed.certified:
        names = [
            f"{name} is signed by {f'key {key[:16]}, which is not certified' if key else 'nobody'}"
            for name, key in signed.others.items()
        ]
        yield from first_of(names, "  ")
