"""`status`: one screen that shows how everything stands, with problems first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Call, Outcome, call_of
from volback.cli.facts import job_facts
from volback.cli.listings import due_words
from volback.cli.render import terminal_width
from volback.cli.words import columns, count, human_age, human_size, printable, read_option
from volback.measures import named
from volback.policy.durations import read_age

if TYPE_CHECKING:
    from volback.cli.documents import keeping
    from volback.config.model import Config
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.engine.engine import Engine
    from volback.jobs.list import ListedJob
    from volback.jobs.status import Problem, Status, VolumeStatus
    from volback.operations.standing import Standing

_EPILOG = """\b
Examples:
  volback status                   exit code 3 if something is wrong or late
  volback status --max-age 26h     also late: whose last backup is older
  volback status --quiet           for monitoring: nothing if all is well
"""
_WIDTH = 80
_SINGLE = 3
"""So many late volumes of one job are named one by one."""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(status)


def status(
    context: typer.Context,
    *,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", metavar="AGE", help="A volume without a backup of that age is late: 26h, 2d."),
    ] = None,
) -> Outcome:
    """Show how jobs, volumes and repositories stand, problems first.

    A volume is late if its job was due since its last good backup, by more than an hour. An engine or a repository that
    does not answer is a problem, and the others are shown. It changes nothing. Exit code 3: there are problems.
    """
    from volback.context import open_engine
    from volback.jobs import status as operation
    from volback.jobs.open_config import read_config
    from volback.schedule.schedules import runners

    max_age_s = None if max_age is None else read_option("--max-age", max_age, read_age)
    call = call_of(context)
    config = read_config(call.config)
    with call.context() as ctx:
        engine, now = open_engine(ctx), ctx.now()
        run_by = runners(config, ctx.settings.state, now=now)
        repositories = _repositories(call, ctx, engine, config)
        found = operation.status(ctx, engine, config, repositories, run_by=run_by, max_age_s=max_age_s)
    problems = [_line(problem) for problem in found.problems]
    return Outcome(
        _facts(found, run_by), _lines(found, run_by, now), problems, incomplete=bool(problems), warned_in_text=True
    )


def _repositories(call: Call, ctx: Context, engine: Engine, config: Config) -> dict[str, Repository]:
    """By name: the one that the command line names, or those of jobs; where there is no job, all of them."""
    from volback.jobs.open_config import open_configured

    names = dict.fromkeys(name for job in config.jobs.values() for name in job.repositories)
    if not names and call.named is None:
        names = dict.fromkeys(config.repositories)
    if call.repository is not None or not names:
        repository = call.repository_of(ctx, engine)
        return {call.repository or call.chosen.partition(" of ")[0] or repository.store.url: repository}
    return {name: open_configured(ctx, config.repositories[name], engine) for name in names}


def _line(problem: Problem) -> str:
    return "; ".join(filter(None, [problem.message, problem.hint]))


def _lines(found: Status, run_by: Mapping[str, str], now: datetime) -> Iterator[str]:
    width = terminal_width()
    for problem in _gathered(found.problems):
        yield from textwrap.wrap(
            printable(f"PROBLEM  {problem.message}"), _WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False,
            break_long_words=False,
        )  # fmt: skip
        if problem.hint:
            yield f"         hint: {problem.hint}"
    if not found.problems:
        yield f"no problem: {count(len(found.volumes), 'volume')}, {count(len(found.jobs), 'job')}"
    for held in found.held:
        if not held.is_left:
            yield f"{held.what}: a {held.kind} that runs now starts it again"
    if found.volumes:
        yield ""
        headings = ["VOLUME", "JOB", "LAST BACKUP", "SIZE", "VERIFIED", "PROVEN"]
        rows = [_volume_row(volume, now) for volume in found.volumes]
        yield from columns(headings, rows, right="SIZE", width=width)
    if found.jobs:
        yield ""
        headings = ["JOB", "LAST RUN", "OUTCOME", "NEXT RUN", "MISSED"]
        yield from columns(headings, [_job_row(job, run_by, now) for job in found.jobs], right="MISSED", width=width)
    yield ""
    headings = ["REPOSITORY", "BACKUPS", "SIZE", "FREE", "URL"]
    rows = [_repository_row(one) for one in found.repositories]
    yield from columns(headings, rows, right="BACKUPS SIZE FREE", width=width)
    if found.unprotected:
        yield ""
        yield f"without a job and a backup: {named(found.unprotected)}"


def _gathered(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The problems; many late volumes that one command helps are one of them: this is one screen."""
    late: dict[str | None, list[Problem]] = {}
    for problem in problems:
        if problem.kind == "volume":
            late.setdefault(problem.hint, []).append(problem)
    for problem in problems:
        same = late.get(problem.hint, []) if problem.kind == "volume" else []
        if len(same) <= _SINGLE:
            yield problem
        elif problem is same[0]:
            names = named([one.subject for one in same])
            yield replace(problem, message=f"{count(len(same), 'volume')} are late, or have no good backup: {names}")


def _volume_row(volume: VolumeStatus, now: datetime) -> list[str]:
    age = "none" if volume.age_s is None else human_age(volume.age_s)
    return [
        volume.volume,
        volume.job or "-",
        f"{age}, late" if volume.is_late else age,
        "-" if volume.raw_bytes is None else human_size(volume.raw_bytes),
        _ago(volume.verified_at, now),
        _ago(volume.proven_at, now),
    ]


def _job_row(job: ListedJob, run_by: Mapping[str, str], now: datetime) -> list[str]:
    last = job.last
    return [
        job.name,
        _ago(None if last is None else last.started_at, now),
        "cannot run" if job.problem else "-" if last is None else last.status,
        *due_words(job, run_by),
    ]


def _repository_row(one: Standing) -> list[str]:
    if one.error is not None:
        return [one.name or "-", "?", "?", "?", one.url]
    free = "-" if one.free_bytes is None else human_size(one.free_bytes)
    return [one.name or "-", f"{one.backups:,}", human_size(one.size_bytes or 0), free, one.url]


def _ago(time: str | None, now: datetime) -> str:
    return "never" if time is None else human_age((now - datetime.fromisoformat(time)).total_seconds())


def _facts(found: Status, run_by: Mapping[str, str]) -> keeping.Standing:
    return {
        "problems": [
            {"kind": one.kind, "subject": one.subject, "message": one.message, "hint": one.hint}
            for one in found.problems
        ],
        "jobs": [_job_facts(job, run_by) for job in found.jobs],
        "volumes": [
            {
                "volume": one.volume,
                "job": one.job,
                "repository": one.repository,
                "last_backup": None if one.last is None else {"id": one.last.id, "age_s": one.age_s},
                "raw_bytes": one.raw_bytes,
                "late": one.is_late,
                "missed": one.missed,
                "verified_at": one.verified_at,
                "proven_at": one.proven_at,
            }
            for one in found.volumes
        ],
        "repositories": [
            {
                "name": one.name,
                "url": one.url,
                "backups": one.backups,
                "size_bytes": one.size_bytes,
                "free_bytes": one.free_bytes,
                "error": None if one.error is None else one.error.message,
            }
            for one in found.repositories
        ],
        "held": [{"name": one.name, "run": one.kind, "left": one.is_left} for one in found.held],
        "unprotected": found.unprotected,
    }


def _job_facts(job: ListedJob, run_by: Mapping[str, str]) -> keeping.JobStanding:
    last = job.last
    return {
        **job_facts(job, run_by),
        "last_at": None if last is None else last.started_at,
        "last_status": None if last is None else last.status,
    }
