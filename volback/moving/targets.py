"""Targets: the volume that a move fills. It is new, or there is nothing in it.

While it is half made, the journal names it, and a new one has a label: the next run on its engine removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from volback.archive import tar
from volback.catalog.model import Source
from volback.context import Context
from volback.engine.streams import VolumeWriter
from volback.errors import ConflictError
from volback.moving.sides import Side, source_side
from volback.operations.emptiness import first_entry
from volback.operations.in_use import UnusedStorage
from volback.operations.recover import forget_replacements
from volback.operations.starting import Starting, started
from volback.operations.volumes import check_written, new_volume, open_writer, write_into
from volback.policy.inherited import Wanted, inherited_labels
from volback.policy.storage import described, is_plain
from volback.state.journal import Replacing
from volback.state.runs import Run

_EXTRACT = [*tar.EXTRACT, "--file=-"]
_EMPTY = ["find", ".", "-mindepth", "1", "!", "-path", "./lost+found", "-delete"]


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the person said of the volume that is made."""

    labels: dict[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_options: dict[str, str] = field(default_factory=dict)

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
    ctx: Context, run: Run, target: Side, options: TargetOptions, *, hint: str
) -> Iterator[tuple[Side, Starting[VolumeWriter]]]:
    """Make the target, or take the one that is there and empty, for the block that fills it; yield it as it is.

    If the block raises, a new volume is removed, and one that was there is empty again. Raises ConflictError where it
    is not empty, with that hint, or in use.
    """
    writer = partial(open_writer, target.engine, run, target.volume, _EXTRACT)
    if not target.engine.has_volume(target.volume.name):
        with new_volume(target.engine, run, target.volume, writer, hint=hint) as starting:
            yield target, starting
        return
    there = source_side(target.engine, target.volume.name)
    if options.is_given:
        raise ConflictError(
            f"{there.what} exists already, and keeps its driver and its labels",
            f"leave out --label, --driver and --driver-opt, or {hint}",
        )
    with _existing(ctx, run, there, writer, hint=hint) as starting:
        yield there, starting


@contextmanager
def _existing(
    ctx: Context,
    run: Run,
    target: Side,
    writer: Callable[[], AbstractContextManager[VolumeWriter]],
    *,
    hint: str,
) -> Iterator[Starting[VolumeWriter]]:
    engine, volume = target.engine, target.volume
    entry = Replacing(engine=engine.info.id, host=engine.info.name, volume=volume.name)
    with UnusedStorage(engine, volume).replacing(done="filled", again="move it again into an empty volume"):
        first = first_entry(engine, volume, run=run.id, directory=run.scratch("look"))
        if first:
            raise ConflictError(f"{target.what} exists already, and is not empty: it holds {first!r}", hint)
        with run.begun(entry, undo=partial(_empty, run, target)), started(writer()) as starting:
            yield starting
    forget_replacements(ctx, engine, volume.name)


def _empty(run: Run, target: Side) -> bool:
    """Returns True: afterwards nothing is left in it. Raises EngineError."""
    status, messages = write_into(target.engine, run, target.volume, _EMPTY, ())
    check_written(target.volume, status, messages.decode(errors="backslashreplace").splitlines(), _EMPTY)
    return True
