"""Moves of several volumes: those of a project or a container, some that are named, or all. Called by `migrate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from volback.cli.backup import find_sources, finders
from volback.cli.call import Outcome
from volback.cli.move import facts_of_passes, moved_facts, moved_outcome
from volback.cli.render import terminal_width
from volback.cli.words import columns, count, human_duration, human_size
from volback.context.naming import has_glob
from volback.errors import NotFoundError, UsageError, VolbackError, failures, worst_first
from volback.settings import absolute

if TYPE_CHECKING:
    from volback.cli.documents import moves
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.engine.engine import Engine
    from volback.moving.migrate import MigrateOptions
    from volback.moving.migrate_set import SetMoved
    from volback.moving.move import Moved
    from volback.moving.parts import Parts

_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Several:
    """What the command line names."""

    volumes: tuple[str, ...]
    project: str | None = None
    container: str | None = None
    every: bool = False
    jobs: int = 2
    with_binds: bool = False
    maps: tuple[str, ...] = ()
    compose_dir: str | None = None
    anonymous: bool = False

    def __post_init__(self) -> None:
        if self.anonymous and not self.every:
            raise UsageError("--anonymous requires --all", "name an anonymous volume, or give --container NAME")
        given = {"--with-binds": self.with_binds, "--compose-dir": self.compose_dir is not None}
        for option in [option for option, is_given in given.items() if is_given and self.as_project is None]:
            raise UsageError(f"{option} requires --project NAME alone", "volumes need neither")
        if self.maps and not self.with_binds:
            raise UsageError("--map requires --with-binds", "it says where directories and files go")

    @property
    def is_one(self) -> bool:
        """Whether it is one volume, by its name. Raises UsageError where nothing is named."""
        found = bool(self.project or self.container or self.every)
        if not (self.volumes or found):
            raise UsageError("no volume is named", "name volumes, or give --project NAME, --container NAME or --all")
        return len(self.volumes) == 1 and not found and not has_glob(self.volumes[0])

    @property
    def as_project(self) -> str | None:
        """The project, where its volumes are all that is named."""
        return None if self.volumes or self.container or self.every else self.project


def refuse_options_of_one(given: dict[str, object]) -> None:
    """Raises UsageError for options that are about one volume."""
    wrong = [option for option, value in given.items() if value]
    if wrong:
        raise UsageError(
            f"a move of several volumes does not accept {' and '.join(wrong)}",
            "each keeps its name and its labels; move single ones by name",
        )


def migrate_several(
    ctx: Context, source: Engine, target: Engine, repository: Repository, several: Several, options: MigrateOptions
) -> Outcome:
    """Move them, and say what came of each."""
    from volback.moving.migrate_set import migrate_set

    names, unknown = _names(ctx, source, several)
    parts = _parts(ctx, source, target, several)
    done = migrate_set(
        ctx, source, target, repository, names, options,
        directories=parts.directories, files=parts.single_files,
        project=several.as_project, jobs=several.jobs,
    )  # fmt: skip
    if parts.written is not None:
        parts.written.write()
    return _outcome(done, parts, unknown, several, source.info.name, target.info.name)


def _parts(ctx: Context, source: Engine, target: Engine, several: Several) -> Parts:
    """What a project has beside its volumes. Raises UsageError, ConflictError, EngineError."""
    from volback.moving.parts import Parts, parts_of, read_maps

    if several.as_project is None:
        return Parts()
    return parts_of(
        ctx, source, target, several.as_project, with_binds=several.with_binds, maps=read_maps(list(several.maps)),
        compose_dir=None if several.compose_dir is None else absolute(Path(several.compose_dir), "--compose-dir"),
    )  # fmt: skip


def _names(ctx: Context, engine: Engine, several: Several) -> tuple[list[str], list[VolbackError]]:
    """The volumes to move, and an error for each that does not exist. Raises NotFoundError where none does."""
    paths = [name for name in several.volumes if "/" in name or name in (".", "..")]
    if paths:
        raise UsageError(f"{paths[0]} is not a volume", "name volumes")
    found, unknown = find_sources(
        ctx, engine, list(several.volumes),
        finders(
            every=several.every, label=None, project=several.project, container=several.container,
            anonymous=several.anonymous,
        ),
    )  # fmt: skip
    if not found:
        raise unknown[0] if unknown else NotFoundError("this engine has no volume")
    return [source.name for source in found], unknown


def _outcome(
    done: SetMoved, parts: Parts, unknown: list[VolbackError], several: Several, here: str, there: str
) -> Outcome:
    each = [moved_outcome(moved) for moved in done.moved]
    project = several.as_project
    text = [f"{f'project {project}' if project else 'volumes'} on {here} -> {there}", *_table(done.moved)]
    text += [line for one in each for line in one.differences]
    text += _afterwards(done)
    if done.not_moved:
        text.append(f"not moved: {', '.join(done.not_moved)}")
    text += _part_lines(parts)
    errors = [*(error for one in each for error in one.errors), *unknown, *done.errors]
    result: moves.MigratedSet = {
        "project": project,
        "from": here,
        "to": there,
        "moved": [_facts(moved) for moved in done.moved],
        "not_moved": list(done.not_moved),
        "downtime_s": done.downtime_s,
        "left_stopped": [{"name": left.name, "restart_policy": left.restart_policy} for left in done.left.containers],
        "left_scaled_to_0": list(done.left.services),
        "running_again": list(done.running_again),
        "left_out": [{"path": left.path, "why": left.why} for left in parts.left_out],
        "compose_files": _file_facts(parts),
        "start": parts.start,
    }
    warnings = [*(warning for one in each for warning in one.warnings), *done.warnings]
    incomplete = any(moved.incomplete for moved in done.moved)
    return Outcome(result, text, warnings, failures(done.interrupted, worst_first(errors)), incomplete)


def _table(moved: tuple[Moved, ...]) -> Iterator[str]:
    headings = ("VOLUME", "FILES", "SIZE", "SENT", "TIME", "RESULT")
    rows = [
        (
            one.source.name, f"{one.files:,}", "" if one.was_there else human_size(one.raw_bytes),
            human_size(one.sent_bytes), human_duration(one.duration_s), _result(one),
        )
        for one in moved
    ]  # fmt: skip
    if rows:
        width = min(_WIDTH, terminal_width() or _WIDTH)
        yield from (f"  {line}" for line in columns(headings, rows, right="FILES SIZE SENT TIME", width=width - 2))


def _result(one: Moved) -> str:
    words = ["was there"] if one.was_there else []
    if one.proof is None:
        words.append("not proven")
    else:
        words.append("differs" if one.proof.differs else "proven" if one.proof.identical else "compared")
    return ", ".join([*words, *(["source removed"] if one.source_removed else [])])


def _afterwards(done: SetMoved) -> Iterator[str]:
    for one in done.moved:
        if one.safety_backup:
            yield f"safety backup of what {one.target.name} held: {one.safety_backup}"
    if done.downtime_s is not None:
        yield f"containers were down for {human_duration(done.downtime_s)}"
    if done.running_again:
        yield f"run again: {', '.join(done.running_again)}"
    if done.left.containers:
        what, verb = (
            count(len(done.left.containers), "container"),
            "stays" if len(done.left.containers) == 1 else "stay",
        )
        yield f"{what} {verb} stopped; to start here again:"
        yield from (f"  {command}" for left in done.left.containers for command in left.start_commands)
    for service in done.left.services:
        yield f"service {service} stays scaled to 0"


def _part_lines(parts: Parts) -> Iterator[str]:
    yield from (f"left out: {left.path} {left.why}" for left in parts.left_out)
    if parts.written is not None:
        yield f"compose files copied into {parts.written.directory}:"
        yield from (f"  {name}" for name in sorted(parts.written.contents))
        if parts.written.secret:
            yield f"  mode 0600, as they may hold secrets: {', '.join(parts.written.secret)}"
    elif parts.files is not None:
        yield f"compose files stay in {parts.files.working_dir}: --compose-dir DIR copies them"
    if parts.start is not None:
        yield "to start it there:"
        yield f"  {parts.start}"


def _file_facts(parts: Parts) -> moves.FilesAlong | None:
    """The compose files that can be read here; `directory` is null where they are not copied."""
    if parts.files is None:
        return None
    written = parts.written
    return {"directory": None if written is None else str(written.directory), "paths": sorted(parts.files.paths)}


def _facts(moved: Moved) -> moves.MigratedVolume:
    return {
        **moved_facts(moved),
        "kind": moved.source.kind,
        "sent_bytes": moved.sent_bytes,
        **facts_of_passes(moved),
        "was_there": moved.was_there,
        "safety_backup": moved.safety_backup,
        "source_removed": moved.source_removed,
    }
