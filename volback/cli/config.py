"""`config check` and `config show`: whether `volback.toml` is valid, and the effective configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from volback.cli.call import Call, Outcome, call_of
from volback.cli.words import count
from volback.errors import UsageError

if TYPE_CHECKING:
    from volback.config.model import Config
    from volback.config.places import Problem

_EPILOG = """\b
Examples:
  volback config check    each problem with its file, line and key
  volback config show     with defaults, without secrets
"""
_CHECK_EPILOG = """\b
Examples:
  volback config check                            the configuration in use
  volback config check --config ./volback.toml    this one
"""
_SHOW_EPILOG = """\b
Examples:
  volback config show           as TOML
  volback config show --json    the same for a script
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    family = typer.Typer(help="Check and show the configuration, volback.toml.", epilog=_EPILOG, rich_markup_mode=None)
    family.command(epilog=_CHECK_EPILOG)(check)
    family.command(epilog=_SHOW_EPILOG)(show)
    app.add_typer(family, name="config")


def check(context: typer.Context) -> Outcome:
    """Check the configuration: each problem with its file, line and key. Exit code 2 if there are any.

    Secrets are read from their files and commands, but never shown.
    """
    from volback.jobs.open_config import check_config

    call, config = _open(context, "check")
    problems = check_config(config)
    result = {**_files(config), "problems": [problem_facts(problem) for problem in problems]}
    if not problems:
        jobs, repositories = count(len(config.jobs), "job"), len(config.repositories)
        word = "repository" if repositories == 1 else "repositories"
        text = [f"{_named(config)}: {jobs}, {repositories} {word}, no problem"]
        return Outcome(result, [*text, *_default(config)], list(config.warnings))
    text = [] if call.quiet else [str(problem) for problem in problems]
    error = UsageError(f"{count(len(problems), 'problem')} in the configuration", "fix the problems listed above")
    return Outcome(result, text, list(config.warnings), errors=[error])


def show(context: typer.Context) -> Outcome:
    """Show the values that apply, secrets hidden.

    Files are merged, variables filled in, and defaults added.
    """
    from volback.config.toml import write_toml

    _, config = _open(context, "show")
    text = [f"# {path}" for path in config.files] + [""] + list(write_toml(config.shown))
    errors = [UsageError(str(problem), "see `volback config check`") for problem in config.problems]
    return Outcome({**_files(config), "config": config.shown}, text, list(config.warnings), errors=errors)


def problem_facts(problem: Problem) -> dict[str, object]:
    """One problem."""
    place = problem.place
    return {"file": place.file, "line": place.line, "key": place.key or None, "message": problem.message}


def _open(context: typer.Context, command: str) -> tuple[Call, Config]:
    from volback.jobs.open_config import open_config

    call = call_of(context)
    call.command = f"config {command}"
    return call, open_config(call.config)


def _default(config: Config) -> list[str]:
    """Which repository commands use that name none, where there are several."""
    if len(config.repositories) < 2:
        return []
    named = [one for one in config.repositories.values() if one.default]
    chosen = named or [one for one in config.repositories.values() if one.default is None]
    if len(chosen) == 1:
        return [f"commands use {chosen[0].name} unless --repo names another one"]
    return [f"commands need --repo, as no repository has `default = true`: {', '.join(sorted(config.repositories))}"]


def _files(config: Config) -> dict[str, object]:
    return {"files": [str(path) for path in config.files]}


def _named(config: Config) -> str:
    more = f" and {count(len(config.files) - 1, 'other file')}" if len(config.files) > 1 else ""
    return f"{config.files[0]}{more}"
