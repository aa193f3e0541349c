"""Status: how everything stands - jobs, volumes, repositories, held containers - with what is wrong first.

An engine or a repository that does not answer is a problem beside others, and not the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volback.catalog.keys import BackupKey
from volback.config.model import Config, Job
from volback.config.times import missed_runs, zone_of
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import StoreUnreachable, VolbackError
from volback.jobs.list import GRACE_S, ListedJob, list_jobs
from volback.jobs.select import select_sources
from volback.latest import created_at
from volback.measures import count, human_duration, human_size
from volback.operations.sources import resolve_sources
from volback.operations.standing import Standing, VolumeStanding, standing
from volback.policy.anonymous import is_anonymous
from volback.state.journal import HeldContainer, HeldService
from volback.state.runs import live_runs, recorded_journals

log = logging.getLogger(__name__)

ANSWER_S = 20.0
"""How long to wait for a repository's answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or late."""

    kind: str
    """engine, repository, space, config, job, volume, backup, held."""
    subject: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """One volume, of one job; or one with backups, of none."""

    volume: str
    job: str | None
    repository: str
    """The URL of the one that its backups are looked for in."""
    last: BackupKey | None
    age_s: float | None
    raw_bytes: int | None
    is_late: bool
    missed: int
    """How often it was due since."""
    verified_at: str | None
    proven_at: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """A container or a service that a run holds."""

    name: str
    what: str
    kind: str
    """Of the run."""
    is_left: bool
    """Whether the run has died, so that `recover` has to start it."""


@dataclass(frozen=True, slots=True)
class Status:
    """All of it."""

    problems: list[Problem] = field(default_factory=list)
    jobs: list[ListedJob] = field(default_factory=list)
    volumes: list[VolumeStatus] = field(default_factory=list)
    repositories: list[Standing] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    unprotected: list[str] = field(default_factory=list)
    """Volumes of the engine that no job backs up, and that have no backup."""


def status(
    ctx: Context,
    engine: Engine,
    config: Config,
    repositories: Mapping[str, Repository],
    *,
    run_by: Mapping[str, str] | None = None,
    max_age_s: float | None = None,
) -> Status:
    """How everything stands. `repositories` are looked at by their names; a job's volumes in the first of its own, or
    else in the first of them. `run_by` says who runs each job at its times, if that is known.

    Raises StoreError for a state directory that cannot be read.
    """
    looking = _Looking(ctx, engine, config, max_age_s)
    return looking.status(repositories, run_by)


