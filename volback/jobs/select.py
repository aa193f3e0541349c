"""Select: the sources of a job - those that it names, and those with the label `volback.job=NAME`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

from volback.catalog.model import Source
from volback.config.model import Job
from volback.context import Context
from volback.engine.engine import Engine
from volback.engine.volumes import VolumeUser
from volback.errors import EngineUnreachable, NotFoundError, VolbackError
from volback.operations.sources import resolve_sources, sources_of_container, sources_of_project, volume_source
from volback.policy.labels import policy_of, read_labels

JOB_LABEL = "volback.job"


@dataclass(frozen=True, slots=True)
class SelectedSources:
    """What a job backs up; a missing source does not stop the others."""

    sources: list[Source] = field(default_factory=list)
    errors: list[VolbackError] = field(default_factory=list)
    missing: dict[str, VolbackError] = field(default_factory=dict)
    """By the name that the job uses."""
    notices: list[str] = field(default_factory=list)
    """What was left out, for information."""


def select_sources(ctx: Context, engine: Engine, job: Job) -> SelectedSources:
    """Find what the job backs up. Raises EngineUnreachable.

    What is named is backed up whatever its labels say; what is found by a label, a project or a container is left out
    where it has `volback.enable=false`.
    """
    selector = _Selector(ctx, engine, job)
    for name in (*job.sources.volumes, *job.sources.directories):
        selector.named(name)
    for project in job.sources.projects:
        selector.found(f"project {project!r}", partial(sources_of_project, engine, project))
    for container in job.sources.containers:
        selector.found(f"container {container!r}", partial(sources_of_container, engine, container))
    for label in job.sources.labels:
        selector.found(f"label {label!r}", partial(_of_label, ctx, engine, label))
    if job.sources.all:
        anonymous, note = job.sources.anonymous, selector.selection.notices.append
        selector.found("", partial(resolve_sources, ctx, engine, [], every=True, anonymous=anonymous, note=note))
    selector.labelled()
    return selector.selection


class _Selector:
    def __init__(self, ctx: Context, engine: Engine, job: Job) -> None:
        self.selection = SelectedSources()
        self._ctx = ctx
        self._engine = engine
        self._job = job
        self._known: set[str] = set()

    @cached_property
    def _users(self) -> dict[str, list[VolumeUser]]:
        return self._engine.all_users()

    def named(self, name: str) -> None:
        """A volume or directory by its name."""
        try:
            for source in resolve_sources(self._ctx, self._engine, [name]):
                self._add(source)
        except EngineUnreachable:
            raise
        except VolbackError as exc:
            self.selection.missing[name] = exc
            self.selection.errors.append(exc)

    def found(self, what: str, find: Callable[[], list[Source]]) -> None:
        """Volumes found by a label, project or container; finding none is a failure."""
        try:
            sources = find()
            if not sources and what:
                raise NotFoundError(f"no volume has the {what}", "see `volback volumes`")
        except EngineUnreachable:
            raise
        except VolbackError as exc:
            self.selection.missing[what] = exc
            self.selection.errors.append(exc)
            return
        for source in sources:
            self._add_unless_disabled(source)

    def labelled(self) -> None:
        """Volumes with `volback.job=NAME`, and those of containers that have it."""
        for source in _of_label(self._ctx, self._engine, f"{JOB_LABEL}={self._job.name}"):
            self._add_unless_disabled(source)
        for volume, users in sorted(self._users.items()):
            policies = [read_labels(user.labels, user.name)[0] for user in users]
            if any(policy.job == self._job.name and policy.enable is not False for policy in policies):
                try:
                    self._add_unless_disabled(volume_source(self._engine, volume))
                except NotFoundError:
                    continue  # removed just now

    def _add_unless_disabled(self, source: Source) -> None:
        """By its own label, else its containers'. Labels that are not valid are reported by the backup."""
        users = [(user.name, user.labels) for user in self._users.get(source.name, [])]
        if policy_of(source.name, source.labels, users)[0].enable is not False:
            self._add(source)

    def _add(self, source: Source) -> None:
        if source.name not in self._known:
            self._known.add(source.name)
            self.selection.sources.append(source)


def _of_label(ctx: Context, engine: Engine, label: str) -> list[Source]:
    return resolve_sources(ctx, engine, [], label=label)
