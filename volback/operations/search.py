"""Search: paths in all backups of some volumes, from their indexes alone.

`find` matches a pattern, `history` follows one path. What an index shares with that of the backup before is not read
again, and of a new segment only the lines are decoded that contain the longest plain text of the pattern.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from volback.catalog.differences import Change, changes_of
from volback.catalog.listing import DamagedManifest
from volback.catalog.reference import Reference
from volback.catalog.states import State, states_of
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, StoreError, StoreUnreachable, VolbackError
from volback.operations.groups import Found, grouped
from volback.operations.open_backup import OpenBackup
from volback.policy.excludes import compile_pattern

log = logging.getLogger(__name__)

_PLAIN = re.compile(rb"[A-Za-z0-9._+,=@%~ -]+")
"""What JSON writes as it is."""
_SET = re.compile(rb"\[!?\]?[^\]]*\]|[*?]", re.DOTALL)


@dataclass(slots=True)
class Version:
    """One content of one path, and the ids of the backups that have it, oldest first."""

    host: str
    volume: str
    state: State
    backups: list[str]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a path was in backups that follow one another; a state of None: it was not there."""

    state: State | None
    before: State | None
    backups: list[str]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What changed since the backup before; empty where it appeared or was gone."""
        return changes_of(self.before, self.state) if self.before and self.state else ()


@dataclass(slots=True)
class Unread:
    """Which backups could not be read, and why."""

    errors: dict[str, VolbackError] = field(default_factory=dict)


def find(
    repository: Repository, pattern: str, references: list[str], *, all_hosts: bool = False
) -> tuple[list[Version], Unread]:
    """Return each version of each path that matches, by volume and path, the oldest first.

    `references`: volumes (all of their backups) or backups; none: all of this engine's host, or of every host. Raises
    UsageError for a pattern that is not valid, NotFoundError for a volume that has no backup.
    """
    matches = compile_pattern(pattern, "pattern")
    unread, versions = Unread(), list[Version]()
    for group in grouped(repository, references, all_hosts=all_hosts):
        found: dict[object, Version] = {}
        search = _Search(lambda path: bool(path) and matches.match(path) is not None, _plain_text(pattern))
        for backup in _opened(repository, group.wanted, unread):
            for state in search.states(backup):
                version = found.setdefault(_identity(state), Version(group.host, group.volume, state, []))
                version.backups.append(backup.manifest.id)
        versions += sorted(found.values(), key=_by_path_and_age)
    return versions, unread


def history(repository: Repository, reference: str, path: bytes) -> tuple[list[Epoch], Unread]:
    """Return what a path was in all backups of a volume, the newest last. Raises NotFoundError if it never was."""
    unread = Unread()
    plain = _PLAIN.findall(path.rpartition(b"/")[2])
    search = _Search(path.__eq__, max(plain, key=len, default=b""))
    seen: list[tuple[str, State | None]] = []
    for group in grouped(repository, [reference]):
        for backup in _opened(repository, group.wanted, unread):
            seen.append((backup.manifest.id, next(search.states(backup), None)))
    if not any(state for _, state in seen):
        text = path.decode(errors="backslashreplace") or "."
        raise NotFoundError(f"path {text!r} is in no backup of {reference}", f"see `volback ls {reference}`")
    return list(_epochs(seen)), unread


def _epochs(seen: list[tuple[str, State | None]]) -> Iterator[Epoch]:
    before: State | None = None
    epoch: Epoch | None = None
    for id_, state in seen:
        if epoch is not None and _is_same(epoch.state, state):
            epoch.backups.append(id_)
            continue
        if epoch is not None:
            yield epoch
            before = epoch.state
        epoch = Epoch(state, before, [id_])
    if epoch is not None:
        yield epoch


def _is_same(one: State | None, other: State | None) -> bool:
    if one is None or other is None:
        return one is other
    return not changes_of(one, other)


class _Search:
    """Looks into one backup after the other."""

    def __init__(self, wanted: Callable[[bytes], bool], text: bytes) -> None:
        """`text` is in each path that is wanted; it may be empty."""
        self._wanted = wanted
        self._text = text
        self._known: dict[bytes, list[State]] = {}
        """What is wanted of each segment of the backup before."""

    def states(self, backup: OpenBackup) -> Iterator[State]:
        """The states that are wanted, in stream order. Raises IntegrityError, before anything is yielded."""
        digests = [segment.digest for segment in backup.segments]
        found = {digest: self._known[digest] for digest in digests if digest in self._known}
        numbers: dict[int, bytes] = {}
        at = 0
        for digest, segment in zip(digests, backup.segments, strict=True):
            lines = segment.lines()
            if digest not in found:
                numbers |= {at + number: digest for number, line in enumerate(lines) if self._text in line}
            at += len(lines)
        new: dict[bytes, list[State]] = {digest: [] for digest in digests if digest not in found}
        for digest, unit in zip(numbers.values(), backup.numbered(numbers), strict=True):
            if any(self._wanted(member.path) for member in unit.members):
                new[digest] += [state for state in states_of(unit) if self._wanted(state.member.path)]
        self._known = found | new
        return (state for digest in digests for state in self._known[digest])


def _opened(repository: Repository, manifests: Iterable[Found], unread: Unread) -> Iterator[OpenBackup]:
    """Each backup whose index can be read, oldest first."""
    for manifest in manifests:
        name = str(Reference(manifest.host, manifest.volume, manifest.id))
        if isinstance(manifest, DamagedManifest):
            unread.errors[name] = manifest.error
            continue
        try:
            yield OpenBackup.as_stored(repository, manifest)
        except StoreUnreachable:
            raise
        except (IntegrityError, StoreError) as exc:
            unread.errors[name] = exc


def _plain_text(pattern: str) -> bytes:
    """The longest text that each path that matches contains; the `.` of `./a` is in none."""
    parts = _SET.split(pattern.encode("utf-8", "surrogateescape"))
    texts = (text for part in parts for text in _PLAIN.findall(part) if text != b".")
    return max(texts, key=len, default=b"")


def _identity(state: State) -> object:
    member = state.member
    return member.path, member.type, member.size_bytes, member.mtime_ns, member.link, state.content


def _by_path_and_age(version: Version) -> tuple[bytes, str]:
    return version.state.member.path, version.backups[0]
