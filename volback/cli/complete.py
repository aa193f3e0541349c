"""Complete: names of volumes and backups for the shell. A completion that fails is empty, never an error.

The shell prints and inserts what it gets as it is: names with control characters are left out.
"""

from __future__ import annotations

from volback.cli.call import Call
from volback.errors import Interrupted, VolbackError
from volback.printable import has_control

TYPED = Call(quiet=True)
"""The global options of the command line that is being typed: a completion is one process."""


def complete_volume(incomplete: str) -> list[str]:
    """Volumes of the engine."""
    from volback.context import open_engine

    try:
        with TYPED.context() as ctx:
            names = [volume.name for volume in open_engine(ctx).volumes()]
    except (VolbackError, Interrupted):
        return []
    return [name for name in names if name.startswith(incomplete) and not has_control(name)]


def complete_backup(incomplete: str) -> list[str]:
    """Volumes that have backups; after an `@`, their ids. It does not ask the engine, so it lists those of every
    host."""
    from volback.catalog.reference import Reference

    try:
        with TYPED.opened_repository() as (_, repository):
            keys = repository.catalog.backups()
            several = len({key.host for key in keys}) > 1
    except (VolbackError, Interrupted):
        return []
    with_id = "@" in incomplete
    names = [str(Reference(key.host if several else None, key.volume, key.id if with_id else None)) for key in keys]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and not has_control(name)]
