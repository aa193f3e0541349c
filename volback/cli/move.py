"""`clone` and `migrate`: a volume's files in another volume, on this engine or another, without a repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_context, complete_project, complete_volume
from volback.cli.differences import comparison_lines
from volback.cli.facts import comparison_facts
from volback.cli.words import count, human_size, pairs, read_option
from volback.errors import IntegrityError, UsageError, VolbackError, failures, worst_first
from volback.measures import human_duration, named
from volback.policy.durations import read_seconds
from volback.policy.packing import read_rate
from volback.policy.storage import described, is_plain

if TYPE_CHECKING:
    from volback.archive.attributes import Kind
    from volback.cli.documents import moves
    from volback.moving.clone_project import ProjectCloned
    from volback.moving.move import Moved

_CLONE_EPILOG = """\b
Examples:
  volback clone db db-copy                    a second volume, proven equal
  volback clone db db-test --label env=test
  volback clone --project shop --as-project staging
"""
_MIGRATE_EPILOG = """\b
Examples:
  volback migrate db --to ssh://root@web2     the same name, on another host
  volback migrate db --to web2 --as shop_db   web2 is a docker context
  volback migrate db --to web2 --live --passes 5    a short stop at the end
  volback migrate db --to web2 --replace      keeps a safety backup
  volback migrate --project shop --to ssh://root@web2 --live
  volback migrate --project shop --to web2 --with-binds --compose-dir ~/shop
  volback migrate --all --to web2 --stop --jobs 4
