"""`clone`: a volume's files in another volume, without a repository."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.complete import complete_volume
from volback.cli.differences import comparison_lines
from volback.cli.facts import comparison_facts
from volback.cli.words import count, human_size, pairs
from volback.errors import IntegrityError, VolbackError
from volback.measures import human_duration, named
from volback.policy.storage import described, is_plain

if TYPE_CHECKING:
    from volback.moving.move import Moved

_CLONE_EPILOG = """\b
Examples:
  volback clone db db-copy                    a second volume, proven equal
  volback clone db db-test --label env=test
"""
_Volume = Annotated[str, typer.Argument(metavar="VOLUME", show_default=False, autocompletion=complete_volume)]
_Label = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a label of the volume; may be repeated.")]
_Driver = Annotated[str | None, typer.Option(metavar="NAME", help="Volume driver. [default: local]")]
_DriverOpt = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a driver option; may be repeated.")]
_NoProve = Annotated[bool, typer.Option("--no-prove", help="Do not read the new volume again to compare it.")]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_CLONE_EPILOG)(clone)


def clone(
    context: typer.Context,
    volume: _Volume,
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False)],
    *,
    label: _Label = None,
    driver: _Driver = None,
    driver_opt: _DriverOpt = None,
    no_prove: _NoProve = False,
) -> Outcome:
    """Copy a volume into a new one on the same engine.

    NEW does not exist, or is empty. It is a plain local volume unless a driver or its options are given. It has the
    labels of the first, but for those by which compose, volback and other programs act on a volume. Then it is read
    again, and compared bit for bit; exit code 7 if it differs. No repository is needed.
    """
    from volback.moving import clone as operation
    from volback.moving.move import MoveOptions

    options = MoveOptions(
        labels=pairs(label, "--label"),
        driver=driver,
        driver_options=pairs(driver_opt, "--driver-opt"),
        prove=not no_prove,
    )
    with call_of(context).opened() as (ctx, engine, repository):
        done = operation.clone(ctx, engine, repository, volume, new, options)
    return _outcome(done, f"volume {done.source.name} -> volume {done.target.name}")


def _outcome(done: Moved, title: str) -> Outcome:
    text, warnings, errors = [title, *_lines(done)], list(done.warnings), list[VolbackError](done.errors)
    proof = done.proof
    if proof is not None:
        warnings += [
            f"attribute {name} is missing on {count(len(paths), 'file')}: {named(paths)}"
            for name, paths in proof.lacking.items()
        ]
        if proof.differs:
            text += comparison_lines(proof)
            errors.append(_difference(done, proof.odd))
    return Outcome(_facts(done), text, warnings, errors, incomplete=done.incomplete)


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
    if done.safety_backup:
        yield f"  safety backup of the replaced data: {done.safety_backup}"
    if done.source_removed:
        yield f"  volume {done.source.name} is removed"


def _facts(done: Moved) -> dict[str, object]:
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
