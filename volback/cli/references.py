"""`check`: whether everything is there that backups reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.facts import requests_facts
from volback.cli.words import count, human_size, requests_line
from volback.errors import IntegrityError

if TYPE_CHECKING:
    from volback.operations.check import Checked, Finding

_CHECK_EPILOG = """\b
Examples:
  volback check                 every backup of this host
  volback check db web2/db      those of these volumes
  volback check --all-hosts     all of the repository
"""
_NAMED_AT_MOST = 3
_LINES_AT_MOST = 50

_Volumes = Annotated[
    list[str] | None, typer.Argument(metavar="VOLUME", show_default=False, autocompletion=complete_backup)
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_CHECK_EPILOG)(check)


def check(
    context: typer.Context,
    volumes: _Volumes = None,
    *,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Backups of every host.")] = False,
) -> Outcome:
    """Check that everything is there that backups reference.

    It reads manifests and a listing, and no data: `verify --data` reads every byte. Exit code 7 if a backup needs what
    is missing or has another size, or a document cannot be read. What no backup references takes space, and
    endangers nothing: `prune` removes it.
    """
    from volback.operations import check as operation

    with call_of(context).opened_repository() as (_, repository):
        found = operation.check(repository, volumes or [], all_hosts=all_hosts)
        requests = requests_facts(repository)
    errors = []
    if found.wrong:
        message = f"{count(len(found.wrong), 'object')} of the repository {_is_or_are(len(found.wrong))} not as needed"
        errors.append(IntegrityError(message, "volback verify names the files that are lost"))
    return Outcome({**_facts(found), "requests": requests}, [*_lines(found), *requests_line(requests)], errors=errors)


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _facts(found: Checked) -> dict[str, object]:
    return {
        "backups": found.backups,
        "objects": found.objects,
        "unreferenced_bytes": found.unreferenced_bytes,
        "findings": [
            {
                "kind": finding.kind,
                "object": finding.key,
                "message": finding.message,
                "backups": list(finding.backups),
                "wrong": finding.is_wrong,
            }
            for finding in found.findings
        ],
    }


def _lines(found: Checked) -> Iterator[str]:
    wrong = found.wrong
    others = [finding for finding in found.findings if not finding.is_wrong]
    yield from map(_line, wrong)
    yield from map(_line, others[:_LINES_AT_MOST])
    if len(others) > _LINES_AT_MOST:
        yield f"... and {len(others) - _LINES_AT_MOST:,} more: --json lists all"
    unused = f"; {human_size(found.unreferenced_bytes)} used by none" if others else ""
    yield (
        f"{count(found.backups, 'backup')} checked, which use {count(found.objects, 'object')}:"
        f" {len(wrong) or 'none'} wrong{unused}"
    )


def _line(finding: Finding) -> str:
    word = "wrong" if finding.is_wrong else "double" if finding.kind == "double" else "unused"
    named = ", ".join(finding.backups[:_NAMED_AT_MOST])
    more = len(finding.backups) - _NAMED_AT_MOST
    needed = f"; needed by {named}" + (f" and {more} more" if more > 0 else "") if named else ""
    return f"{word:<7}{finding.message}{needed}"
