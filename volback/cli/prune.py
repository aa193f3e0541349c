"""`prune`: which backups are kept by which rule, and which are removed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Call, Outcome, call_of
from volback.cli.complete import complete_backup, complete_job, complete_tag
from volback.cli.facts import requests_facts, utc_fact
from volback.cli.repack import Grace, MaxRepack, packing_of, repack_facts, repack_lines, repack_warnings
from volback.cli.words import condemned_words, count, human_size, printable, read_option, requests_line
from volback.errors import UsageError, failures
from volback.policy.durations import read_age, read_calendar, read_grace
from volback.policy.keep import KeepRules, read_count

if TYPE_CHECKING:
    from datetime import tzinfo

    from volback.cli.documents import keeping
    from volback.operations.prune_result import CondemnedOf, HalfMade, Judged, PruneResult

_EPILOG = """\b
Rules are ORed: a backup stays if any of them keeps it. N is a number, or
unlimited. A calendar rule keeps the newest backup of each of the last N
hours, days, weeks (from Monday), months or years that have one; the oldest
too, while there are fewer. The newest good backup of a volume always stays.

\b
Examples:
  volback prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
  volback prune db --keep-within 30d --keep-tag release
  volback prune --keep-daily 7 --anonymous-after 90d
  volback prune --job nightly --dry-run    by the keep rules of a job

\b
An anonymous volume has a name of 64 digits that the engine made. Where its
host was backed up for --anonymous-after and it was not, all its backups go,
but for those that are held, or have a tag of --keep-tag.
"""
NoRepack = Annotated[
    bool, typer.Option("--no-repack", help="Free no space of which other backups use a part; see volback repack.")
]
RepackBelow = Annotated[
    str, typer.Option("--repack-below", metavar="SHARE", help="Repack objects of which less than that is used.")
]

_WIDTH = 80
_REASONS_AT = 43


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(prune)


def prune(
    context: typer.Context,
    volumes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VOLUME...",
            help="Volumes to prune; without any, all of this host.",
            show_default=False,
            autocompletion=complete_backup,
        ),
    ] = None,
    *,
    keep_last: Annotated[str, typer.Option(metavar="N", help="Keep the N newest.")] = "0",
    keep_hourly: Annotated[str, typer.Option(metavar="N", help="Keep one for each of the last N hours.")] = "0",
    keep_daily: Annotated[str, typer.Option(metavar="N", help="Keep one for each of the last N days.")] = "0",
    keep_weekly: Annotated[str, typer.Option(metavar="N", help="Keep one for each of the last N weeks.")] = "0",
    keep_monthly: Annotated[str, typer.Option(metavar="N", help="Keep one for each of the last N months.")] = "0",
    keep_yearly: Annotated[str, typer.Option(metavar="N", help="Keep one for each of the last N years.")] = "0",
    keep_within: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Keep those of that time before the newest: 30d, 1y6m, 12h.")
    ] = None,
    keep_tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            help="Keep those with this tag; may be repeated. A,B: both tags.",
            autocompletion=complete_tag,
        ),
    ] = None,
    anonymous_after: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Forget anonymous volumes that were not backed up for that long: 90d."),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Time zone of the calendar, like Europe/Berlin. [default: the machine's]"),
    ] = None,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", help="Also prune backups of other hosts.")] = False,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Consider an unfinished backup of that age dead: 90m, 24h, 2d.")
    ] = "24h",
    grace: Grace = "24h",
    no_repack: NoRepack = False,
    max_repack: MaxRepack = None,
    repack_below: RepackBelow = "50%",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be removed.")] = False,
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="NAME",
            help="By the keep rules of this job, in its repositories.",
            autocompletion=complete_job,
        ),
    ] = None,
) -> Outcome:
    """Remove the backups that no rule keeps, and old unfinished ones.

    Each volume is pruned separately. One that fails does not stop the next one. Exit code 3: damaged backups were
    found, which stay.
    """
    from volback.operations import prune as operation

    if job is not None:
        _refuse_beside_job(context)
        return _prune_job(call_of(context), job, volumes or [], dry_run=dry_run)
    rules = _rules(
        {
            "last": keep_last, "hourly": keep_hourly, "daily": keep_daily, "weekly": keep_weekly,
            "monthly": keep_monthly, "yearly": keep_yearly,
        },
        keep_within,
        keep_tag or [],
    )  # fmt: skip
    anonymous_s = None if anonymous_after is None else read_option("--anonymous-after", anonymous_after, read_age)
    older_than_s = read_option("--older-than", older_than, read_age)
    grace_s = read_option("--grace", grace, read_grace)
    packing = packing_of("--repack-below", repack_below, max_repack)
    call = call_of(context)
    text: list[str] = []
    with call.opened() as (ctx, engine, repository):
        result = operation.prune(
            ctx,
            engine,
            repository,
            rules,
            volumes=volumes or [],
            all_hosts=all_hosts,
            dry_run=dry_run,
            older_than_s=older_than_s,
            zone=_zone(timezone),
            grace_s=grace_s,
            packing=None if no_repack else packing,
            anonymous_after_s=anonymous_s,
        )
        requests = requests_facts(repository)
        if call.chosen:
            text.append(f"repository {call.chosen}: {repository.store.url}")
    text += [*_lines(result, dry_run=dry_run), *requests_line(requests)]
    return _outcome(result, text, {"requests": requests, "job": None, "repositories": []}, dry_run=dry_run)


def _refuse_beside_job(context: typer.Context) -> None:
    """Raises UsageError for an option of which the job says what it is."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in ("job", "volumes", "dry_run") and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name.replace('_', '-')} and --job exclude each other", "the job says how it prunes")


