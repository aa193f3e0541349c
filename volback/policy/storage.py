"""Storage: what a volume's driver and options say of where its bytes are, and what a new volume takes over of an old.

Pure rules; nothing asks an engine here. A volume is its storage and not its name: two names can be one storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

PLAIN_OPTIONS = frozenset({"size"})
"""Options of driver `local` that reach nothing outside the engine's own directory (moby, volume/local)."""

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Engines from 23.0 on: a plain `docker volume prune` removes volumes that have it."""

_NEVER = frozenset({
    ANONYMOUS_LABEL,
    "com.docker.volback.restore", "volback.made", "volback.client", "volback.helper", "volback.run",
})  # fmt: skip
"""They would have the new volume removed: by `docker volume prune`, or by volback, which marks what it made by them."""
_OF_THE_NAME = ("com.docker.", "io.podman.compose.", "volback.")
"""Labels by which compose, swarm and volback act on a volume. Under another name they would act on the copy."""


def is_plain(driver: str, options: Mapping[str, str]) -> bool:
    """Whether the bytes are in the engine's own directory: nothing else of its host or network is reached."""
    return driver == "local" and options.keys() <= PLAIN_OPTIONS


def described(driver: str, options: Mapping[str, str]) -> str:
    """Name a storage in a message: driver and device only, as other options may hold passwords."""
    device = options.get("device")
    return f"driver {driver!r}, device {device!r}" if device else f"driver {driver!r}"


def inherited_labels(labels: Mapping[str, str], *, renamed: bool, without: Iterable[str] = ()) -> dict[str, str]:
    """Return the labels that a restored volume has of the one that was backed up.

    `without` are keys that it is not to have; `*` in one stands for any text.
    """
    patterns = list(without)
    return {
        key: value
        for key, value in labels.items()
        if key not in _NEVER
        and not (renamed and key.startswith(_OF_THE_NAME))
        and not any(fnmatchcase(key, pattern) for pattern in patterns)
    }
