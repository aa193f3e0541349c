"""Clone project: a copy of each volume of a compose project, under the names and labels of another project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import EngineUnreachable, Interrupted, NotFoundError, UsageError, VolbackError, because
from volback.moving.clone import clone
from volback.moving.move import Moved, MoveOptions
from volback.operations.sources import sources_of_project
from volback.policy.projects import ProjectVolume, as_volume_of, check_project


@dataclass(frozen=True, slots=True)
class ProjectCloned:
    """What came of the volumes of a project."""

    cloned: tuple[Moved, ...]
    not_cloned: tuple[str, ...]
    """Names in the first project."""
    errors: tuple[VolbackError, ...]
    interrupted: Interrupted | None
    warnings: tuple[str, ...]
    """One for each volume that both projects use."""


def clone_project(
    ctx: Context, engine: Engine, repository: Repository, project: str, new: str, options: MoveOptions
) -> ProjectCloned:
    """Clone each volume of a project; one that fails does not stop the next.

    A volume that is external, or has a name of its own in the compose file, is left out: both projects use it. Raises
    NotFoundError, UsageError.
    """
    check_project(new)
    if new == project:
        raise UsageError(f"project {project!r} cannot be cloned into itself", "choose another name")
    volumes = [
        (source, as_volume_of(new, source.name, source.labels, of=project))
        for source in sources_of_project(engine, project)
    ]
    shared = [source.name for source, wanted in volumes if wanted.name == source.name]
    own = [(source, wanted) for source, wanted in volumes if wanted.name != source.name]
    if not own:
        raise NotFoundError(
            f"no volume is named after project {project!r}: {', '.join(shared)}", "clone them one by one"
        )
    cloning = _Cloning(ctx, engine, repository, options)
    cloning.clone_all(own)
    warnings = [f"volume {name!r} is not named after its project: both projects use it" for name in shared]
    not_cloned = (*cloning.failed, *shared)
    return ProjectCloned(tuple(cloning.cloned), not_cloned, tuple(cloning.errors), cloning.interrupted, tuple(warnings))


class _Cloning:
    def __init__(self, ctx: Context, engine: Engine, repository: Repository, options: MoveOptions) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._options = options
        self.cloned: list[Moved] = []
        self.failed: list[str] = []
        self.errors: list[VolbackError] = []
        self.interrupted: Interrupted | None = None

    def clone_all(self, volumes: Sequence[tuple[Source, ProjectVolume]]) -> None:
        """Clone until all are done, a signal comes, or the engine is lost."""
        left = list(volumes)
        while left and not self._is_over:
            source, wanted = left.pop(0)
            try:
                self._clone(source, wanted)
            except Interrupted as exc:
                self.failed.append(source.name)
                self.interrupted = exc
            except VolbackError as exc:
                self.failed.append(source.name)
                self.errors.append(because(exc, f"volume {source.name!r} was not cloned"))
        self.failed += [source.name for source, _ in left]

    @property
    def _is_over(self) -> bool:
        return self.interrupted is not None or any(isinstance(error, EngineUnreachable) for error in self.errors)

    def _clone(self, source: Source, wanted: ProjectVolume) -> None:
        """One that compose has made, and is empty, has its labels already."""
        options = self._options
        if not self._engine.has_volume(wanted.name):
            options = replace(options, labels={**wanted.labels, **options.labels})
        self.cloned.append(clone(self._ctx, self._engine, self._repository, source.name, wanted.name, options))
