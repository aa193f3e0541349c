"""Metrics: the Prometheus textfile that node_exporter's textfile collector reads. The only import of its library.

The file is its own memory: its values of other jobs, and of this job's last success, are read back and kept.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import volback
from volback.durable import write_whole
from volback.notify.report import Report, VolumeReport

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

Labels = tuple[tuple[str, str], ...]
"""Names and values, by name."""
Series = dict[tuple[str, Labels], float]
"""Value by the metric's name and its labels."""

WAIT_S = 10.0
"""How long to wait for another job that writes the file at this moment."""

HELP = {
    "volback_build_info": "The version of volback that has written this; always 1.",
    "volback_job_last_run_timestamp_seconds": "When the job's last run ended.",
    "volback_job_last_success_timestamp_seconds": "When the job's last run without a failure ended.",
    "volback_job_last_run_status": "How the job's last run ended: 0 success, 1 with warnings, 2 failure.",
    "volback_job_last_run_duration_seconds": "How long the job's last run took.",
    "volback_job_next_run_timestamp_seconds": "When the job is due next, as of its last run.",
    "volback_job_missed_runs": "How often the job was due before its last run, and did not begin.",
    "volback_last_run_timestamp_seconds": "When the last run that was to back up the volume ended.",
    "volback_last_success_timestamp_seconds": "When the last run that backed up the volume ended.",
    "volback_last_run_success": "Whether the last run backed up the volume: 1 or 0.",
    "volback_duration_seconds": "How long the volume's last backup took.",
    "volback_downtime_seconds": "How long its containers were stopped or paused for it.",
    "volback_raw_bytes": "Size of the volume's last backup, unpacked.",
    "volback_stored_bytes": "What the volume's last backup added to the repository.",
    "volback_files": "Files and directories in the volume's last backup.",
    "volback_backups": "Backups of the volume that the repository holds.",
    "volback_last_verify_timestamp_seconds": "When the data of a backup of the volume was last read and found intact.",
    "volback_last_proof_timestamp_seconds": "When the volume was last compared with a backup, and found identical.",
    "volback_repository_size_bytes": "Of all backups in the repository, after the last run of a job that uses it.",
    "volback_repository_free_bytes": "Free space in the repository; absent where it has no known limit.",
}
"""Every metric, a gauge each, in the order in which they are written."""

_STATUS = {"success": 0, "warning": 1, "failure": 2}
_JOB = "volback_job"
"""`job` is the label of the scrape."""


def write_metrics(path: Path, report: Report) -> str | None:
    """Add a run to the file, which is complete at every moment. Returns why that failed, None if it did not.

    A run that did not fail names all of its job's volumes: the values of other volumes of that job are dropped.
    """
    try:
        with _alone(path.parent):
            known = {key: value for key, value in _read(path).items() if not _is_former(key, report)}
            # Everybody may read it: the collector is another user. Its draft's name does not end in .prom.
            write_whole(path, _exposition(known | _of_run(report)), mode=0o644)
    except TimeoutError:
        return f"another run holds it for more than {WAIT_S:g} s"
    except OSError as exc:
        return exc.strerror or type(exc).__name__
    return None


def _of_run(report: Report) -> Series:
    host = {"host": _clean(report.host)}
    job = {_JOB: _clean(report.job), **host}
    ended = report.ended_at.timestamp()
    series: Series = {("volback_build_info", _labels({"version": volback.__version__, **host})): 1}

    def note(name: str, labels: dict[str, str], value: float | None) -> None:
        if value is not None:
            series[name, _labels(labels)] = value

    note("volback_job_last_run_timestamp_seconds", job, ended)
    note("volback_job_last_run_status", job, _STATUS[report.status])
    note("volback_job_last_run_duration_seconds", job, report.duration_s)
    note("volback_job_next_run_timestamp_seconds", job, _seconds(report.next_at))
    note("volback_job_missed_runs", job, report.missed_runs)
    if report.status != "failure":
        note("volback_job_last_success_timestamp_seconds", job, ended)
    for repository in report.repositories:
        labels = {"repository": _clean(repository.name), **host}
        note("volback_repository_size_bytes", labels, repository.size_bytes)
        note("volback_repository_free_bytes", labels, repository.free_bytes)
    for volume in report.volumes:
        for name, value in _of_volume(volume, ended):
            note(name, {**job, "volume": _clean(volume.name)}, value)
    return series


