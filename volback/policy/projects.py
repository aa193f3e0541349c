"""Projects: how compose names and labels the volumes of a project. Pure rules.

Compose v1, v2 and podman-compose call a volume PROJECT_VOLUME, unless its entry in the compose file has a name of its
own, and find it again by its labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from volback.errors import UsageError

PROJECT = "com.docker.compose.project"
PODMAN_PROJECT = "io.podman.compose.project"
VOLUME = "com.docker.compose.volume"
VERSION = "com.docker.compose.version"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
"""Paths with commas between them; compose v1 has them as they were given, v2 from the root."""
ENVIRONMENT_FILES = "com.docker.compose.project.environment_file"
COMPOSE_NAMES = frozenset({PROJECT, PODMAN_PROJECT, VOLUME, VERSION})
"""They say which volume of which project it is. `com.docker.compose.config-hash` is not one of them: where it differs,
compose offers to make the volume anew, and `up -y` does (seen with 2.40); where there is none, it does not."""
COMPOSE_LABELS = ("com.docker.compose.*", "io.podman.compose.*")
"""Patterns of all labels that compose sets."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class ProjectVolume:
    """A project's volume as another project has it."""

    name: str
    labels: dict[str, str]
    """Those by which compose takes it as its own; empty for one that is external to the project."""


def check_project(name: str) -> None:
    """Raises UsageError for a name that compose v2 does not accept."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid project name",
            "use small letters, digits, - and _, and begin with a letter or a digit",
        )


def as_volume_of(project: str, name: str, labels: Mapping[str, str], *, of: str) -> ProjectVolume:
    """Return the name and the labels that a volume of the project `of` has as one of `project`.

    One that is external to `of`, or has a name of its own in the compose file, keeps its name: both projects use it.
    """
    if labels.get(PROJECT) != of:
        return ProjectVolume(name, {})
    kept = {key: value for key, value in labels.items() if key in COMPOSE_NAMES}
    renamed = {key: project for key in (PROJECT, PODMAN_PROJECT) if key in kept}
    volume = labels.get(VOLUME, "")
    return ProjectVolume(f"{project}_{volume}" if volume and name == f"{of}_{volume}" else name, kept | renamed)
