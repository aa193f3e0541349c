"""Held: containers and services that several runs hold at the same time, and those of them that stay stopped.

A container that two runs hold is started by the one that ends last, unless the other one has left it stopped (see
`leaving`): then there is a mark in the state directory, which is gone when it is stopped the next time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from volback.durable import write_whole
from volback.state.files import private_directory, usable
from volback.state.journal import HeldContainer, HeldService, Journal
from volback.state.locks import lock
from volback.state.runs import live_journals, recorded_journals

_TURN_S = 3600.0
"""How long to wait for another run that is stopping the same one: at least its grace time."""


def container_lock(state: Path, id_: str) -> AbstractContextManager[None]:
    """Hold the lock of one container: only one process at a time stops or starts it."""
    return lock(state, f"container-{id_}", f"container {id_[:12]}", wait_s=_TURN_S)


def service_lock(state: Path, id_: str) -> AbstractContextManager[None]:
    """Hold the lock of one service: only one process at a time scales it."""
    return lock(state, f"service-{id_}", f"service {id_}", wait_s=_TURN_S)


def held_by_others(state: Path, run_id: str) -> dict[str, HeldContainer | HeldService]:
    """What live runs but this one have stopped, paused or scaled to 0, by its id."""
    return {
        entry.id: entry
        for other, journal in live_journals(state)
        if other != run_id
        for entry in _entries(journal)
        if entry.phase != "planned"
    }


def note_left(state: Path, run_id: str, id_: str) -> None:
    """The run leaves it stopped: others that hold it now must not start it. The caller holds its lock.

    Raises StoreError.
    """
    if id_ in held_by_others(state, run_id):
        mark = _mark(state, id_)
        with usable(private_directory(mark.parent)):
            write_whole(mark, b"")


def forget_left(state: Path, id_: str) -> None:
    """It runs, as somebody has started it: from now on it is one like any other. The caller holds its lock."""
    mark = _mark(state, id_)
    with usable(mark):
        mark.unlink(missing_ok=True)


def is_left(state: Path, run_id: str, id_: str) -> bool:
    """Whether another run has left it stopped; also one that died right after that."""
    return _mark(state, id_).exists() or any(
        entry.id == id_ and entry.stays
        for other, journal in recorded_journals(state)
        if other != run_id
        for entry in _entries(journal)
    )


def _entries(journal: Journal) -> list[HeldContainer | HeldService]:
    return [*journal.of(HeldContainer), *journal.of(HeldService)]


def _mark(state: Path, id_: str) -> Path:
    return state / "left" / id_
