"""Faults: what is wrong with the objects that a manifest references, as their sizes show. Pure: no I/O.

Verify, prune and check ask here, so what is damaged for one of them is damaged for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from volback.catalog.model import Manifest

SizeOf = Callable[[str], int]
"""The stored size of an object by its key; -1 where it does not exist."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that a backup needs, and does not have as it was written."""

    kind: Literal["missing", "wrong_size"]
    key: str
    message: str


def faults_of(manifest: Manifest, size_of: SizeOf) -> Iterator[Fault]:
    """Yield the faults of the backup's own objects, its index first, then of those of others that it uses."""
    sizes = {manifest.index_key: manifest.index.size_bytes} | manifest.sizes
    for key, expected_bytes in sizes.items():
        size_bytes = size_of(key)
        if size_bytes < 0:
            yield Fault("missing", key, f"{key} is missing")
        elif size_bytes != expected_bytes:
            yield Fault("wrong_size", key, f"{key} has {size_bytes} bytes, not {expected_bytes}")
