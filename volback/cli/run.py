"""`run` and `jobs`: run jobs, as cron does, and show their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_job
from volback.cli.facts import job_facts, made_facts
from volback.cli.listings import due_words
from volback.cli.words import count, first_of, human_age, human_size, read_option
from volback.errors import NotFoundError, UsageError, worst_first
from volback.measures import named
from volback.policy.durations import read_seconds

if TYPE_CHECKING:
    from volback.cli.documents import keeping
    from volback.jobs.list import ListedJob
    from volback.jobs.results import JobResult

_RUN_EPILOG = """\b
Examples:
  volback run nightly                    one line if all went well
  volback run nightly --dry-run          what it would read and remove
  volback run --all --wait 30m           waits for volumes in use
  volback run --all --log-format json    each log record is a line of JSON
"""
_JOBS_EPILOG = """\b
Examples:
  volback jobs           every job of volback.toml
  volback jobs --json    the same for a script
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_RUN_EPILOG)(run)
    app.command(epilog=_JOBS_EPILOG)(jobs)


def run(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB...", help="Jobs of volback.toml.", show_default=False, autocompletion=complete_job),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every job of the configuration.")] = False,
    wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to wait for volumes that another run uses: 90s, 30m.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be read and removed.")] = False,
) -> Outcome | None:
    """Run jobs of volback.toml: back up, copy, prune, notify.

    Prints one line per job if all went well, and one for each backup that its keep rules removed. A volume that fails
    does not stop the next one, a job not the next job; the exit code is that of the worst failure. A job that runs
    already is skipped: exit code 6.
    """
    from volback.jobs.open_config import open_config
    from volback.jobs.results import summary_line
    from volback.jobs.run import RunOptions, run_jobs

    call = call_of(context)
    if bool(names) == every:
        raise UsageError(
            "name jobs, or give --all" if not every else "--all runs all jobs: do not name jobs with it",
            "see `volback jobs`",
        )
    options = RunOptions(None if wait is None else read_option("--wait", wait, read_seconds), dry_run)
    config = open_config(call.config)
    with call.context() as ctx:
        results = list(run_jobs(ctx, config, names or [], options, every=every))
    unknown = set(names or []).difference(config.jobs, config.broken)
    known = [result for result in results if result.job not in unknown]
    text = [line for result in known for line in _lines(result, summary_line(result), dry_run=dry_run)]
    facts: keeping.JobsDone = {"jobs": [_facts(result) for result in results]}
    return Outcome(
        facts,
        () if call.log_json else text,
        [warning for result in results for warning in [*result.warnings, *result.notices]],
        worst_first([error for result in results for error in result.failures]),
        incomplete=any(result.status == "warning" for result in results),
    )


def _lines(result: JobResult, summary: str, *, dry_run: bool) -> Iterator[str]:
    if not dry_run:
        yield summary
        yield from first_of(result.removed, f"{result.job}: removed ")
    for plan in result.planned:
        yield (
            f"{result.job}: {plan.source.name}  would read {count(plan.files, 'file')}, {human_size(plan.raw_bytes)}"
        )
    yield from first_of(result.to_remove, f"{result.job}: would then remove ")
    if result.to_remove:
        number, size = count(len(result.to_remove), "backup"), human_size(result.to_free_bytes)
        yield f"{result.job}: {number} to remove, {size} to free"


def _facts(result: JobResult) -> keeping.JobDone:
    return {
        "job": result.job,
        "status": result.status,
        "exit_code": result.exit_code,
        "started_at": result.started_at.isoformat(timespec="seconds"),
        "ended_at": result.ended_at.isoformat(timespec="seconds"),
        "duration_s": result.duration_s,
        "set": result.set_id,
        "backups": [made_facts(made) for made in result.backups],
        "planned": [
            {"volume": plan.source.name, "files": plan.files, "raw_bytes": plan.raw_bytes} for plan in result.planned
        ],
        "to_remove": result.to_remove,
        "to_free_bytes": result.to_free_bytes,
        "failed": [{"volume": volume.name, "error": volume.error} for volume in result.volumes if not volume.ok],
        "copied": result.copied,
        "removed": result.removed,
        "errors": [
            {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
            for error in result.failures
        ],
        "warnings": result.warnings,
        "notices": result.notices,
    }


def jobs(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB...",
            help="Jobs of volback.toml; without any, all.",
            show_default=False,
            autocompletion=complete_job,
        ),
    ] = None,
) -> Outcome:
    """List jobs: last runs and results, next runs, missed runs."""
    from volback.cli.render import terminal_width
    from volback.cli.words import columns
    from volback.jobs.list import list_jobs
    from volback.jobs.open_config import open_config
    from volback.schedule.schedules import runners

    call = call_of(context)
    config = open_config(call.config)
    with call.context() as ctx:
        now = ctx.now()
        listed, run_by = list_jobs(config, ctx.settings.state, now=now), runners(config, ctx.settings.state, now=now)
    if unknown := set(names or []).difference(job.name for job in listed):
        known = ", ".join(job.name for job in listed) or "none"
        raise NotFoundError(f"there is no job {min(unknown)!r} in the configuration", f"there are: {known}")
    listed = [job for job in listed if not names or job.name in names]
    rows = [_job_row(job, run_by, now) for job in listed]
    headings = ("JOB", "LAST RUN", "OUTCOME", "VOLUMES", "STORED", "NEXT RUN", "MISSED")
    text = list(columns(headings, rows, right="VOLUMES STORED MISSED", width=terminal_width()))
    text += [f"{job.name}: {error}" for job in listed if (error := job.problem or (job.last and job.last.error))]
    idle = [job.name for job in listed if job.next_at is not None and job.name not in run_by]
    if idle:
        text.append(f"nothing runs at its time: {named(idle)}; install that: volback schedule install")
    result: keeping.JobList = {"jobs": [_job_facts(job, run_by) for job in listed]}
    return Outcome(result, text)


def _job_row(job: ListedJob, run_by: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    last = job.last
    outcome = "cannot run" if job.problem else "never ran" if last is None else last.status
    return (
        job.name,
        "-" if last is None else human_age((now - datetime.fromisoformat(last.started_at)).total_seconds()),
        outcome,
        "-" if last is None else f"{last.volumes:,}",
        "-" if last is None else human_size(last.stored_bytes),
        *due_words(job, run_by),
    )


def _job_facts(job: ListedJob, run_by: Mapping[str, str]) -> keeping.JobWithRuns:
    return {
        **job_facts(job, run_by),
        "runs": [
            {
                "id": run.id,
                "started_at": run.started_at,
                "ended_at": run.ended_at,
                "status": run.status,
                "exit_code": run.exit_code,
                "error": run.error,
                "volumes": run.volumes,
                "raw_bytes": run.raw_bytes,
                "stored_bytes": run.stored_bytes,
            }
            for run in job.runs
        ],
    }
