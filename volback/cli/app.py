"""App: the Typer application - global options and the families of commands. Imports nothing that is slow."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

import volback
from volback.cli.call import Call, Outcome, WarningLog, call_of, command_at
from volback.cli.complete import complete_context, complete_repository
from volback.cli.guesses import command_meant, within
from volback.cli.helping import Grouped, finish
from volback.cli.log import JsonLines, PlainLines
from volback.cli.option_guesses import instead_of
from volback.errors import UsageError
from volback.masking import MaskingFilter

_HELP = """Back up, restore and prove Docker volumes.

BACKUP is VOLUME (its latest one), VOLUME@ID-PREFIX, VOLUME@latest~1, VOLUME@yesterday, VOLUME@2026-11-25, or
HOST/VOLUME and any of these. A quoted glob, 'shop_*', stands for all volumes that match.
"""
_EPILOG = """\b
Examples:
  volback init                       make the repository
  volback backup db                  back up the volume db
  volback list                       the backups in the repository
  volback restore db --as db-copy    the latest backup into a new volume
  volback prove db                   compare the volume with its backup
  volback cat db etc/app.conf        one file of it

\b
Exit codes: 0 done, 1 failed, 2 usage, 3 done with warnings, 4 not found,
5 conflict, 6 locked, 7 integrity, 8 engine unreachable,
9 repository unreachable, 130 interrupted, 143 terminated.
"""

_FAMILIES = {
    "init": ("init",),
    "key": ("key",),
    "backup": ("backup",),
    "restore": ("restore",),
    "move": ("clone", "migrate"),
    "browse": ("list", "show", "ls", "cat"),
    "compare": ("diff", "find", "history", "du"),
    "check": ("verify", "prove"),
    "references": ("check", "repair"),
    "notes": ("hold", "release", "tag", "note"),
    "transfer": ("export", "import", "copy"),
    "admin": ("volumes", "remove", "version"),
    "prune": ("prune",),
    "repack": ("repack",),
    "adopt": ("adopt",),
    "doctor": ("doctor",),
    "config": ("config",),
    "run": ("run", "jobs"),
    "status": ("status",),
    "recover": ("recover",),
    "schedule": ("schedule", "scheduler"),
    "notify": ("notify",),
    "completion": ("completion",),
    "plugin": ("plugin",),
}
"""The modules of the commands, in the order of the help. That of the command that is called is imported, no other:
all of them take 15 ms."""

_AcceptRepository = Annotated[
    bool, typer.Option("--accept-repository", help="Use the repository although another one was there before.")
]
_Identities = Annotated[
    list[str] | None,
    typer.Option(
        "--identity",
        metavar="FILE",
        help="Identities of age, for what is encrypted; may be repeated. [default: $VOLBACK_IDENTITY_FILE]",
    ),
]


def invoke(arguments: list[str], call: Call) -> Outcome | None:
    """Parse and run. Raises VolbackError; None where all has been written already."""
    name, at = "", command_at(arguments)
    if at is not None:
        name = command_meant(arguments[at], commands())
        arguments = [*arguments[:at], name, *within(name, arguments[at + 1 :])]
    command = parser(name)
    try:
        done = command.main(arguments, prog_name="volback", standalone_mode=False, obj=call)
    except Exception as exc:
        usage = _usage(exc)
        if usage is None:
            raise
        raise usage from exc
    return done if isinstance(done, Outcome) else None


def commands() -> list[str]:
    """The names of all commands and groups, in the order of the help."""
    return [command for family in _FAMILIES.values() for command in family]


def parser(name: str = "") -> Any:
    """The parser of the application with the command of that name, or with all."""
    return finish(typer.main.get_command(build(name)))


def build(name: str = "") -> typer.Typer:
    """The application with the command of that name; with all where there is none: their parsers take 0.02 s."""
    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, cls=Grouped, add_completion=False, rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )  # fmt: skip
    app.callback(invoke_without_command=True)(_global)
    families = [family for family, commands in _FAMILIES.items() if name in commands]
    for family in families or _FAMILIES:
        import_module(f"volback.cli.{family}").register(app)
    called = [info for info in app.registered_commands if (info.name or getattr(info.callback, "__name__", "")) == name]
    if called:
        app.registered_commands, app.registered_groups = called, []
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"volback {volback.__version__}")
        raise typer.Exit


def _install_completion(wanted: bool) -> None:
    if wanted:
        from volback.cli.completion import calling_shell, install

        typer.echo(f"wrote {install(calling_shell())}: it counts in a new shell")
        raise typer.Exit


def _show_completion(wanted: bool) -> None:
    if wanted:
        from volback.cli.completion import SCRIPTS, calling_shell

        typer.echo(SCRIPTS.get(calling_shell(), SCRIPTS["bash"]), nl=False)
        raise typer.Exit


def _global(
    context: typer.Context,
    *,
    repo: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Directory, s3://BUCKET/PREFIX, or its name. [default: $VOLBACK_REPO]",
            autocompletion=complete_repository,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Engine: ssh://HOST, or a docker context. [default: $DOCKER_HOST]",
            autocompletion=complete_context,
        ),
    ] = None,
    docker_context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="Docker context to use. [default: $DOCKER_CONTEXT]",
            autocompletion=complete_context,
        ),
    ] = None,
    config_files: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="FILE|DIR", help="Configuration; may be repeated. [default: $VOLBACK_CONFIG]"),
    ] = None,
    accept_repository: _AcceptRepository = False,
    identities: _Identities = None,
    json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
    log_format: Annotated[
        str, typer.Option(metavar="text|json", help="How the log is written; json: each record is one line.")
    ] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing if all went well.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print more.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything; errors with their traceback.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
    _install: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            is_eager=True,
            callback=_install_completion,
            help="Let the tab key of this shell complete; see `volback completion`.",
        ),
    ] = False,
    _show: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            is_eager=True,
            callback=_show_completion,
            help="Print what does that, as `volback completion`.",
        ),
    ] = False,
) -> None:
    call = call_of(context)
    call.repository, call.engine, call.config = repo, _engine(host, docker_context), config_files or []
    call.accept_repository, call.identities = accept_repository, identities or []
    call.json, call.quiet, call.verbose, call.debug = json, quiet, verbose, debug
    call.command = context.invoked_subcommand or ""
    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format {log_format!r} is unknown", "give text or json")
    call.log_json = log_format == "json"
    _log(call)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise UsageError("no command given")


def _engine(host: str | None, docker_context: str | None) -> str | None:
    """The engine that both options name. Raises UsageError."""
    if docker_context is None:
        return host
    if host is not None:
        raise UsageError("--host and --context exclude each other", "give one: --host takes the name of a context, too")
    from volback.engine.address import check_context_name

    return check_context_name(docker_context)


def _log(call: Call) -> None:
    logger = logging.getLogger("volback")
    logger.setLevel(logging.DEBUG if call.debug else logging.INFO if call.verbose else logging.WARNING)
    handlers: list[logging.Handler] = [JsonLines() if call.log_json else WarningLog(call)]
    if call.log_json:
        logger.setLevel(min(logger.level, logging.INFO))
    elif call.debug or call.verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(PlainLines("%(levelname)s %(name)s: %(message)s"))
    for handler in handlers:
        handler.addFilter(MaskingFilter())
    logger.handlers = handlers


def _usage(exc: Exception) -> UsageError | None:
    """Translate the parser's own errors; known by their method, since Typer moved and renamed their class."""
    explain = getattr(exc, "format_message", None)
    if explain is None:
        return UsageError("aborted") if isinstance(exc, typer.Abort) else None
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "volback"
    command, option = path.partition(" ")[2], str(getattr(exc, "option_name", None))
    return UsageError(str(explain()).rstrip("."), instead_of(command, option) or f"see `{path} --help`")
