"""References: which backups of one volume need which objects, as their manifests say. Pure: no I/O.

Data and index objects outlive their manifest while a manifest references them. Who deletes asks here: sweep, prune,
remove and `du` have one answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference
from volback.errors import IntegrityError, VolbackError


@dataclass(frozen=True, slots=True)
class References:
    """All references among the backups of one volume."""

    users: Mapping[str, frozenset[BackupKey]]
    """The backups that need each object, by its key; the backup that it belongs to is among them."""
    unreadable: Mapping[BackupKey, VolbackError] = field(default_factory=dict)
    """The backups whose manifests cannot be read, and why: what they need is unknown."""

    def check_known(self, what: str) -> None:
        """Raises IntegrityError where a manifest cannot be read, so that `what` may be needed."""
        for key, error in self.unreadable.items():
            names = [str(Reference(one.host, one.volume, one.id)) for one in self.unreadable]
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            named = " ".join(names)
            raise IntegrityError(
                f"{what} stays, as nothing of its volume is deleted while it is unknown what"
                f" {Reference(key.host, key.volume, key.id)}{others} needs: {error.message}",
                error.hint or f"if that is lost, volback remove {named} first",
            )

    def has(self, key: BackupKey) -> bool:
        """Whether that backup is among them."""
        return key.manifest in self.users or key in self.unreadable

    def unneeded(self, keys: Iterable[str]) -> list[str]:
        """Return those of `keys` that no manifest references. Ask `check_known` before one of them is deleted."""
        return [key for key in keys if key not in self.users]

    def freed_by(self, removed: Collection[BackupKey]) -> set[str]:
        """Return the keys of the objects that nobody needs once these backups are removed."""
        gone = frozenset(removed)
        return {name for name, users in self.users.items() if users <= gone}

    def without(self, removed: Collection[BackupKey]) -> References:
        """Return the references that are left once these backups are removed."""
        gone = frozenset(removed)
        left = {name: users - gone for name, users in self.users.items()}
        unreadable = {key: error for key, error in self.unreadable.items() if key not in gone}
        return References({name: users for name, users in left.items() if users}, unreadable)

    def joined(self, other: References) -> References:
        """Return the references of both."""
        users = dict(self.users)
        for name, found in other.users.items():
            users[name] = users.get(name, frozenset()) | found
        return References(users, {**self.unreadable, **other.unreadable})


def references(manifests: Iterable[Manifest], unreadable: Mapping[BackupKey, VolbackError]) -> References:
    """Collect what the manifests of one volume reference."""
    users: dict[str, set[BackupKey]] = {}
    for manifest in manifests:
        key = manifest.key
        for name in (key.manifest, *manifest.references):
            users.setdefault(name, set()).add(key)
    return References({name: frozenset(keys) for name, keys in users.items()}, unreadable)
