"""Stored sets: which backups of a compose project's volumes were made together.

A set is of a project if `backup --project` made it. One that was made otherwise (`backup --all`, a job) is too, as far
as its volumes are the project's: by the labels that their backups recorded, or by what this engine and this machine
know. A set is whole if each of the project's volumes has a backup that names it. Reads the repository alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey, is_id, is_id_prefix
from volback.catalog.model import Manifest, SetOf
from volback.catalog.reference import Reference
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, UsageError
from volback.latest import created_at, is_future
from volback.operations.compose_files import is_compose_files
from volback.operations.project_members import Members
from volback.policy.projects import PROJECT

_NAMED_AT_MOST = 5

Read = tuple[BackupKey, Manifest | NotFoundError | IntegrityError]


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set in the repository, as far as it is of the project."""

    made: SetOf
    backups: dict[str, Manifest]
    """By volume."""
    volumes: tuple[str, ...]
    """The project's."""

    @property
    def missing(self) -> list[str]:
        """Volumes of the project that have no backup in the set."""
        return [volume for volume in self.volumes if volume not in self.backups]


def find_set(
    repository: Repository,
    project: str,
    set_prefix: str | None = None,
    *,
    is_known: Callable[[str, str], bool] = lambda host, volume: False,
) -> tuple[StoredSet, list[str]]:
    """Return the set of a project (NAME or HOST/NAME) that `set_prefix` names, or the latest whole one, and warnings.

    `is_known` says of a host's volume whether something beside the backups counts it among the project's. Reads
    manifests from the newest back, as few as it takes. Raises NotFoundError, UsageError.
    """
    check_set_prefix(set_prefix)
    host, name = split_project(repository, project)
    members = Members(repository, host, name, lambda volume: is_known(host, volume))
    search = _Search(repository, members)
    return search.latest() if set_prefix is None else search.named(set_prefix)


def find_compose_files_backup(repository: Repository, host: str, project: str, set_id: str) -> Manifest | None:
    """Return the backup of a project's compose files that belongs to a set, or else the latest one.

    The set is whole without it, and one that was made without the project has none.
    """
    found, now = list[Manifest](), repository.now()
    keys = [key for key in repository.catalog.backups(host) if key.volume.endswith(f"/{project}.compose")]
    for key in _newest_first(key for key in keys if not is_future(created_at(key.id), now)):
        try:
            read = repository.opened(repository.catalog.read(key))
        except (NotFoundError, IntegrityError):
            continue
        if not is_compose_files(read) or read.source.labels.get(PROJECT) != project:
            continue
        if read.set is not None and read.set.id == set_id:
            return read
        found.append(read)
        if second_of(key.id) < second_of(set_id):
            break
    return found[0] if found else None


def split_project(repository: Repository, project: str) -> tuple[str, str]:
    """The host and the name that NAME or HOST/NAME names."""
    host, slash, name = project.rpartition("/")
    return (host if slash else repository.host), name


def check_set_prefix(prefix: str | None) -> None:
    """Raises UsageError for what is not the beginning of an id."""
    if prefix is not None and not is_id_prefix(prefix):
        raise UsageError(
            f"--set {prefix!r} is not the beginning of a set's id", "an id looks like 20261123T160254Z-3f9c"
        )


