"""Targets: the volume that a move fills. It is new, or there is nothing in it.

While it is half made, the journal names it, and a new one has a label: the next run on its engine removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.streams import VolumeCopier, VolumeWriter
from volback.errors import ConflictError, Interrupted, VolbackError
from volback.latest import SAFETY_TAG
from volback.moving.begun import Begun, find_begun, take_over
from volback.moving.connections import Connections
from volback.moving.look import Look, Looking
from volback.moving.sides import Side, source_side
from volback.operations.emptiness import look_first
from volback.operations.in_use import UnusedStorage
from volback.operations.recover import forget_replacements
from volback.operations.single_files import file_backup_source
from volback.operations.sources import volume_source
from volback.operations.starting import Starting, Stream, started
from volback.operations.volumes import check_written, new_volume, open_extractor, remove_half_made, write_into
from volback.policy.inherited import Wanted, inherited_labels
from volback.policy.storage import described, is_plain
from volback.state.journal import NewVolume, Replacing
from volback.state.runs import Run

Opening = Callable[[Sequence[str]], AbstractContextManager[Stream]]
"""What starts a helper that looks into the target first, by that command."""

_EMPTY = ["find", ".", "-mindepth", "1", "!", "-path", "./lost+found", "-delete"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """Replacing what a target holds."""

    repository: Repository
    """Where the safety copy goes."""
    safety_backup: bool = True


@dataclass(frozen=True, slots=True)
class Filling:
    """A target that can be filled."""

    side: Side
    """As it is: one that exists has labels and a driver of its own."""
    writing: Starting[VolumeWriter] | None
    """None where all is there already, and only what changes is still sent, and where something else fills it."""
    look: Look
    """What was found of it before it was made empty."""
    safety_backup: str | None = None
    """The backup of what was in it."""
    copying: Starting[VolumeCopier] | None = None
    """In place of `writing`: reads the source, and fills it."""
    is_begun: bool = False
    """Whether it holds a part of the source already."""

    def end(self) -> None:
        """Remove the helper that fills it, which has done its work."""
        for starting in (self.writing, self.copying):
            if starting is not None:
                starting.end()

    def writer(self) -> VolumeWriter:
        """Wait for the helper that fills it. Raises what starting it raises."""
        assert self.writing is not None
        return self.writing.opened()


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the person said of the volume that is made."""

    labels: dict[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_options: dict[str, str] = field(default_factory=dict)
    replace: Replacement | None = None
    """How the content of a volume that exists is replaced; None: only an empty one is filled."""

    @property
    def is_given(self) -> bool:
        """Whether anything was said, which a volume that exists cannot take any more."""
        return bool(self.labels or self.driver or self.driver_options)


def wanted_volume(source: Source, name: str, options: TargetOptions) -> Source:
    """The volume to be made: a plain local one unless a driver or its options are given.

    Under another name it has none of the labels by which programs act on a volume. Under its own it has them all: they
    come from an engine that the person named, and not from a repository.
    """
    wanted = Wanted(name, renamed=name != source.name)
    labels = inherited_labels(source.labels, wanted, is_known=lambda key, value: True).labels
    given = {key: value for key, value in options.driver_options.items() if value}
    return Source(
        kind="volume",
        name=name,
        driver=options.driver or "local",
        options=given,
        labels={**labels, **options.labels},
    )


def storage_warnings(source: Source, target: Source) -> list[str]:
    """Say that the new volume is a plain one where the old one is not."""
    if is_plain(source.driver, source.options) or not is_plain(target.driver, target.options):
        return []
    return [
        f"volume {target.name!r} is a plain local volume: {source.name!r} is on other storage"
        f" ({described(source.driver, source.options)}); --driver and --driver-opt choose another"
    ]


@contextmanager
def filling(
    ctx: Context,
    run: Run,
    target: Side,
    options: TargetOptions,
    *,
    source: Side,
    on_wire: str | None = None,
    copier: Opening[VolumeCopier] | None = None,
    hint: str,
    kept: Connections | None = None,
) -> Iterator[Filling]:
    """Make the target, or take the one that is there and empty, or is to be replaced, for the block that fills it.

    If the block raises, a new volume is removed, and one that was there is empty; both stay as they are if `kept` says
    that an engine was lost, to go on from. Raises ConflictError where it is not empty, with that hint, or in use.
    `on_wire`: see open_extractor. `copier` starts what fills it in place of a writer.
    """
    looking = Looking(target.volume)

    def writer(look: Sequence[str]) -> AbstractContextManager[VolumeWriter]:
        return open_extractor(target.engine, run, target.volume, on_wire=on_wire, look=look)

    def is_kept() -> bool:
        return kept is not None and kept.gave_up

    if not target.engine.has_volume(target.volume.name):
        origin = (source.engine.info.id, source.volume.name)
        made = new_volume(
            target.engine,
            run,
            target.volume,
            copier or writer,
            hint=hint,
            looking=looking,
            is_kept=is_kept,
            origin=origin,
        )
        with made as starting:
            yield _filling_by(starting, target, looking, copier, None)
        return
    if (begun := find_begun(ctx, source, target)) is not None:
        with _going_on(ctx, run, begun, source, target, writer, is_kept=is_kept) as filled:
            yield filled
        return
    there = source_side(target.engine, target.volume.name)
    if options.is_given:
        raise ConflictError(
            f"{there.what} exists already, and keeps its driver and its labels",
            f"leave out --label, --driver and --driver-opt, or {hint}",
        )
    with _existing(ctx, run, there, options.replace, writer, copier, hint=hint, is_kept=is_kept) as filled:
        yield filled


@contextmanager
def _going_on(
    ctx: Context,
    run: Run,
    begun: Begun,
    source: Side,
    target: Side,
    writer: Opening[VolumeWriter],
    *,
    is_kept: Callable[[], bool],
) -> Iterator[Filling]:
    """Take what a dead run has begun. Raises ConflictError if a container uses it."""
    engine, volume = target.engine, target.volume
    entry = NewVolume(
        engine=engine.info.id,
        host=engine.info.name,
        name=volume.name,
        was_empty=True,
        made_by=begun.label,
        source_engine=source.engine.info.id,
        source=source.volume.name,
    )
    with (
        run.begun(entry, undo=lambda: not is_kept() and remove_half_made(engine, begun.label, volume.name)),
        UnusedStorage(engine, volume).replacing(done="filled", again="move it again"),
    ):
        take_over(ctx, begun, source, target)
        looking = Looking(volume)
        with started(writer(looking.command)) as starting:
            look_first(looking, starting.opened())
            yield Filling(target, starting, looking.found, is_begun=True)


@contextmanager
def _existing(
    ctx: Context,
    run: Run,
    target: Side,
    replace: Replacement | None,
    writer: Opening[VolumeWriter],
    copier: Opening[VolumeCopier] | None,
    *,
    hint: str,
    is_kept: Callable[[], bool],
) -> Iterator[Filling]:
    engine, volume = target.engine, target.volume
    with UnusedStorage(engine, volume).replacing(done="filled", again="move it again"):
        looking, safety = Looking(volume), None
        opening: Opening[Any] = copier or writer
        with ExitStack() as helper:
            starting = helper.enter_context(started(opening(looking.command)))
            if first := look_first(looking, starting.opened()):
                starting.end()
                if replace is None:
                    raise ConflictError(f"{target.what} exists already, and is not empty: it holds {first!r}", hint)
                if replace.safety_backup:
                    safety = safety_backup(ctx, target, replace)

            def undo() -> bool:
                return not is_kept() and _emptied(run, target, safety)

            # the helper ends before what it has written is removed
            with run.begun(_entry(target, safety, replace), undo=undo), _way_back(target, safety, is_kept), helper:
                if first:
                    empty(run, target)
                    starting = helper.enter_context(started(opening(looking.command)))
                    look_first(looking, starting.opened())
                yield _filling_by(starting, target, looking, copier, safety)
    forget_replacements(ctx, engine, volume.name)


def _filling_by(
    starting: Starting[Any], target: Side, looking: Looking, copier: Opening[VolumeCopier] | None, safety: str | None
) -> Filling:
    """`starting` is the copier if there is one, or else the writer."""
    writing, copying = (starting, None) if copier is None else (None, starting)
    return Filling(target, writing, looking.found, safety, copying)


def _entry(target: Side, safety: str | None, replace: Replacement | None) -> Replacing:
    info = target.engine.info
    return Replacing(
        engine=info.id,
        host=info.name,
        volume=target.volume.name,
        repository=replace.repository.store.url if replace is not None and safety else "",
        safety_backup=safety,
        is_copied_into=True,
    )


def safety_backup(ctx: Context, target: Side, replace: Replacement) -> str:
    """Back up what the target holds; return the backup's name. Raises StoreError, EngineError."""
    from volback.operations.backup import BackupOptions, make_backup

    source = target.volume
    if source.kind == "volume":
        source = volume_source(target.engine, source.name)
    elif source.kind == "file":
        source = file_backup_source(source.name)
    options = BackupOptions(tags=[SAFETY_TAG])
    return make_backup(ctx, target.engine, replace.repository, source, options).manifest.name


@contextmanager
def _way_back(target: Side, safety: str | None, is_kept: Callable[[], bool]) -> Iterator[None]:
    """Add to an error of the block how the former content comes back, or how the move does."""
    try:
        yield
    except (VolbackError, Interrupted) as exc:
        if is_kept():
            exc.hint = f"{target.what} holds a part of it: run the same command again, with --replace"
        if safety is not None:
            name = target.volume.name
            exc.hint = f"{target.what} is empty now; its former content: volback restore {safety} --as {name} --replace"
        raise


def _emptied(run: Run, target: Side, safety: str | None) -> bool:
    """Whether nothing has to be remembered: the volume is empty, as it was before."""
    empty(run, target)
    return safety is None


def empty(run: Run, target: Side) -> None:
    """Remove all that the target holds. Raises EngineError."""
    status, messages = write_into(target.engine, run, target.volume, _EMPTY, ())
    check_written(target.volume, status, messages.decode(errors="backslashreplace").splitlines(), _EMPTY)