class _Looking:
    def __init__(self, ctx: Context, engine: Engine, config: Config, max_age_s: float | None) -> None:
        self._ctx = ctx
        self._engine = engine
        self._config = config
        self._max_age_s = max_age_s
        self._now = ctx.now()
        self._problems: list[Problem] = []
        self._has_engine = False

    def status(self, repositories: Mapping[str, Repository], run_by: Mapping[str, str] | None) -> Status:
        host, engine_id = self._who()
        selected, all_volumes = self._selected()
        standings = self._standings(repositories, host, engine_id)
        jobs = list_jobs(self._config, self._ctx.settings.state, now=self._now)
        held = list(_held(self._ctx.settings.state))
        volumes = list(self._volumes(standings, selected, {job.name: job for job in jobs}))
        self._tell_of(held)
        self._tell_of_configuration()
        for name, found in standings.items():
            self._tell_of_repository(name, found)
        for job in jobs:
            self._tell_of_job(job, run_by)
        for volume in volumes:
            self._tell_of_volume(volume)
        seen = {volume.volume for volume in volumes}
        return Status(
            _by_weight(self._problems), jobs,
            sorted(volumes, key=lambda one: (not one.is_late, one.job is None, one.job or "", one.volume)),
            list(standings.values()), held, [name for name in all_volumes if name not in seen],
        )  # fmt: skip

    # what is asked

    def _who(self) -> tuple[str | None, str | None]:
        """The host under which backups are filed, and the id of the engine; None where that is not known."""
        try:
            info = self._engine.info
        except VolbackError as exc:
            self._problems.append(Problem("engine", "engine", exc.message, exc.hint))
            return self._ctx.settings.host, None
        self._has_engine = True
        return self._ctx.settings.host or info.name, info.id

    def _selected(self) -> tuple[dict[str, list[str]], list[str]]:
        """The volumes of each job, and all that could be backed up."""
        if not self._has_engine:
            of_job = {job.name: [*job.sources.volumes, *job.sources.directories] for job in self._config.jobs.values()}
            return of_job, []
        selected: dict[str, list[str]] = {}
        try:
            for job in self._config.jobs.values():
                selected[job.name] = self._of_job(job)
            every = [source.name for source in resolve_sources(self._ctx, self._engine, [], every=True)]
        except VolbackError as exc:
            self._problems.append(Problem("engine", "engine", exc.message, exc.hint))
            return selected, []
        return selected, [name for name in every if not is_anonymous(name)]

    def _of_job(self, job: Job) -> list[str]:
        found = select_sources(self._ctx, self._engine, job)
        self._problems += [Problem("job", job.name, f"job {job.name}: {exc.message}", exc.hint) for exc in found.errors]
        return [source.name for source in found.sources]

    def _standings(
        self, repositories: Mapping[str, Repository], host: str | None, engine_id: str | None
    ) -> dict[str, Standing]:
        """How each stands; all are asked at the same time, and none is waited for longer than `ANSWER_S`."""
        asked = {name: _Asking(one, name, host, engine_id) for name, one in repositories.items()}
        until = time.monotonic() + ANSWER_S
        for asking in asked.values():
            asking.begin()
        return {name: asking.answer(until - time.monotonic()) for name, asking in asked.items()}

    def _volumes(
        self, standings: Mapping[str, Standing], selected: Mapping[str, Sequence[str]], jobs: Mapping[str, ListedJob]
    ) -> Iterator[VolumeStatus]:
        """Those of jobs, then those that have backups beside them."""
        seen: set[str] = set()
        for job in self._config.jobs.values():
            name = next((name for name in job.repositories if name in standings), next(iter(standings), None))
            if name is None:
                continue
            for volume in selected.get(job.name, ()):
                seen.add(volume)
                yield self._volume(standings[name], volume, job, jobs[job.name])
        for found in standings.values():
            for volume in found.volumes:
                if volume not in seen:
                    seen.add(volume)
                    yield self._volume(found, volume, None, None)

    def _volume(self, where: Standing, volume: str, job: Job | None, listed: ListedJob | None) -> VolumeStatus:
        stands = where.volumes.get(volume, VolumeStanding(volume, None))
        age_s = None if stands.last is None else (self._now - created_at(stands.last.id)).total_seconds()
        missed = 0 if where.error is not None else self._missed(stands, job, listed)
        too_old = self._max_age_s is not None and (age_s is None or age_s > self._max_age_s)
        return VolumeStatus(
            volume=volume,
            job=None if job is None else job.name,
            repository=where.url,
            last=stands.last,
            age_s=age_s,
            raw_bytes=stands.raw_bytes,
            is_late=where.error is None and (bool(missed) or too_old),
            missed=missed,
            verified_at=stands.verified_at,
            proven_at=stands.proven_at,
        )

    def _missed(self, stands: VolumeStanding, job: Job | None, listed: ListedJob | None) -> int:
        """How often a backup of it was due since the last one; the run that is at work now may still make it."""
        if job is None or listed is None or job.schedule is None:
            return 0
        if listed.last is not None and listed.last.status == "running":
            return 0
        if stands.last is None:
            return max(1, len(listed.missed))
        due = missed_runs(job.schedule, zone_of(job.timezone), created_at(stands.last.id), self._now)
        return sum((self._now - time_).total_seconds() > GRACE_S + job.jitter_s for time_ in due)

    # what is wrong

    def _tell_of(self, held: Iterable[Held]) -> None:
        for one in held:
            if one.is_left:
                text = f"{one.what} was left so by a {one.kind} that died"
                self._problems.append(Problem("held", one.name, text, "volback recover"))

    def _tell_of_configuration(self) -> None:
        """Its problems, but those of a job, which the job tells."""
        of_jobs = {problem for broken in self._config.broken.values() for problem in broken.problems}
        for problem in self._config.problems:
            if problem not in of_jobs:
                subject, text = problem.place.key or problem.place.file, f"configuration: {problem}"
                self._problems.append(Problem("config", subject, text, "volback config check"))

    def _tell_of_repository(self, name: str, found: Standing) -> None:
        if found.error is not None:
            text = found.error.message if found.url in found.error.message else f"{found.url}: {found.error.message}"
            self._problems.append(Problem("repository", name, text, found.error.hint))
        if found.has_little_space:
            text = f"repository {name} has {human_size(found.free_bytes or 0)} free"
            self._problems.append(Problem("space", name, text, "make room, or prune: volback prune"))
        for volume in found.volumes.values():
            self._problems += [Problem("backup", volume.volume, text, "volback check") for text in volume.problems]

    def _tell_of_job(self, job: ListedJob, run_by: Mapping[str, str] | None) -> None:
        if job.problem is not None:
            text = f"job {job.name} cannot run: {job.problem}"
            self._problems.append(Problem("config", job.name, text, "volback config check"))
            return
        if job.missed:
            text = f"job {job.name} missed {count(len(job.missed), 'run')}"
            self._problems.append(Problem("job", job.name, text, f"volback run {job.name}"))
        last = job.last
        if last is not None and last.status not in ("running", "success", "warning"):
            why = f": {last.error}" if last.error else ""
            word = {"failure": "failed", "skipped": "was skipped"}.get(last.status, last.status)
            self._problems.append(Problem("job", job.name, f"job {job.name} {word}{why}", f"volback run {job.name}"))
        if job.next_at is not None and run_by is not None and job.name not in run_by:
            text = f"job {job.name} has a schedule, and nothing runs it"
            self._problems.append(Problem("job", job.name, text, "volback schedule install"))

    def _tell_of_volume(self, volume: VolumeStatus) -> None:
        if not volume.is_late:
            return
        hint = f"volback backup {volume.volume}" if volume.job is None else f"volback run {volume.job}"
        if volume.age_s is None:
            text = f"volume {volume.volume} has no good backup"
        else:
            text = f"volume {volume.volume} is late: its last good backup is {human_duration(volume.age_s)} old"
        self._problems.append(Problem("volume", volume.volume, text, hint))


