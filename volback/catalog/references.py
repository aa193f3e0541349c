"""References: which backups of one volume need which objects, as their manifests say. Pure: no I/O.

Data and index objects outlive their manifest while a manifest references them. Who deletes asks here: sweep, prune,
remove and `du` have one answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from volback.catalog.keys import BackupKey, parse_manifest_key
from volback.catalog.listing import DamagedManifest, Found
from volback.catalog.reference import Reference
from volback.errors import IntegrityError, ManifestUnreadable, VolbackError, kind_of_all


@dataclass(frozen=True, slots=True)
class References:
    """All references among the backups of one volume."""

    users: Mapping[str, frozenset[BackupKey]]
    """The backups that need each object, by its key; the backup that it belongs to is among them."""
    unreadable: Mapping[BackupKey, VolbackError] = field(default_factory=dict)
    """The backups of which a revision of the manifest cannot be read, and why: what they need is unknown."""
    manifests: Mapping[str, BackupKey] = field(default_factory=dict)
    """Every revision of every manifest, by its key, also those that cannot be read."""

    def check_known(self, what: str) -> None:
        """Raises IntegrityError where a manifest cannot be read, so that `what` may be needed; ManifestUnreadable where
        none of them is damaged, but the store did not return it."""
        if not self.unreadable:
            return
        is_damaged = issubclass(kind_of_all(self.unreadable.values()), IntegrityError)
        names = [str(Reference(one.host, one.volume, one.id)) for one in self.unreadable]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        error = next(one for one in self.unreadable.values() if isinstance(one, IntegrityError) == is_damaged)
        message = (
            f"{what} stays, as nothing of its volume is deleted while it is unknown what"
            f" {names[0]}{others} needs: {error.message}"
        )
        if is_damaged:
            raise IntegrityError(message, error.hint or f"if that is lost, volback remove {' '.join(names)} first")
        raise ManifestUnreadable(message, error.hint)

    def manifests_of(self, keys: Collection[BackupKey]) -> list[list[str]]:
        """Return the manifests of each of these backups, the highest revision last."""
        found: dict[BackupKey, dict[int, str]] = {key: {} for key in keys}
        for name, key in self.manifests.items():
            if key in found:
                found[key][key.revision or 1] = name
        return [[name for _, name in sorted(names.items())] for names in found.values()]

    @property
    def backups(self) -> set[BackupKey]:
        """The backups that are there, in any revision."""
        return set(self.manifests.values())

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
        manifests = {name: key for name, key in self.manifests.items() if key not in gone}
        return References({name: users for name, users in left.items() if users}, unreadable, manifests)

    def joined(self, other: References) -> References:
        """Return the references of both."""
        users = dict(self.users)
        for name, found in other.users.items():
            users[name] = users.get(name, frozenset()) | found
        return References(users, {**self.unreadable, **other.unreadable}, {**self.manifests, **other.manifests})


def references_of(found: Iterable[Found]) -> References:
    """Collect what these manifests of one volume reference: every revision of each, if something is to be deleted."""
    users: dict[str, set[BackupKey]] = {}
    unreadable: dict[BackupKey, VolbackError] = {}
    manifests: dict[str, BackupKey] = {}
    for one in found:
        if isinstance(one, DamagedManifest):
            if (key := parse_manifest_key(one.key)) is not None:
                unreadable[key], manifests[one.key] = one.error, key
            continue
        key = one.key
        manifests[one.manifest_key] = key
        for name in (one.manifest_key, *one.references):
            users.setdefault(name, set()).add(key)
    return References({name: frozenset(keys) for name, keys in users.items()}, unreadable, manifests)
