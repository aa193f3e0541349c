"""Prune by a job's keep rules, without running it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from volback.catalog.model import Source
from volback.config.model import Config, Job
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import NotFoundError, UsageError, VolbackError
from volback.jobs import steps
from volback.jobs.lookup import find_job
from volback.jobs.open_config import open_configured
from volback.jobs.select import select_sources
from volback.operations.prune_result import PruneResult

Pruned = tuple[str, PruneResult]
"""The URL of a repository, and what was removed there."""


def prune_job(
    ctx: Context,
    engine: Engine,
    config: Config,
    name: str,
    *,
    repository: Repository | None = None,
    volumes: Sequence[str] = (),
    dry_run: bool = False,
) -> Iterator[Pruned]:
    """Prune as a run of the job would: its volumes, in each of its repositories, or in the given one alone.

    Of `volumes`, only these. What fails in one repository does not stop the next one. Raises NotFoundError, UsageError
    where neither the job nor a label says what to keep, EngineUnreachable.
    """
    job = find_job(config, name)
    ctx = steps.job_context(ctx, job)
    selected = select_sources(ctx, engine, job)
    sources = steps.with_files(ctx, engine, job, selected.sources)
    sources = [source for source in sources if not volumes or source.name in volumes]
    if lacking := set(volumes) - {source.name for source in sources}:
        raise NotFoundError(
            f"job {name!r} does not back up {', '.join(sorted(lacking))}", "see `volback run --dry-run`"
        )
    if not steps.has_rules(engine, job, sources):
        hint = f"write `keep` below [jobs.{name}], or name rules: volback prune --keep-daily 7"
        raise UsageError(f"neither job {name!r} nor a label says what to keep", hint)
    failed = [] if volumes else selected.errors
    for target in [repository] if repository is not None else _repositories(ctx, engine, config, job):
        try:
            there = with_backups(target, sources)
            done = list(steps.prune_sources(ctx, engine, target, job, there, dry_run=dry_run))
        except VolbackError as exc:
            done = [PruneResult((), (), (), (exc,), None)]
        merged = merge(done)
        yield target.store.url, replace(merged, errors=(*merged.errors, *failed))
        failed = []
        if merged.interrupted is not None:
            return


def with_backups(repository: Repository, sources: Iterable[Source]) -> list[Source]:
    """Those of which the repository has a backup. Raises NoRepository where it is not there."""
    there = {key.volume for key in repository.catalog.backups(repository.host)}
    return [source for source in sources if source.name in there]


def merge(results: Sequence[PruneResult]) -> PruneResult:
    """Several results, of different volumes or repositories, as one."""
    return PruneResult(
        judged=tuple(one for done in results for one in done.judged),
        freed=tuple(one for done in results for one in done.freed),
        half_made=tuple(one for done in results for one in done.half_made),
        errors=tuple(one for done in results for one in done.errors),
        interrupted=next((done.interrupted for done in results if done.interrupted is not None), None),
        condemned=tuple(one for done in results for one in done.condemned),
        locked={name: exc for done in results for name, exc in done.locked.items()},
        notices=tuple(one for done in results for one in done.notices),
        repacked=tuple(one for done in results for one in done.repacked),
    )


def _repositories(ctx: Context, engine: Engine, config: Config, job: Job) -> Iterator[Repository]:
    for name in job.repositories:
        limit = job.limits.bandwidth_bytes_s
        yield open_configured(ctx, config.repositories[name], engine, bandwidth_bytes_s=limit)
