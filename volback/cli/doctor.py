"""`doctor`: checks what a backup needs, and finds what crashed runs left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Outcome, call_of
from volback.cli.words import read_option
from volback.errors import (
    ConflictError,
    EngineUnreachable,
    IntegrityError,
    LockedError,
    NotFoundError,
    StoreUnreachable,
    UsageError,
    VolbackError,
)
from volback.policy.durations import read_age

if TYPE_CHECKING:
    from volback.cli.documents import machine
    from volback.operations.doctor import Check

_EPILOG = """\b
Examples:
  volback doctor          changes nothing
  volback doctor --fix    removes what crashed runs left
  volback doctor --fix --older-than 2h
"""
_KINDS: list[type[VolbackError]] = [
    UsageError, NotFoundError, ConflictError, LockedError, IntegrityError, EngineUnreachable, StoreUnreachable
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(doctor)


def doctor(
    context: typer.Context,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Remove what crashed runs left.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Consider an unfinished upload of that age dead: 90m, 24h. [default: 1d; in a bucket 2d]",
        ),
    ] = None,
) -> Outcome:
    """Check engine, transport, helper image, repository and space.

    Also looks for what crashed runs left. A failed check does not stop the others; the first failure gives the exit
    code.
    """
    from volback.operations import doctor as operation

    older_than_s = None if older_than is None else read_option("--older-than", older_than, read_age)
    with call_of(context).opened() as (ctx, engine, repository):
        report = operation.doctor(ctx, engine, repository, fix=fix, older_than_s=older_than_s)
    checks: list[machine.CheckOf] = [
        {"name": check.name, "status": check.status, "text": check.text, "hint": check.hint, "facts": check.facts}
        for check in report.checks
    ]
    warnings = [f"{check.name}: {check.text}" for check in report.checks if check.status == "warning"]
    errors = [_error(check) for check in report.checks if check.status == "failed"]
    incomplete = any(check.is_incomplete for check in report.checks)
    facts: machine.Diagnosis = {"checks": checks}
    return Outcome(facts, _lines(report.checks), warnings, errors, incomplete, warned_in_text=True)


def _lines(checks: list[Check]) -> Iterator[str]:
    name_chars = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{check.status:<7}  {check.name:<{name_chars}}  {check.text}"
        if check.hint and check.status != "ok":
            yield f"{'':<{name_chars + 11}}hint: {check.hint}"


def _error(check: Check) -> VolbackError:
    kind = next((kind for kind in _KINDS if kind.exit_code == check.exit_code), VolbackError)
    return kind(f"{check.name}: {check.text}", check.hint)
