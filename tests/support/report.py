"""Reports of invented runs, for the tests of notifications."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from volback.notify.report import Report, Status, VolumeReport

ENDED = datetime(2026, 11, 24, 2, 31, 20, tzinfo=UTC)


def volume(name: str = "db", **facts: Any) -> VolumeReport:
    """A volume that was backed up, unless the fields say otherwise."""
    known: dict[str, Any] = {"ok": True, "files": 1222, "raw_bytes": 7_654_604, "stored_bytes": 5_033_165}
    return VolumeReport(name, **{**known, "duration_s": 4.25, "consistency": "stopped", "downtime_s": 1.5, **facts})


def report(status: Status = "success", **facts: Any) -> Report:
    """A run of 80 s of the job `nightly` on the host `web1`, of one volume."""
    known: dict[str, Any] = {"started_at": ENDED - timedelta(seconds=80), "ended_at": ENDED, "volumes": (volume(),)}
    return Report("nightly", "web1", status, **{**known, **facts})


def failed(**facts: Any) -> Report:
    """A run whose volume could not be backed up."""
    gone = volume(ok=False, error="volume 'db' does not exist", files=None, raw_bytes=None, stored_bytes=None)
    return report("failure", **{"volumes": (gone,), **facts})
