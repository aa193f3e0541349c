"""Overview: every volume of the engine, who uses it, and how old its last backup is.

Reads a manifest for each volume: a safety copy does not count, nor does a backup from the future, which would hide
that backups have stopped.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from dataclasses import dataclass

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey
from volback.catalog.repository import future_warnings
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.volumes import PROJECT_LABEL, VolumeUser
from volback.errors import EngineError, IntegrityError, NoRepository, StoreError, VolbackError
from volback.operations.lines import Lines
from volback.operations.list import age_s

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VolumeOverview:
    """One volume."""

    name: str
    driver: str
    size_bytes: int | None
    """None where the engine does not report it, or was not asked."""
    project: str | None
    users: list[VolumeUser]
    last_backup: BackupKey | None
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """All volumes. Where the repository cannot be read, their backups are `unknown`."""

    volumes: list[VolumeOverview]
    unknown: VolbackError | None
    is_first: bool
    """Whether it is only that no repository was ever there, as far as this machine remembers."""
    unmeasured: EngineError | None = None
    """Why no sizes are known, though they were asked for: measuring can take longer than the engine's time limit."""


def overview(ctx: Context, engine: Engine, repository: Repository, *, sizes: bool = True) -> Overview:
    """Return every volume, by name. With `sizes` the engine walks through all of them, which can take a while."""
    users = engine.all_users()
    volumes = engine.volumes()
    measured: dict[str, int] = {}
    unmeasured: EngineError | None = None
    try:
        measured = engine.volume_sizes() if sizes else {}
    except EngineError as exc:
        unmeasured = exc
    latest: dict[str, BackupKey] = {}
    unknown: VolbackError | None = None
    try:
        latest = _latest(ctx, engine, repository, {volume.name for volume in volumes})
    except (StoreError, IntegrityError) as exc:
        unknown = exc
    rows = []
    for volume in volumes:
        last = latest.get(volume.name)
        rows.append(
            VolumeOverview(
                name=volume.name,
                driver=volume.driver,
                size_bytes=measured.get(volume.name),
                project=volume.labels.get(PROJECT_LABEL),
                users=sorted(users.get(volume.name, []), key=lambda user: user.name),
                last_backup=last,
                age_s=age_s(ctx, last.id) if last else None,
            )
        )
    is_first = isinstance(unknown, NoRepository) and not repository.expected
    return Overview(rows, unknown, is_first, unmeasured)


def _latest(ctx: Context, engine: Engine, repository: Repository, volumes: set[str]) -> dict[str, BackupKey]:
    """The latest backup of each of the volumes that has one: of this engine, not of another one of its name."""
    is_own = Lines(repository).counts(engine.info.id)
    now, of_volume = ctx.now(), dict[str, list[BackupKey]]()
    for key in repository.catalog.backups(repository.host):
        if key.volume in volumes:
            of_volume.setdefault(key.volume, []).append(key)
    for keys in of_volume.values():
        for warning in future_warnings(keys, now):
            log.warning("%s", warning)

    def newest_of(keys: list[BackupKey], _: threading.Event) -> BackupKey | None:
        return repository.catalog.newest(keys, now=now, counts=is_own)

    with closing(read_ahead(newest_of, of_volume.values(), ahead=repository.catalog.at_once)) as newest:
        return {key.volume: key for key in newest if key is not None}
