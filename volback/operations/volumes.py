"""Volumes and directories as operations use them: scanned and read, created and written.

A new volume is journalled and labelled, and removed again if what fills it fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from volback.archive import tar
from volback.archive.plan import Plan, make_plan
from volback.archive.verdicts import Verdicts
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.streams import Looker, VolumeCopier, VolumeReader, VolumeWriter
from volback.engine.volumes import Volume
from volback.errors import ConflictError, EngineError, NotFoundError, UsageError, VolbackError
from volback.interrupts import deferred_signals
from volback.measures import count, human_size, named
from volback.operations.emptiness import Looking, LookingForAnything, first_entry, look_first
from volback.operations.in_use import UnusedStorage
from volback.operations.starting import Starting, started
from volback.policy.inherited import RESTORE_LABEL, restored_by
from volback.policy.storage import described, is_plain, is_tmpfs
from volback.state.journal import NewVolume
from volback.state.runs import Run

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
"""The rule by which engines check names of local volumes (moby, volume/local and names.RestrictedNamePattern)."""

_DENIED = "Operation not permitted"
_DOTS = ["--checkpoint=256", "--checkpoint-action=dot"]
"""More arguments of an extracting tar: it writes a dot for each 128 MiB, which are 256 of its records."""

Stream = TypeVar("Stream", bound=Looker)

log = logging.getLogger(__name__)


def open_reader(
    engine: Engine,
    run: Run,
    source: Source,
    *,
    one_file_system: bool = False,
    rescan: bool = False,
    read: Iterable[str] = (),
    on_wire: Iterable[str] = (),
    into: Source | None = None,
    look: Sequence[str] = (),
) -> AbstractContextManager[VolumeCopier]:
    """Start a helper that scans and reads `source` with the arguments that make the stream deterministic.

    Of a single file it scans that file and the directory above, and nothing else that is in there.
    `rescan`: it scans twice, the second time when it is asked to. `read` and `on_wire` are more arguments of its tar,
    the second where the stream crosses a connection. `into` and `look`: see Engine.reader.
    """
    find = tar.SYNC_AND_FIND_ONE_FILE_SYSTEM if one_file_system else tar.SYNC_AND_FIND
    return engine.reader(
        source,
        run=run.id,
        directory=run.scratch("read"),
        scan=tar.find_file(posixpath.basename(source.name)) if source.kind == "file" else find,
        read=[*tar.CREATE, *read],
        on_wire=on_wire,
        scan_end=tar.SCAN_END,
        rescan=rescan,
        into=into,
        look=[*look] or None,
    )


def scan(reader: VolumeReader, excludes: list[str], *, verdicts: Verdicts | None = None) -> Plan:
    """Scan and plan; a scan that could not read everything is a failure. Raises EngineError.

    `verdicts`: what is known of the excludes from an earlier scan.
    """
    plan = make_plan(reader.scan(), excludes, verdicts=verdicts)
    _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)
    return plan


def unreadable(failures: list[str]) -> EngineError:
    """The error for what find or tar could not read."""
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return EngineError(
        f"cannot read everything: {failures[0]}{more}",
        "leave it out with --exclude, or other filesystems with --one-file-system, or fix it",
    )


def is_lost_when_unmounted(engine: Engine, volume: Source) -> bool:
    """Whether the volume is in memory (tmpfs), and no running container keeps it mounted."""
    if volume.kind != "volume" or not is_tmpfs(volume.driver, volume.options):
        return False
    return not any(user.is_active for user in engine.users(volume.name))


def check_mounted(engine: Engine, source: Source, *, hint: str) -> None:
    """Raises ConflictError for a volume in memory that no running container mounts: it is empty then."""
    if is_lost_when_unmounted(engine, source):
        raise ConflictError(
            f"volume {source.name!r} is in memory (tmpfs), and empty while no container runs that mounts it", hint
        )


@contextmanager
def new_volume(
    engine: Engine,
    run: Run,
    target: Source,
    writer: Callable[[Sequence[str]], AbstractContextManager[Stream]],
    *,
    hint: str = "choose another name with --as",
    looking: Looking | None = None,
    is_kept: Callable[[], bool] = lambda: False,
    origin: tuple[str, str] = ("", ""),
) -> Iterator[Starting[Stream]]:
    """Create the volume `target` for the block that fills it by `writer`; if that raises, the volume is removed.

    The writer, which is opened with a look command, looks into the volume; it writes nothing before it is given
    something. `looking`: where the caller looks for more than whether it is empty. If `is_kept` says so, the volume
    stays as it is after an error, marked by journal and label. `origin`: the id of the engine and the name of the
    volume that is copied into it.

    Raises UsageError for a name that engines do not accept, ConflictError if there is a volume of that name (with that
    hint), or if its storage is not empty. After SIGKILL the next run's sweep finds it by journal and label.
    """
    if target.driver == "local" and not _NAME.fullmatch(target.name):
        raise UsageError(
            f"{target.name!r} is not a valid volume name",
            "a name has two or more letters, digits or _ . -",
        )
    if engine.has_volume(target.name):
        raise ConflictError(f"volume {target.name!r} exists already", hint)
    if is_lost_when_unmounted(engine, target):
        raise ConflictError(
            f"volume {target.name!r} would be in memory (tmpfs), and its content lost as soon as it is filled",
            "use a plain local volume: --driver local",
        )
    entry = NewVolume(engine=engine.info.id, host=engine.info.name, name=target.name)
    entry.source_engine, entry.source = origin
    making = _Making(engine, run, target)
    with run.begun(entry, undo=lambda: not is_kept() and making.undo()):
        with deferred_signals():
            making.create()
        making.check_unused()
        looking = looking or LookingForAnything(target)
        with started(writer(looking.command)) as starting:
            making.look(looking, starting.opened())
            entry.was_empty = True
            run.write_journal()
            yield starting


class _Making:
    """A new volume, whose storage may be an old one: a directory of the host, a share, a device."""

    def __init__(self, engine: Engine, run: Run, target: Source) -> None:
        self._engine = engine
        self._run = run
        self._target = target
        self._was_made = False
        self._was_full = False

    def create(self) -> None:
        """Create the volume. Raises ConflictError, EngineError."""
        self._engine.create_volume(_labelled(self._run, self._target))
        self._was_made = True

    def look(self, looking: Looking, helper: Looker) -> None:
        """Raises ConflictError if the storage is not empty: it is not ours then."""
        name = self._target.name
        if first := look_first(looking, helper):
            self._was_full = True
            where = described(self._target.driver, self._target.options)
            raise ConflictError(
                f"the storage of the new volume {name!r} ({where}) is not empty: it holds {first!r}",
                "nothing was written; use an empty one, or a plain local volume: --driver local",
            )

    def check_unused(self) -> None:
        """Raises ConflictError if the storage is in use by another name: it is not ours then."""
        if is_plain(self._target.driver, self._target.options):
            return
        try:
            UnusedStorage(self._engine, self._target).check()
        except ConflictError:
            self._was_full = True
            raise

    def undo(self) -> bool:
        """Remove the volume, as far as that cannot remove what somebody else put into its storage."""
        if not self._was_made:
            return remove_half_made(self._engine, self._run.id, self._target.name)
        plain = is_plain(self._target.driver, self._target.options)
        name = self._target.name
        if self._target.driver != "local" or (plain and self._was_full):
            log.warning("volume %s stays: removing it could remove data that was there before", name)
            return True
        if not plain and not self._was_full and self._may_hold_something():
            log.warning("what was written stays in the storage of volume %s, which is incomplete", name)
        return remove_half_made(self._engine, self._run.id, name)

    def _may_hold_something(self) -> bool:
        try:
            return bool(first_entry(self._engine, self._target, run=self._run.id, directory=self._run.scratch("left")))
        except VolbackError:
            return True


def open_writer(engine: Engine, run: Run, target: Source, command: list[str]) -> AbstractContextManager[VolumeWriter]:
    """Start a helper that has `target` mounted writable, and runs `command` on what it is given.

    What was written is on disk at its end: the target's filesystem is synced. A sync that fails is status 1, and a
    message.
    """
    script = f"{shlex.join(command)}; status=$?; sync -f . || exit 1; exit $status"
    return engine.writer(target, run=run.id, directory=run.scratch("write"), write=["/bin/sh", "-c", script])


def open_extractor(
    engine: Engine,
    run: Run,
    target: Source,
    extract: Sequence[str] = tar.EXTRACT,
    *,
    privileged_xattrs: bool = False,
    on_wire: str | None = None,
    look: Sequence[str] = (),
) -> AbstractContextManager[VolumeWriter]:
    """As open_writer, with a tar that extracts; what it has written is brought to the disk while it writes more.

    `privileged_xattrs`: the helper may set attributes that need CAP_SYS_ADMIN. `on_wire`: what comes over a
    connection goes through this program first. `look`: see WriteCommands.
    """
    script = shlex.join([*extract, "--file=-", *_DOTS])
    return engine.writer(
        target,
        run=run.id,
        directory=run.scratch("write"),
        write=_synced_meanwhile(script),
        privileged_xattrs=privileged_xattrs,
        on_wire=_synced_meanwhile(f"{on_wire} | {script}") if on_wire else None,
        look=[*look] or None,
    )


def _synced_meanwhile(script: str) -> list[str]:
    """Syncs for each dot that the script writes, and at its end. What a sync says is kept each time: an error that one
    has seen is not given to a later one (syncfs(2))."""
    syncs = 'failed=0; while dot=$(head -c 1) && [ "$dot" ]; do sync -f . || failed=1; done; exit $failed'
    status = f'$({{ {{ {script}; printf %s "$?" >&3; }} | {{ {syncs}; }}; }} 3>&1)'
    return ["/bin/sh", "-c", f'status={status} && sync -f . || exit 1; exit "$status"']


def write_into(
    engine: Engine, run: Run, target: Source, command: list[str], stream: Iterable[bytes | memoryview]
) -> tuple[int, bytes]:
    """Run `command` as `open_writer` does; return its exit status and its messages."""
    with open_writer(engine, run, target, command) as writer:
        return writer.write(stream), writer.messages()


def check_extracted(
    target: Source, messages: bytes, status: int, missing: Callable[[], tuple[int, int]]
) -> tar.ExtractMessages:
    """Return what an extracting tar has said. Raises EngineError where it wrote less than all, or had to warn.

    `missing`: see full_target.
    """
    said = tar.read_extract_messages(messages, status)
    if said.is_full:
        raise full_target(target, missing)
    check_written(target, status, said.failures + said.warnings, tar.EXTRACT)
    return said


def check_written(target: Source, status: int, messages: list[str], command: list[str]) -> None:
    """Raises EngineError for a command in `target` that failed, or said anything."""
    if status or messages:
        message = messages[0] if messages else f"{shlex.join(command[:2])} ended with status {status}"
        raise EngineError(f"{target.kind} {target.name!r} could not be written: {message}")


def full_target(target: Source, missing: Callable[[], tuple[int, int]]) -> EngineError:
    """The error for a target that is full; `missing` returns how many bytes did not fit, and of how many."""
    text = ""
    try:
        text = ": {} of {} did not fit".format(*map(human_size, missing()))
    except VolbackError as exc:
        log.debug("what is missing in %s is not known: %s", target.name, exc.message)
    return EngineError(f"no space left in {target.kind} {target.name!r}{text}", "make room there, or use another")


def unwritten_bytes(engine: Engine, run: Run, target: Source, wanted_bytes: int) -> tuple[int, int]:
    """Return how much of a tar stream of `wanted_bytes` is not in `target`, which was empty, and how much that is.

    Raises EngineError.
    """
    with open_reader(engine, run, target) as reader:
        return max(0, wanted_bytes - scan(reader, []).total_bytes), wanted_bytes


def unset_warnings(said: tar.ExtractMessages, *, privileged_xattrs: bool | None) -> list[str]:
    """One line for each attribute that the target did not take; `privileged_xattrs` None: there is no such option."""
    lines = []
    for (name, why), paths in said.unset.items():
        way = "; --privileged-xattrs sets it" if privileged_xattrs is False and why == _DENIED else ""
        lines.append(f"attribute {name} could not be set on {count(len(paths), 'file')} ({why}{way}): {named(paths)}")
    return lines


def _labelled(run: Run, target: Source) -> Volume:
    labels = {**target.labels, RESTORE_LABEL: run.id}
    return Volume(name=target.name, driver=target.driver, options=target.options, labels=labels)


def remove_half_made(engine: Engine, label: str, name: str) -> bool:
    """Remove a volume that has that id in its label. Returns True: nothing of it is left then.

    Raises EngineError, ConflictError.
    """
    try:
        made = restored_by(engine.volume(name).labels) == label
    except NotFoundError:
        made = False
    if made:
        engine.remove_volume(name)
    return True
