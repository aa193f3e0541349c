"""`config check`, `config show`, `config init`: whether `volback.toml` is valid, what applies, and a first one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Call, Outcome, call_of
from volback.cli.words import count
from volback.errors import ConflictError, StoreError, UsageError
from volback.settings import CONFIG_NAME, absolute, standard_places

if TYPE_CHECKING:
    from volback.cli.documents import machine
    from volback.config.model import Config
    from volback.config.places import Problem

_EPILOG = """\b
Examples:
  volback config check    each problem with its file, line and key
  volback config show     with defaults, without secrets
  volback config init     writes a first one, from what runs
"""
_INIT_EPILOG = """\b
Examples:
  volback config init                    /etc/volback/volback.toml, or yours
  volback config init ./volback.toml
  volback config init -                  to standard output
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
    family = typer.Typer(
        help="Write, check and show the configuration, volback.toml.", epilog=_EPILOG, rich_markup_mode=None
    )
    family.command(epilog=_CHECK_EPILOG)(check)
    family.command(epilog=_SHOW_EPILOG)(show)
    family.command(epilog=_INIT_EPILOG)(init)
    app.add_typer(family, name="config")


def check(context: typer.Context) -> Outcome:
    """Check the configuration: each problem with its file, line and key. Exit code 2 if there are any.

    Secrets are read from their files and commands, but never shown.
    """
    from volback.jobs.open_config import check_config

    call, config = _open(context, "check")
    problems = check_config(config)
    result: machine.ConfigChecked = {**_files(config), "problems": [problem_facts(problem) for problem in problems]}
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
    result: machine.ConfigShown = {**_files(config), "config": dict(config.shown)}
    return Outcome(result, text, list(config.warnings), errors=errors)


def init(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A new file, or - for standard output. [default: volback.toml where it is looked for]",
            show_default=False,
        ),
    ] = None,
) -> Outcome:
    """Write a volback.toml with comments, from what runs on the engine.

    It has a job for each compose project, for each other volume of a database, and one for all other volumes. FILE is
    new: one that is there is never changed. - is standard output.
    """
    from volback.config.draft import draft
    from volback.context import open_engine
    from volback.operations.what_runs import what_runs

    call = call_of(context)
    call.command = "config init"
    path = None if file == "-" else _usual_file() if file is None else absolute(Path(file).expanduser(), "FILE")
    if path is not None:
        _refuse_present(path)
    with call.context() as ctx:
        engine = open_engine(ctx)
        jobs = what_runs(ctx, engine)
        lines = list(draft(jobs, url=ctx.settings.repository, host=ctx.settings.host or engine.info.name))
    if path is not None:
        _write_new(path, "".join(f"{line}\n" for line in lines))
    result: machine.ConfigDraft = {
        "file": None if path is None else str(path),
        "jobs": [
            {
                "project": job.project,
                "volumes": list(job.volumes),
                "databases": [one.container for one in job.databases],
            }
            for job in jobs
        ],
        "text": None if path is not None else "\n".join(lines) + "\n",
    }
    text = lines if path is None else [f"wrote {path}: {count(len(jobs), 'job')}; see `volback config check`"]
    return Outcome(result, text)


def _usual_file() -> Path:
    of_machine, of_user = standard_places(os.environ)
    return (of_machine if os.geteuid() == 0 else of_user) / CONFIG_NAME


def _refuse_present(path: Path) -> None:
    """Raises ConflictError for a file that is there."""
    if os.path.lexists(path):
        raise ConflictError(f"{path} is there already, and stays as it is", "name a new file, or - for standard output")


def _write_new(path: Path, text: str) -> None:
    """Write a file that was not there, only for its owner: secrets may follow. Raises ConflictError, StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        _refuse_present(path)
        raise
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}", "name another file") from exc


def problem_facts(problem: Problem) -> machine.ConfigProblem:
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


def _files(config: Config) -> machine.ConfigFiles:
    return {"files": [str(path) for path in config.files]}


def _named(config: Config) -> str:
    more = f" and {count(len(config.files) - 1, 'other file')}" if len(config.files) > 1 else ""
    return f"{config.files[0]}{more}"
