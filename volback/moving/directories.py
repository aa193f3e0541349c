"""Directories: a directory of the target's host that a move fills. It is new, or nothing is in it, or it is replaced.

A directory has no label, so what a killed run has left of one is reported, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from volback.archive.plan import Plan
from volback.context import Context
from volback.errors import ConflictError, NotFoundError
from volback.moving.look import look_into
from volback.moving.sides import Side
from volback.moving.targets import Filling, TargetOptions, empty, safety_backup
from volback.moving.transfer import EXTRACT
from volback.operations.directories import make_directories, remove_directory
from volback.operations.in_use import UnusedStorage
from volback.operations.starting import started
from volback.operations.volumes import open_writer
from volback.state.journal import NewDirectory
from volback.state.runs import Run


def is_there(run: Run, target: Side) -> bool:
    """Whether the directory exists. Raises UsageError for what is no directory, EngineError."""
    try:
        look_into(target.engine, target.volume, run=run.id, directory=run.scratch("look"))
    except NotFoundError:
        return False
    return True


def are_one_storage(here: Plan, there: Plan) -> bool:
    """Whether two scans saw some of the same files: two engines may be on one host. Then neither may be replaced."""
    return not _marks(here).isdisjoint(_marks(there))


def _marks(plan: Plan) -> set[tuple[int, int]]:
    entries = (plan.entry(number) for number in range(len(plan.records)))
    return {(entry.inode, entry.ctime_ns) for entry in entries}


@contextmanager
def filling_directory(
    ctx: Context, run: Run, target: Side, options: TargetOptions, *, on_wire: str | None, hint: str
) -> Iterator[Filling]:
    """Make the directory, or take the one that is there, for the block that fills it.

    If the block raises, a new one is removed, and one that was there is empty. Raises ConflictError where it is not
    empty, with that hint, or in use.
    """
    engine, volume, safety = target.engine, target.volume, None
    entry = NewDirectory(engine=engine.info.id, host=engine.info.name, path=volume.name)
    look = partial(look_into, engine, volume, run=run.id)
    writer = partial(open_writer, engine, run, volume, EXTRACT, on_wire=on_wire)
    if not is_there(run, target):
        with run.begun(entry, undo=partial(_removed, run, target)):
            make_directories(ctx, engine, run, volume)
            with started(writer()) as starting:
                yield Filling(target, starting, look(directory=run.scratch("look")))
        return
    with UnusedStorage(engine, volume).replacing(done="filled", again="move it again"):
        found = look(directory=run.scratch("look"))
        if found.first_entry:
            if options.replace is None:
                what = f"{target.what} exists already, and is not empty"
                raise ConflictError(f"{what}: it holds {found.first_entry!r}", hint)
            safety = safety_backup(ctx, target, options.replace)
        with run.begun(entry, undo=partial(_emptied, run, target)):
            if found.first_entry:
                empty(run, target)
                found = look(directory=run.scratch("look"))
            with started(writer()) as starting:
                yield Filling(target, starting, found, safety)


def _emptied(run: Run, target: Side) -> bool:
    """Returns True: nothing of it is left."""
    empty(run, target)
    return True


def _removed(run: Run, target: Side) -> bool:
    """Returns True: nothing of it is left."""
    remove_directory(target.engine, run, target.volume)
    return True