def _of_volume(volume: VolumeReport, ended: float) -> Iterator[tuple[str, float | None]]:
    yield "volback_last_run_timestamp_seconds", ended
    yield "volback_last_run_success", int(volume.ok)
    yield "volback_backups", volume.backups
    yield "volback_last_verify_timestamp_seconds", _seconds(volume.verified_at)
    yield "volback_last_proof_timestamp_seconds", _seconds(volume.proven_at)
    if not volume.ok:
        return  # the other numbers stay those of the last successful backup
    yield "volback_last_success_timestamp_seconds", ended
    yield "volback_duration_seconds", volume.duration_s
    yield "volback_downtime_seconds", volume.downtime_s
    yield "volback_raw_bytes", volume.raw_bytes
    yield "volback_stored_bytes", volume.stored_bytes
    yield "volback_files", volume.files


def _seconds(time_: datetime | None) -> float | None:
    return None if time_ is None else time_.timestamp()


def _is_former(key: tuple[str, Labels], report: Report) -> bool:
    """Whether it is of another version, of a schedule before, or, after a run that did not fail, of a volume that the
    job no longer has."""
    name, labels = key[0], dict(key[1])
    if labels.get("host") != _clean(report.host):
        return False
    if name == "volback_build_info":
        return True
    if labels.get(_JOB) != _clean(report.job):
        return False
    if "volume" not in labels or report.status == "failure":
        return name in ("volback_job_next_run_timestamp_seconds", "volback_job_missed_runs")
    return labels["volume"] not in {_clean(volume.name) for volume in report.volumes}


class _Collector:
    """The values as the library takes them."""

    def __init__(self, series: Series) -> None:
        self._series = series

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        for metric, help_text in HELP.items():
            found = sorted((labels, value) for (name, labels), value in self._series.items() if name == metric)
            if found:
                family = GaugeMetricFamily(metric, help_text, labels=[name for name, _ in found[0][0]])
                for labels, value in found:
                    family.add_metric([text for _, text in labels], value)
                yield family


def _exposition(series: Series) -> bytes:
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Collector(series))
    return generate_latest(registry)


def _labels(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _clean(name: str) -> str:
    """The name as UTF-8 that the file can hold; it has to be the same when the file is read back."""
    return name.encode(errors="replace").decode()


def _read(path: Path) -> Series:
    """The values of volback's metrics in the file; other lines are not kept."""
    try:
        text = path.read_bytes().decode(errors="replace")  # not as text: a name may hold a carriage return
    except FileNotFoundError:
        return {}
    return {key: value for line in text.split("\n") for key, value in _read_line(line)}


def _read_line(line: str) -> Iterator[tuple[tuple[str, Labels], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    if not line.startswith("volback_"):
        return
    try:
        samples = [sample for family in text_string_to_metric_families(f"{line}\n") for sample in family.samples]
    except (ValueError, LookupError, AttributeError, TypeError):
        return  # damaged
    for sample in samples:
        labels = dict(sample.labels)
        if "job" in labels:  # as versions before have written it
            labels[_JOB] = labels.pop("job")
        if sample.name in HELP and labels:
            yield (sample.name, _labels(labels)), float(sample.value)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the directory, so that no other run reads the file before this one has written it. Raises TimeoutError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    last_s = time.monotonic() + WAIT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last_s:
                raise TimeoutError from None
            time.sleep(0.02)
