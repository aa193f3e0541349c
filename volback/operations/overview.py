"""Overview: every volume of the engine, who uses it, and how old its last backup is. Reads no manifest."""

from __future__ import annotations

from dataclasses import dataclass

from volback.catalog.keys import BackupKey
from volback.context import Context, Repository
from volback.engine.engine import Engine
from volback.engine.volumes import PROJECT_LABEL, VolumeUser
from volback.operations.list import age_s


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


def overview(ctx: Context, engine: Engine, repository: Repository, *, sizes: bool = True) -> list[VolumeOverview]:
    """Return every volume, by name. With `sizes` the engine walks through all of them, which can take a while."""
    users = engine.all_users()
    host = repository.host
    latest = {key.volume: key for key in repository.catalog.backups(host)}  # oldest first, so the last one stays
    rows = []
    for volume in engine.volumes(sizes=sizes):
        last = latest.get(volume.name)
        rows.append(
            VolumeOverview(
                name=volume.name,
                driver=volume.driver,
                size_bytes=volume.size_bytes,
                project=volume.labels.get(PROJECT_LABEL),
                users=sorted(users.get(volume.name, []), key=lambda user: user.name),
                last_backup=last,
                age_s=age_s(ctx, last.id) if last else None,
            )
        )
    return rows