def _prune_job(call: Call, job: str, volumes: list[str], *, dry_run: bool) -> Outcome:
    from volback.context import open_engine
    from volback.jobs.open_config import open_config
    from volback.jobs.prune_job import merge, prune_job

    config = open_config(call.config)
    with call.context(aloud=True) as ctx:
        engine = open_engine(ctx)
        repository = None if call.repository is None else call.repository_of(ctx, engine)
        pruned = list(prune_job(ctx, engine, config, job, repository=repository, volumes=volumes, dry_run=dry_run))
    text = [line for url, done in pruned for line in (f"repository {url}", *_lines(done, dry_run=dry_run))]
    each: list[keeping.PrunedForJob] = [{"repository": url, **_facts(done, dry_run=dry_run)} for url, done in pruned]
    more: keeping.PruneFrame = {"requests": None, "job": job, "repositories": each}
    return _outcome(merge([done for _, done in pruned]), text, more, dry_run=dry_run)


def _outcome(result: PruneResult, text: list[str], more: keeping.PruneFrame, *, dry_run: bool) -> Outcome:
    errors = failures(result.interrupted, result.errors)
    if len(errors) == 1 and not (result.judged or result.half_made):
        raise errors[0]
    not_freed = repack_warnings(result.repacked)
    facts: keeping.Pruned = {**_facts(result, dry_run=dry_run), **more}
    return Outcome(
        facts,
        text,
        [*result.warnings, *result.notices, *not_freed],
        errors,
        incomplete=bool(result.warnings),
    )


def _rules(counts: dict[str, str], within: str | None, tags: list[str]) -> KeepRules:
    return KeepRules(
        **{name: read_option(f"--keep-{name}", text, read_count) for name, text in counts.items()},
        within=None if within is None else read_option("--keep-within", within, read_calendar),
        tags=tuple(tags),
    )


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise UsageError(f"--timezone {name!r} is not a time zone", "write it like Europe/Berlin or UTC") from exc


