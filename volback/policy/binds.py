"""Binds: which directories of the host that containers mount are worth a backup. Pure rules on paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""What the kernel and running programs make: sockets, devices, states."""

_SHARED = frozenset({
    "/bin", "/boot", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/root", "/sbin", "/srv",
    "/tmp", "/usr", "/var",
})  # fmt: skip
"""Directories that every host has, for all that is on it."""
_PROGRAMS = ("/bin", "/boot", "/lib", "/lib32", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin")

_MACHINE_FILES = frozenset({
    "/etc/fstab", "/etc/group", "/etc/gshadow", "/etc/hostname", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/localtime", "/etc/machine-id", "/etc/mtab", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd",
    "/etc/resolv.conf", "/etc/shadow", "/etc/subgid", "/etc/subuid", "/etc/sudoers", "/etc/timezone",
    "/var/lib/dbus/machine-id",
})  # fmt: skip
"""Files by which containers learn of the machine that they run on: another one has its own."""
_MACHINE_DATA = ("/etc/pki", "/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/share/zoneinfo")


def is_machine_file(path: str, engine_root: str) -> bool:
    """Whether a single file belongs to the machine, and none of another one may be written to its place."""
    if is_system(path, engine_root) or path in _MACHINE_FILES or posixpath.dirname(path) == "/":
        return True
    return is_below(path, *_PROGRAMS, *_MACHINE_DATA)


def may_be_filled(path: str, engine_root: str) -> bool:
    """Whether a directory of another host may be made to hold what a project has here: not what is that host's own."""
    return not (is_system(path, engine_root) or path in _SHARED or is_below(path, *_PROGRAMS))


def place_of(path: str, maps: Mapping[str, str]) -> str:
    """Where a path is on another host, by the deepest entry (here to there) that it lies below; else where it is."""
    above = max((old for old in maps if is_below(path, old)), key=len, default=None)
    return path if above is None else posixpath.normpath(posixpath.join(maps[above], posixpath.relpath(path, above)))


def known_place_of(path: str, maps: Mapping[str, str]) -> str:
    """As `place_of`, where path and maps are what a repository says: a `..` does not lead out of a place."""
    normal = {posixpath.normpath(old): new for old, new in maps.items()}
    return place_of(posixpath.normpath(path), normal)


def is_system(path: str, engine_root: str) -> bool:
    """Whether it belongs to the machine and not to a project: the root, `/proc` and such, the engine's own data."""
    if path == "/" or is_below(path, *_SYSTEM):
        return True
    return bool(engine_root) and (is_below(path, engine_root) or is_below(engine_root, path))


def is_below(path: str, *directories: str) -> bool:
    """Whether it is one of the directories, or lies in one."""
    return any(path == directory or path.startswith(directory.rstrip("/") + "/") for directory in directories)


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths that lie in no other of them, sorted."""
    found = list[str]()
    for path in sorted({posixpath.normpath(path) for path in paths}, key=lambda path: path.split("/")):
        if not found or not is_below(path, found[-1]):
            found.append(path)
    return found
