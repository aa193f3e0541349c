"""`diff`, `find`, `history`, `du`: what differs between backups, where a file is in them, and what each takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import TYPE_CHECKING, Annotated, cast

import typer

from volback.cli.arguments import OneBackup
from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup, complete_volume
from volback.cli.differences import difference_lines, epoch_text, totals_lines
from volback.cli.facts import difference_facts, epoch_facts, totals_facts, usage_facts, version_facts
from volback.cli.listings import shown_name, shown_time
from volback.cli.render import terminal_width
from volback.cli.words import columns, count, human_size, unread_failure, unread_warning
from volback.errors import UsageError, VolbackError

if TYPE_CHECKING:
    from volback.cli.documents import backups as documents
    from volback.operations.diff import Comparison
    from volback.operations.search import Version
    from volback.operations.usage import Usage

_DIFF_EPILOG = """\b
Examples:
  volback diff db@20261122 db@20261123   two backups
  volback diff db@20261122 db            a backup, and the latest one
  volback diff db                        the latest backup, and the volume now
  volback diff db --data                 the same; reads what may have changed
"""
_FIND_EPILOG = """\b
Examples:
  volback find '*.sql'              in all backups of this engine's volumes
  volback find app.conf db          in all backups of one volume
  volback find '/etc/**/*.pem' db@2026   in those of 2026, below etc
"""
_HISTORY_EPILOG = """\b
Examples:
  volback history db etc/app.conf   when it came, changed, and was removed
"""
_DU_EPILOG = """\b
Examples:
  volback du               every volume of this host
  volback du db            what removing each backup of db would free
  volback du db@20261123   the same for one of them
