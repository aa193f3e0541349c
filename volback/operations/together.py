"""Together: which backups several volumes are restored from, so that they fit together where they can.

A volume alone is restored from its latest backup. Where that belongs to a set, the volumes that are wanted of that set
come from it; if one of them has no backup in it, because it failed then, from the newest set in which all have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, SetOf
from volback.catalog.reference import Reference
from volback.context.naming import one_named, spelled_out
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, UsageError, VolbackError, because
from volback.operations.stored_sets import check_set_prefix, second_of
from volback.policy.anonymous import is_left_out, left_out_words
from volback.policy.projects import PROJECT


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backups that are restored in one command."""

    backups: list[Manifest]
    """One of each volume."""
    project: str | None = None
    made: SetOf | None = None
    """The set that all of them are of."""
    missing: tuple[str, ...] = ()
    """Volumes that were to be restored, and have no backup in the set."""
    warnings: list[str] = field(default_factory=list)
    is_partial: bool = False
    """Whether something that was asked for is left out; the warnings name it."""
    errors: list[VolbackError] = field(default_factory=list)
    """Why volumes are left out whose latest backups cannot be read."""


def choose_named(repository: Repository, references: Sequence[str], set_prefix: str | None = None) -> Chosen:
    """Return the backups that references name, with `set_prefix` those of that set.

    Raises NotFoundError, UsageError for two backups of one volume, or an id beside a set.
    """
    check_set_prefix(set_prefix)
    texts = dict.fromkeys(spelled_out(repository, references))
    parsed = [one_named(repository, text) for text in texts]
    if set_prefix is not None:
        return _of_set(repository, parsed, set_prefix)
    found = [repository.opened(repository.find(str(one))) for one in parsed]
    _refuse_doubles(found)
    free = {manifest.volume: manifest for manifest, one in zip(found, parsed, strict=True) if not one.id_prefix}
    placed, warnings = _from_sets(repository, free)
    backups = [placed.get(manifest.volume, manifest) for manifest in found]
    return Chosen(backups, made=_common(backups), warnings=warnings)


def choose_all(repository: Repository, set_prefix: str | None = None, *, anonymous: bool = False) -> Chosen:
    """Return a backup of each volume of this host, with `set_prefix` of each volume of that set. Those of a compose
    project fit together, others are the latest.

    Directories, and volumes of which there are only safety copies, are left out with a warning. So are anonymous
    volumes that no container used, unless `anonymous`, or they are of the set that is named. Raises NotFoundError.
    """
    check_set_prefix(set_prefix)
    host = repository.host
    names = [Reference(host, volume) for volume in sorted({key.volume for key in repository.catalog.backups(host)})]
    if not names:
        raise NotFoundError(f"no backup of host {host}", "volback list --all-hosts shows every backup")
    if set_prefix is not None:
        return _of_set(repository, names, set_prefix, every=True)
    found, left, errors = _latest(repository, names)
    warnings, placed = list(left), dict[str, Manifest]()
    unused = [] if anonymous else [one for one in found if is_left_out(one.volume, one.containers)]
    if unused:
        found = [one for one in found if one not in unused]
        warnings.append(left_out_words(len(unused), "--anonymous restores them too", verb="used"))
    for group in _by_project(found):
        of_group, said = _from_sets(repository, group)
        placed |= of_group
        warnings += said
    backups = [placed.get(manifest.volume, manifest) for manifest in found]
    return Chosen(backups, made=_common(backups), warnings=warnings, is_partial=bool(left), errors=errors)


def _by_project(found: Iterable[Manifest]) -> Iterable[dict[str, Manifest]]:
    projects = dict[str, dict[str, Manifest]]()
    for manifest in found:
        if project := manifest.source.labels.get(PROJECT):
            projects.setdefault(project, {})[manifest.volume] = manifest
    return projects.values()


def _common(backups: Sequence[Manifest]) -> SetOf | None:
    """The set that all of them are of."""
    first = backups[0].set if backups else None
    return first if all(manifest.set == first for manifest in backups) else None


def _latest(repository: Repository, names: Iterable[Reference]) -> tuple[list[Manifest], list[str], list[VolbackError]]:
    """The latest backup of each volume, and why others have none, or none that can be read."""
    found, left, errors = list[Manifest](), list[str](), list[VolbackError]()
    for name in names:
        if name.volume.startswith("/"):
            left.append(f"directory {name.volume} is left out: volback restore {name} --to DIR")
            continue
        try:
            found.append(repository.opened(repository.find(str(name))))
        except NotFoundError as exc:
            left.append(f"volume {name.volume!r} is left out: {exc.message}")
        except IntegrityError as exc:
            errors.append(because(exc, f"volume {name.volume!r} was not restored"))
    return found, left, errors


