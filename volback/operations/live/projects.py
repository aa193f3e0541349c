"""Projects: which volumes belong to a compose project, or to one container. Asks the engine; changes nothing."""

from __future__ import annotations

import re
from collections import defaultdict

from volback.catalog.model import Source
from volback.engine.volumes import PROJECT_LABEL
from volback.errors import NotFoundError
from volback.operations.backup import volume_source
from volback.operations.session import Session

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def sources_of_project(session: Session, name: str) -> list[Source]:
    """Return the volumes of a compose project, by name: those with its label, and named ones that its containers mount.

    Compose v1 and v2 put the same label on volumes and containers. An external volume has none, so it is known by the
    containers; anonymous volumes are left out, as compose does not find them again. Raises NotFoundError.
    """
    projects = volumes_by_project(session)
    if name not in projects:
        there = ", ".join(sorted(projects)) or "none"
        raise NotFoundError(f"no compose project {name!r} has volumes on this engine", f"there are: {there}")
    return [volume_source(session, volume) for volume in sorted(projects[name])]


def sources_of_container(session: Session, name: str) -> list[Source]:
    """Return the volumes that a container mounts, by name, anonymous ones too. Raises NotFoundError."""
    mounts = session.engine.container(name).mounts
    found = sorted({mount.source for mount in mounts if mount.kind == "volume" and mount.source})
    if not found:
        raise NotFoundError(f"container {name!r} mounts no volume", "see which containers do: volback volumes")
    return [volume_source(session, volume) for volume in found]


def volumes_by_project(session: Session) -> dict[str, set[str]]:
    """Return the names of each compose project's volumes."""
    projects: defaultdict[str, set[str]] = defaultdict(set)
    for volume in session.engine.volumes(PROJECT_LABEL):
        projects[volume.labels[PROJECT_LABEL]].add(volume.name)
    for name, users in session.engine.all_users().items():
        if not _ANONYMOUS.fullmatch(name):
            for user in users:
                if project := user.labels.get(PROJECT_LABEL):
                    projects[project].add(name)
    return dict(projects)
