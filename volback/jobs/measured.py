"""Measured: what metrics show of a job's repositories and volumes after a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from volback.context.repository import Repository
from volback.notify.report import Report, RepositoryReport, VolumeReport
from volback.operations.standing import Standing, standing


def measured(report: Report, repositories: Mapping[str, Repository], engine_id: str) -> Report:
    """The report with the sizes of the repositories (by name, the job's first one first), and with what the first one
    says of the volumes. What cannot be read is left out."""
    stands = {
        name: standing(one, host=report.host, engine_id=engine_id, name=name) for name, one in repositories.items()
    }
    sizes = [
        RepositoryReport(name, one.size_bytes, one.free_bytes) for name, one in stands.items() if one.error is None
    ]
    first = next(iter(stands.values()), None)
    volumes = report.volumes if first is None else tuple(_volume(volume, first) for volume in report.volumes)
    return replace(report, repositories=tuple(sizes), volumes=volumes)


def _volume(volume: VolumeReport, stands: Standing) -> VolumeReport:
    found = stands.volumes.get(volume.name)
    if found is None:
        return volume
    return replace(
        volume,
        backups=found.backups if volume.ok else None,
        verified_at=_time(found.verified_at),
        proven_at=_time(found.proven_at),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