def _refuse_doubles(found: Iterable[Manifest]) -> None:
    seen = dict[str, Manifest]()
    for manifest in found:
        other = seen.setdefault(manifest.volume, manifest)
        if other is not manifest:
            raise UsageError(
                f"{other.name} and {manifest.name} would be restored into one volume",
                "restore one of them by itself, with --as NAME",
            )


def _from_sets(repository: Repository, latest: dict[str, Manifest]) -> tuple[dict[str, Manifest], list[str]]:
    """By volume: its backup in the newest set that has all that are wanted of it; and a warning for each older one."""
    placed, warnings = dict[str, Manifest](), list[str]()
    for made in _sets(latest.values()):
        wanted = [volume for volume in made.volumes if volume in latest and latest[volume].set is not None]
        wanted = [volume for volume in wanted if volume not in placed]
        found = {volume: _in_set(repository, latest[volume], made) for volume in wanted}
        whole = {volume: manifest for volume, manifest in found.items() if manifest is not None}
        if len(whole) == len(found):
            placed |= whole
            continue
        lacks = ", ".join(volume for volume, manifest in found.items() if manifest is None)
        warnings.append(f"set {made.id} has no backup of {lacks}")
    for volume, manifest in placed.items():
        if manifest.id != latest[volume].id:
            warnings.append(f"{latest[volume].name} is newer; {manifest.name} is of one set with the others")
    return placed, warnings


def _sets(backups: Iterable[Manifest]) -> list[SetOf]:
    """The sets that the backups are of, the newest first."""
    sets = {manifest.set.id: manifest.set for manifest in backups if manifest.set is not None}
    return [sets[id_] for id_ in sorted(sets, reverse=True)]


def _in_set(repository: Repository, latest: Manifest, made: SetOf) -> Manifest | None:
    """The backup of the same volume in that set: it is not older than the set. None where there is none."""
    if latest.set is not None and latest.set.id == made.id:
        return latest if latest.set == made else None
    keys = repository.catalog.backups(latest.host, latest.volume)
    for key in (key for key in keys if key.id < latest.id and second_of(key.id) >= second_of(made.id)):
        found = _read(repository, key)
        if found is not None and found.set == made:
            return found
    return None


def _of_set(repository: Repository, names: Sequence[Reference], prefix: str, *, every: bool = False) -> Chosen:
    """The backups of those volumes in the set of that id; with `every`, of those that the set has."""
    if ids := [str(one) for one in names if one.id_prefix]:
        raise UsageError(f"{ids[0]} names a backup by its id, and --set a set", "name the volume alone")
    found = [manifest for one in names for manifest in _with_set(repository, one, prefix)]
    sets = _sets(found)
    if not sets:
        raise NotFoundError(
            f"no set {prefix} with {names[0]}" if not every else f"no set {prefix}", "see volback list --json"
        )
    if len(sets) > 1:
        listed = ", ".join(made.id for made in sets)
        raise UsageError(f"--set {prefix} matches {len(sets)} sets: {listed}", "give more characters of the id")
    lacking = {one.volume for one in names} - {manifest.volume for manifest in found}
    if lacking and not every:
        raise NotFoundError(f"set {sets[0].id} has no backup of {', '.join(sorted(lacking))}", "name the volume alone")
    missing = tuple(volume for volume in sets[0].volumes if every and volume in lacking)
    warnings = [f"set {sets[0].id} is not complete: it lacks {', '.join(missing)}"] if missing else []
    return Chosen(found, sets[0].project, sets[0], missing, warnings)


def _with_set(repository: Repository, name: Reference, prefix: str) -> list[Manifest]:
    """The volume's backups in sets whose ids begin so."""
    keys = repository.catalog.backups(name.host or repository.host, name.volume)
    read = (_read(repository, key) for key in keys)
    return [one for one in read if one is not None and one.set is not None and one.set.id.startswith(prefix)]


def _read(repository: Repository, key: BackupKey) -> Manifest | None:
    try:
        return repository.opened(repository.catalog.read(key))
    except (NotFoundError, IntegrityError):
        return None
