"""Sides: the two ends of a move, each a volume on its engine. Both may be on one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from volback.catalog.model import Source
from volback.context import Context
from volback.engine.engine import Engine
from volback.operations.locks import volume_lock


@dataclass(frozen=True, slots=True)
class Side:
    """A volume, and the engine that it is on."""

    engine: Engine
    volume: Source

    @property
    def what(self) -> str:
        """It, in words."""
        return f"{self.volume.kind} {self.volume.name!r}"

    def is_same(self, other: Side) -> bool:
        """Whether both are one volume."""
        mine, theirs = self.volume, other.volume
        return (self.engine.info.id, mine.kind, mine.name) == (other.engine.info.id, theirs.kind, theirs.name)

    def locked(self, ctx: Context) -> AbstractContextManager[None]:
        """Hold it for a block. Raises LockedError."""
        return volume_lock(ctx, self.engine.info.id, self.volume)


def source_side(engine: Engine, name: str) -> Side:
    """The volume that is to be moved, as its engine describes it: with labels that no backup would hold.

    Raises NotFoundError.
    """
    found = engine.volume(name)
    volume = Source(kind="volume", name=name, driver=found.driver, options=found.options, labels=found.labels)
    return Side(engine, volume)