class _Search:
    """The sets of one project, as far as they have been read."""

    def __init__(self, repository: Repository, members: Members) -> None:
        self._repository = repository
        self._members = members
        self._host = members.host
        self._project = members.project
        self._found: dict[str, StoredSet] = {}
        self._open: dict[str, StoredSet] = {}
        """Sets that were made without the project, of which backups may still have to be read."""
        self._warnings: list[str] = []

    def latest(self) -> tuple[StoredSet, list[str]]:
        now, keys = self._repository.now(), self._repository.catalog.backups(self._host)
        future = [key for key in keys if is_future(created_at(key.id), now)]
        whole = self._read_back([key for key in keys if key not in future])
        if whole is None and self._found:
            hint = f"restore an incomplete one with --set: {self._ids(self._found)}"
            raise NotFoundError(f"no set of project {self._project!r} is complete", hint)
        if whole is None:
            raise self._none()
        for newer in sorted(id_ for id_ in self._found if id_ > whole.made.id):
            lacks = ", ".join(self._found[newer].missing)
            self._warnings.append(f"set {newer} is newer, but lacks {lacks}: {whole.made.id} is restored instead")
        self._warn_of_future(future, whole)
        self._warn_of_others(whole, keys)
        return whole, self._warnings

    def named(self, prefix: str) -> tuple[StoredSet, list[str]]:
        keys = self._repository.catalog.backups(self._host)
        self._read_back(keys, prefix)
        fitting = [id_ for id_ in self._found if id_.startswith(prefix)]
        if not self._found:
            raise self._none()
        if not fitting:
            hint = f"its sets are {self._ids(self._found)}"
            raise NotFoundError(f"no set {prefix} of project {self._project!r}", hint)
        if len(fitting) > 1:
            raise UsageError(
                f"--set {prefix} matches {len(fitting)} sets: {self._ids(fitting)}", "give more characters of the id"
            )
        chosen = self._found[fitting[0]]
        if chosen.missing:
            self._warnings.append(f"set {chosen.made.id} is not complete: it lacks {', '.join(chosen.missing)}")
        self._warn_of_others(chosen, keys)
        return chosen, self._warnings

    def _warn_of_future(self, keys: list[BackupKey], chosen: StoredSet) -> None:
        """Say which sets were made with a clock that was ahead; backups of other projects are not their concern."""
        known = set(self._found)
        for _ in self._sets(self._read(_newest_first(keys))):
            pass
        for id_ in sorted(self._found.keys() - known):
            self._warnings.append(
                f"set {id_} is from the future, so it is not the latest: {chosen.made.id} is restored"
            )

    def _warn_of_others(self, chosen: StoredSet, keys: Iterable[BackupKey]) -> None:
        """Say which volumes of the project are not in the set. Where `backup --project` made it, its own list counts,
        and only what was read anyway is looked at."""
        volumes = self._members.seen()
        if chosen.made.project is None:
            volumes |= {key.volume for key in keys if self._members.has(key.volume)}
        for volume in sorted(volumes - set(chosen.volumes)):
            name, is_directory = Reference(self._host, volume), volume.startswith("/")
            what, option = ("directory", " --to DIR") if is_directory else ("volume", "")
            self._warnings.append(
                f"{what} {volume!r} of project {self._project!r} is not in set {chosen.made.id}, and not restored:"
                f" volback restore {name}{option}"
            )

    def _read_back(self, keys: list[BackupKey], prefix: str | None = None) -> StoredSet | None:
        """Read until a requested set is complete: any without `prefix`; with one, the set whose full id it is."""
        with closing(self._read(_newest_first(keys))) as manifests:
            for found in self._sets(manifests):
                wanted = prefix is None or (is_id(prefix) and found.made.id == prefix)
                if not found.missing and wanted:
                    return found
        return None

    def _read(self, keys: list[BackupKey]) -> Generator[Read, None, None]:
        """Manifests in the order of the keys; those of a distant store are read ahead, in threads."""
        catalog = self._repository.catalog

        def read(key: BackupKey, _: threading.Event) -> Read:
            try:
                return key, self._repository.opened(catalog.read(key))
            except (NotFoundError, IntegrityError) as exc:
                return key, exc

        return read_ahead(read, keys, ahead=catalog.at_once)

    def _sets(self, manifests: Iterable[Read]) -> Iterator[StoredSet]:
        """Yield a set of the project each time that a backup of it was read, newest first; one that was made without
        the project, once all of its backups are read: none is older than the set, by the second."""
        for key, read in manifests:
            yield from self._closed(before=second_of(key.id))
            found = self._add(key, read)
            if found is not None and found.made.project is not None:
                yield found
            elif found is not None and not found.missing:
                yield from self._close(found.made.id)
        yield from self._closed(before="")

    def _closed(self, *, before: str) -> Iterator[StoredSet]:
        for id_ in sorted((id_ for id_ in self._open if second_of(id_) > before), reverse=True):
            yield from self._close(id_)

    def _close(self, id_: str) -> Iterator[StoredSet]:
        """A set that was made without the project, reduced to its volumes, and those that newer backups know of."""
        whole = self._open.pop(id_)
        mine = [volume for volume in whole.volumes if self._members.has(volume, whole.backups.get(volume))]
        if not mine or id_ in self._found:
            return
        volumes = dict.fromkeys([*mine, *sorted(self._members.seen())])
        backups = {volume: whole.backups[volume] for volume in mine if volume in whole.backups}
        self._found[id_] = StoredSet(whole.made, backups, tuple(volumes))
        yield self._found[id_]

    def _add(self, key: BackupKey, manifest: Manifest | NotFoundError | IntegrityError) -> StoredSet | None:
        """The set that a backup belongs to, with the backup in it; None where it does not belong to a set, or to one of
        another project."""
        if isinstance(manifest, NotFoundError):
            return None  # removed while the sets were looked for
        if isinstance(manifest, IntegrityError):
            name = Reference(key.host, key.volume, key.id)
            self._warnings.append(f"backup {name} cannot be read, so its set is not known: {manifest.message}")
            return None
        if is_compose_files(manifest):
            return None
        self._members.note(manifest)
        made = manifest.set
        if made is None or made.project not in {None, self._project}:
            return None
        sets = self._open if made.project is None else self._found
        found = sets.setdefault(made.id, StoredSet(made, {}, tuple(made.volumes)))
        if found.made != made:
            self._warnings.append(
                f"backup {manifest.name} is left out: the other backups of set {made.id} do not know of it"
            )
            return None
        found.backups.setdefault(manifest.volume, manifest)
        return found

    def _none(self) -> NotFoundError:
        projects = sorted(
            {
                f"{manifest.host}/{manifest.set.project}"
                for manifest in self._repository.catalog.manifests(cached=True)  # only names, for a hint
                if isinstance(manifest, Manifest) and manifest.set is not None and manifest.set.project
            }
        )
        hint = f"there are sets of {', '.join(projects)}" if projects else "volback restore VOLUME restores single ones"
        return NotFoundError(f"no set of project {self._project!r} on host {self._host}", hint)

    def _ids(self, found: dict[str, StoredSet] | list[str]) -> str:
        latest = sorted(found)[-_NAMED_AT_MOST:]
        return ", ".join(latest) if len(latest) == len(found) else f"(latest {_NAMED_AT_MOST}) {', '.join(latest)}"


def second_of(id: str) -> str:
    """The part of an id that is a time. Ids of one second are in no order, also those of a set and its backups."""
    return id.partition("-")[0]


def _newest_first(keys: Iterable[BackupKey]) -> list[BackupKey]:
    return sorted(keys, key=lambda key: key.id, reverse=True)
