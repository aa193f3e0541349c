"""Storage: what a volume's driver and options say of where its bytes are.

Pure rules; nothing asks an engine here. A volume is its storage and not its name: two names can be one storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Literal, Protocol

PLAIN_OPTIONS = frozenset({"size"})
"""Options of driver `local` that reach nothing outside the engine's own directory (moby, volume/local)."""


Resolve = Callable[[str], str]
"""Returns a path of the engine's host without symbolic links."""


def _as_it_is(path: str) -> str:
    return path


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
    parents: frozenset[str] = frozenset()
    """Names of the volumes that hold all volumes, such as one whose device is `/`."""
    resolve: Resolve = field(default=_as_it_is, compare=False)

    def reach(self, kind: str, source: str) -> Literal["near", "broad"] | None:
        """How a container that mounts `source` (kind `volume`: its name; `bind`: a path) reaches the bytes, if it does.

        Broad is a mount that holds all volumes, `/` for one: it is not there for this one.
        """
        if kind == "volume":
            return "near" if source in self.volumes else "broad" if source in self.parents else None
        sources = {source, self.resolve(source)} if kind == "bind" else set()
        if not any(_overlap(spelling, path) for spelling in sources for path in self.paths):
            return None
        return "broad" if _hold_all(sources, self.all_volumes) else "near"


NO_STORAGE = Storage(frozenset(), frozenset())
"""That of what no container reaches."""


def storage_of_volume(
    name: str, volumes: Iterable[VolumeFacts], *, all_volumes: str, resolve: Resolve = _as_it_is
) -> Storage:
    """Return the storage of a volume; `volumes` are those of the engine, and `all_volumes` is their directory.

    `resolve` follows symbolic links of the engine's host, where that is possible.
    """
    known = list(volumes)
    mine = next((volume for volume in known if volume.name == name), None)
    if mine is None:
        return Storage(frozenset({name}), frozenset(), all_volumes)
    return _storage(_places(mine, resolve), known, all_volumes, resolve)


def storage_of_directory(
    path: str, volumes: Iterable[VolumeFacts], *, all_volumes: str, resolve: Resolve = _as_it_is
) -> Storage:
    """Return the storage of a directory of the engine's host; see storage_of_volume."""
    return _storage(_Places("", frozenset({path, resolve(path)}), None), list(volumes), all_volumes, resolve)


def is_tmpfs(driver: str, options: Mapping[str, str]) -> bool:
    """Whether the bytes are in memory, and gone when the last container that mounts the volume ends."""
    # with a bind flag the type counts for nothing: it is a directory of the host (mount(2), MS_BIND)
    flags = options.get("o", "").split(",")
    return driver == "local" and options.get("type") in ("tmpfs", "ramfs") and not {"bind", "rbind"} & set(flags)


def is_plain(driver: str, options: Mapping[str, str]) -> bool:
    """Whether the bytes are in the engine's own directory: nothing else of its host or network is reached."""
    return driver == "local" and options.keys() <= PLAIN_OPTIONS


def described(driver: str, options: Mapping[str, str]) -> str:
    """Name a storage in a message: driver and device only, as other options may hold passwords."""
    device = options.get("device")
    return f"driver {driver!r}, device {device!r}" if device else f"driver {driver!r}"


@dataclass(frozen=True, slots=True)
class _Device:
    """What holds the bytes, and the path on it."""

    kind: str
    name: str
    """A block device, the address of a server, or all options of a plugin."""
    path: str = "/"

    def overlaps(self, other: _Device) -> bool:
        is_server = self.kind in _SERVERS
        same = _may_be_one_host(self.name, other.name) if is_server else self.name == other.name
        return self.kind == other.kind and same and _overlap(self.path, other.path)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the bytes of one volume are: directories of the host, or a path on a device, share or plugin."""

    name: str
    paths: frozenset[str]
    device: _Device | None

    def shares_with(self, other: _Places) -> bool:
        if self.name == other.name:
            return True
        if any(_overlap(mine, theirs) for mine in self.paths for theirs in other.paths):
            return True
        return self.device is not None and other.device is not None and self.device.overlaps(other.device)


def _storage(mine: _Places, volumes: list[VolumeFacts], all_volumes: str, resolve: Resolve) -> Storage:
    sharing: set[str] = set()
    parents: set[str] = set()
    paths = set(mine.paths)
    for volume in volumes:
        theirs = _places(volume, resolve)
        if not theirs.shares_with(mine):
            continue
        if volume.name != mine.name and _hold_all(theirs.paths, all_volumes):
            parents.add(volume.name)
            continue
        sharing.add(volume.name)
        paths.update({volume.mountpoint} - {""})
    return Storage(frozenset(sharing), frozenset(paths), all_volumes, frozenset(parents), resolve)


def _hold_all(paths: Iterable[str], all_volumes: str) -> bool:
    return bool(all_volumes) and any(_is_below(all_volumes, path) for path in paths)


def _places(volume: VolumeFacts, resolve: Resolve) -> _Places:
    paths = {volume.mountpoint} if volume.mountpoint else set()
    options = volume.options
    if volume.driver != "local":
        # what a plugin's options mean is its own matter: equal ones name the same storage
        device = _Device(volume.driver, repr(sorted(options.items()))) if options else None
        return _Places(volume.name, frozenset(paths), device)
    flags = dict(flag.strip().partition("=")[::2] for flag in options.get("o", "").split(","))
    where, kind = options.get("device", ""), options.get("type", "")
    if kind == "overlay" and not {"bind", "rbind"} & flags.keys():
        return _Places(volume.name, frozenset({*paths, *_resolved(flags.get("upperdir", ""), resolve)}), None)
    if not where or is_tmpfs(volume.driver, options):
        return _Places(volume.name, frozenset(paths), None)
    if "bind" in flags or "rbind" in flags:
        return _Places(volume.name, frozenset({*paths, *_resolved(where, resolve)}), None)
    return _Places(volume.name, frozenset(paths), _device(kind, where, flags, resolve))


def _resolved(path: str, resolve: Resolve) -> set[str]:
    return {path, resolve(path)} if path else set()


def _device(kind: str, where: str, flags: Mapping[str, str], resolve: Resolve) -> _Device:
    """Split what mount(8) takes as a device into what holds the bytes, and the path on it."""
    address = flags.get("addr") or flags.get("ip") or ""
    if kind in ("nfs", "nfs4"):
        host, _, path = where.rpartition(":")
        return _Device("nfs", address or host, path or "/")
    if kind in ("cifs", "smb3"):
        host, _, path = where.replace("\\", "/").lstrip("/").partition("/")
        return _Device("cifs", address or host, f"/{path}/{flags.get('prefixpath', '').strip('/')}".lower())
    return _Device("device", resolve(where), f"/{flags.get('subvol', '').strip('/')}")


_SERVERS = ("nfs", "cifs")


def _may_be_one_host(one: str, other: str) -> bool:
    """Whether two addresses may be those of one host: a short name and a whole one, or a name and a number.

    Names are not looked up: this machine may know others than the engine's host.
    """
    mine, theirs = (host.strip("[]").rstrip(".").lower() for host in (one, other))
    if mine == theirs:
        return True
    numbers = [_is_number(mine), _is_number(theirs)]
    if any(numbers):
        return not all(numbers)
    short, whole = sorted((mine, theirs), key=len)
    return "." not in short and whole.startswith(f"{short}.")


def _is_number(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _overlap(one: str, other: str) -> bool:
    return _is_below(one, other) or _is_below(other, one)


def _is_below(path: str, above: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(above))
