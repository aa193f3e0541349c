"""Complete: names of volumes, backups, projects, jobs and so on for the shell. A completion that fails is empty, never
an error.

The shell prints and inserts what it gets as it is: names with control characters are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from volback.cli.call import Call
from volback.errors import Interrupted, VolbackError
from volback.printable import has_control

if TYPE_CHECKING:
    from volback.catalog.keys import BackupKey
    from volback.catalog.repository import Catalog

TYPED = Call(quiet=True)
"""The global options of the command line that is being typed: a completion is one process."""


def _offered(names: Callable[[str], Iterable[str]]) -> Callable[[str], list[str]]:
    """Those that begin as what was typed, each once; none where they are not known."""

    def offered(incomplete: str) -> list[str]:
        try:
            found = list(dict.fromkeys(names(incomplete)))
        except (VolbackError, Interrupted):
            return []
        return [name for name in found if name.startswith(incomplete) and not has_control(name)]

    return offered


@_offered
def complete_volume(_typed: str) -> Iterable[str]:
    """Volumes of the engine."""
    from volback.context import open_engine

    with TYPED.context() as ctx:
        return [volume.name for volume in open_engine(ctx).volumes()]


@_offered
def complete_backup(incomplete: str) -> Iterable[str]:
    """Volumes that have backups; after an `@`, their ids. It does not ask the engine, so it lists those of every
    host."""
    from volback.catalog.reference import Reference

    with TYPED.opened_repository() as (_, repository):
        keys = repository.catalog.backups()
    several = len({key.host for key in keys}) > 1
    with_id = "@" in incomplete
    return [str(Reference(key.host if several else None, key.volume, key.id if with_id else None)) for key in keys]


@_offered
def complete_project(_typed: str) -> Iterable[str]:
    """Compose projects that have volumes on the engine."""
    from volback.context import open_engine
    from volback.policy.projects import PROJECT

    with TYPED.context() as ctx:
        return sorted({volume.labels.get(PROJECT, "") for volume in open_engine(ctx).volumes()} - {""})


@_offered
def complete_stored_project(_typed: str) -> Iterable[str]:
    """Compose projects of the newest backup of each volume."""
    from volback.policy.projects import PROJECT

    with TYPED.opened_repository() as (_, repository):
        catalog = repository.catalog
        return sorted({catalog.read(key).source.labels.get(PROJECT, "") for key in _newest(catalog)} - {""})


@_offered
def complete_tag(_typed: str) -> Iterable[str]:
    """Tags of the newest backup of each volume."""
    with TYPED.opened_repository() as (_, repository):
        catalog = repository.catalog
        tags = (catalog.notes.read(key).tags_with(catalog.read(key).tags) for key in _newest(catalog))
        return sorted({tag for found in tags for tag in found})


@_offered
def complete_job(_typed: str) -> Iterable[str]:
    """Jobs of the configuration."""
    from volback.jobs.open_config import read_config

    return sorted(read_config(TYPED.config).jobs)


@_offered
def complete_repository(_typed: str) -> Iterable[str]:
    """Repositories of the configuration; a shell offers directories where none is so."""
    from volback.jobs.open_config import repository_names

    return repository_names(TYPED.config)


@_offered
def complete_context(_typed: str) -> Iterable[str]:
    """Contexts of the docker command."""
    from volback.engine.contexts import known_contexts

    return known_contexts(os.environ)


def _newest(catalog: Catalog) -> Iterable[BackupKey]:
    """Of each volume; in a listing ids ascend."""
    return {(key.host, key.volume): key for key in catalog.backups()}.values()
