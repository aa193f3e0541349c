"""Stopped: what is the same for all that is copied while containers are stopped, volumes and single files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from volback.engine.containers import Container
from volback.errors import ConflictError, EngineUnreachable
from volback.live.quiesce import Quiesced
from volback.moving.connections import Connections
from volback.moving.sides import Side
from volback.operations.observe import Observer

log = logging.getLogger(__name__)


def check_undisturbed(
    connections: Connections, observer: Observer, source: Side, quiesced: Quiesced, stopped: Iterable[Container]
) -> None:
    """Raises ConflictError if something has run meanwhile that can write to the source."""
    names = {container.name for container in stopped}
    disturbed = connections.through(lambda _: quiesced.disturbed(names))
    disturbers = sorted({*disturbed, *observer.came})
    if disturbers:
        raise ConflictError(
            f"container {disturbers[0]!r} was started by others while {source.what} was moved",
            f"find out what starts it, and move the {source.volume.kind} again",
        )


@contextmanager
def ended(helpers: ExitStack) -> Iterator[None]:
    """End helpers after the block. Where its work is done, an engine that is unreachable then takes nothing from it."""
    is_done = False
    try:
        with helpers:
            yield
            is_done = True
    except EngineUnreachable as exc:
        if not is_done:
            raise
        log.warning("helpers stay behind until the next run: %s", exc.message)
