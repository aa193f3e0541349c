"""Inherited labels: which labels a restored volume has of the one that was backed up. Pure rules.

A manifest is data: anybody who may write to the repository can have made it. Labels by which compose, volback and other
programs act on a volume are taken over only where something on this machine confirms them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from volback.masking import HIDDEN
from volback.policy.projects import COMPOSE_NAMES, PODMAN_PROJECT, PROJECT, VOLUME

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Engines from 23.0 on: a plain `docker volume prune` removes volumes that have it."""

RESTORE_LABEL = "volback.restore"
"""On a volume that a restore created: the id of its run. It distinguishes a half-made volume from any other."""
FORMER_RESTORE_LABEL = "com.docker.volback.restore"
"""As versions before have written it; a label of a volume cannot be changed."""

_NEVER = frozenset({
    ANONYMOUS_LABEL,
    RESTORE_LABEL, FORMER_RESTORE_LABEL, "volback.made", "volback.client", "volback.helper", "volback.run",
})  # fmt: skip
"""They would have the new volume removed: by `docker volume prune`, or by volback, which marks what it made by them."""
_ACTING = ("com.docker.", "io.podman.", "io.containers.", "io.kubernetes.", "io.portainer.", "volback.")
"""Labels by which compose, swarm, other managers and volback act on a volume. Under another name they would act on the
copy."""


def restored_by(labels: Mapping[str, str]) -> str | None:
    """The id of the run that created the volume with these labels; None where none of volback's did."""
    return labels.get(RESTORE_LABEL) or labels.get(FORMER_RESTORE_LABEL)


def without_restore_label(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels but for that one."""
    return {key: value for key, value in labels.items() if key not in (RESTORE_LABEL, FORMER_RESTORE_LABEL)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person said of a restored volume's labels."""

    name: str
    renamed: bool = False
    """Whether the volume gets another name than the one that was backed up had."""
    without: tuple[str, ...] = ()
    """Keys that it is not to have; `*` in one stands for any text."""
    project: str | None = None
    """The compose project that is restored."""
    keep_all: bool = False
    """Take labels that act as the backup has them."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """The labels that are taken over, and those that are not because nothing confirms them."""

    labels: dict[str, str]
    unconfirmed: dict[str, str]


def inherited_labels(
    labels: Mapping[str, str], wanted: Wanted, *, is_known: Callable[[str, str], bool] = lambda key, value: False
) -> Inherited:
    """Divide a backup's labels; `is_known` says whether this machine has seen the volume with that label and value.

    Under its own name a volume keeps all labels that do not act, and those that act where this machine has seen them,
    where they say no more than the names that the person gave (compose's project and volume), or where the person keeps
    them.
    """
    kept: dict[str, str] = {}
    unconfirmed: dict[str, str] = {}
    for key, value in labels.items():
        if key in _NEVER or any(fnmatchcase(key, pattern) for pattern in wanted.without):
            continue
        if HIDDEN in value:  # what is not recorded, the volume cannot have
            continue
        if not key.startswith(_ACTING):
            kept[key] = value
        elif not wanted.renamed:
            is_confirmed = wanted.keep_all or is_known(key, value) or _says_the_name(labels, key, wanted)
            (kept if is_confirmed else unconfirmed)[key] = value
    return Inherited(kept, unconfirmed)


def acting_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels by which programs act on a volume."""
    return {key: value for key, value in labels.items() if key.startswith(_ACTING) and key not in _NEVER}


def unconfirmed_warning(volume: str, unconfirmed: Iterable[str]) -> str:
    """Say which labels were left out, and why."""
    return (
        f"volume {volume!r} was made without the labels {', '.join(sorted(unconfirmed))}: programs act on them, and"
        " only the backup knows them; --keep-labels takes them over, --no-label leaves them out silently"
    )


def _says_the_name(labels: Mapping[str, str], key: str, wanted: Wanted) -> bool:
    """Whether a label of compose only repeats what the person named: the project, or a volume called PROJECT_VOLUME."""
    project = labels.get(PROJECT)
    if key not in COMPOSE_NAMES or project is None or labels.get(PODMAN_PROJECT, project) != project:
        return False
    return project == wanted.project or wanted.name == f"{project}_{labels.get(VOLUME)}"
