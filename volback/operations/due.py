"""Due: whether it is time for a full backup, or for one that reads every file, by how old the last such one is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, takewhile

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable
from volback.latest import created_at, is_future, is_safety_copy
from volback.operations.lines import Lines
from volback.operations.parent import Comparing


def with_due(repository: Repository, earlier: Iterable[BackupKey], engine_id: str, comparing: Comparing) -> Comparing:
    """How to compare a backup now, of a volume whose backups are `earlier`, oldest first. Raises StoreUnreachable."""
    counts, now = Lines(repository).counts(engine_id), repository.now()
    longest_s = max(comparing.full_every_s or 0.0, comparing.reread_every_s or 0.0)
    with closing(_Made(repository, _since(earlier, now - timedelta(seconds=longest_s)))) as made:

        def is_due(every_s: float | None, is_such: Callable[[Manifest, datetime], bool]) -> bool:
            if every_s is None:
                return False
            since = now - timedelta(seconds=every_s)
            recent = takewhile(lambda found: created_at(found.id) > since, made)
            return not any(counts(found) and is_such(found, since) for found in recent)

        full = comparing.full or is_due(comparing.full_every_s, _stands_alone)
        reread = comparing.reread or (not full and is_due(comparing.reread_every_s, _read_everything))
    return replace(comparing, full=full, reread=reread)


def _since(keys: Iterable[BackupKey], since: datetime) -> list[BackupKey]:
    return [key for key in keys if created_at(key.id) > since]


def _stands_alone(manifest: Manifest, since: datetime) -> bool:
    """Or it uses only what was stored since: then one that stood alone was made since, and may have been removed.

    One in two passes without a parent is an increment in form only.
    """
    return all(created_at(used.since) > since for used in manifest.uses)


def _read_everything(manifest: Manifest, since: datetime) -> bool:
    return manifest.reread or manifest.parent is None or _stands_alone(manifest, since)


class _Made(Iterable[Manifest]):
    """The backups that people and jobs made up to now, newest first, each read once; what cannot be read does not
    count. Those of a distant store are read ahead, in threads, until it is closed."""

    def __init__(self, repository: Repository, keys: Iterable[BackupKey]) -> None:
        now = repository.now()
        past = [key for key in keys if not is_future(created_at(key.id), now)]
        self._read: list[Manifest | None] = []
        self._reading = read_ahead(_reader(repository), reversed(past), ahead=repository.catalog.at_once)

    def close(self) -> None:
        """End what is read ahead."""
        self._reading.close()

    def __iter__(self) -> Iterator[Manifest]:
        for at in count():
            if at == len(self._read):
                try:
                    self._read.append(next(self._reading))
                except StopIteration:
                    return
            manifest = self._read[at]
            if manifest is not None and not is_safety_copy(manifest.tags):
                yield manifest


def _reader(repository: Repository) -> Callable[[BackupKey, threading.Event], Manifest | None]:
    def read(key: BackupKey, _: threading.Event) -> Manifest | None:
        try:
            return repository.catalog.read(key)
        except StoreUnreachable:
            raise
        except (NotFoundError, IntegrityError, StoreError):
            return None

    return read
