"""References: which backups of one volume need which objects, as their manifests say. Pure: no I/O.

Data and index objects outlive their manifest while a manifest references them. Who deletes asks here: sweep, prune
and `du` have one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from volback.catalog.model import Manifest
from volback.errors import IntegrityError, VolbackError


@dataclass(frozen=True, slots=True)
class References:
    """All references among the backups of one volume."""

    users: Mapping[str, frozenset[str]]
    """Ids of the backups that need each object, by its key; the backup that it belongs to is among them."""
    unreadable: Mapping[str, VolbackError]
    """Names of the backups whose manifests cannot be read, and why: what they need is unknown."""

    def check_known(self, what: str) -> None:
        """Raises IntegrityError where a manifest cannot be read, so that `what` may be needed."""
        for name, error in self.unreadable.items():
            others = f" and {len(self.unreadable) - 1} more" if len(self.unreadable) > 1 else ""
            raise IntegrityError(
                f"{what} stays, as nothing of its volume is deleted while it is unknown what {name}{others} needs:"
                f" {error.message}",
                error.hint or f"if that backup is lost, volback remove {name} first",
            )

    def unneeded(self, keys: Iterable[str]) -> list[str]:
        """Return those of `keys` that no manifest references. Ask `check_known` before one of them is deleted."""
        return [key for key in keys if key not in self.users]


def references(manifests: Iterable[Manifest], unreadable: Mapping[str, VolbackError]) -> References:
    """Collect what the manifests of one volume reference."""
    users: dict[str, set[str]] = {}
    for manifest in manifests:
        own = (manifest.key.manifest, manifest.data_key, manifest.key.index)
        for key in (*own, *map(manifest.key_of, manifest.uses)):
            users.setdefault(key, set()).add(manifest.id)
    return References({key: frozenset(ids) for key, ids in users.items()}, unreadable)
