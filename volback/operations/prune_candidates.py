"""Candidates: the backups of a volume as the keep rules look at them, with the damage that a listing shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from volback.catalog.listing import DamagedManifest, Found
from volback.catalog.model import Manifest
from volback.latest import created_at
from volback.policy.keep import Candidate


def candidates_of(found: Iterable[Found], sizes: Mapping[str, int], lines: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the backups of one volume. `sizes` has all objects there, `lines` the line of each engine."""
    for backup in found:
        if isinstance(backup, DamagedManifest):
            yield Candidate(backup.id, created_at(backup.id), damage=backup.error.message, is_readable=False)
            continue
        yield Candidate(
            backup.id,
            created_at(backup.id),
            tuple(backup.tags),
            next(_faults(backup, sizes), None),
            smaller_than=backup.smaller_than,
            line=lines[backup.engine_id],
        )


def _faults(backup: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    """The damage of a backup that a listing shows."""
    own = [(backup.data_key, backup.data.size_bytes), (backup.index_key, backup.index.size_bytes)]
    for name, expected in [*own, *((backup.key_of(used), used.size_bytes) for used in backup.uses)]:
        if name not in sizes:
            yield f"{name} is missing"
        elif sizes[name] != expected:
            yield f"{name} has {sizes[name]} bytes, not {expected}"
