"""Storage: what a volume's driver and options say of where its bytes are.

Pure rules; nothing asks an engine here. A volume is its storage and not its name: two names can be one storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

PLAIN_OPTIONS = frozenset({"size"})
"""Options of driver `local` that reach nothing outside the engine's own directory (moby, volume/local)."""


class VolumeFacts(Protocol):
    """A volume as the engine describes it."""

    @property
    def name(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def options(self) -> Mapping[str, str]: ...
    @property
    def mountpoint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the bytes of a volume or a directory are, and by which names they are reached."""

    volumes: frozenset[str]
    """Names of the volumes that share some of the bytes."""
    paths: frozenset[str]
    """Directories of the engine's host where the bytes are found."""
    all_volumes: str = ""
    """The engine's directory of all volumes; empty where that is not known."""

    def reach(self, kind: str, source: str) -> Literal["near", "broad"] | None:
        """How a container that mounts `source` (kind `volume`: its name; `bind`: a path) reaches the bytes, if it does.

        Broad is a mount that holds all volumes, `/` for one: it is not there for this one.
        """
        if kind == "volume":
            return "near" if source in self.volumes else None
        if kind != "bind" or not any(_overlap(source, path) for path in self.paths):
            return None
        return "broad" if self.all_volumes and _is_below(self.all_volumes, source) else "near"


def storage_of_volume(name: str, volumes: Iterable[VolumeFacts], *, all_volumes: str) -> Storage:
    """Return the storage of a volume; `volumes` are those of the engine, and `all_volumes` is their directory."""
    known = list(volumes)
    mine = next((volume for volume in known if volume.name == name), None)
    if mine is None:
        return Storage(frozenset({name}), frozenset(), all_volumes)
    return _storage(_places(mine), known, all_volumes)


def storage_of_directory(path: str, volumes: Iterable[VolumeFacts], *, all_volumes: str) -> Storage:
    """Return the storage of a directory of the engine's host; see storage_of_volume."""
    return _storage(_Places("", frozenset({path}), None), list(volumes), all_volumes)


def is_tmpfs(driver: str, options: Mapping[str, str]) -> bool:
    """Whether the bytes are in memory, and gone when the last container that mounts the volume ends."""
    # with a bind flag the type counts for nothing: it is a directory of the host (mount(2), MS_BIND)
    flags = options.get("o", "").split(",")
    return driver == "local" and options.get("type") == "tmpfs" and not {"bind", "rbind"} & set(flags)


def is_plain(driver: str, options: Mapping[str, str]) -> bool:
    """Whether the bytes are in the engine's own directory: nothing else of its host or network is reached."""
    return driver == "local" and options.keys() <= PLAIN_OPTIONS


def described(driver: str, options: Mapping[str, str]) -> str:
    """Name a storage in a message: driver and device only, as other options may hold passwords."""
    device = options.get("device")
    return f"driver {driver!r}, device {device!r}" if device else f"driver {driver!r}"


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the bytes of one volume are: directories of the host, or a path on a device, share or plugin."""

    name: str
    paths: frozenset[str]
    device: tuple[str, str] | None
    """What holds the bytes, and the path on it."""

    def shares_with(self, other: _Places) -> bool:
        if self.name == other.name:
            return True
        if any(_overlap(mine, theirs) for mine in self.paths for theirs in other.paths):
            return True
        if self.device is None or other.device is None or self.device[0] != other.device[0]:
            return False
        return _overlap(self.device[1], other.device[1])


def _storage(mine: _Places, volumes: list[VolumeFacts], all_volumes: str) -> Storage:
    sharing = [volume for volume in volumes if _places(volume).shares_with(mine)]
    mountpoints = {volume.mountpoint for volume in sharing if volume.mountpoint}
    return Storage(frozenset(volume.name for volume in sharing), mine.paths | mountpoints, all_volumes)


def _places(volume: VolumeFacts) -> _Places:
    paths = {volume.mountpoint} if volume.mountpoint else set()
    options = volume.options
    if volume.driver != "local":
        # what a plugin's options mean is its own matter: equal ones name the same storage
        device = (f"{volume.driver} {sorted(options.items())}", "/") if options else None
        return _Places(volume.name, frozenset(paths), device)
    flags = options.get("o", "").split(",")
    where = options.get("device", "")
    if not where or is_tmpfs(volume.driver, options):
        return _Places(volume.name, frozenset(paths), None)
    if "bind" in flags or "rbind" in flags:
        return _Places(volume.name, frozenset({*paths, where}), None)
    return _Places(volume.name, frozenset(paths), _device(options.get("type", ""), where, flags))


def _device(kind: str, where: str, flags: list[str]) -> tuple[str, str]:
    """Split what mount(8) takes as a device into what holds the bytes, and the path on it."""
    address = next((flag.partition("=")[2] for flag in flags if flag.startswith("addr=")), "")
    if kind in ("nfs", "nfs4"):
        host, _, path = where.rpartition(":")
        return f"nfs {(address or host).lower()}", path or "/"
    if kind in ("cifs", "smb3"):
        host, _, path = where.replace("\\", "/").lstrip("/").partition("/")
        return f"cifs {(address or host).lower()}", f"/{path.lower()}"
    return "device", where


def _overlap(one: str, other: str) -> bool:
    return _is_below(one, other) or _is_below(other, one)


def _is_below(path: str, above: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(above))
