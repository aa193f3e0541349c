"""Candidates: the backups of a volume as the keep rules look at them, with the damage that a listing shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from volback.catalog.faults import faults_of
from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, Found, key_of
from volback.catalog.notes import NO_NOTES, Notes
from volback.latest import created_at
from volback.policy.keep import Candidate


def candidates_of(
    found: Iterable[Found], sizes: Mapping[str, int], lines: Mapping[str, str], notes: Mapping[BackupKey, Notes]
) -> Iterator[Candidate]:
    """Yield the backups of one volume. `sizes` has all objects there, `lines` the line of each engine, `notes` those of
    the backups that have some."""
    for backup in found:
        noted = notes.get(key_of(backup), NO_NOTES)
        if isinstance(backup, DamagedManifest):
            yield Candidate(
                backup.id,
                created_at(backup.id),
                damage=backup.error.message,
                is_readable=False,
                is_held=noted.is_held,
            )
            continue
        yield Candidate(
            backup.id,
            created_at(backup.id),
            tuple(backup.tags),
            next((fault.message for fault in faults_of(backup, lambda key: sizes.get(key, -1))), None),
            smaller_than=backup.smaller_than,
            line=lines[backup.engine_id],
            is_held=noted.is_held,
            noted_tags=tuple(noted.tags),
        )
