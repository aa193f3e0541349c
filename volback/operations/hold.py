"""Hold: how the containers that write to one source are held while it is read; the sets say it to its backup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from volback.catalog.model import Consistency
from volback.live.plan import QuiesceRequest, writers
from volback.live.quiesce import Quiesced


@dataclass(frozen=True, slots=True)
class SourceHold:
    """How the caller has quiesced the source while it is read."""

    containers: tuple[str, ...] = ()
    """Names of the containers that it has stopped or paused."""
    how: Consistency = "live"
    """The consistency of a source whose other users are not known."""
    disturbed: Callable[[], list[str]] = list
    """Called when all has been read: names of the containers that ran meanwhile anyway."""
    on_read_end: Callable[[], None] = lambda: None
    """Called when all has been read, stored or not."""


def hold_of(request: QuiesceRequest, quiesced: Quiesced) -> SourceHold:
    """How the source of a request is held while all of them are."""
    held = set(quiesced.held)
    mine = {container.name for container in writers(request, quiesced.containers)} & held
    how: Consistency = "live" if not mine else "stopped" if request.how == "stop" else "paused"
    return SourceHold(
        containers=tuple(sorted(mine)),
        how=how,
        disturbed=lambda: quiesced.disturbed(mine),
    )
