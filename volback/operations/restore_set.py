"""Restore a set: the volumes of a compose project together, as one backup run found them.

A set is complete if each of its volumes has a backup that names the set. An incomplete one is only used if it is named.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from volback.ahead import read_ahead
from volback.catalog.keys import BackupKey, is_id, is_id_prefix
from volback.catalog.model import Manifest, SetOf, Source
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import (
    ConflictError,
    EngineUnreachable,
    IntegrityError,
    Interrupted,
    NotFoundError,
    StoreUnreachable,
    UsageError,
    VolbackError,
)
from volback.latest import created_at, is_future
from volback.operations.recover import sweep
from volback.operations.restore import RestoreOptions, RestoreResult, restore
from volback.operations.sources import volumes_by_project
from volback.state.seen_volumes import seen_volume

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set in the repository."""

    made: SetOf
    backups: dict[str, Manifest]
    """By volume."""

    @property
    def missing(self) -> list[str]:
        """Volumes of the set that have no backup in it."""
        return [volume for volume in self.made.volumes if volume not in self.backups]


@dataclass(frozen=True, slots=True)
class SetRestoreOptions:
    """Which set, and how its volumes are restored."""

    set_prefix: str | None = None
    """The beginning of the set's id; None is the latest complete one."""
    replace: bool = False
    safety_backup: bool = True
    prove: bool = False
    keep_driver: bool = False
    """Use the drivers and options that the backups say, wherever they reach."""
    keep_labels: bool = False
    """Take over labels by which programs act on the volumes, also where only the backups know them."""
    privileged_xattrs: bool = False


@dataclass(frozen=True, slots=True)
class SetRestoreResult:
    """The restored volumes; `errors` has the reason for each one that was not restored."""

    set: StoredSet
    restored: tuple[RestoreResult, ...]
    not_restored: tuple[str, ...]
    errors: tuple[VolbackError, ...]
    interrupted: Interrupted | None
    warnings: tuple[str, ...]


def restore_project(
    ctx: Context, engine: Engine, repository: Repository, project: str, options: SetRestoreOptions
) -> SetRestoreResult:
    """Restore each volume of a project (NAME or HOST/NAME) from one set; one that fails does not stop the next.

    Raises NotFoundError, UsageError; ConflictError before anything is created if a volume exists or is in use.
    """
    sweep(ctx, engine, repository)
    chosen, warnings = find_set(repository, project, options.set_prefix)
    _refuse(ctx, engine, chosen, options)
    restored, errors, left = list[RestoreResult](), list[VolbackError](), dict(sorted(chosen.backups.items()))
    failed: list[str] = []
    interrupted: Interrupted | None = None
    each = RestoreOptions(
        replace=options.replace,
        safety_backup=options.safety_backup,
        prove=options.prove,
        keep_driver=options.keep_driver,
        keep_labels=options.keep_labels,
        project=chosen.made.project,
        privileged_xattrs=options.privileged_xattrs,
    )
    for volume, manifest in sorted(chosen.backups.items()):
        del left[volume]
        try:
            restored.append(restore(ctx, engine, repository, manifest.name, each))
        except (VolbackError, Interrupted) as exc:
            failed.append(volume)
            exc.message = f"volume {volume!r} of project {chosen.made.project!r} was not restored: {exc.message}"
            exc.hint = exc.hint or f"volback restore {manifest.name}"
            if isinstance(exc, Interrupted):
                interrupted = exc
                break
            errors.append(exc)
            if isinstance(exc, EngineUnreachable | StoreUnreachable):
                break
    if left:
        commands = "; ".join(f"volback restore {manifest.name}" for manifest in left.values())
        errors.append(VolbackError(f"restoring stopped before {', '.join(left)}", commands))
    warnings += [warning for result in restored for warning in result.warnings]
    return SetRestoreResult(chosen, tuple(restored), (*failed, *left), tuple(errors), interrupted, tuple(warnings))


def find_set(repository: Repository, project: str, set_prefix: str | None = None) -> tuple[StoredSet, list[str]]:
    """Return the set of a project (NAME or HOST/NAME) that `set_prefix` names, or the latest complete one, and
    warnings.

    Reads manifests from the newest back, as few as it takes. Raises NotFoundError, UsageError.
    """
    if set_prefix is not None and not is_id_prefix(set_prefix):
        raise UsageError(
            f"--set {set_prefix!r} is not the beginning of a set's id", "an id looks like 20261123T160254Z-3f9c"
        )
    host, slash, name = project.rpartition("/")
    search = _Search(repository, host if slash else repository.host, name)
    if set_prefix is None:
        return search.latest()
    return search.named(set_prefix)


_Read = Manifest | NotFoundError | IntegrityError


