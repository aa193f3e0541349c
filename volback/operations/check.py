"""Check: walk all references of a repository, or of some volumes; manifests and one listing, no data.

What a backup needs must be there, at its size. What nobody needs takes space, and endangers nothing: prune removes it.
Whether every byte is what was written says `verify --data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from volback.catalog.condemned import Condemnation, Condemned, until
from volback.catalog.faults import faults_of
from volback.catalog.keys import NOTES_NAME, BackupKey, parse_manifest_key
from volback.catalog.listing import DamagedManifest, Found, current, key_of
from volback.catalog.model import Manifest
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference
from volback.catalog.space import sizes_of
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, VolbackError
from volback.operations.scopes import VERIFY_ONE, scopes_of
from volback.operations.verify import repository_damage

Kind = Literal["missing", "wrong_size", "unreadable", "double", "condemned", "unreferenced"]
_HARMLESS: frozenset[Kind] = frozenset({"double", "condemned", "unreferenced"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One object about which something is to be said."""

    kind: Kind
    key: str
    message: str
    backups: tuple[str, ...] = ()
    """Names of the backups that need it."""
    size_bytes: int = 0
    """Of what no backup needs."""
    error: VolbackError | None = None
    """Why it cannot be read, where it is not damaged: the store did not return it."""

    @property
    def is_wrong(self) -> bool:
        """Whether a backup is endangered."""
        return self.kind not in _HARMLESS


@dataclass(frozen=True, slots=True)
class Checked:
    """What was walked, and found."""

    backups: int
    objects: int
    """How many objects they reference."""
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> list[Finding]:
        """What endangers a backup."""
        return [finding for finding in self.findings if finding.is_wrong]

    @property
    def unreferenced_bytes(self) -> int:
        """What takes space, and no backup needs."""
        return sum(finding.size_bytes for finding in self.findings if not finding.backups)


def check(repository: Repository, volumes: Sequence[str] = (), *, all_hosts: bool = False) -> Checked:
    """Check the named volumes (`VOLUME` or `HOST/VOLUME`), or all of this host, or of every host.

    Raises NotFoundError for a volume that has no backup, UsageError.
    """
    found: dict[tuple[str, str], list[Found]] = {}
    held: dict[BackupKey, list[StoredObject]] = {}
    condemned: dict[str, list[Condemnation]] = {}
    for host, volume in scopes_of(repository, volumes, all_hosts=all_hosts, for_one=VERIFY_ONE):
        manifests = list(repository.catalog.revisions(host, volume))
        if not manifests and volume is not None:
            raise NotFoundError(f"no backup of {volume} in {repository.store.url}", "see `volback list`")
        for one in manifests:
            found.setdefault((one.host, one.volume), []).append(one)
        # After the manifests: what they need is there by now.
        listed, names, _ = repository.catalog.survey(host, volume)
        held.update(listed)
        condemned.update(names)
    groups: dict[tuple[str, str], dict[BackupKey, list[StoredObject]]] = {}
    for key, stored in held.items():
        groups.setdefault((key.host, key.volume), {})[key] = stored
    walks = [
        _Walk(found.get(group, []), groups.get(group, {}), condemned) for group in sorted(found.keys() | groups.keys())
    ]
    findings = [finding for walk in walks for finding in walk.findings()]
    findings += _damaged_notes(repository, held)
    findings[:0] = [Finding("unreadable", damage.object, damage.message) for damage in repository_damage(repository)]
    return Checked(sum(walk.backups for walk in walks), sum(walk.objects for walk in walks), tuple(findings))


class _Walk:
    """The references of one volume's backups."""

    def __init__(
        self, found: Sequence[Found], held: Mapping[BackupKey, Sequence[StoredObject]], condemned: Condemned
    ) -> None:
        self._held = held
        self._condemned = condemned
        self._sizes = sizes_of(held)
        # What another machine has removed, or committed, between the reading and the listing is not wrong.
        self._found = [one for one in found if _document(one) in self._sizes]
        read = {_document(one) for one in found}
        self._has_new = any(parse_manifest_key(name) is not None and name not in read for name in self._sizes)
        self._users: dict[str, list[Manifest]] = {}
        for one in self._found:
            if isinstance(one, Manifest):
                for name in one.references:
                    self._users.setdefault(name, []).append(one)
        self.objects = len(self._users)
        self.backups = len(current(self._found))

    def findings(self) -> Iterator[Finding]:
        for one in self._found:
            if isinstance(one, DamagedManifest):
                yield _unreadable(one.key, one.error, key_of(one))
        yield from self._faults()
        yield from self._doubles()
        yield from self._condemnations()
        if not self._has_new and not any(isinstance(one, DamagedManifest) for one in self._found):
            yield from self._unreferenced()

    def _faults(self) -> Iterator[Finding]:
        """Each object once, with all backups that need it."""
        seen: dict[tuple[str, str], Finding] = {}
        for one in current(self._found):
            if not isinstance(one, Manifest):
                continue
            for fault in faults_of(one, lambda key: self._sizes.get(key, -1)):
                users = _names(self._users[fault.key])
                seen.setdefault((fault.key, fault.message), Finding(fault.kind, fault.key, fault.message, users))
        yield from seen.values()

    def _doubles(self) -> Iterator[Finding]:
        """Earlier revisions that a killed repack has left: what they reference stays with them."""
        counting = {one.manifest_key for one in current(self._found) if isinstance(one, Manifest)}
        for one in self._found:
            if isinstance(one, Manifest) and one.manifest_key not in counting:
                message = f"{one.manifest_key} is beside a later revision of it"
                yield Finding("double", one.manifest_key, message, (one.name,))

    def _unreferenced(self) -> Iterator[Finding]:
        whole = {key_of(one) for one in self._found}
        for key, stored in self._held.items():
            for one in stored:
                is_document = key in whole and (one.key == key.notes or parse_manifest_key(one.key) is not None)
                if not (is_document or one.key in self._users or one.key in self._condemned):
                    yield Finding("unreferenced", one.key, f"{one.key} is used by no backup", (), one.size_bytes)

    def _condemnations(self) -> Iterator[Finding]:
        """What waits for a later prune; where a backup uses it, that prune lets it stay."""
        for key, found in self._condemned.items():
            if key not in self._sizes:
                continue
            if key in self._users:
                users, message = _names(self._users[key]), f"{key} is condemned, and stays as it is used"
                yield Finding("condemned", key, message, users)
            else:
                message = f"{key} is condemned: a prune after {until(found):%Y-%m-%d %H:%M} UTC deletes it"
                yield Finding("condemned", key, message, (), self._sizes[key])


def _document(one: Found) -> str:
    """The key of its manifest."""
    return one.manifest_key if isinstance(one, Manifest) else one.key


def _damaged_notes(
    repository: Repository, held: Mapping[BackupKey, Sequence[StoredObject]]
) -> Iterator[Finding]:  # fmt: skip
    there = [one for stored in held.values() for one in stored if one.key.endswith("/" + NOTES_NAME)]
    for key, notes in repository.catalog.notes.listed(there).items():
        if notes.error is not None:
            yield _unreadable(key.notes, notes.error, key)


def _unreadable(name: str, error: VolbackError, backup: BackupKey) -> Finding:
    denied = None if isinstance(error, IntegrityError) else error
    return Finding("unreadable", name, error.message, (_name(backup),), error=denied)


def _names(users: Iterable[Manifest]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(user.name for user in users))


def _name(key: BackupKey) -> str:
    return str(Reference(key.host, key.volume, key.id))
