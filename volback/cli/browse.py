"""`list`, `show`, `ls`, `cat`: the contents of the repository, of a backup, of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

from volback.cli.arguments import OneBackup
from volback.cli.call import Call, Outcome, call_of, write_data
from volback.cli.complete import complete_backup, complete_stored_project, complete_tag
from volback.cli.facts import entry_facts, listed_facts, shown_facts
from volback.cli.listings import entry_lines, manifest_lines, notes_lines, percent
from volback.cli.render import terminal_width
from volback.cli.words import columns, human_age, human_size, read_option, unread_failure, unread_warning, unread_word
from volback.errors import UsageError
from volback.policy.anonymous import is_anonymous, shown_volume
from volback.policy.durations import read_since

if TYPE_CHECKING:
    from volback.catalog.keys import BackupKey
    from volback.catalog.model import Manifest
    from volback.catalog.units import Member
    from volback.cli.documents import backups as documents
    from volback.context.repository import Repository
    from volback.operations.list import Row

_Tag = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        "-t",
        metavar="TAG",
        help="Those with this tag; may be repeated. A,B: both tags.",
        autocompletion=complete_tag,
    ),
]

_Project = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Those of a compose project; may be repeated.", autocompletion=complete_stored_project
    ),
]
_Since = Annotated[str | None, typer.Option(metavar="TIME", help="Since 2026-11-25, yesterday, or 7d ago.")]
_Last = Annotated[int | None, typer.Option("--last", "-n", metavar="N", min=1, help="The N newest of each volume.")]
_Latest = Annotated[bool, typer.Option("--latest", "-l", help="The newest of each volume.")]

_LIST_EPILOG = """\b
Examples:
  volback list               backups of this engine's volumes
  volback list db            those of one volume
  volback list --all-hosts   those of every host in the repository
  volback list --tag release those with this tag
  volback list --project shop --latest
  volback list --since 7d    of the last seven days
"""
_SHOW_EPILOG = """\b
Examples:
  volback show db              the latest backup of db
  volback show db@20261123     the one whose id begins so
"""
_LS_EPILOG = """\b
Examples:
  volback ls db              every file of the latest backup
  volback ls db@2026 etc     what is in etc
"""
_CAT_EPILOG = """\b
Examples:
  volback cat db etc/app.conf
  volback cat db@20261123 dump.sql.gz | zcat | head
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command("list", epilog=_LIST_EPILOG)(list_)
    app.command(epilog=_SHOW_EPILOG)(show)
    app.command(epilog=_LS_EPILOG)(ls)
    app.command(epilog=_CAT_EPILOG)(cat)


def list_(
    context: typer.Context,
    volumes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VOLUME...",
            help="Volumes, or backups; without any, those of this host.",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ] = None,
    *,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Backups of every host.")] = False,
    tag: _Tag = None,
    project: _Project = None,
    since: _Since = None,
    last: _Last = None,
    latest: _Latest = False,
) -> Outcome:
    """List backups, by volume, oldest first.

    What was backed up together has one set. On a terminal, an anonymous volume is named by the first 12 digits of its
    name, and by the containers that had it mounted.

    A backup whose manifest is damaged is listed as that, and one whose manifest the store does not return as
    unreadable; the exit code is then 7 or 1.
    """
    from volback.operations import list as operation
    from volback.operations.trust import known_trust

    call = call_of(context)
    if latest and last is not None:
        raise UsageError("--latest is --last 1", "give one of them")
    with call.opened_repository() as (ctx, repository):
        from_ = None if since is None else read_option("--since", since, lambda text: read_since(text, ctx.now()))
        wanted = operation.Wanted(tuple(tag or ()), tuple(project or ()), from_, 1 if latest else last)
        found = operation.list_backups(ctx, repository, volumes or [], all_hosts=all_hosts, wanted=wanted)
        trusted = known_trust(repository) if call.json else None
        shared = operation.shared_names(repository, found)
        texts = {row.key: operation.text_of(repository, row) for row in found}
        if found:
            text = _table(found, all_hosts=all_hosts)
        elif tag:
            text = [f"no backups with tag {' or '.join(tag)}"]
        elif wanted != operation.Wanted():
            text = ["none of the backups is one of these"]
        else:
            text = _none(call, repository)
    damaged = [(row, row.error) for row in found if row.error is not None]
    result: documents.BackupList = {
        "backups": [listed_facts(row.manifest, row.notes, texts[row.key], trusted) for row in found if row.manifest],
        "damaged": [
            {"id": row.key.id, "host": row.key.host, "volume": row.key.volume, "error": error.message}
            for row, error in damaged
        ],
    }
    warnings = [unread_warning(row.name, error) for row, error in damaged]
    return Outcome(
        result, text, warnings + shared, [unread_failure([error for _, error in damaged])] if damaged else []
    )