"""

_Volumes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VOLUME...",
        help="Or --project, --container or --all.",
        show_default=False,
        autocompletion=complete_volume,
    ),
]
_Clonable = Annotated[
    str | None,
    typer.Argument(metavar="VOLUME", help="The volume to copy.", show_default=False, autocompletion=complete_volume),
]
_Project = Annotated[
    str | None, typer.Option(metavar="NAME", help="All volumes of a compose project.", autocompletion=complete_project)
]
_AsProject = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --project: the project whose volumes the new ones are.")
]
_Label = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a label of the volume; may be repeated.")]
_Driver = Annotated[str | None, typer.Option(metavar="NAME", help="Volume driver. [default: local]")]
_DriverOpt = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a driver option; may be repeated.")]
_NoProve = Annotated[bool, typer.Option("--no-prove", help="Do not read the new volume again to compare it.")]
_To = Annotated[
    str,
    typer.Option("--to", metavar="ENGINE", show_default=False, help="Where it goes.", autocompletion=complete_context),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="ENGINE",
        help="Where it is. [default: as for other commands: --host]",
        autocompletion=complete_context,
    ),
]
_As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name of the volume there.")]
_Replace = Annotated[bool, typer.Option("--replace", help="Replace what a volume there holds.")]
_NoSafetyBackup = Annotated[
    bool, typer.Option("--no-safety-backup", help="With --replace: do not back up that volume first.")
]
_RemoveSource = Annotated[bool, typer.Option("--remove-source", help="Remove the source once the target is proven.")]
_Live = Annotated[
    bool, typer.Option("--live", help="Copy while containers write; then stop them, and send what has changed.")
]
_Passes = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="With --live: copy up to N times while they write, as long as it shrinks."),
]
_Stop = Annotated[bool, typer.Option("--stop", help="Stop the containers that write to the volume, and copy it then.")]
_RestartSource = Annotated[
    bool, typer.Option("--restart-source", help="With --live or --stop: start these containers again.")
]
_Bandwidth = Annotated[
    str | None, typer.Option(metavar="SIZE", help="At most so much in a second, such as 20MiB; compressed bytes count.")
]
_RetryFor = Annotated[
    str,
    typer.Option(metavar="DURATION", help="Wait so long for an engine that was lost, and go on; 0: do not wait."),
]
_NoCompress = Annotated[bool, typer.Option("--no-compress", help="Do not compress what goes to another host.")]

_WithBinds = Annotated[
    bool, typer.Option("--with-binds", help="With --project: directories and files that its containers mount, too.")
]
_Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OLD=NEW", help="With --with-binds: where one of them goes; may be repeated."),
]
_ComposeDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="With --project: copy its compose files into this directory.")
]
_Jobs = Annotated[int, typer.Option(metavar="N", min=1, max=16, help="How many volumes at the same time.")]
_HelperImage = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="What helpers there run on. [default: that of the other engine]")
]
_Drop = Annotated[
    str | None, typer.Option(metavar="KINDS", help="Leave out ACLs or extended attributes: acl, xattr or acl,xattr.")
]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_CLONE_EPILOG)(clone)
    app.command(epilog=_MIGRATE_EPILOG)(migrate)


def clone(
    context: typer.Context,
    volume: _Clonable = None,
    new: Annotated[str | None, typer.Argument(metavar="NEW", help="The volume to make.", show_default=False)] = None,
    *,
    project: _Project = None,
    as_project: _AsProject = None,
    label: _Label = None,
    driver: _Driver = None,
    driver_opt: _DriverOpt = None,
    drop: _Drop = None,
    no_prove: _NoProve = False,
) -> Outcome:
    """Copy a volume into a new one on the same engine.

    NEW does not exist, or is empty. It is a plain local volume unless a driver or its options are given. It has the
    labels of the first, but for those by which compose, volback and other programs act on a volume. Then it is read
    again, and compared bit for bit; exit code 7 if it differs. No repository is needed.
    With --project, each volume of a compose project is copied under the name and labels of the other project.
    """
    from volback.moving import clone as operation
    from volback.moving.move import MoveOptions

    if project or as_project:
        _check_projects(volume, project, as_project)
    elif volume is None or new is None:
        raise UsageError("no volume is named", "name two: VOLUME NEW, or give --project NAME --as-project NAME")
    options = MoveOptions(
        labels=pairs(label, "--label"),
        driver=driver,
        driver_options=pairs(driver_opt, "--driver-opt"),
        drop=_kinds(drop),
        prove=not no_prove,
    )
    with call_of(context).opened(is_needed=False) as (ctx, engine, repository):
        if project and as_project:
            from volback.moving.clone_project import clone_project

            return _project_outcome(clone_project(ctx, engine, repository, project, as_project, options))
        done = operation.clone(ctx, engine, repository, volume or "", new or "", options)
    return _outcome(done, _title(done))


def _check_projects(volume: str | None, project: str | None, as_project: str | None) -> None:
    if not (project and as_project):
        raise UsageError("--project and --as-project go together", "name the project, and the new one")
    if volume is not None:
        raise UsageError("--project clones all volumes of a project; do not name a VOLUME with it")


def _title(done: Moved) -> str:
    return f"volume {done.source.name} -> volume {done.target.name}"


def _project_outcome(done: ProjectCloned) -> Outcome:
    each = [_outcome(moved, _title(moved)) for moved in done.cloned]
    text = [line for one in each for line in one.text]
    if done.not_cloned:
        text.append(f"not cloned: {', '.join(done.not_cloned)}")
    differences = [error for one in each for error in one.errors if isinstance(error, VolbackError)]
    errors = failures(done.interrupted, worst_first([*differences, *done.errors]))
    warnings = [*(warning for one in each for warning in one.warnings), *done.warnings]
    result: moves.ClonedProject = {
        "cloned": [moved_facts(one) for one in done.cloned],
        "not_cloned": list(done.not_cloned),
    }
    return Outcome(result, text, warnings, errors, incomplete=bool(done.warnings) or any(o.incomplete for o in each))


def migrate(
    context: typer.Context,
    volumes: _Volumes = None,
    *,
    to: _To,
    from_: _From = None,
    project: _Project = None,
    container: Annotated[str | None, typer.Option(metavar="NAME", help="The volumes that a container mounts.")] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every volume of the engine.")] = False,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="With --all: also anonymous volumes that no container uses.")
    ] = False,
    jobs: _Jobs = 2,
    with_binds: _WithBinds = False,
    maps: _Map = None,
    compose_dir: _ComposeDir = None,
    name: _As = None,
    label: _Label = None,
    driver: _Driver = None,
    driver_opt: _DriverOpt = None,
    replace: _Replace = False,
    no_safety_backup: _NoSafetyBackup = False,
    live: _Live = False,
    stop: _Stop = False,
    passes: _Passes = 1,
    restart_source: _RestartSource = False,
    remove_source: _RemoveSource = False,
    bandwidth: _Bandwidth = None,
    retry_for: _RetryFor = "5m",
    no_compress: _NoCompress = False,
    helper_image: _HelperImage = None,
    drop: _Drop = None,
    no_prove: _NoProve = False,
) -> Outcome:
    """Copy volumes to another engine, and prove them there.

    ENGINE is a docker context, ssh://USER@HOST, tcp://HOST:PORT or unix:///PATH. No container may write to the volume
    unless --live or --stop is given; what these stop stays stopped, if all went well, and is not started by the engine.
    The volume there does not exist, or is empty, unless --replace is given. The source stays as
    it is, unless --remove-source is given. The data goes through this process, and through no repository or file.
    Of several, one that fails does not undo the others. With --live or --stop, the containers of all are stopped once;
    what an earlier run has moved, and is the same on both sides, is not copied again. With --project, what is left out
    is named, and the command that starts the project there.
    """
    from volback.cli.move_set import Several, migrate_several, refuse_options_of_one
    from volback.context import open_engine
    from volback.moving import migrate as operation
    from volback.moving.passes import Stopping
    from volback.moving.targets import Replacement

    if no_safety_backup and not replace:
        raise UsageError("--no-safety-backup goes with --replace")
    if restart_source and not (live or stop):
        raise UsageError("--restart-source goes with --live or --stop")
    if passes > 1 and not live:
        raise UsageError("--passes goes with --live")
    several = Several(
        tuple(dict.fromkeys(volumes or [])),
        project,
        container,
        every,
        jobs,
        with_binds,
        tuple(maps or ()),
        compose_dir,
        anonymous,
    )
    if not several.is_one:
        refuse_options_of_one({"--as": name, "--label": label, "--driver": driver, "--driver-opt": driver_opt})
    call = call_of(context)
    if from_ is not None:
        call.engine = from_
    with call.context() as ctx:
        source, target = open_engine(ctx), open_engine(ctx, to, helper_image=helper_image)
        with _addressed_by("--to"):
            _ = target.info
        with _addressed_by("--host" if from_ is None else "--from"):
            _ = source.info
        repository = call.repository_of(ctx, target, is_needed=replace)
        options = operation.MigrateOptions(
            labels=pairs(label, "--label"),
            driver=driver,
            driver_options=pairs(driver_opt, "--driver-opt"),
            replace=Replacement(repository, safety_backup=not no_safety_backup) if replace else None,
            drop=_kinds(drop),
            prove=not no_prove,
            compress=not no_compress,
            bytes_s=None if bandwidth is None else read_option("--bandwidth", bandwidth, read_rate),
            retry_s=read_option("--retry-for", retry_for, read_seconds),
            name=name,
            remove_source=remove_source,
            stopping=Stopping(live=live, restart=restart_source, passes=passes) if live or stop else None,
        )
        if not several.is_one:
            return migrate_several(ctx, source, target, repository, several, options)
        done = operation.migrate(ctx, source, target, repository, several.volumes[0], options)
        where = f"volume {done.source.name} on {source.info.name} -> volume {done.target.name} on {target.info.name}"
    more: moves.MoreOfOne = {
        "from": source.info.name,
        "to": target.info.name,
        "sent_bytes": done.sent_bytes,
        **facts_of_passes(done),
        "downtime_s": done.downtime_s,
        "left_stopped": [{"name": left.name, "restart_policy": left.restart_policy} for left in done.left.containers],
        "safety_backup": done.safety_backup,
        "source_removed": done.source_removed,
    }
    return _outcome(done, where, more)


@contextmanager
def _addressed_by(option: str) -> Iterator[None]:
    """In an error of the block, name the option that has the engine's address."""
    try:
        yield
    except VolbackError as exc:
        exc.hint = exc.hint and exc.hint.replace("--host", option)
        raise


