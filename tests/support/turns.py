"""Turns: tests of several workers share an engine, but some must have it to themselves."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait until this test may run: beside others, or when no other one does.

    Whoever waits holds the gate, so that the others of a busy worker do not go before it again and again.
    """
    with open(directory / "gate", "w") as gate, open(directory / "room", "w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