def _none(call: Call, repository: Repository) -> list[str]:
    """What to say where this host has no backups: others may have some."""
    from volback.operations.list import counts_by_host

    there = counts_by_host(repository)
    if not there:
        return [f"no backups in {repository.store.url}", *call.elsewhere()]
    named = ", ".join(f"{number} of {host}" for host, number in there.items())
    return [
        f"no backups of host {repository.host} in {repository.store.url}",
        f"there are {named}: volback list --all-hosts shows them",
    ]


def show(context: typer.Context, backup: OneBackup) -> Outcome:
    """Show the facts about a backup."""
    from volback.operations import notes as operation
    from volback.operations.trust import known_trust, signer_in_words

    with call_of(context).opened_repository() as (_, repository):
        manifest, trusted = repository.shown(repository.find(backup)), known_trust(repository)
        notes = operation.read_notes(repository, manifest).notes
        text = operation.text_for_people(repository, manifest.key, notes)
    lines = [*manifest_lines(manifest, signer_in_words(manifest, trusted)), *notes_lines(manifest, notes, text)]
    return Outcome(shown_facts(manifest, notes, text, trusted), lines)


def ls(
    context: typer.Context,
    backup: OneBackup,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file or directory, as from the volume's root.", show_default=False)
    ] = "",
    *,
    check: Annotated[bool, typer.Option("--check", help="Read the data of these files, and compare.")] = False,
    _long: Annotated[bool, typer.Option("-l", hidden=True, expose_value=False)] = False,
    _all: Annotated[bool, typer.Option("-a", hidden=True, expose_value=False)] = False,
) -> Outcome:
    """List the files of a backup, at and below PATH.

    It reads the index and no data; with --check it first reads the files, and fails (exit code 7) unless the data holds
    these files and no others.

    A name that is not UTF-8, or would move the cursor, is escaped on a terminal; a file or a pipe gets its bytes
    unchanged.
    """
    from volback.operations import contents

    call = call_of(context)
    with call.opened_repository() as (_, repository):
        opened = contents.open_backup(repository, backup)
        wanted = contents.member_path(path)
        found = contents.members(opened, wanted)
        if check:
            contents.check(opened, wanted)
    if call.json:
        facts: documents.Entries = {"backup": opened.name, "entries": _encoded(found)}
        return Outcome(facts)
    return Outcome({}, entry_lines(found), is_verbatim=not sys.stdout.isatty())


def _encoded(found: Iterable[Member]) -> list[documents.Entry]:
    """The entries as JSON: a text takes much less memory than what it is made from."""
    import msgspec

    text = msgspec.Raw(b"[" + b",".join(msgspec.json.encode(entry_facts(member)) for member in found) + b"]")
    return cast("list[documents.Entry]", text)


def cat(
    context: typer.Context,
    backup: OneBackup,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="The file, as from the volume's root.", show_default=False)
    ],
) -> None:
    """Write one file of a backup to standard output. Reads only the parts of the backup that contain it."""
    from volback.operations import contents

    call = call_of(context)
    if call.json:
        raise UsageError("cat does not accept --json: its output is the file itself")
    with call.opened_repository() as (_, repository):
        opened = contents.open_backup(repository, backup)
        write_data(contents.read_file(opened, contents.member_path(path)))


def _table(found: list[Row], *, all_hosts: bool) -> list[str]:
    """`SHARED` is a column where a backup shares data with earlier ones."""
    rows, width = list[list[str]](), terminal_width()
    for row in found:
        name = row.name if width is None else shown_reference(row.key)
        name = name if all_hosts else name.partition("/")[2]
        manifest = row.manifest
        if manifest is None:
            rows.append([name, human_age(row.age_s), "-", "-", "-", "-", unread_word(row.error)])
            continue
        sizes = human_size(manifest.raw_bytes), human_size(manifest.stored_bytes), percent(manifest)
        held = ["(held)"] if row.notes.is_held else []
        tags = " ".join(filter(None, [",".join(row.tags), *held]))
        tags = ", ".join(filter(None, [tags, *_said(row, manifest)]))
        rows.append([name, human_age(row.age_s), f"{manifest.files:,}", *sizes, tags])
    headings = ["BACKUP", "AGE", "FILES", "SIZE", "STORED", "SHARED", "TAGS"]
    if all(row[5] == "-" for row in rows):
        rows, headings = [row[:5] + row[6:] for row in rows], headings[:5] + headings[6:]
    return list(columns(headings, rows, right="FILES SIZE STORED SHARED", width=width))


def shown_reference(key: BackupKey) -> str:
    """A backup's name for people at a terminal: an id is never cut, and an anonymous volume has 12 digits."""
    from volback.catalog.reference import Reference

    return str(Reference(key.host, shown_volume(key.volume), key.id))


def _said(row: Row, manifest: Manifest) -> Iterator[str]:
    """What stands behind a backup's tags."""
    if manifest.set is not None:
        yield f"set {manifest.set.id}"
    if is_anonymous(row.key.volume):
        yield f"anonymous: {', '.join(manifest.containers) or 'no container'}"
