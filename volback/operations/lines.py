"""Lines: the backups of one engine, and of those that it has adopted. Two engines may have one host name.

Keep rules and comparisons with earlier backups go by lines; what people name (`VOLUME`, `HOST/VOLUME`) does not, so a
restore finds the backups of all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from volback.catalog.adoptions import line_of, read_adoptions
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.context.repository import Repository
from volback.errors import FormatError, StoreDenied

log = logging.getLogger(__name__)

SHOWN_CHARS = 12
"""Of an engine's id: enough to tell a few apart."""


@dataclass(slots=True)
class Lines:
    """The lines of one repository; what was adopted is read when it is first needed."""

    repository: Repository
    _adoptions: dict[str, dict[str, str]] = field(default_factory=dict)

    def of(self, host: str, engine_id: str) -> str:
        """The line of that engine's backups. Where adoptions cannot be read, each engine is a line of its own."""
        if host not in self._adoptions:
            try:
                self._adoptions[host] = read_adoptions(self.repository.store, host)
            except (FormatError, StoreDenied) as exc:
                log.warning("backups of each engine of host %s are counted by themselves: %s", host, exc.message)
                self._adoptions[host] = {}
        return line_of(engine_id, self._adoptions[host])

    def counts(self, engine_id: str) -> Callable[[Manifest], bool]:
        """Whether a backup is of the line of that engine; the first one that is not is logged."""
        strangers: set[str] = set()

        def is_own(backup: Manifest) -> bool:
            if backup.engine_id == engine_id or backup.engine_id in strangers:
                return backup.engine_id == engine_id
            if self.of(backup.host, backup.engine_id) == self.of(backup.host, engine_id):
                return True
            if not strangers:
                log.warning("%s", shared(backup.host, backup.volume, [engine_id, backup.engine_id]))
            strangers.add(backup.engine_id)
            return False

        return is_own

    def among(self, backups: Iterable[Manifest | DamagedManifest]) -> dict[str, str]:
        """The line of each engine that made one of these backups of one host. One engine alone costs no reading."""
        made = {backup.engine_id: backup.host for backup in backups if isinstance(backup, Manifest)}
        if len(made) < 2:
            return {id_: id_ for id_ in made}
        return {id_: self.of(host, id_) for id_, host in made.items()}

    def notice(self, host: str, volume: str, backups: Iterable[Manifest | DamagedManifest]) -> str | None:
        """What to say where engines share the name of a host, and each backs up a volume of that name."""
        lines = set(self.among(backups).values())
        return shared(host, volume, lines) if len(lines) > 1 else None


def shared(host: str, volume: str, lines: Iterable[str]) -> str:
    """What to say of lines that share a name."""
    ids = ", ".join(sorted(line[:SHOWN_CHARS] for line in lines))
    return (
        f"{host}/{volume} has backups of several engines of that name ({ids}), and each one's are kept by themselves;"
        f" after a reinstall, join them: volback adopt {host}"
    )
