"""Due: whether it is time for a full backup, or for one that reads every file, by how old the last such one is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.context import Repository
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable
from volback.latest import created_at, is_future, is_safety_copy
from volback.operations.lines import Lines
from volback.operations.parent import Comparing


def with_due(repository: Repository, earlier: Iterable[BackupKey], engine_id: str, comparing: Comparing) -> Comparing:
    """How to compare a backup now, of a volume whose backups are `earlier`, oldest first. Raises StoreUnreachable."""
    counts = Lines(repository).counts(engine_id)

    def is_due(every_s: float | None, is_such: Callable[[Manifest, datetime], bool]) -> bool:
        if every_s is None:
            return False
        since = repository.now() - timedelta(seconds=every_s)
        recent = [key for key in earlier if created_at(key.id) > since]
        return not any(counts(found) and is_such(found, since) for found in _made(repository, recent))

    full = comparing.full or is_due(comparing.full_every_s, _stands_alone)
    return replace(
        comparing,
        full=full,
        reread=comparing.reread or (not full and is_due(comparing.reread_every_s, _read_everything)),
    )


def _stands_alone(manifest: Manifest, since: datetime) -> bool:
    """Or it uses only what was stored since: then one that stood alone was made since, and may have been removed.

    One in two passes without a parent is an increment in form only.
    """
    return all(created_at(used.id) > since for used in manifest.uses)


def _read_everything(manifest: Manifest, since: datetime) -> bool:
    return manifest.reread or manifest.parent is None or _stands_alone(manifest, since)


def _made(repository: Repository, keys: list[BackupKey]) -> Iterable[Manifest]:
    """The backups that people and jobs made up to now, newest first; what cannot be read does not count."""
    for key in reversed(keys):
        if is_future(created_at(key.id), repository.now()):
            continue
        try:
            manifest = repository.catalog.read(key)
        except StoreUnreachable:
            raise
        except (NotFoundError, IntegrityError, StoreError):
            continue
        if not is_safety_copy(manifest.tags):
            yield manifest
