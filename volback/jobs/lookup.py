"""Lookup: a job of the configuration by its name, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from volback.config.model import Config, Job
from volback.config.places import Problem
from volback.errors import NotFoundError, UsageError

CONFIGURATION = "configuration"
"""The job name under which an unreadable file of the configuration is reported, if no job in it is known."""


def find_job(config: Config, name: str) -> Job:
    """Return the job. Raises NotFoundError, UsageError for a broken job or an unreadable configuration."""
    job, broken, lost = config.jobs.get(name), config.broken.get(name), unattributed(config)
    if job is not None:
        return job
    if name == CONFIGURATION and lost:
        raise _first_of(lost)
    if broken is not None:
        raise _first_of(broken.problems)
    if lost:
        raise UsageError(f"there is no job {name!r}, but {lost[0]}", "see `volback config check`")
    known = ", ".join(sorted({*config.jobs, *config.broken})) or "none"
    raise NotFoundError(f"there is no job {name!r} in the configuration", f"there are: {known}")


def unattributed(config: Config) -> list[Problem]:
    """Problems of files that cannot be read, whose jobs are not known."""
    reported = {problem for broken in config.broken.values() for problem in broken.problems}
    return [problem for problem in config.problems if not problem.place.key and problem not in reported]


def _first_of(problems: Sequence[Problem]) -> UsageError:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return UsageError(f"configuration: {problems[0]}{more}", "see `volback config check`")