def _kinds(text: str | None) -> tuple[Kind, ...]:
    """Raises UsageError for a kind of attributes that does not exist."""
    from volback.archive.attributes import KINDS

    words = [] if text is None else text.split(",")
    for word in words:
        if word not in KINDS:
            raise UsageError(f"--drop {text} is not valid: {word!r} is neither {' nor '.join(KINDS)}", "see --help")
    return tuple(kind for kind in KINDS if kind in words)


@dataclass(frozen=True, slots=True)
class MovedOutcome:
    """What is to be said of one move, beside its title."""

    differences: list[str]
    warnings: list[str]
    errors: list[VolbackError]


def moved_outcome(done: Moved) -> MovedOutcome:
    """What differs, and what was noticed."""
    warnings, errors, differences = list(done.warnings), list[VolbackError](done.errors), list[str]()
    proof = done.proof
    if proof is not None:
        warnings += [
            f"attribute {name} is missing on {count(len(paths), 'file')}: {named(paths)}"
            for name, paths in proof.lacking.items()
        ]
        if proof.differs:
            differences += comparison_lines(proof)
            errors.append(_difference(done, proof.odd))
    return MovedOutcome(differences, warnings, errors)


def _outcome(done: Moved, title: str, more: moves.MoreOfOne | None = None) -> Outcome:
    said = moved_outcome(done)
    text = [title, *_lines(done), *said.differences]
    facts: moves.Moved | moves.Migrated = {**moved_facts(done), **more} if more else moved_facts(done)
    return Outcome(facts, text, said.warnings, said.errors, incomplete=done.incomplete)


