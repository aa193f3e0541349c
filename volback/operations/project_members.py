"""Project members: which volumes of a host are a compose project's, as far as backups, this engine and this machine
know.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import IntegrityError, NotFoundError
from volback.latest import created_at, is_future
from volback.operations.sources import volumes_by_project
from volback.policy.projects import PROJECT
from volback.state.seen_volumes import seen_volume


def known_here(ctx: Context, engine: Engine, project: str) -> Callable[[str, str], bool]:
    """Whether this engine, or what this machine remembers of its backups, counts a host's volume among the project's.

    Neither depends on what a repository says. The engine is asked once. Raises EngineUnreachable.
    """
    here, state = volumes_by_project(engine).get(project, set()), ctx.settings.state

    def is_known(host: str, volume: str) -> bool:
        seen = seen_volume(state, host, volume)
        return volume in here or seen.was_of_project(project) or seen.had_label(PROJECT, project)

    return is_known


class Members:
    """The volumes of one host's project. A label counts as the newest backup that was read has it."""

    def __init__(self, repository: Repository, host: str, project: str, is_known: Callable[[str], bool]) -> None:
        self.host = host
        self.project = project
        self._repository = repository
        self._is_known = is_known
        self._newest: dict[str, bool] = {}

    def note(self, manifest: Manifest) -> None:
        """Take note of a volume's backup that was read; newer ones come first."""
        if manifest.source.kind == "volume":
            self._newest.setdefault(manifest.volume, self.has(manifest.volume, manifest))

    def seen(self) -> set[str]:
        """The project's volumes of which backups were read."""
        return {volume for volume, is_member in self._newest.items() if is_member}

    def has(self, volume: str, backup: Manifest | None = None) -> bool:
        """Whether a volume is the project's, by that backup or its newest one: its manifest is read if need be."""
        if volume.endswith(f"/{self.project}.compose"):  # its compose files: the set is whole without them
            return False
        if self._is_known(volume):
            return True
        if volume.startswith("/"):
            return False
        if backup is not None:
            return self._is_of_project(backup)
        if volume not in self._newest:
            found = self._newest_backup(volume)
            self._newest[volume] = found is not None and self._is_of_project(found)
        return self._newest[volume]

    def _is_of_project(self, backup: Manifest) -> bool:
        made = None if backup.set is None else backup.set.project
        return self.project in {made, backup.source.labels.get(PROJECT)}

    def _newest_backup(self, volume: str) -> Manifest | None:
        """A safety copy is as good as any; None where there is none, or its manifest cannot be read."""
        now = self._repository.now()
        keys = [key for key in self._keys if key.volume == volume and not is_future(created_at(key.id), now)]
        if not keys:
            return None
        try:
            return self._repository.opened(self._repository.catalog.read(max(keys, key=lambda key: key.id)))
        except (NotFoundError, IntegrityError):
            return None

    @cached_property
    def _keys(self) -> list[BackupKey]:
        return self._repository.catalog.backups(self.host)
