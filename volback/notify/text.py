"""Text: a run's report in words, by templates with `$name` or `${name}` (Python's string.Template).

A template can name what NAMES lists and nothing else; one that is not valid is replaced by the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template

from volback.measures import count, human_duration, human_size
from volback.notify.report import Report, Status, VolumeReport
from volback.printable import printable, printable_lines

DEFAULT_TITLE = "volback: job $job on $host $outcome"
DEFAULT_BODY = "$report"

NAMES = {
    "job": "the job's name",
    "host": "the host that backups are filed under",
    "status": "success, warning or failure",
    "outcome": "the same in words: is done, is done with warnings, FAILED",
    "started": "when the run began, like 2026-11-24 02:30:00 UTC",
    "ended": "when it ended",
    "duration": "how long it took, like 3 min 20 s",
    "summary": "one line: how many volumes, files, bytes",
    "volumes": "a line for each volume",
    "errors": "a line for each error",
    "warnings": "a line for each warning",
    "log": "the end of the run's log",
    "report": "the default message: summary, errors, warnings, volumes",
}
"""The names that a template can use, and their values."""

_OUTCOMES: dict[Status, str] = {"success": "is done", "warning": "is done with warnings", "failure": "FAILED"}
_LINES_MAX = 30
"""Of each kind; services cut or refuse what is too long."""


def complaint_of_template(template: str) -> str | None:
    """Return what is wrong with a template, None if nothing is."""
    parsed = Template(template)
    if not parsed.is_valid():
        return "has a `$` that no name follows (a dollar sign itself is `$$`)"
    unknown = [name for name in parsed.get_identifiers() if name not in NAMES]
    return f"names `${unknown[0]}`, which is not among {', '.join(NAMES)}" if unknown else None


def render(template: str, report: Report) -> str:
    """Fill in a template that has no complaint."""
    return Template(template).substitute(_values(report))


def summary_of(report: Report) -> str:
    """`2 of 3 volumes backed up: 1,222 files, 7.3 MiB -> 4.8 MiB, in 12.0 s`; without volumes the first error."""
    took = f"in {human_duration(report.duration_s)}"
    if not report.volumes:
        return f"{report.errors[0] if report.errors else 'no volume backed up'}, {took}"
    good = [volume for volume in report.volumes if volume.ok]
    of = "" if len(good) == len(report.volumes) else f"{len(good)} of "
    summary = f"{of}{count(len(report.volumes), 'volume')} backed up"
    return f"{summary}: {_amount(good)}, {took}" if good else f"{summary}, {took}"


def _values(report: Report) -> dict[str, str]:
    return {
        "job": printable(report.job),
        "host": printable(report.host),
        "status": report.status,
        "outcome": _OUTCOMES[report.status],
        "started": f"{report.started_at:%Y-%m-%d %H:%M:%S %Z}",
        "ended": f"{report.ended_at:%Y-%m-%d %H:%M:%S %Z}",
        "duration": human_duration(report.duration_s),
        "summary": printable(summary_of(report)),
        "volumes": _lines(_volume_line(volume) for volume in report.volumes),
        "errors": _lines(_errors(report)),
        "warnings": _lines(report.warnings),
        "log": printable_lines(report.log_tail),
        "report": _report(report),
    }


def _report(report: Report) -> str:
    parts = [
        printable(summary_of(report)),
        _lines(f"error: {error}" for error in _errors(report)),
        _lines(f"warning: {warning}" for warning in report.warnings),
        _lines(_volume_line(volume) for volume in report.volumes),
    ]
    return "\n\n".join(part for part in parts if part)


def _errors(report: Report) -> list[str]:
    of_volumes = [f"{volume.name}: {volume.error}" for volume in report.volumes if volume.error]
    run_errors = [error for error in report.errors if not any(error in line for line in of_volumes)]
    return run_errors + of_volumes


def _lines(lines: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    kept = [printable(line) for line in lines]
    rest = len(kept) - _LINES_MAX
    return "\n".join([*kept[:_LINES_MAX], *([f"and {rest} more"] if rest > 0 else [])])


def _volume_line(volume: VolumeReport) -> str:
    if not volume.ok:
        return f"{volume.name}: FAILED"
    facts = [_amount([volume])]
    if volume.duration_s is not None:
        facts.append(f"in {human_duration(volume.duration_s)}")
    if volume.consistency:
        facts.append(volume.consistency)
    if volume.downtime_s is not None:
        facts.append(f"down for {human_duration(volume.downtime_s)}")
    return f"{volume.name}: {', '.join(facts)}"


def _amount(volumes: list[VolumeReport]) -> str:
    files = sum(volume.files or 0 for volume in volumes)
    raw, stored = (sum(getattr(volume, name) or 0 for volume in volumes) for name in ("raw_bytes", "stored_bytes"))
    return f"{count(files, 'file')}, {human_size(raw)} -> {human_size(stored)}"
