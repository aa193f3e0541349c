"""A relay to a second engine that breaks all of its connections once so many bytes have gone there, and counts them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from tests.support.remote import Relay, SecondEngine, pump


class CuttingRelay(Relay):
    """Breaks at each of `cuts` (bytes since the start, in order); new connections work again at once."""

    def __init__(
        self, engine: SecondEngine, cuts: list[int], *, port: int | None = None, resets: bool = False,
        of_answers: bool = False,
    ) -> None:  # fmt: skip
        """`of_answers`: it counts what comes from the engine, instead of what goes there."""
        super().__init__(engine, port=port, resets=resets)
        self.sent_bytes = 0
        """What has gone to the engine."""
        self.cut_at: list[int] = []
        """What had gone there at each cut."""
        self._cuts = list(cuts)
        self._of_answers = of_answers
        self.at_cut: Callable[[], None] = lambda: None
        """Called at each cut, before the connections are broken."""
        self._counting = threading.Lock()

    def _pump(self, source: socket.socket, target: socket.socket, to_engine: bool) -> None:
        def may_pass(size: int) -> bool:
            if to_engine is self._of_answers or not self._is_due(size):
                return True
            self.at_cut()
            self.cut()
            return False

        pump(source, target, most=64 * 1024, may_pass=may_pass)

    def _is_due(self, size: int) -> bool:
        with self._counting:
            self.sent_bytes += size
            if not self._cuts or self.sent_bytes < self._cuts[0]:
                return False
            del self._cuts[0]
            self.cut_at.append(self.sent_bytes)
            return True
