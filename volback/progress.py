"""Progress: how an operation reports to its caller how much is done. The cli draws it; an operation never prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a long stage; called from one thread, a few times a second at most per frame."""

    def start(self, stage: str, *, total_bytes: int | None, total_files: int | None) -> None:
        """A stage begins; totals are estimates, None where they are not known."""

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        """What has been done since the last call. `sent_bytes`: what the other end of a move has been given."""


class Silent:
    """Progress that is ignored: nobody watches the run."""

    def start(self, stage: str, *, total_bytes: int | None, total_files: int | None) -> None:
        """Ignore it."""

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        """Ignore it."""
