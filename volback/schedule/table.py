"""Table: what runs when, and what cron and systemd share: the mark of volback's files, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from volback.config.model import Config, Job
from volback.errors import UsageError, VolbackError
from volback.settings import absolute

Kind = Literal["systemd", "cron"]

MARK = "# Written by `volback schedule install`; `volback schedule remove` takes it away."
"""The first line of every file that volback writes."""

_PASSED_ON = (
    "VOLBACK_HOSTNAME", "VOLBACK_HELPER_IMAGE", "VOLBACK_HELPER_CPUS", "VOLBACK_HELPER_MEMORY_MIB",
    "VOLBACK_SHRINK_RATIO", "VOLBACK_ENGINE_TIMEOUT", "VOLBACK_TRANSPORT", "VOLBACK_CACHE_MIB",
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY",
)  # fmt: skip
_PATHS_PASSED_ON = (
    "VOLBACK_CONFIG", "VOLBACK_STATE_DIR", "VOLBACK_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "DOCKER_CONFIG", "DOCKER_CERT_PATH",
)  # fmt: skip
"""Variables that are passed to a scheduled run with their current values. None is secret; others belong into the
files."""


@dataclass(frozen=True, slots=True)
class Command:
    """How the scheduler calls volback."""

    program: tuple[str, ...]
    """The first is an absolute path."""
    options: tuple[str, ...] = ()
    """Those that come before the command, like --config."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def words(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self.program, *self.options, *arguments]


@dataclass(frozen=True, slots=True)
class Entry:
    """A job and its times."""

    job: str
    schedule: str
    timezone: str | None = None
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What was done with the files; a cron table that is not a file is named `crontab of USER`."""

    kind: Kind
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Scheduler(Protocol):
    """One of the machine's schedulers."""

    kind: Kind

    def install(self, entries: Sequence[Entry], command: Command) -> Changes:
        """Make it run these entries and no other entries of volback. Raises UsageError for times that it cannot
        keep."""

    def remove(self) -> Changes:
        """Remove everything that volback wrote."""

    def installed(self) -> dict[str, str]:
        """Jobs that it runs, each with the file that says so."""


def entries_of(config: Config) -> list[Entry]:
    """The jobs that have a schedule, by name. Raises UsageError where there is none, or one cannot be read."""
    if config.problems:
        raise UsageError(str(config.problems[0]), "see `volback config check`")
    entries = valid_entries(config)
    if not entries:
        raise UsageError("no job has a schedule", 'give one a time, like schedule = "30 2 * * *"')
    return entries


def valid_entries(config: Config) -> list[Entry]:
    """The jobs that have a schedule and can run."""
    return [_entry(job) for _, job in sorted(config.jobs.items()) if job.schedule is not None]


def environment_passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that scheduled runs get, paths made absolute. Raises UsageError."""
    passed = {name: environment[name] for name in _PASSED_ON if environment.get(name)}
    for name in _PATHS_PASSED_ON:
        if environment.get(name):
            paths = environment[name].split(os.pathsep)
            passed[name] = os.pathsep.join(str(absolute(Path(path), name)) for path in paths if path)
    for name, value in passed.items():
        if not value.isprintable() or '"' in value:
            raise UsageError(f"{name}={value!r} has a character that must not appear in a cron table or a unit")
    return passed


def write_file(path: Path, text: str) -> bool:
    """Put it in place by rename, readable by all; False if the file has this content already. Raises VolbackError."""
    with explained(path):
        if path.exists() and path.read_text(errors="replace") == text:
            return False
        check_ours(path)
        draft = path.with_name(f".{path.name}.new~")  # neither cron nor systemd reads such a name
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(path)
        return True


def check_ours(path: Path) -> None:
    """Raises UsageError for a file that volback did not write."""
    if path.exists() and not path.read_text(errors="replace").startswith(MARK):
        raise UsageError(f"{path} was not written by volback", "move it away first")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Translate errors of file operations."""
    try:
        yield
    except OSError as exc:
        raise VolbackError(f"{path} cannot be written: {exc.strerror}", "run as root, or for yourself: --user") from exc


def _entry(job: Job) -> Entry:
    assert job.schedule is not None
    return Entry(job.name, job.schedule, job.timezone, job.jitter_s)
