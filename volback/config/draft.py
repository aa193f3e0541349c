"""Draft: a commented volback.toml for what runs on an engine, to begin with. Pure text; `load_config` reads it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from volback.config.toml import bare_or_quoted, quoted
from volback.policy.databases import Database
from volback.printable import printable

_HEAD = """\
# What volback backs up, where to, when, and what it keeps. Written by `volback config init` from what runs on {host}.
# Change what you like, then:
#   volback config check        whether it is right
#   volback init                make the repository, once
#   volback run --all           the first backups
#   volback schedule install    from now on at their times

[repositories.main]
url = {url}  # better: another disk, or s3://BUCKET/PREFIX
default = true  # commands without --repo use it

# A second copy elsewhere; then write repository = ["main", "offsite"] into the jobs.
# [repositories.offsite]
# url = "s3://BUCKET/PREFIX"
# access_key_id = "..."
# secret_access_key_file = "/etc/volback/s3-secret"
"""
_TAIL = """\
# Who is notified of failures; then write notify = ["admins"] into the jobs.
# [notifications.admins]
# urls = ["mailto://USER:PASSWORD@example.org"]
# ping = "https://hc-ping.com/your-uuid"

# For Prometheus' node exporter:
# [metrics]
# textfile = "/var/lib/node_exporter/volback.prom"
"""
_EXAMPLE = """\
# No volume is there yet. A job looks like this:
# [jobs.shop]
# project = "shop"            # a compose project; or volumes = ["db", "uploads"]
# repository = ["main"]
# keep = { daily = 7, weekly = 5, monthly = 12 }
# schedule = "30 2 * * *"
"""
_FIRST_MINUTE, _APART = 2 * 60 + 30, 10


@dataclass(frozen=True, slots=True)
class DraftDatabase:
    """A container that runs a database server."""

    container: str
    image: str
    database: Database


@dataclass(frozen=True, slots=True)
class DraftJob:
    """What one job is to back up: a compose project, or volumes."""

    name: str
    volumes: tuple[str, ...]
    project: str | None = None
    databases: tuple[DraftDatabase, ...] = ()


def draft(jobs: Sequence[DraftJob], *, url: str, host: str) -> Iterator[str]:
    """The lines of the file."""
    yield from _HEAD.format(host=printable(host), url=_text(url)).splitlines()
    yield ""
    names: set[str] = set()
    for number, job in enumerate(jobs):
        yield from _job(job, _name(job.name, names), _FIRST_MINUTE + number * _APART)
        yield ""
    if not jobs:
        yield from _EXAMPLE.splitlines()
        yield ""
    yield from _TAIL.splitlines()


def _job(job: DraftJob, name: str, minute: int) -> Iterator[str]:
    volumes = ", ".join(printable(volume) for volume in job.volumes)
    if job.project is not None:
        yield f"# The compose project {printable(job.project)}: its volumes ({volumes}) and its compose files."
    yield f"[jobs.{bare_or_quoted(name)}]"
    if job.project is not None:
        yield f"project = {_text(job.project)}"
    else:
        yield f"volumes = [{', '.join(_text(volume) for volume in job.volumes)}]"
    yield 'repository = ["main"]'
    yield from _consistency(job.databases)
    yield "keep = { daily = 7, weekly = 5, monthly = 12 }"
    yield f'schedule = "{minute % 60} {minute // 60 % 24} * * *"'


def _consistency(databases: Sequence[DraftDatabase]) -> Iterator[str]:
    for one in databases:
        yield f"# {printable(one.container)} ({printable(one.image)}) is {one.database.name}."
    if not databases:
        yield '# quiesce = "stop"  # or "pause": if a program writes to several files that belong together'
        return
    yield "# Its files belong together, so it is stopped while they are read: from the second backup on for a moment."
    yield 'quiesce = "stop"  # or "pause": not noticed, as after a power cut'
    for one in databases:
        if one.database.dump is not None:
            hook = f"container = {_text(one.container)}, command = {_text(one.database.dump)}"
            yield "# Or dump it first, without down-time, into a volume of its own that is mounted at /dumps:"
            yield f"# exec_pre = [{{ {hook} }}]"


def _name(wanted: str, taken: set[str]) -> str:
    """A valid name for a job, which no other has."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", wanted).lstrip("_.-")[:80] or "job"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    taken.add(name)
    return name


def _text(text: str) -> str:
    """As TOML has it, where `${` would be a variable."""
    return quoted(text.replace("${", "$${"))


def jobs_of(
    projects: Mapping[str, Collection[str]], loose: Sequence[str], databases: Mapping[str, list[DraftDatabase]]
) -> list[DraftJob]:
    """A job for each project, one for each other volume of a database, and one for all others. `databases` has the
    servers of each volume."""
    jobs = [
        DraftJob(name, tuple(sorted(volumes)), name, _servers(sorted(volumes), databases))
        for name, volumes in sorted(projects.items())
    ]
    jobs += [DraftJob(name, (name,), None, tuple(databases[name])) for name in loose if name in databases]
    plain = tuple(name for name in loose if name not in databases)
    return [*jobs, *([DraftJob("volumes", plain)] if plain else [])]


def _servers(volumes: Sequence[str], databases: Mapping[str, list[DraftDatabase]]) -> tuple[DraftDatabase, ...]:
    return tuple(dict.fromkeys(one for volume in volumes for one in databases.get(volume, ())))