def _difference(done: Moved, odd: int) -> IntegrityError:
    name, verb = done.target.name, "differs" if odd == 1 else "differ"
    hint = f"inspect it, remove it (docker volume rm {name}), and do it again"
    if done.consistency == "live":
        hint = "files may have changed after they were copied; stop the containers that write, and do it again"
    return IntegrityError(f"{count(odd, 'file')} of volume {name!r} {verb} from volume {done.source.name!r}", hint)


def _lines(done: Moved) -> Iterator[str]:
    proven = "not proven" if done.proof is None else "proven bit for bit" if done.proof.identical else "compared"
    size = f"{count(done.files, 'file')}, {human_size(done.raw_bytes)}"
    sent = f", {human_size(done.sent_bytes)} sent" if done.sent_bytes != done.raw_bytes else ""
    yield f"  {size}{sent} in {human_duration(done.duration_s)}, {proven}"
    if not is_plain(done.target.driver, done.target.options):
        yield f"  on {described(done.target.driver, done.target.options)}"
    yield from _lines_of_passes(done)
    if done.downtime_s is not None:
        yield f"  its containers were down for {human_duration(done.downtime_s)}"
    for left in done.left.containers:
        yield f"  container {left.name} stays stopped; to start it here again: {'; '.join(left.start_commands)}"
    for service in done.left.services:
        yield f"  service {service} stays scaled to 0"
    if done.safety_backup:
        yield f"  safety backup of the replaced data: {done.safety_backup}"
    if done.source_removed:
        yield f"  volume {done.source.name} is removed"


def _lines_of_passes(done: Moved) -> Iterator[str]:
    if done.resumed:
        yield "  went on from what an earlier run had brought there"
    if done.retries:
        yield f"  an engine was lost {count(done.retries, 'time')} meanwhile"
    if done.passes == 2:
        yield f"  {human_size(done.again_bytes)} of it in a second pass"
    elif done.passes > 2:
        yield f"  in {done.passes} passes: {', '.join(human_size(one.raw_bytes) for one in done.each_pass)}"


def facts_of_passes(done: Moved) -> moves.Passes:
    """What each pass has brought, and what became of lost connections."""
    each: list[moves.Pass] = [
        {"live": one.is_live, "raw_bytes": one.raw_bytes, "sent_bytes": one.sent_bytes, "duration_s": one.duration_s}
        for one in done.each_pass
    ]
    return {"passes": done.passes, "each_pass": each, "retries": done.retries, "resumed": done.resumed}


def moved_facts(done: Moved) -> moves.Moved:
    """One move."""
    return {
        "source": done.source.name,
        "volume": done.target.name,
        "files": done.files,
        "raw_bytes": done.raw_bytes,
        "sockets_skipped": done.sockets,
        "consistency": done.consistency,
        "containers": list(done.containers),
        "proven": done.proof is not None and done.proof.identical,
        "proof": None if done.proof is None else comparison_facts(done.proof),
        "duration_s": done.duration_s,
    }
