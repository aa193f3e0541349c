"""Run: jobs of `volback.toml` - back up, copy, prune, verify; and in every case record and report the result.

One job's failure does not stop the next, one volume's not the next, one repository's not the next. Nothing but a
signal is raised from a run: what failed is in its result, after it was recorded in the history and reported.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from volback.catalog.model import Source
from volback.config.model import Config, Job
from volback.context import Context, open_engine
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import (
    Interrupted,
    LockedError,
    NoRepository,
    NotFoundError,
    StoreError,
    StoreUnreachable,
    UsageError,
    VolbackError,
    as_failure,
    failures,
    worst_first,
)
from volback.interrupts import deferred_signals
from volback.jobs import steps
from volback.jobs.list import ListedJob, listed_job
from volback.jobs.locks import job_lock
from volback.jobs.log_tail import LogTail, log_tail
from volback.jobs.lookup import CONFIGURATION, find_job, unattributed
from volback.jobs.measured import measured
from volback.jobs.notify_targets import targets_of
from volback.jobs.open_config import open_configured
from volback.jobs.prune_job import with_backups
from volback.jobs.results import JobResult, JobStatus, facts_of, iso, noted, report_of, summary_line
from volback.jobs.select import SelectedSources, select_sources
from volback.jobs.totals import RunTotals
from volback.notify.announce import announce, announce_start
from volback.notify.report import Report, VolumeReport
from volback.notify.targets import Targets
from volback.operations.backup import dry_run
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.init import init
from volback.priority import io_class
from volback.state.history import JobRun, note_dead_runs, note_run, read_history

log = logging.getLogger("volback.run")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one call."""

    wait_s: float | None = None
    """For locks; None is each job's own setting."""
    dry_run: bool = False


def run_jobs(
    ctx: Context, config: Config, names: Sequence[str], options: RunOptions, *, every: bool = False
) -> Iterator[JobResult]:
    """Run the named jobs, or all, one after the other; yield each result when its job has ended.

    After a signal those that have not begun are recorded and reported as skipped.
    """
    wanted = [*config.jobs, *config.broken] if every else list(dict.fromkeys(names))
    if every and not wanted and not config.problems:
        raise UsageError("there is no job in the configuration", "see `volback config show`")
    if every and unattributed(config):
        wanted.append(CONFIGURATION)
    interrupted: Interrupted | None = None
    for name in wanted:
        result = run_job(ctx, config, name, options, not_begun=interrupted)
        interrupted = interrupted or result.interrupted
        yield result


def run_job(
    ctx: Context, config: Config, name: str, options: RunOptions, *, not_begun: Interrupted | None = None
) -> JobResult:
    """Run one job. The job's engine and repositories are opened for it, within its limits."""
    with log_tail() as tail, ExitStack() as stack:
        run = _Run(ctx, config, name, options, tail)
        try:
            with deferred_signals():
                run.find_targets()
            if not_begun is None:
                run.work(stack)
            else:
                run.interrupted(_not_begun(not_begun), is_begun=False)
        except Interrupted as exc:
            run.interrupted(exc)
        except VolbackError as exc:
            run.failed(exc)
        except Exception as exc:  # a fault of volback itself must be reported too
            log.debug("internal error", exc_info=True)
            run.failed(as_failure(exc))
        try:
            with deferred_signals():
                result = run.end()
        except Interrupted as exc:  # it came when all had been noted and reported
            result = replace(result, interrupted=exc)
        return result


def _not_begun(cause: Interrupted) -> Interrupted:
    """What ended a job whose turn did not come."""
    interrupted = Interrupted(cause.exit_code - 128)
    interrupted.message = f"not begun: {cause.message}"
    return interrupted


