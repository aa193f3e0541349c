"""`repack`: gives back the space that removed backups still take; and the options for it, which `prune` has too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_backup
from volback.cli.facts import requests_facts
from volback.cli.words import count, human_size, printable, read_option, requests_line
from volback.errors import failures
from volback.policy.durations import read_grace
from volback.policy.packing import read_share, read_size

if TYPE_CHECKING:
    from volback.cli.documents import keeping
    from volback.cli.documents.common import Requests
    from volback.operations.repack import Repacked, RepackResult
    from volback.operations.repack_plan import Packing

_EPILOG = """\b
What removed backups have stored stays as long as others use any of it. Where
they use less than half, that part is copied into a new object, and the old
one is removed. What is scattered over many objects becomes one, so that it is
restored faster. Prune does this too, after it has removed backups.

\b
Examples:
  volback repack --dry-run
  volback repack db --below 80% --max-repack 20GiB
"""

MaxRepack = Annotated[
    str | None,
    typer.Option("--max-repack", metavar="SIZE", help="Copy no more than that: 500MiB, 20GiB. [default: no limit]"),
]
Below = Annotated[str, typer.Option("--below", metavar="SHARE", help="Repack objects of which less is used.")]
Grace = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How long unneeded data stays in a bucket or on a file server, for other machines that use it now.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(repack)


def repack(
    context: typer.Context,
    volumes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VOLUME...",
            help="Volumes to repack; without any, all of this host.",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ] = None,
    *,
    below: Below = "50%",
    max_repack: MaxRepack = None,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Also repack backups of other hosts.")] = False,
    grace: Grace = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be repacked.")] = False,
) -> Outcome:
    """Free space of removed backups that others use in part.

    Backups stay what they are. Exit code 3: something could not be freed.
    """
    from volback.operations import repack as operation

    packing = packing_of("--below", below, max_repack)
    grace_s = read_option("--grace", grace, read_grace)
    with call_of(context).opened() as (ctx, engine, repository):
        result = operation.repack(
            ctx, engine, repository, packing,
            volumes=volumes or [], all_hosts=all_hosts, dry_run=dry_run, grace_s=grace_s,
        )  # fmt: skip
        requests = requests_facts(repository)
    return _outcome(result, requests, dry_run=dry_run)


def packing_of(option: str, below: str, max_repack: str | None) -> Packing:
    """What the options say is repacked; `option` is the name of that for the share. Raises UsageError."""
    from volback.operations.repack_plan import Packing

    max_bytes = None if max_repack is None else read_option("--max-repack", max_repack, read_size)
    return Packing(read_option(option, below, read_share), max_bytes)


def _outcome(result: RepackResult, requests: Requests | None, *, dry_run: bool) -> Outcome:
    errors = failures(result.interrupted, result.errors)
    if len(errors) == 1 and not result.volumes:
        raise errors[0]
    warnings = repack_warnings(result.volumes)
    facts: keeping.Repacked = {"repacked": repack_facts(result.volumes), "dry_run": dry_run, "requests": requests}
    lines = list(repack_lines(result.volumes, dry_run=dry_run)) or ["nothing to repack"]
    return Outcome(facts, [*lines, *requests_line(requests)], warnings, errors, incomplete=bool(warnings))


def repack_facts(volumes: Iterable[Repacked]) -> list[keeping.RepackedVolume]:
    """One entry for each volume of which something was repacked, or could not be freed."""
    return [
        {
            "host": one.host, "volume": one.volume, "objects": one.objects, "written_bytes": one.written_bytes,
            "freed_bytes": one.freed_bytes, "condemned_bytes": one.waiting_bytes, "unused_bytes": one.unused_bytes,
            "why": one.why,
        }
        for one in volumes
    ]  # fmt: skip


def repack_lines(volumes: Iterable[Repacked], *, dry_run: bool) -> Iterator[str]:
    """One line for each volume of which something was repacked."""
    from volback.catalog.reference import Reference

    to, freed = ("to repack", "to free") if dry_run else ("repacked", "freed")
    for one in volumes:
        waiting = f", {human_size(one.waiting_bytes)} condemned" if one.waiting_bytes else ""
        if one.objects or one.freed_bytes or one.waiting_bytes:
            sizes = f"{human_size(one.written_bytes)} written, {human_size(one.freed_bytes)} {freed}{waiting}"
            yield printable(f"{Reference(one.host, one.volume)}: {count(one.objects, 'object')} {to}, {sizes}")


def repack_warnings(volumes: Iterable[Repacked]) -> list[str]:
    """What could not be freed, and why."""
    from volback.catalog.reference import Reference

    return [
        f"{human_size(one.unused_bytes)} of {Reference(one.host, one.volume)} that nobody uses was not freed: {one.why}"
        for one in volumes
        if one.why is not None
    ]