class _Asking:
    """A repository that is asked in a thread of its own, which does not keep the process from ending."""

    def __init__(self, repository: Repository, name: str, host: str | None, engine_id: str | None) -> None:
        self._repository, self._name, self._host, self._engine_id = repository, name, host, engine_id
        self._answer: Standing | None = None
        self._thread = threading.Thread(target=self._ask, name=f"status-{name}", daemon=True)

    def begin(self) -> None:
        """Ask; here and now, where the machine allows no further thread."""
        try:
            self._thread.start()
        except RuntimeError:
            self._ask()

    def answer(self, limit_s: float) -> Standing:
        """How it stands, or that it does not answer."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, limit_s))
        if self._answer is not None:
            return self._answer
        url = self._repository.store.url
        error = StoreUnreachable(f"repository {url} gave no answer in {ANSWER_S:g} s", "volback doctor")
        return Standing(url, self._name, error=error)

    def _ask(self) -> None:
        found = standing(self._repository, host=self._host, engine_id=self._engine_id, name=self._name)
        self._answer = found


def _held(state: Path) -> Iterator[Held]:
    """What runs have stopped, paused or scaled down, and do not leave so on purpose."""
    alive = set(live_runs(state))
    for run, journal in recorded_journals(state):
        held: list[HeldContainer | HeldService] = [*journal.of(HeldContainer), *journal.of(HeldService)]
        for entry in held:
            if entry.phase != "planned" and not entry.stays:
                kind = "backup" if journal.kind == "quiesce" else journal.kind
                yield Held(entry.name, entry.what, kind, run not in alive)


_WEIGHT = ("held", "volume", "job", "config", "repository", "engine", "backup", "space")


def _by_weight(problems: Iterable[Problem]) -> list[Problem]:
    """Those first that matter most; each once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: _WEIGHT.index(problem.kind))
