"""Observe: who can write to a source while it is read - before, after, and in between.

What a backup says of its consistency, and its warnings about writers, come from here. Nothing is stopped here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from volback.catalog.model import Consistency, Source
from volback.engine.engine import Engine
from volback.engine.storage import Arrivals
from volback.policy.storage import Storage


@dataclass(frozen=True, slots=True)
class _Observation:
    """Who reached the source at one moment: names of active containers."""

    users: frozenset[str]
    writers: frozenset[str]
    broad_writers: frozenset[str]
    """Those that can write only by a mount that holds all volumes."""


class Observer:
    """Who can write to one source: call `begin` right before it is scanned to be read, and `end` after."""

    def __init__(self, engine: Engine, source: Source, storage: Storage | None = None) -> None:
        """`storage` is where the source's bytes are, if the caller has asked already: containers may be waiting."""
        self.came: list[str] = []
        """Names of the containers that could write to it and started while it was read."""
        self._engine = engine
        self._source = source
        self._storage = storage or engine.storage(source)
        self._arrivals: Arrivals | None = None
        self._seen: list[_Observation] = []

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Notice containers that start, until the block ends."""
        with self._engine.arrivals(self._storage) as self._arrivals:
            yield

    def begin(self) -> None:
        """The source is read from now on; it is, where that was said before."""
        assert self._arrivals is not None
        if self._seen:
            return
        self._arrivals.begin()
        self._observe()

    def end(self) -> None:
        """All has been read; those that started since are in `came`."""
        assert self._arrivals is not None
        self._observe()
        self.came = self._arrivals.names()

    @property
    def users(self) -> set[str]:
        """Names of the containers that had the source mounted."""
        return {name for seen in self._seen for name in seen.users}

    def consistency(self, hold: Consistency) -> Consistency:
        """The weakest consistency observed; `hold` is what the caller's hold makes of a directory."""
        if self.came or any(seen.writers or seen.broad_writers for seen in self._seen):
            return "live"
        if self._source.kind != "volume":
            return hold
        return "paused" if self.users else "stopped"

    @property
    def is_written(self) -> bool:
        """Whether a container that mounts the source could write to it while it was read. One that mounts the directory
        of all volumes, as monitoring does, is said alone."""
        broad = {name for seen in self._seen for name in seen.broad_writers}
        return bool(set(self.came) - broad) or any(seen.writers for seen in self._seen)

    def notices(self, *, but: list[str]) -> list[str]:
        """Warnings about writers that ran, or came and went; those in `but` are warned of elsewhere."""
        what = f"{self._source.kind} {self._source.name!r}"
        writers = {name for seen in self._seen for name in seen.writers}
        broad = {name for seen in self._seen for name in seen.broad_writers} - writers
        came = set(self.came) - writers - broad
        texts = {
            f"{what} may be written to while it is read: container {{!r}} is running": writers,
            f"{what} may be written to while it is read: container {{!r}} mounts the directory of all volumes": broad,
            f"{what} may have been written to while it was read: container {{!r}} started meanwhile": came,
        }
        return [text.format(name) for text, names in texts.items() for name in sorted(names - set(but))]

    def _observe(self) -> None:
        users = [user for user in self._engine.storage_users(self._storage) if user.is_active]
        writers = [user for user in users if user.writable and user.state != "paused"]
        self._seen.append(
            _Observation(
                frozenset(user.name for user in users if not user.broad),
                frozenset(user.name for user in writers if not user.broad),
                frozenset(user.name for user in writers if user.broad),
            )
        )
