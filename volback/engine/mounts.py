"""Mounts: what an engine's refusal of a helper says of the directory that the helper was to mount. Pure."""

from __future__ import annotations

from typing import Any

from volback.errors import EngineError, NotFoundError, UsageError, VolbackError
from volback.masking import masked

MOUNT_POINT = "/volume"
TARGET_POINT = "/target"
"""Of a second volume, into which a helper copies the first."""


def no_directory(mounts: list[Any], exc: EngineError) -> VolbackError | None:
    """A target that is not there, or not a directory, on the engine's host; engines say so only in the message."""
    for mount in mounts:
        if mount["Type"] != "bind" or mount["Target"] != MOUNT_POINT:
            continue
        path = mount["Source"]
        if is_about_path(exc, path):
            return NotFoundError(f"directory {path} does not exist on the engine's host")
        if "not a directory" in exc.message.lower() and masked(path) in exc.message:
            return UsageError(f"{path} is not a directory on the engine's host", "name the directory that it is in")
    return None


def is_about_path(exc: EngineError, path: str) -> bool:
    """Whether the engine refused because it does not have `path`: Docker's words, and Podman's."""
    gone = "does not exist" in exc.message or "no such file or directory" in exc.message.lower()
    return gone and masked(path) in exc.message


def is_denied(exc: EngineError, path: str) -> bool:
    """Whether the engine may not look at `path`: one that runs as an ordinary user (rootless)."""
    return "permission denied" in exc.message.lower() and masked(path) in exc.message