def _facts(result: PruneResult, *, dry_run: bool) -> keeping.PrunedRepository:
    return {
        "kept": [_judged_facts(judged) for judged in result.judged if judged.is_kept],
        "removed": [_judged_facts(judged) for judged in result.judged if not judged.is_kept],
        "half_made": [_half_made_facts(found) for found in result.half_made],
        "freed_bytes": result.freed_bytes,
        "still_used_bytes": result.still_used_bytes,
        "left": {
            "backups": result.left_backups,
            "objects": result.left_objects,
            "bytes": result.left_bytes,
        },
        "condemned_bytes": result.condemned_bytes,
        "locked": [{"key": name, "until": utc_fact(exc.until)} for name, exc in sorted(result.locked.items())],
        "condemned": [_condemned_facts(found) for found in result.condemned],
        "repacked": repack_facts(result.repacked),
        "groups": [_group_facts(host, volume, judged, result) for host, volume, judged in _groups(result)],
        "dry_run": dry_run,
    }


def _judged_facts(judged: Judged) -> keeping.Judged:
    return {
        "id": judged.key.id,
        "host": judged.key.host,
        "volume": judged.key.volume,
        "created_at": utc_fact(judged.created_at),
        "tags": judged.tags,
        "bytes": judged.stored_bytes,
        "reasons": judged.reasons,
        "damaged": judged.damage is not None,
    }


def _condemned_facts(found: CondemnedOf) -> keeping.Condemned:
    return {
        "host": found.host,
        "volume": found.volume,
        "objects": found.objects,
        "bytes": found.stored_bytes,
        "until": utc_fact(found.until),
    }


def _half_made_facts(found: HalfMade) -> keeping.HalfMade:
    return {
        "id": found.key.id,
        "host": found.key.host,
        "volume": found.key.volume,
        "bytes": found.stored_bytes,
        "uploads": found.uploads,
        "condemned": found.is_condemned,
    }


def _group_facts(host: str, volume: str, judged: list[Judged], result: PruneResult) -> keeping.Group:
    kept = sum(one.is_kept for one in judged)
    freed = sum(one.freed_bytes for one in result.freed if (one.host, one.volume) == (host, volume))
    return {"host": host, "volume": volume, "kept": kept, "removed": len(judged) - kept, "freed_bytes": freed}


def _groups(result: PruneResult) -> Iterator[tuple[str, str, list[Judged]]]:
    for (host, volume), judged in groupby(result.judged, key=lambda one: (one.key.host, one.key.volume)):
        yield host, volume, list(judged)


def _lines(result: PruneResult, *, dry_run: bool) -> Iterator[str]:
    """One line per volume, then one per backup; further reasons follow on lines below."""
    from volback.catalog.reference import Reference

    for host, volume, judged in _groups(result):
        kept = sum(one.is_kept for one in judged)
        yield (f"{Reference(host, volume)}: {kept} of {count(len(judged), 'backup')} kept")
        for one in judged:
            word = "keep" if one.is_kept else "remove"
            line = f"  {one.key.id}  {word:<6}  {human_size(one.stored_bytes):>10}  {', '.join(one.reasons)}"
            yield from textwrap.wrap(
                printable(line), _WIDTH, subsequent_indent=" " * _REASONS_AT, drop_whitespace=True,
                break_on_hyphens=False,
            )  # fmt: skip
    for found in result.half_made:
        name = Reference(found.key.host, found.key.volume, found.key.id)
        word = "condemn" if found.is_condemned else "remove"
        yield f"half-made: {name}  {word}  {human_size(found.stored_bytes)}"
    removed = sum(not one.is_kept for one in result.judged)
    to, freed = ("to remove", "to free") if dry_run else ("removed", "freed")
    half_made = f", {len(result.half_made)} half-made" if result.half_made else ""
    used = f"; {human_size(result.still_used_bytes)} of them stays, as others use it" if result.still_used_bytes else ""
    yield f"{count(removed, 'backup')} {to}{half_made}, {human_size(result.freed_bytes)} {freed}{used}"
    yield from repack_lines(result.repacked, dry_run=dry_run)
    if result.condemned:
        yield condemned_words(result.condemned_bytes, max(found.until for found in result.condemned))
    if result.left_backups or result.left_objects:
        objects = f"{count(result.left_objects, 'object')} ({human_size(result.left_bytes)}) to free"
        yield f"the next prune goes on: {count(result.left_backups, 'backup')} to remove, {objects}"
