"""Metrics: the Prometheus textfile that node_exporter's textfile collector reads.

The file is its own memory: its values of other jobs, and of this job's last success, are read back and kept.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volback.durable import write_whole
from volback.notify.report import Report, VolumeReport

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], float]
"""Value by the metric's name and its labels, in order."""

WAIT_S = 10.0
"""How long to wait for another job that writes the file at this moment."""

HELP = {
    "volback_job_last_run_timestamp_seconds": "When the job's last run ended.",
    "volback_job_last_success_timestamp_seconds": "When the job's last run without a failure ended.",
    "volback_job_last_run_status": "How the job's last run ended: 0 success, 1 with warnings, 2 failure.",
    "volback_job_last_run_duration_seconds": "How long the job's last run took.",
    "volback_last_run_timestamp_seconds": "When the last run that was to back up the volume ended.",
    "volback_last_success_timestamp_seconds": "When the last run that backed up the volume ended.",
    "volback_last_run_success": "Whether the last run backed up the volume: 1 or 0.",
    "volback_duration_seconds": "How long the volume's last backup took.",
    "volback_downtime_seconds": "How long its containers were stopped or paused for it.",
    "volback_raw_bytes": "Size of the volume's last backup, unpacked.",
    "volback_stored_bytes": "What the volume's last backup added to the repository.",
    "volback_files": "Files and directories in the volume's last backup.",
    "volback_backups": "Backups of the volume that the repository holds.",
}
"""Every metric, a gauge each, in the order in which they are written."""

_STATUS = {"success": 0, "warning": 1, "failure": 2}
_SAMPLE = re.compile(r'(\w+)\{((?:[^"\\}]|"(?:[^"\\]|\\.)*")*)\} (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)', re.ASCII)
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', re.ASCII)
_SPECIAL = re.compile(r'[\\\n"]')


def write_metrics(path: Path, report: Report) -> str | None:
    """Add a run to the file, which is complete at every moment. Returns why that failed, None if it did not.

    A run that did not fail names all of its job's volumes: the values of other volumes of that job are dropped.
    """
    try:
        with _alone(path.parent):
            known = _read(path)
            if report.status != "failure":
                known = {key: value for key, value in known.items() if not _is_former(key[1], report)}
            # Everybody may read it: the collector is another user. Its draft's name does not end in .prom.
            write_whole(path, _text(known | _of_run(report)).encode(), mode=0o644)
    except TimeoutError:
        return f"another run holds it for more than {WAIT_S:g} s"
    except OSError as exc:
        return exc.strerror or type(exc).__name__
    return None


def _of_run(report: Report) -> Series:
    job = (("job", _clean(report.job)), ("host", _clean(report.host)))
    ended = report.ended_at.timestamp()
    series: Series = {
        ("volback_job_last_run_timestamp_seconds", job): ended,
        ("volback_job_last_run_status", job): _STATUS[report.status],
        ("volback_job_last_run_duration_seconds", job): report.duration_s,
    }
    if report.status != "failure":
        series["volback_job_last_success_timestamp_seconds", job] = ended
    for volume in report.volumes:
        labels = (*job, ("volume", _clean(volume.name)))
        series |= {(name, labels): value for name, value in _of_volume(volume, ended)}
    return series


def _of_volume(volume: VolumeReport, ended: float) -> Iterator[tuple[str, float]]:
    yield "volback_last_run_timestamp_seconds", ended
    yield "volback_last_run_success", int(volume.ok)
    if volume.backups is not None:
        yield "volback_backups", volume.backups
    if not volume.ok:
        return  # the other numbers stay those of the last successful backup
    yield "volback_last_success_timestamp_seconds", ended
    numbers = {
        "volback_duration_seconds": volume.duration_s,
        "volback_downtime_seconds": volume.downtime_s,
        "volback_raw_bytes": volume.raw_bytes,
        "volback_stored_bytes": volume.stored_bytes,
        "volback_files": volume.files,
    }
    yield from ((name, value) for name, value in numbers.items() if value is not None)


def _is_former(labels: Labels, report: Report) -> bool:
    """Whether it is of a volume that the job no longer has."""
    named = dict(labels)
    if (named.get("job"), named.get("host")) != (_clean(report.job), _clean(report.host)) or "volume" not in named:
        return False
    return named["volume"] not in {_clean(volume.name) for volume in report.volumes}


def _text(series: Series) -> str:
    lines: list[str] = []
    for metric, help_text in HELP.items():
        samples = sorted((labels, value) for (name, labels), value in series.items() if name == metric)
        if samples:
            lines += [f"# HELP {metric} {help_text}", f"# TYPE {metric} gauge"]
            lines += [f"{metric}{{{_labels(labels)}}} {value!r}" for labels, value in samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    return ",".join(f'{name}="{_SPECIAL.sub(_escaped, value)}"' for name, value in labels)


def _escaped(found: re.Match[str]) -> str:
    return "\\n" if found[0] == "\n" else f"\\{found[0]}"


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value)


def _clean(name: str) -> str:
    """The name as UTF-8 that the file can hold; it has to be the same when the file is read back."""
    return name.encode(errors="replace").decode()


def _read(path: Path) -> Series:
    """The values of volback's metrics in the file; other lines are not kept."""
    try:
        text = path.read_bytes().decode(errors="replace")  # not as text: a name may hold a carriage return
    except FileNotFoundError:
        return {}
    series: Series = {}
    for line in text.split("\n"):
        match = _SAMPLE.fullmatch(line)
        if match is not None and match[1] in HELP:
            labels = tuple((name, _unescaped(value)) for name, value in _LABEL.findall(match[2]))
            series[match[1], labels] = float(match[3])
    return series


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