"""

_AllHosts = Annotated[bool, typer.Option("--all-hosts", help="Backups of every host.")]
_Backups = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VOLUME|BACKUP...",
        help="All backups of a volume, or single ones; without any, those of this host.",
        show_default=False,
        autocompletion=complete_backup,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_DIFF_EPILOG)(diff)
    app.command(epilog=_FIND_EPILOG)(find)
    app.command(epilog=_HISTORY_EPILOG)(history)
    app.command(epilog=_DU_EPILOG)(du)


def diff(
    context: typer.Context,
    backup: OneBackup,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="OTHER",
            help="A later backup. [default: the volume as it is now]",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ] = None,
    *,
    volume: Annotated[
        str | None,
        typer.Option(metavar="VOLUME|/HOST/DIR", help="Compare with this volume.", autocompletion=complete_volume),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Read what may have changed in the volume.")] = False,
) -> Outcome:
    """Show what changed between two backups, or since a backup.

    Without OTHER, a second backup, it is compared with its volume as it is now. Of backups only the indexes are read.
    The volume is scanned; whether the content of a file changed that has the same size and another time, is only known
    with --data. A change of the ctime alone is not shown. Exit code 0 whether or not there are differences; `prove`
    compares bit for bit.
    """
    from volback.operations import diff as operation

    if other is not None and (volume is not None or data):
        raise UsageError("--volume and --data are for a volume, not for two backups", "leave out the second backup")
    call = call_of(context)
    with call.opened() as (ctx, engine, repository):
        if other is not None:
            compared = operation.diff_backups(repository, backup, other)
        else:
            compared = operation.diff_volume(ctx, engine, repository, backup, volume, data=data)
        if call.json:
            return Outcome(_diff_facts(compared))
        lines = chain(difference_lines(compared.found), _totals(compared, was_read=data))
        return Outcome({}, lines, is_verbatim=not sys.stdout.isatty())


def _totals(compared: Comparison, *, was_read: bool) -> Iterator[str]:
    """A generator: the totals are complete once the differences have been written."""
    yield from totals_lines(compared.totals, is_live=compared.source is not None, was_read=was_read)


def _diff_facts(compared: Comparison) -> documents.Differences:
    return {
        "before": compared.before.name,
        "after": compared.after,
        "after_kind": "backup" if compared.source is None else compared.source.kind,
        "differences": _encoded(difference_facts(item) for item in compared.found),
        "totals": totals_facts(compared.totals),
    }


def _encoded(facts: Iterable[documents.Difference]) -> list[documents.Difference]:
    """As JSON: a text takes much less memory than what it is made from."""
    import msgspec

    return cast("list[documents.Difference]", msgspec.Raw(b"[" + b",".join(map(msgspec.json.encode, facts)) + b"]"))


def find(
    context: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Of paths, like '*.sql' or 'etc/**'.", show_default=False)
    ],
    backups: _Backups = None,
    *,
    each: Annotated[bool, typer.Option("--all", help="Show every backup, not only each version once.")] = False,
    all_hosts: _AllHosts = False,
) -> Outcome:
    """Find files in all backups.

    PATTERN is as --exclude takes it: `*.log` matches a name in any directory, a pattern with a slash from the volume's
    root on. A VOLUME stands for all of its backups. Each version of a file is shown once, with the first and the last
    backup that has it. It reads indexes and no data.
    """
    from volback.operations import search

    with call_of(context).opened_repository() as (_, repository):
        found, unread = search.find(repository, pattern, backups or [], all_hosts=all_hosts)
    text = list(_version_lines(found, each=each, all_hosts=all_hosts))
    facts: documents.Versions = {"versions": [version_facts(version) for version in found]}
    return Outcome(
        facts,
        text or [f"nothing matches {pattern!r}"],
        *_problems(unread.errors),
    )


def _version_lines(found: list[Version], *, each: bool, all_hosts: bool) -> Iterator[str]:
    for (host, volume, path), versions in groupby(found, key=lambda one: (one.host, one.volume, one.state.member.path)):
        yield f"{f'{host}/' if all_hosts else ''}{volume}  {shown_name(path)}"
        for version in versions:
            member = version.state.member
            size = human_size(member.size_bytes) if member.type == "f" else "-"
            spans = version.backups if each else [_span(version.backups)]
            yield from (f"  {span:<46}  {size:>10}  {shown_time(member.mtime_ns)}" for span in spans)


def history(
    context: typer.Context,
    volume: Annotated[
        str,
        typer.Argument(metavar="VOLUME", help="The volume.", show_default=False, autocompletion=complete_backup),
    ],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="The file, as from the volume's root.", show_default=False)
    ],
) -> Outcome:
    """Show what a file was in each backup of a volume.

    What changed is named, the newest last. It reads indexes and no data.
    """
    from volback.operations import search
    from volback.operations.contents import member_path

    with call_of(context).opened_repository() as (_, repository):
        found, unread = search.history(repository, volume, member_path(path))
    rows = [(_span(epoch.backups), epoch_text(epoch, is_first=epoch is found[0])) for epoch in found]
    facts: documents.PathHistory = {"path": path, "states": [epoch_facts(epoch) for epoch in found]}
    return Outcome(
        facts,
        columns(["BACKUPS", "STATE"], rows, width=terminal_width()),
        *_problems(unread.errors),
    )


def _span(backups: list[str]) -> str:
    return backups[0] if len(backups) == 1 else f"{backups[0]} .. {backups[-1]}"


def du(context: typer.Context, backups: _Backups = None, *, all_hosts: _AllHosts = False) -> Outcome:
    """Show what backups take, and what removing one would free.

    FREES are the bytes that no other backup uses: removing several together can free more than the sum. It reads
    manifests and no data.
    """
    from volback.operations import usage as operation

    with call_of(context).opened_repository() as (_, repository):
        found = operation.usage(repository, backups or [], all_hosts=all_hosts)
    errors = {backup.name: backup.error for volume in found.volumes for backup in volume.backups if backup.error}
    return Outcome(usage_facts(found), _usage_lines(found, all_hosts=all_hosts), *_problems(errors))


def _usage_lines(found: Usage, *, all_hosts: bool) -> Iterator[str]:
    def shown(name: str) -> str:
        return name if all_hosts else name.partition("/")[2]

    rows = [
        (
            shown(backup.name),
            human_size(backup.stored_bytes),
            "unknown" if backup.frees_bytes is None else human_size(backup.frees_bytes),
            count(len(backup.needed_by), "backup") if backup.needed_by else "",
        )
        for volume in found.volumes
        for backup in volume.backups
    ]
    if rows:
        headings = ["BACKUP", "STORED", "FREES", "NEEDED BY"]
        yield from columns(headings, rows, right="STORED FREES", width=terminal_width())
    for volume in found.volumes:
        name = f"{volume.host}/{volume.volume}" if all_hosts else volume.volume
        later = f", {human_size(volume.condemned_bytes)} of it condemned" if volume.condemned_bytes else ""
        yield f"{name}: {count(volume.backups_there, 'backup')}, {human_size(volume.stored_bytes)}{later}"
    yield f"repository: {human_size(found.stored_bytes)}"


def _problems(errors: dict[str, VolbackError]) -> tuple[list[str], list[VolbackError]]:
    """Warnings and the error about backups that could not be read."""
    if not errors:
        return [], []
    return [unread_warning(name, error) for name, error in errors.items()], [unread_failure(list(errors.values()))]
