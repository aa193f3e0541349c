"""Binds: which directories of the host that containers mount are worth a backup. Pure rules on paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""What the kernel and running programs make: sockets, devices, states."""


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
