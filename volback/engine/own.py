"""Own container: which of the engine's containers this process runs in, if any, and where its files are on the host.

Asked by the pipes (helpers are siblings, so a path in here is not one of the engine's host) and by whoever stops
containers (never this one). The kernel's data gives candidates, and the engine confirms one; no name is trusted.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from volback.engine.connect import translated
from volback.errors import NotFoundError

log = logging.getLogger(__name__)

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
_OCTAL = re.compile(r"\\([0-7]{3})")
_BOUND_BY_ENGINES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
"""Files that an engine binds from a directory named by id: this container's, or whose network it has."""


@dataclass(frozen=True, slots=True)
class OwnMount:
    """A volume or host directory in this container."""

    volume: str | None
    source: str
    """Its path on the engine's host."""
    destination: str


@dataclass(frozen=True, slots=True)
class OwnContainer:
    """The container that this process runs in."""

    id: str
    name: str
    mounts: tuple[OwnMount, ...]
    mount_points: frozenset[str]
    """All of them, as the kernel has them: something may be mounted over or below a volume."""

    def mount_of(self, path: Path) -> OwnMount | None:
        """The volume or host directory that `path` lies in; None where that is the container's own filesystem."""
        place = path.resolve()
        point = next((str(part) for part in (place, *place.parents) if str(part) in self.mount_points), "/")
        return next((mount for mount in self.mounts if mount.destination == point), None)

    def on_host(self, path: Path) -> str | None:
        """`path` as the engine's host has it; None where a sibling cannot mount it."""
        mount = self.mount_of(path)
        if mount is None:
            return None
        return str(PurePosixPath(mount.source) / path.resolve().relative_to(mount.destination))


@dataclass(frozen=True, slots=True)
class Own:
    """What is known about the container that this process runs in; nothing for a process of the engine's host."""

    container: OwnContainer | None = None
    possible: frozenset[str] = frozenset()
    """Whole ids of all that it may be: more than one where nothing tells them apart."""


def find_own(client: Any, proc: Path = Path("/proc/self")) -> Own:
    """Find it; in a container of another engine there is none. Raises EngineError."""
    seen = _look_around(proc)
    found = _once(_inspect(client, container_id) for container_id in seen.candidates)
    if not found:
        return Own()
    proven = _proven(seen, found)
    if not proven:
        found = _once([*found, *_sharing_network(client, found)])
        proven = _proven(seen, found) or _best(seen, found)
    container = _describe(proven[0], frozenset(seen.mounted)) if len(proven) == 1 else None
    return Own(container, frozenset(facts["Id"] for facts in proven))


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The kernel's data about this process."""

    own_id: str | None
    """From its cgroup, where that is visible: in a cgroup namespace it is not."""
    candidates: tuple[str, ...]
    mounted: dict[str, str]
    """By mount point, in its filesystem what is mounted there."""
    upper_directory: str | None
    """Of the overlay that is the root: each container has its own."""

    def is_in(self, facts: dict[str, Any]) -> bool | None:
        """Whether this process runs in that container; None where it is neither refuted nor proven."""
        if not facts["State"]["Running"]:
            return False
        if facts["Id"] == self.own_id:
            return True
        upper = ((facts.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        if upper and self.upper_directory:
            return bool(f"/{upper}".endswith(f"/{self.upper_directory}"))  # a long list of layers has relative paths
        destinations = {_as_mounted(mount) for mount in facts["Mounts"]}
        return None if self.own_id is None and destinations <= self.mounted.keys() else False

    def likeness(self, facts: dict[str, Any]) -> int:
        """How much of the paths that a container mounts is seen in the filesystems that are mounted here.

        A host may have mounted a filesystem anywhere, and a part of it (btrfs), so only the ends of paths are the same.
        """
        return sum(
            _common_end(self.mounted[_as_mounted(mount)], mount.get("Source") or "") for mount in facts["Mounts"]
        )


def _once(found: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Each container once, by whatever name it was found."""
    return list({facts["Id"]: facts for facts in found if facts is not None}.values())


def _proven(seen: _Surroundings, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [facts for facts in found if seen.is_in(facts)][:1]


def _best(seen: _Surroundings, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a last resort the one that fits, or fits best, once all candidates are known; several that fit alike."""
    fitting = [facts for facts in found if seen.is_in(facts) is None]
    most = max(map(seen.likeness, fitting), default=0)
    best = [facts for facts in fitting if seen.likeness(facts) == most]
    if len(best) > 1:
        names = ", ".join(facts["Name"].lstrip("/") for facts in best)
        log.warning("cannot determine in which of these containers volback runs, so none is stopped: %s", names)
    return best


def _sharing_network(client: Any, found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Containers with `network_mode: container:X` see X's /etc/hostname and its id."""
    modes = {f"container:{facts['Id']}" for facts in found}
    with translated("containers"):
        running = client.containers()
    for facts in running:
        if (facts.get("HostConfig") or {}).get("NetworkMode") in modes and (inspected := _inspect(client, facts["Id"])):
            yield inspected


def _inspect(client: Any, container_id: str) -> dict[str, Any] | None:
    """What the engine knows; None if it is another engine's, or only a name that looks like an id."""
    try:
        with translated(f"container {container_id[:12]}"):
            facts: dict[str, Any] = client.inspect_container(container_id)
    except NotFoundError:
        return None
    return facts if facts["Id"].startswith(container_id) else None


def _describe(facts: dict[str, Any], mount_points: frozenset[str]) -> OwnContainer:
    mounts = tuple(
        OwnMount(mount.get("Name") or None, mount["Source"], _as_mounted(mount))
        for mount in facts["Mounts"]
        if mount.get("Type") in ("volume", "bind") and mount.get("Source")
    )
    return OwnContainer(facts["Id"], facts["Name"].lstrip("/"), mounts, mount_points)


def _as_mounted(mount: dict[str, Any]) -> str:
    """The kernel knows no mount at /var/run/docker.sock where /var/run is a link to /run."""
    return str(Path(mount["Destination"]).resolve())


def _look_around(proc: Path) -> _Surroundings:
    """Read /proc. Lines of mountinfo: id, parent, device, root, mount point, options...; see proc(5)."""
    own_id = _last_id(_text(proc / "cgroup"))
    mounted, upper, bound = dict[str, str](), None, list[str]()
    for line in _text(proc / "mountinfo").splitlines():
        root, point = (_unescaped(word) for word in line.split(" ")[3:5])
        mounted[point] = root
        if point == "/":  # the last one is on top
            upper = next((word[9:] for word in line.split(",") if word.startswith("upperdir=")), None)
        elif point in _BOUND_BY_ENGINES:
            bound += _ID.findall(root)
    hostname = socket.gethostname()
    hints = [own_id, *bound, hostname if _SHORT_ID.fullmatch(hostname) else None]
    candidates = tuple(dict.fromkeys(hint for hint in hints if hint))
    return _Surroundings(own_id, candidates, mounted, upper)


def _last_id(cgroups: str) -> str | None:
    """The innermost container of a cgroup's path: `/docker/OUTER/docker/ID`, `/system.slice/docker-ID.scope`."""
    found = [ids[-1] for line in cgroups.splitlines() if (ids := _ID.findall(line))]
    return found[0] if found else None


def _common_end(first: str, second: str) -> int:
    """How many of the last parts of two paths are the same."""
    pairs = zip(reversed(PurePosixPath(first).parts), reversed(PurePosixPath(second).parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1] != "/", pairs))


def _unescaped(word: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # not Linux
