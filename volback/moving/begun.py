"""Begun: a target that a run which died, or gave up, has filled with a part of the same source.

The journal of that run names both, and the volume has its label: another run goes on from it, and answers for it then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from volback.context import Context
from volback.errors import NotFoundError
from volback.moving.sides import Side
from volback.policy.inherited import restored_by, without_restore_label
from volback.state.journal import NewDirectory, NewVolume
from volback.state.runs import DeadRun, Run, dead_runs, recorded_journals

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """What a dead run has begun."""

    run: str
    """Its id."""
    label: str
    """The id in the volume's label: of the run that made it."""
    birth: str = ""
    """Of a directory, as the journal has it: what is there must have the same."""
    was_there: bool = False
    """Whether that directory was there before, and empty then."""


def find_begun(ctx: Context, source: Side, target: Side) -> Begun | None:
    """Return who has begun to bring `source` to `target`, if that volume is as it would be made now.

    Raises EngineUnreachable.
    """
    with _entry_of(ctx, source, target) as (run, entry):
        if run is None or entry is None:
            return None
        if isinstance(entry, NewDirectory):
            return Begun(run.id, "", entry.birth, entry.was_there)
        label = entry.made_by or run.id
        return Begun(run.id, label) if _is_whole_mark(target, label) else None


def is_half_made(ctx: Context, run: Run, target: Side) -> bool:
    """Whether another run's journal names the volume: whatever it holds, a sweep removes it unless it is taken over."""
    wanted = (target.engine.info.id, target.volume.name)
    others = (journal for id_, journal in recorded_journals(ctx.settings.state) if id_ != run.id)
    return any((entry.engine, entry.name) == wanted for journal in others for entry in journal.of(NewVolume))


def take_over(ctx: Context, begun: Begun, source: Side, target: Side) -> None:
    """Let the dead run forget the volume: a live run's journal names it now."""
    with _entry_of(ctx, source, target, run_id=begun.run) as (run, entry):
        if run is None or entry is None:
            return
        if len(run.journal.entries) == 1:
            run.forget()
        else:
            run.drop(entry)


@contextmanager
def _entry_of(
    ctx: Context, source: Side, target: Side, *, run_id: str | None = None
) -> Iterator[tuple[DeadRun | None, NewVolume | NewDirectory | None]]:
    """The dead run that has begun it, locked for the block, and its entry."""
    origin = (source.engine.info.id, source.volume.name)
    wanted = (target.engine.info.id, target.volume.name)
    with dead_runs(ctx.settings.state) as dead:
        for run in dead if run_id is None else [run for run in dead if run.id == run_id]:
            for entry in _new(run, target):
                name = entry.path if isinstance(entry, NewDirectory) else entry.name
                if (entry.engine, name) == wanted and (entry.source_engine, entry.source) == origin:
                    yield run, entry
                    return
        yield None, None


def _new(run: DeadRun, target: Side) -> list[NewVolume] | list[NewDirectory]:
    """What it has made of that kind, and was seen to be empty."""
    if target.volume.kind == "directory":
        return [entry for entry in run.journal.of(NewDirectory) if entry.birth]
    return [entry for entry in run.journal.of(NewVolume) if entry.was_empty]


def _is_whole_mark(target: Side, label: str) -> bool:
    """Whether the volume is the one that was made, and has the driver, the options and the labels that are wanted."""
    wanted = target.volume
    try:
        found = target.engine.volume(wanted.name)
    except NotFoundError:
        return False
    labels = without_restore_label(found.labels)
    is_marked = restored_by(found.labels) == label and found.driver == "local"
    return is_marked and (found.driver, found.options, labels) == (wanted.driver, wanted.options, wanted.labels)
