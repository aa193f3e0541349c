"""Sources: which volumes and directories are backed up: named ones, all, those of a label, a project, a container.

Asks the engine; changes nothing.
"""

from __future__ import annotations

import logging
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from volback.catalog.model import Source
from volback.context import Context
from volback.context.naming import has_glob
from volback.engine.engine import Engine
from volback.engine.volumes import PROJECT_LABEL, Volume, VolumeUser
from volback.errors import NotFoundError
from volback.masking import masked_labels, masked_options
from volback.operations.recover import half_restored
from volback.policy.anonymous import is_anonymous, is_beginning, is_left_out, left_out_words
from volback.policy.inherited import without_restore_label
from volback.policy.labels import policy_of
from volback.policy.storage import is_tmpfs

log = logging.getLogger(__name__)

_NAMED_AT_MOST = 3


def resolve_sources(
    ctx: Context,
    engine: Engine,
    names: list[str],
    *,
    every: bool = False,
    label: str | None = None,
    anonymous: bool = True,
    note: Callable[[str], None] | None = None,
) -> list[Source]:
    """Return the sources to back up: named volumes, directories (absolute paths), all volumes, those with a label.

    What is not named itself is left out where it, or the containers that mount it, say `volback.enable=false`, and
    where a crashed run filled half of it; without `anonymous`, anonymous volumes that no container uses, too: `note`
    gets a line about them, and without it there is a warning.
    A name may be a glob for volumes. Raises NotFoundError for a volume that does not exist: mounting it would create
    it.
    """
    found = [_source(engine, name) for name in dict.fromkeys(_spelled_out(engine, names))]
    if every or label:
        known, users = {source.name for source in found} | half_restored(ctx, engine), engine.all_users()
        unused = list[str]()
        for volume in engine.volumes(label):
            if volume.name in known or not _is_enabled(volume, users.get(volume.name, [])):
                continue
            if not anonymous and is_left_out(volume.name, users.get(volume.name, [])):
                unused.append(volume.name)
                continue
            if is_tmpfs(volume.driver, volume.options) and not any(u.is_active for u in users.get(volume.name, [])):
                log.warning("volume %s is left out: it is in memory (tmpfs), and no container mounts it", volume.name)
                continue
            with suppress(NotFoundError):  # removed just now
                found.append(volume_source(engine, volume.name))
        if unused:
            removed = "and docker volume prune removes them"
            if note is not None:
                note(left_out_words(len(unused), f"`anonymous = true` takes them too, {removed}"))
            else:
                log.warning("%s", left_out_words(len(unused), f"--anonymous takes them too, {removed}"))
    return found


def _spelled_out(engine: Engine, names: list[str]) -> Iterator[str]:
    """The names; a glob, and the first digits of an anonymous volume, are replaced by what they match.

    Raises NotFoundError.
    """
    patterns = [name for name in names if has_glob(name) or is_beginning(name)]
    there = sorted(volume.name for volume in engine.volumes()) if patterns else []
    for name in names:
        if name not in patterns or name in there:
            yield name
            continue
        found = [one for one in there if fnmatchcase(one, name) or (is_anonymous(one) and one.startswith(name))]
        if not found and has_glob(name):
            raise NotFoundError(f"no volume matches {name!r}", "see `volback volumes`")
        yield from found or [name]


def what_is_named(engine: Engine, name: str) -> str | None:
    """The hint where no volume has that name: a compose project, a container or volumes of similar names may."""
    projects = volumes_by_project(engine)
    if name in projects:
        return f"{name} is a compose project: give --project {name}"
    users = {user.name: volume for volume, users in engine.all_users().items() for user in users}
    if name in users:
        return f"{name} is a container: give --container {name}"
    ending = sorted(volume.name for volume in engine.volumes() if volume.name.endswith((f"_{name}", f"-{name}")))
    return f"there is {' and '.join(ending[:_NAMED_AT_MOST])}; see `volback volumes`" if ending else None


def _is_enabled(volume: Volume, users: list[VolumeUser]) -> bool:
    policy, _ = policy_of(volume.name, volume.labels, [(user.name, user.labels) for user in users])
    return policy.enable is not False


def sources_of_project(engine: Engine, name: str) -> list[Source]:
    """Return the volumes of a compose project, by name: those with its label, and named ones that its containers mount.

    Compose v1 and v2 put the same label on volumes and containers. An external volume has none, so it is found by the
    containers; anonymous volumes are left out, because compose does not find them again. Raises NotFoundError.
    """
    projects = volumes_by_project(engine)
    if name not in projects:
        there = ", ".join(sorted(projects)) or "none"
        raise NotFoundError(f"no compose project {name!r} has volumes on this engine", f"there are: {there}")
    return [volume_source(engine, volume) for volume in sorted(projects[name])]


def sources_of_container(engine: Engine, name: str) -> list[Source]:
    """Return the volumes that a container mounts, by name, anonymous ones too. Raises NotFoundError."""
    mounts = engine.container(name).mounts
    found = sorted({mount.source for mount in mounts if mount.kind == "volume" and mount.source})
    if not found:
        raise NotFoundError(f"container {name!r} mounts no volume", "see which containers do: volback volumes")
    return [volume_source(engine, volume) for volume in found]


def volumes_by_project(engine: Engine) -> dict[str, set[str]]:
    """Return the names of each compose project's volumes."""
    projects: defaultdict[str, set[str]] = defaultdict(set)
    for volume in engine.volumes(PROJECT_LABEL):
        projects[volume.labels[PROJECT_LABEL]].add(volume.name)
    for name, users in engine.all_users().items():
        if not is_anonymous(name):
            for user in users:
                if project := user.labels.get(PROJECT_LABEL):
                    projects[project].add(name)
    return dict(projects)


def _source(engine: Engine, name: str) -> Source:
    if name.startswith("/"):
        return Source(kind="directory", name="/" + posixpath.normpath(name).lstrip("/"))
    return volume_source(engine, name)


def volume_source(engine: Engine, name: str) -> Source:
    """Describe a volume that exists, as its manifest will: without secrets. Raises NotFoundError."""
    volume = engine.volume(name)
    labels = without_restore_label(volume.labels)
    return Source(
        kind="volume",
        name=volume.name,
        driver=volume.driver,
        options=masked_options(volume.options),
        labels=masked_labels(labels),
    )
