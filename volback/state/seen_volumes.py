"""Seen volumes: which labels a volume had when this machine last backed it up, and in which projects it was.

A restore takes a label over by which programs act only where the machine knows it of its own, or the person wants it:
what a manifest says can have been written by anybody who may write to the repository. Only digests are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from volback.durable import write_whole
from volback.state.files import private_directory, usable

_PROJECTS_MAX = 20


class SeenVolume(msgspec.Struct, frozen=True):
    """Digests of what was seen of one volume."""

    labels: list[str] = []
    projects: list[str] = []
    """Of compose projects as whose part it was backed up, the latest last."""

    def had_label(self, key: str, value: str) -> bool:
        """Whether it had that label at its last backup."""
        return _digest(key, value) in self.labels

    def was_of_project(self, project: str) -> bool:
        """Whether it was backed up with that project."""
        return _digest(project) in self.projects


def note_volume(state: Path, host: str, volume: str, *, labels: Mapping[str, str], project: str | None) -> None:
    """Keep the labels of a volume of that host in place of those before, and add the project. Raises StoreError."""
    path = _path(state, host, volume)
    before = _read(path)
    digests = sorted(_digest(key, value) for key, value in labels.items())
    others = [known for known in before.projects if project is None or known != _digest(project)]
    seen = SeenVolume(digests, (others if project is None else [*others, _digest(project)])[-_PROJECTS_MAX:])
    if seen != before:
        private_directory(path.parent)
        with usable(path):
            write_whole(path, msgspec.json.encode(seen))


def seen_volume(state: Path, host: str, volume: str) -> SeenVolume:
    """Return what this machine has seen of the volume. Raises StoreError."""
    return _read(_path(state, host, volume))


def _read(path: Path) -> SeenVolume:
    with usable(path):
        try:
            return msgspec.json.decode(path.read_bytes(), type=SeenVolume)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return SeenVolume()


def _path(state: Path, host: str, volume: str) -> Path:
    return state / "volumes" / f"{_digest(host, volume)}.json"


def _digest(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()