class _Search:
    """The sets of one project, as far as they have been read."""

    def __init__(self, repository: Repository, host: str, project: str) -> None:
        self._repository = repository
        self._host = host
        self._project = project
        self._found: dict[str, StoredSet] = {}
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
        return whole, self._warnings

    def _warn_of_future(self, keys: list[BackupKey], chosen: StoredSet) -> None:
        """Say which sets were made with a clock that was ahead; backups of other projects are not their concern."""
        known = set(self._found)
        for key, read in self._read(keys):
            self._add(key, read)
        for id_ in sorted(self._found.keys() - known):
            self._warnings.append(
                f"set {id_} is from the future, so it is not the latest: {chosen.made.id} is restored"
            )

    def named(self, prefix: str) -> tuple[StoredSet, list[str]]:
        self._read_back(self._repository.catalog.backups(self._host), prefix)
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
        return chosen, self._warnings

    def _read_back(self, keys: list[BackupKey], prefix: str | None = None) -> StoredSet | None:
        """Read until a requested set is complete: any without `prefix`; with one, the set whose full id it is."""
        with closing(self._read(sorted(keys, key=lambda key: key.id, reverse=True))) as manifests:
            for key, read in manifests:
                found = self._add(key, read)
                wanted = prefix is None or (found is not None and is_id(prefix) and found.made.id == prefix)
                if found is not None and not found.missing and wanted:
                    return found
        return None

    def _read(self, keys: list[BackupKey]) -> Generator[tuple[BackupKey, _Read], None, None]:
        """Manifests in the order of the keys; those of a distant store are read ahead, in threads."""
        catalog = self._repository.catalog

        def read(key: BackupKey, _: threading.Event) -> tuple[BackupKey, _Read]:
            try:
                return key, self._repository.opened(catalog.read(key))
            except (NotFoundError, IntegrityError) as exc:
                return key, exc

        return read_ahead(read, keys, ahead=catalog.at_once)

    def _add(self, key: BackupKey, manifest: _Read) -> StoredSet | None:
        """The set that a backup belongs to, with the backup in it; None where it does not belong to a set of the
        project."""
        if isinstance(manifest, NotFoundError):
            return None  # removed while the sets were looked for
        if isinstance(manifest, IntegrityError):
            name = Reference(key.host, key.volume, key.id)
            self._warnings.append(f"backup {name} cannot be read, so its set is not known: {manifest.message}")
            return None
        if manifest.set is None or manifest.set.project != self._project:
            return None
        found = self._found.setdefault(manifest.set.id, StoredSet(manifest.set, {}))
        if found.made != manifest.set:
            self._warnings.append(
                f"backup {manifest.name} is left out: the other backups of set {manifest.set.id} do not know of it"
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


def _refuse(ctx: Context, engine: Engine, chosen: StoredSet, options: SetRestoreOptions) -> None:
    """Raises ConflictError if one of the volumes exists or is in use: then none is created."""
    there = [volume for volume in chosen.backups if engine.has_volume(volume)]
    if not there:
        return
    if not options.replace:
        raise ConflictError(
            f"volumes of project {chosen.made.project!r} exist already, so none was restored: {', '.join(there)}",
            "replace their content with --replace, or remove them first: docker compose down --volumes",
        )
    _refuse_others(ctx, engine, chosen, there)
    users = {volume: _users(engine, volume) for volume in there}
    used = [f"{volume} by container {names[0]!r}" for volume, names in users.items() if names]
    if used:
        raise ConflictError(
            f"volumes of project {chosen.made.project!r} are in use, so none was restored: {', '.join(used)}",
            "stop its containers first: docker compose stop",
        )


def _refuse_others(ctx: Context, engine: Engine, chosen: StoredSet, there: list[str]) -> None:
    """Raises ConflictError for volumes that only the backups count among the project's: neither their labels nor their
    containers do, and this machine has not backed them up with it."""
    project = chosen.made.project or ""
    mine, state = volumes_by_project(engine).get(project, set()), ctx.settings.state
    others = [
        volume
        for volume in there
        if volume not in mine and not seen_volume(state, chosen.backups[volume].host, volume).was_of_project(project)
    ]
    if others:
        raise ConflictError(
            f"volumes are not of project {project!r} on this engine, so none was restored: {', '.join(others)}",
            f"if they are to be replaced, do it one by one: volback restore {chosen.backups[others[0]].name} --replace",
        )


def _users(engine: Engine, volume: str) -> list[str]:
    """Names of the running containers that reach the volume's storage."""
    found = engine.storage_users(engine.storage(Source(kind="volume", name=volume)))
    return [user.name for user in found if user.is_active and not user.broad]