class _Run:
    """One run of one job."""

    def __init__(self, ctx: Context, config: Config, name: str, options: RunOptions, tail: LogTail) -> None:
        self._ctx = ctx
        self._config = config
        self._name = name
        self._options = options
        self._tail = tail
        self._id = str(uuid.uuid4())
        self._started = ctx.now()
        self._selection = SelectedSources()
        self._totals = RunTotals()
        self._repositories: dict[str, Repository] = {}
        self._is_skipped = False
        self._listed: ListedJob | None = None
        """The job as it was before this run."""
        self._targets = Targets()
        self._notify_warnings: list[str] = []
        """Why notifications failed: these warnings do not make the job fail."""

    def find_targets(self) -> None:
        """Find out whom to notify: before anything else, so that every failure is reported."""
        job, broken = self._config.jobs.get(self._name), self._config.broken.get(self._name)
        names = job.notify if job is not None else broken.notify if broken is not None else None
        self._targets, self._notify_warnings = targets_of(self._config, names)

    def work(self, stack: ExitStack) -> None:
        """Do all steps; an error of the job as a whole is raised. `stack` releases the locks after the end."""
        job = find_job(self._config, self._name)
        self._ctx = steps.job_context(self._ctx, job)
        if self._options.dry_run:
            self._plan(job)
            return
        state = self._ctx.settings.state
        stack.enter_context(job_lock(state, job.name))
        for dead in note_dead_runs(state, job.name):
            self._totals.warnings.append(
                f"the run of {dead.started_at} never ended: it was killed, or the machine went down"
            )
        self._listed = listed_job(job, read_history(state, job.name), self._started)
        note_run(state, job.name, JobRun(id=self._id, started_at=iso(self._started)))
        log.info("job %s begins", job.name)
        self._notify_warnings += announce_start(self._targets, run_id=self._id)
        with io_class(job.limits.io_class) as failure:
            if failure:
                self._totals.warnings.append(f"I/O class {job.limits.io_class} cannot be set: {failure}")
            self._back_up(job)
            self._copy(job)
            self._prune(job)
            self._verify(job)

    def failed(self, error: VolbackError) -> None:
        """Record the error that ended the work."""
        self._is_skipped = isinstance(error, LockedError) and not self._selection.sources
        self._totals.errors.append(error)

    def interrupted(self, interrupted: Interrupted, *, is_begun: bool = True) -> None:
        """Note the signal that ended the work, or that came before it."""
        self._is_skipped = not is_begun
        self._totals.interrupted = interrupted

    def end(self) -> JobResult:
        """Record the run and report it. Raises nothing: a failure here is a warning."""
        result = self._result()
        result.warnings.extend(self._notify_warnings)
        if self._options.dry_run:
            return result
        log.info("%s", summary_line(result), extra={"facts": facts_of(result)})
        for error in result.failures:
            log.info("error: %s", error.message)
        host = self._host()
        warnings = announce(self._targets, self._measured(report_of(result, host, self._tail.text)))
        try:
            note_run(self._ctx.settings.state, self._name, noted(result, host))
        except StoreError as exc:
            warnings.append(exc.message)
        return replace(result, warnings=result.warnings + warnings)

    # the steps

    def _plan(self, job: Job) -> None:
        self._select(job)
        for source in self._selection.sources:
            try:
                self._totals.planned.append(dry_run(self._ctx, self._engine, source, steps.backup_options(job)))
            except VolbackError as exc:
                self._totals.errors.append(exc)
        planned = [plan.source for plan in self._totals.planned]
        sources = steps.with_files(self._ctx, self._engine, job, planned)
        for name in job.repositories:
            with self._kept_going():
                self._plan_prune(job, self._repository(job, name), sources)

    def _plan_prune(self, job: Job, repository: Repository, sources: list[Source]) -> None:
        """What the job would remove after its backups; nothing where the repository is yet to be made."""
        try:
            there = with_backups(repository, sources)
        except NoRepository:
            if job.create and not repository.expected:
                return
            raise
        for done in steps.prune_sources(self._ctx, self._engine, repository, job, there, dry_run=True, upcoming=True):
            self._totals.add_planned_prune(done, repository.store.url)

    def _back_up(self, job: Job) -> None:
        repository = self._repository(job, job.repositories[0])
        self._select(job)
        if self._selection.sources:
            wait_s = job.wait_s if self._options.wait_s is None else self._options.wait_s
            done = steps.back_up(self._ctx, self._engine, repository, job, self._selection.sources, wait_s=wait_s)
            if done.files is not None:  # copied and pruned like the volumes
                self._selection.sources.append(done.files.manifest.source)
            self._totals.add_set(done)

    def _select(self, job: Job) -> None:
        self._selection = select_sources(self._ctx, self._engine, job)
        self._totals.errors += self._selection.errors
        self._totals.notices += self._selection.notices
        if not self._selection.sources and not self._selection.errors:
            raise NotFoundError(
                f"job {job.name!r} has nothing to back up",
                f"name volumes, or give them the label volback.job={job.name}",
            )

    def _copy(self, job: Job) -> None:
        """Copy to each further repository the new backups, and those that earlier runs could not copy."""
        for name in job.repositories[1:]:
            with self._kept_going():
                source, target = self._repository(job, job.repositories[0]), self._repository(job, name)
                if job.create:
                    init(self._ctx, target)
                prepare_target(self._ctx, source, target, reencrypt=job.reencrypt)
                wanted = [
                    reference
                    for item in self._selection.sources
                    for reference in steps.to_copy(self._ctx, source, target, item.name, self._made(item.name))
                ]
                for copy in plan_copies(source, target, wanted):
                    with self._kept_going():
                        if copy_backup(self._ctx, source, target, copy).done == "copied":
                            self._totals.copied.append(f"{copy.name} -> {target.store.url}")
                            facts = {"backup": copy.name, "target": target.store.url}
                            log.info("copied %s to %s", copy.name, target.store.url, extra={"facts": facts})

    def _made(self, volume: str) -> set[str]:
        """Ids of the volume's backups of this run."""
        return {done.manifest.id for done in self._totals.backups if done.manifest.volume == volume}

    def _prune(self, job: Job) -> None:
        """In each repository, for the volumes that have a new backup."""
        made = {done.manifest.volume for done in self._totals.backups}
        sources = [source for source in self._selection.sources if source.name in made]
        if not sources:
            return
        for name in job.repositories:
            with self._kept_going():
                repository = self._repository(job, name)
                for done in steps.prune_sources(self._ctx, self._engine, repository, job, sources):
                    self._totals.add_pruned(done, repository.store.url)

    def _verify(self, job: Job) -> None:
        for name in job.repositories if job.verify_parts else ():
            with self._kept_going():
                sources, of = self._selection.sources, job.verify_parts or 1
                self._totals.errors += steps.verify_sources(self._ctx, self._repository(job, name), job, sources, of)

    @contextmanager
    def _kept_going(self) -> Iterator[None]:
        try:
            yield
        except VolbackError as exc:
            self._totals.errors.append(exc)

    # what it needs

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._ctx)

    def _repository(self, job: Job, name: str) -> Repository:
        if name not in self._repositories:
            limit = job.limits.bandwidth_bytes_s
            configured = self._config.repositories[name]
            self._repositories[name] = open_configured(self._ctx, configured, self._engine, bandwidth_bytes_s=limit)
        return self._repositories[name]

    def _host(self) -> str:
        """The name that the run's report goes under: it must not wait for an engine that the run could not reach."""
        if self._ctx.settings.host:
            return self._ctx.settings.host
        if self._engine.is_connected:
            return self._engine.info.name
        try:
            known = [run.host for run in read_history(self._ctx.settings.state, self._name) if run.host]
        except StoreError:
            known = []
        return (known or [os.uname().nodename])[-1]

    # what came of it

    def _result(self) -> JobResult:
        totals, errors = self._totals, worst_first(self._totals.errors)
        incomplete = [warning for done in totals.backups if done.incomplete for warning in done.manifest.warnings]
        totals.notices += [
            warning for done in totals.backups if not done.incomplete for warning in done.manifest.warnings
        ]
        warnings = totals.warnings + incomplete
        return JobResult(
            job=self._name,
            run_id=self._id,
            status=self._status(errors, warnings),
            started_at=self._started,
            ended_at=self._ctx.now(),
            set_id=totals.set_id,
            backups=totals.backups,
            planned=totals.planned,
            to_remove=totals.to_remove,
            to_free_bytes=totals.to_free_bytes,
            volumes=tuple(self._volumes()),
            copied=totals.copied,
            removed=totals.removed,
            errors=errors,
            interrupted=totals.interrupted,
            warnings=warnings,
            notices=totals.notices,
        )

    def _status(self, errors: list[VolbackError], warnings: list[str]) -> JobStatus:
        if self._is_skipped:
            return "skipped"
        if errors or self._totals.interrupted is not None:
            return "failure"
        return "warning" if warnings else "success"

    def _volumes(self) -> Iterator[VolumeReport]:
        made = {done.manifest.volume: done for done in self._totals.backups}
        for name, error in self._selection.missing.items():
            yield VolumeReport(name, False, error.message)
        for source in self._selection.sources if not self._options.dry_run else ():
            if source.name in made:
                yield steps.volume_report(made[source.name], self._totals.downtime_s)
            else:
                yield VolumeReport(source.name, False, self._why_not(source.name))

    def _why_not(self, volume: str) -> str:
        """Its own error, else the worst of the whole run."""
        own = self._totals.failed.get(volume)
        errors = [own] if own is not None else failures(self._totals.interrupted, worst_first(self._totals.errors))
        return errors[0].message if errors else "not backed up"

    def _measured(self, report: Report) -> Report:
        """With what metrics show beside the run, if they are written: only then a repository is listed for it."""
        if self._targets.metrics is None:
            return report
        if self._listed is not None:
            report = replace(report, next_at=self._listed.next_at, missed_runs=len(self._listed.missed))
        # Not once more one that does not answer.
        lost = any(isinstance(error, StoreUnreachable) for error in self._totals.errors)
        if lost or not self._totals.backups:
            return report
        return measured(report, self._repositories, self._engine.info.id)
