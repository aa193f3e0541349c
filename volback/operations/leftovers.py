"""Leftovers: what crashed runs left, as a sweep finds it and as its result names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from volback.errors import VolbackError
from volback.state.journal import Entry, Replacing


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What crashed runs left; names for people."""

    helpers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """Runs of which nothing is left to remember."""
    directories: tuple[str, ...] = ()
    """Directories that a restore created and did not fill completely; they are reported once, and stay."""
    replaced: tuple[Replacing, ...] = ()
    """Volumes whose replacement was cut off."""
    containers: tuple[str, ...] = ()
    """Those that a crashed run stopped or paused; they run again, unless nothing is to be removed, or there is an
    error."""
    services: tuple[str, ...] = ()
    """The same for services that a crashed run scaled to 0."""
    elsewhere: tuple[Entry, ...] = ()
    """What is on another engine, or in another repository: only a run there can act on it. It is kept."""
    unreadable: tuple[Path, ...] = ()
    """Directories of runs whose journals this version cannot read. They are kept."""
    kept: tuple[str, ...] = ()
    """What stays in this repository, and why, one line for each: it is denied, or unknown whether it is needed."""
    errors: tuple[VolbackError, ...] = ()
    """Why some of the containers do not run again."""

    def __bool__(self) -> bool:
        made = self.helpers or self.volumes or self.directories or self.backups or self.runs
        return bool(made or self.replaced or self.containers or self.services)


@dataclass(slots=True)
class FoundLeftovers:
    """Leftovers while they are gathered."""

    helpers: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    replaced: list[Replacing] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    elsewhere: list[Entry] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    errors: list[VolbackError] = field(default_factory=list)

    def all(self) -> Leftovers:
        """All of them."""
        return Leftovers(
            helpers=tuple(self.helpers),
            volumes=tuple(self.volumes),
            backups=tuple(self.backups),
            runs=tuple(self.runs),
            directories=tuple(self.directories),
            replaced=tuple(self.replaced),
            containers=tuple(self.containers),
            services=tuple(self.services),
            elsewhere=tuple(self.elsewhere),
            unreadable=tuple(self.unreadable),
            kept=tuple(self.kept),
            errors=tuple(self.errors),
        )
