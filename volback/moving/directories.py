"""Directories: a directory of the target's host that a move fills. It is new, or nothing is in it, or it is replaced.

A directory has no label. What a killed run has left of one is known by its inode and time of birth: the next move of
the same directory goes on from it, and any other run reports it, and lets it stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from volback.archive.plan import Plan
from volback.archive.scan import Entry
from volback.context import Context
from volback.errors import ConflictError, NotFoundError
from volback.moving.begun import find_begun, take_over
from volback.moving.connections import Connections
from volback.moving.look import Look, look_into
from volback.moving.sides import Side
from volback.moving.targets import Filling, TargetOptions, empty, safety_backup
from volback.operations.directories import make_directories, remove_directory
from volback.operations.in_use import UnusedStorage
from volback.operations.starting import started
from volback.operations.volumes import open_extractor, open_reader, scan
from volback.state.journal import NewDirectory
from volback.state.runs import Run


def is_there(run: Run, target: Side) -> bool:
    """Whether the directory exists. Raises UsageError for what is no directory, EngineError."""
    return _found(run, target) is not None


def _found(run: Run, target: Side) -> Look | None:
    try:
        return look_into(target.engine, target.volume, run=run.id, directory=run.scratch("look"))
    except NotFoundError:
        return None


def are_one_storage(here: Plan, there: Plan) -> bool:
    """Whether two scans saw some of the same files: two engines may be on one host. Then neither may be replaced."""
    return not _marks(here).isdisjoint(_marks(there))


def _marks(plan: Plan) -> set[tuple[int, int]]:
    entries = (plan.entry(number) for number in range(len(plan.records)))
    return {(entry.inode, entry.ctime_ns) for entry in entries}


@contextmanager
def filling_directory(
    ctx: Context, run: Run, target: Side, options: TargetOptions, *, source: Side, kept: Connections,
    on_wire: str | None, hint: str,
) -> Iterator[Filling]:  # fmt: skip
    """Make the directory, or take the one that is there, for the block that fills it.

    If the block raises, a new one is removed, unless `kept` says that an engine was lost, and one that was there is
    empty. Raises ConflictError where it is not empty, with that hint, or in use.
    """
    engine, volume = target.engine, target.volume
    writer = partial(open_extractor, engine, run, volume, on_wire=on_wire)
    entry = NewDirectory(engine=engine.info.id, host=engine.info.name, path=volume.name)
    entry.source_engine, entry.source = source.engine.info.id, source.volume.name

    def undo() -> bool:
        if kept.gave_up:
            return False
        return _emptied(run, target) if entry.was_there else _removed(run, target)

    def forget_begun() -> None:
        """What is there is this run's: a later one must not take it for the dead run's, and go on from it."""
        if begun is not None:
            take_over(ctx, begun, source, target)

    found, begun = _found(run, target), find_begun(ctx, source, target)
    if found is not None and begun is not None and found.birth == begun.birth:
        extra = _others(run, source, target)
        if not extra:
            entry.birth, entry.was_there = found.birth, begun.was_there
            with (
                UnusedStorage(engine, volume).replacing(done="filled", again="move it again"),
                run.begun(entry, undo=undo),
            ):
                forget_begun()
                with started(writer()) as starting:
                    yield Filling(target, starting, found, is_begun=True)
            return
        if options.replace is None:
            what = f"{target.what} holds a part that another run has brought, and {extra!r}, which is not of it"
            raise ConflictError(what, hint)
    if found is None:
        with run.begun(entry, undo=undo):
            make_directories(ctx, engine, run, volume)
            with started(writer()) as starting:
                found = look_into(engine, volume, run=run.id, directory=run.scratch("look"))
                entry.birth = found.birth
                run.write_journal()
                forget_begun()
                yield Filling(target, starting, found)
        return
    entry.was_there = True
    with (
        _replaced(ctx, run, target, options, found, entry, undo=undo, hint=hint) as (found, safety),
        started(writer()) as starting,
    ):
        forget_begun()
        yield Filling(target, starting, found, safety)


@contextmanager
def _replaced(
    ctx: Context, run: Run, target: Side, options: TargetOptions, found: Look, entry: NewDirectory,
    *, undo: Callable[[], bool], hint: str,
) -> Iterator[tuple[Look, str | None]]:  # fmt: skip
    """Empty what is there for the block; give what is found of it then, and the safety backup.

    Once it is empty, the journal has what it is known by: all that comes into it then is of the move.
    """
    engine, volume, safety = target.engine, target.volume, None
    with UnusedStorage(engine, volume).replacing(done="filled", again="move it again"):
        if found.first_entry:
            if options.replace is None:
                what = f"{target.what} exists already, and is not empty"
                raise ConflictError(f"{what}: it holds {found.first_entry!r}", hint)
            safety = safety_backup(ctx, target, options.replace)
        with run.begun(entry, undo=undo):
            if found.first_entry:
                empty(run, target)
                found = look_into(engine, volume, run=run.id, directory=run.scratch("look"))
            entry.birth = found.birth
            run.write_journal()
            yield found, safety


def _others(run: Run, source: Side, target: Side) -> str:
    """A path below the target that is not of the move; empty where there is none.

    The source does not have it, or it is a file that others have written to since: newer than the source's. A move that
    was cut off leaves at most one such file, which is not longer than the source's.
    """
    found = list[dict[bytes, Entry]]()
    for side in (source, target):
        with open_reader(side.engine, run, side.volume) as reader:
            plan = scan(reader, [])
        entries = (plan.entry(number) for number in range(len(plan.records)))
        found.append({entry.path: entry for entry in entries})
    here, there = found
    others = there.keys() - here.keys()
    if not others:
        newer = [path for path, entry in there.items() if entry.type == "f" and entry.mtime_ns > here[path].mtime_ns]
        longer = {path for path in newer if there[path].size_bytes > here[path].size_bytes}
        several = len({there[path].inode for path in newer}) > 1
        others = set(newer) if several else longer
    return min(others, default=b"").decode(errors="backslashreplace")


def _emptied(run: Run, target: Side) -> bool:
    """Returns True: nothing of it is left."""
    empty(run, target)
    return True


def _removed(run: Run, target: Side) -> bool:
    """Returns True: nothing of it is left."""
    remove_directory(target.engine, run, target.volume)
    return True
