"""Volumes and directories as operations use them: scanned and read, created and written.

A new volume is journalled and labelled, and removed again if what fills it fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from volback.archive import tar
from volback.archive.plan import Plan, make_plan
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader
from volback.engine.volumes import Volume
from volback.errors import ConflictError, EngineError, NotFoundError, UsageError
from volback.interrupts import deferred_signals
from volback.operations.recover import RESTORE_LABEL
from volback.state.journal import NewVolume
from volback.state.runs import Run

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
"""The rule by which engines check names of local volumes (moby, volume/local and names.RestrictedNamePattern)."""


def open_reader(engine: Engine, run: Run, source: Source) -> AbstractContextManager[VolumeReader]:
    """Start a helper that scans and reads `source` with the arguments that make the stream deterministic."""
    return engine.reader(
        source,
        run=run.id,
        directory=run.scratch("read"),
        scan=tar.FIND,
        read=tar.CREATE,
        scan_end=tar.SCAN_END,
    )


def scan(reader: VolumeReader, excludes: list[str]) -> Plan:
    """Scan and plan; a scan that could not read everything is a failure. Raises EngineError."""
    plan = make_plan(reader.scan(), excludes)
    _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)
    return plan


def unreadable(failures: list[str]) -> EngineError:
    """The error for what find or tar could not read."""
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return EngineError(f"cannot read everything: {failures[0]}{more}", "leave it out with --exclude, or fix it")


@contextmanager
def new_volume(engine: Engine, run: Run, target: Source) -> Iterator[None]:
    """Create the volume `target` for the block that fills it; if that raises, the volume is removed.

    Raises UsageError for a name that engines do not accept, ConflictError if there is a volume of that name. After
    SIGKILL the next run's sweep finds it by journal and label.
    """
    if target.driver == "local" and not _NAME.fullmatch(target.name):
        raise UsageError(
            f"{target.name!r} is not a valid volume name",
            "use two or more letters, digits or _ . -; give one with --as",
        )
    if engine.has_volume(target.name):
        raise ConflictError(
            f"volume {target.name!r} exists already",
            "choose another name with --as, or replace its content with --replace",
        )
    entry = NewVolume(engine=engine.info.id, host=engine.info.name, name=target.name)
    with run.begun(entry, undo=lambda: _remove_half_made(engine, run, target.name)):
        with deferred_signals():
            engine.create_volume(_labelled(run, target))
        yield


def write_into(
    engine: Engine, run: Run, target: Source, command: list[str], stream: Iterable[bytes | memoryview]
) -> tuple[int, bytes]:
    """Run `command` in a helper that has `target` mounted writable; return its exit status and its messages."""
    with engine.writer(target, run=run.id, directory=run.scratch("write"), write=command) as writer:
        status = writer.write(stream)
        return status, writer.messages()


def _labelled(run: Run, target: Source) -> Volume:
    labels = {**target.labels, RESTORE_LABEL: run.id}
    return Volume(name=target.name, driver=target.driver, options=target.options, labels=labels)


def _remove_half_made(engine: Engine, run: Run, name: str) -> bool:
    """Returns True: afterwards nothing of it is left. Raises EngineError, ConflictError."""
    try:
        made = engine.volume(name).labels.get(RESTORE_LABEL) == run.id
    except NotFoundError:
        made = False
    if made:
        engine.remove_volume(name)
    return True
