"""`check` and `repair`: whether everything is there that backups reference, and what of it can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.facts import requests_facts
from volback.cli.words import count, first_of, human_size, requests_line
from volback.errors import IntegrityError, VolbackError, kind_of_all

if TYPE_CHECKING:
    from volback.cli.documents import backups
    from volback.operations.check import Checked, Finding
    from volback.operations.document import PutBack
    from volback.operations.repair import Repaired

_CHECK_EPILOG = """\b
Examples:
  volback check                 every backup of this host
  volback check db web2/db      those of these volumes
  volback check --all-hosts     all of the repository
"""
_REPAIR_EPILOG = """\b
Examples:
  volback repair --dry-run      what could be repaired, and what is lost
  volback repair db             what was noted as damaged
  volback repair db --data      read everything first
"""
_NAMED_AT_MOST = 3
_LINES_AT_MOST = 50

_Volumes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VOLUME...",
        help="Volumes; without any, all of this host.",
        show_default=False,
        autocompletion=complete_backup,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_CHECK_EPILOG)(check)
    app.command(epilog=_REPAIR_EPILOG)(repair)


def check(
    context: typer.Context,
    volumes: _Volumes = None,
    *,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Backups of every host.")] = False,
) -> Outcome:
    """Check that everything is there that backups reference.

    It reads manifests and a listing, and no data: `verify --data` reads every byte. Exit code 7 if a backup needs what
    is missing or has another size, or a document is damaged; 1 if the store does not return one. What no backup
    references takes space, and endangers nothing: `prune` removes it.
    """
    from volback.operations import check as operation

    with call_of(context).opened_repository() as (_, repository):
        found = operation.check(repository, volumes or [], all_hosts=all_hosts)
        requests = requests_facts(repository)
    facts: backups.Checked = {**_facts(found), "requests": requests}
    return Outcome(facts, [*_lines(found), *requests_line(requests)], errors=list(_wrong(found)))


def repair(
    context: typer.Context,
    volumes: _Volumes = None,
    *,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Backups of every host.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Read all data first, to find what is damaged.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be done.")] = False,
) -> Outcome:
    """Rebuild what can be rebuilt, and name what is lost.

    It works on what `verify --data` and failed reads have found, and on what is missing. Files come back where newer
    backups have stored the same data anew: run a backup first. The repository's own document, volback.json, comes back
    from this machine's copy, or with --identity. Nothing is removed. Exit code 7 if something is lost.
    """
    from volback.operations import repair as operation

    with call_of(context).opened() as (ctx, engine, repository):
        done = operation.repair(ctx, engine, repository, volumes or [], all_hosts=all_hosts, data=data, dry_run=dry_run)
        requests = requests_facts(repository)
    errors: list[VolbackError] = list(done.errors)
    if done.lost:
        names = ", ".join(one.backup for one in done.lost[:_NAMED_AT_MOST])
        more = f" and {len(done.lost) - _NAMED_AT_MOST} more" if len(done.lost) > _NAMED_AT_MOST else ""
        hint = "a new backup of what the volume still has may heal them: repeat it then"
        errors.insert(0, IntegrityError(f"something is lost of {names}{more}", hint))
    facts: backups.Repaired = {**_repair_facts(done), "dry_run": dry_run, "requests": requests}
    return Outcome(facts, [*_repair_lines(done, dry_run=dry_run, data=data), *requests_line(requests)], errors=errors)


def _repair_facts(done: Repaired) -> backups.RepairedObjects:
    document = done.document
    return {
        "document": None if document is None else _document_facts(document),
        "backups": done.backups,
        "rebuilt": done.rebuilt,
        "lifted": done.lifted,
        "healed": [{"backup": one.backup, "revision": one.revision, "paths": one.paths} for one in done.healed],
        "lost": [{"backup": one.backup, "message": one.message, "paths": one.paths} for one in done.lost],
    }


def _document_facts(document: PutBack) -> backups.PutBack:
    return {"id": document.id, "recipient": document.recipient, "is_copy": document.is_copy}


def _repair_lines(done: Repaired, *, dry_run: bool, data: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    if (document := done.document) is not None:
        how = "this machine's copy" if document.is_copy else "made anew with the identity"
        encrypted = f", encrypted for {document.recipient}" if document.recipient else ""
        yield f"{would}put back  volback.json: {how}, id {document.id}{encrypted}"
    for key in done.rebuilt:
        yield f"{would}rebuilt  {key}"
    for key in done.lifted:
        yield f"{would}kept     {key}: it was condemned, and is used"
    for healed in done.healed:
        yield f"{would}healed   {healed.backup}: {count(len(healed.paths), 'file')} found elsewhere"
    for lost in done.lost:
        yield f"lost     {lost.backup}: {lost.message}"
        yield from first_of(lost.paths or [], "  lost   ")
        if lost.paths is not None:
            yield "  all its other files are intact" if data else "  no damage is known of its other files"
    work = f"{len(done.healed)} {would}healed, {len(done.rebuilt)} indexes {would}rebuilt, {len(done.lost)} with losses"
    is_any = done.healed or done.rebuilt or done.lifted or done.lost
    yield f"{count(done.backups, 'backup')}: {work if is_any else 'nothing to repair'}"


def _wrong(found: Checked) -> Iterator[VolbackError]:
    """At most two errors: for what is not as needed, and for what could not be read."""
    unread = [finding.error for finding in found.wrong if finding.error is not None]
    if number := len(found.wrong) - len(unread):
        message = f"{count(number, 'object')} of the repository {_is_or_are(number)} not as needed"
        yield IntegrityError(message, "volback repair says what can be rebuilt, and which files are lost")
    if unread:
        yield kind_of_all(unread)(f"{count(len(unread), 'object')} of the repository cannot be read", unread[0].hint)


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _facts(found: Checked) -> backups.CheckedObjects:
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
    word = "wrong" if finding.is_wrong else {"unreferenced": "unused"}.get(finding.kind, finding.kind)
    named = ", ".join(finding.backups[:_NAMED_AT_MOST])
    more = len(finding.backups) - _NAMED_AT_MOST
    needed = f"; needed by {named}" + (f" and {more} more" if more > 0 else "") if named else ""
    return f"{word:<10}{finding.message}{needed}"
