"""Call: one command line: its global options, what it opens, and its outcome."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from volback.errors import Failure, NoRepository, NotFoundError, StoreError, UsageError
from volback.printable import printable
from volback.settings import config_paths, standard_files
from volback.streams import OutputClosed

if TYPE_CHECKING:
    from volback.context import Context
    from volback.context.repository import Repository
    from volback.engine.engine import Engine

log = logging.getLogger(__name__)

_FLAGS = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--debug", "--accept-repository"})
_WITH_VALUE = frozenset({"--repo", "--host", "--context", "--config", "--identity", "--log-format"})
GLOBAL_OPTIONS = _FLAGS | _WITH_VALUE
"""What is accepted after the command, too."""


@dataclass(slots=True)
class Call:
    """The global options of this call; filled in while the command line is parsed."""

    command: str = ""
    repository: str | None = None
    engine: str | None = None
    config: list[str] = field(default_factory=list)
    """Files or directories of the configuration; empty: the usual ones."""
    accept_repository: bool = False
    identities: list[str] = field(default_factory=list)
    """Files of identities, for what is encrypted."""
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    log_json: bool = False
    """Whether standard error gets lines of JSON."""
    chosen: str = ""
    """The repository that the configuration chose, and where; empty where the command line or the environment did."""
    logged: list[str] = field(default_factory=list)
    """Warnings that came through the log."""

    @property
    def ask(self) -> Callable[[str], str] | None:
        """Asks a person at a terminal for a passphrase, which is not shown; None where nobody is there."""
        return None if self.json or not (sys.stdin.isatty() and sys.stderr.isatty()) else _ask

    @property
    def named(self) -> str | None:
        """The repository that the command line or the environment names: an address, or a name of the configuration."""
        return self.repository if self.repository is not None else os.environ.get("VOLBACK_REPO") or None

    @contextmanager
    def context(self, *, aloud: bool = False) -> Iterator[Context]:
        """The command's context; progress is drawn on a terminal. What it is about to do is said `aloud`, or logged."""
        from volback.cli.progress import make_progress
        from volback.context import Context, to_log
        from volback.encryption.environment import sources_of
        from volback.encryption.sources import Sources
        from volback.settings import load_settings

        # What has been imported stays: to look through it at each collection took 0.08 s of a backup of 0.9 s.
        gc.freeze()
        settings = load_settings(repository=self.repository, engine=self.engine)
        sources = sources_of(os.environ, [Path(name).expanduser() for name in self.identities])
        sources = sources.before(Sources(ask=self.ask))
        with make_progress(shown=not (self.quiet or self.json or self.log_json) and sys.stderr.isatty()) as progress:
            try:
                yield Context(
                    settings,
                    progress,
                    say=self._say if aloud else to_log,
                    accept_repository=self.accept_repository,
                    sources=sources,
                )
            except NoRepository as exc:
                exc.hint = "; ".join([*filter(None, [exc.hint]), *self.elsewhere()])
                raise

    @contextmanager
    def opened(self, *, is_needed: bool = True) -> Iterator[tuple[Context, Engine, Repository]]:
        """The command's context, its engine and its repository; each is connected when it is first used.

        `is_needed` is false for a command that needs no repository, and only looks for what a crashed run left there.
        """
        from volback.context import open_engine

        with self.context(aloud=True) as ctx:
            engine = open_engine(ctx)
            yield ctx, engine, self.repository_of(ctx, engine, is_needed=is_needed)

    @contextmanager
    def opened_repository(self) -> Iterator[tuple[Context, Repository]]:
        """For a command that needs an engine only for its name."""
        with self.context() as ctx:
            yield ctx, self.repository_of(ctx)

    def repository_of(self, ctx: Context, engine: Engine | None = None, *, is_needed: bool = True) -> Repository:
        """The repository that this call uses: that of `--repo`, of VOLBACK_REPO, the configuration's default, or the
        built-in one. Raises UsageError where that is not clear, unless none is needed."""
        # Without a configuration, what reads one is not imported: it takes a tenth of a short command.
        if self.named is not None or not (config_paths(os.environ, self.config) or standard_files(os.environ)):
            return self.repository_at(ctx, self.named, engine)
        from volback.jobs.open_config import default_repository, open_configured

        try:
            found = default_repository(ctx.settings.repository, self.config)
        except (UsageError, NotFoundError):
            if is_needed:
                raise
            found = None
        if found is None:
            return self.repository_at(ctx, None, engine)
        self.chosen = f"{found.name} of {found.place.file}"
        repository = open_configured(ctx, found, engine)
        log.info("repository %s: %s", self.chosen, repository.store.url)
        return repository

    def repository_at(self, ctx: Context, name: str | None, engine: Engine | None = None) -> Repository:
        """Open what `--repo`, VOLBACK_REPO or `--to` names: an address, or a repository of the configuration."""
        from volback.context import open_repository

        if name and not set(name) & set("/:\\"):
            from volback.jobs.open_config import find_repository, open_configured

            found = find_repository(name, self.config)
            if found is not None:
                return open_configured(ctx, found, engine)
        return open_repository(ctx, engine, url=name)

    def _say(self, line: str) -> None:
        """As the first of the command's lines, at once."""
        if self.json or self.quiet or self.log_json:
            log.info("%s", line)
            return
        try:
            write_data([printable(line).encode(errors="surrogateescape") + b"\n"])
        except (OutputClosed, StoreError) as exc:  # the work goes on; the outcome says it, for the lines that follow
            log.debug("not said: %s: %s", line, exc)

    def elsewhere(self) -> list[str]:
        """The hint if the default repository is empty, and the configuration has others."""
        from volback.jobs.open_config import repository_names

        chosen = self.named or self.chosen
        names = [] if chosen else repository_names(self.config)
        return [f"the configuration has others: {', '.join(f'--repo {name}' for name in names)}"] if names else []


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command outputs; `render` prints it."""

    result: Mapping[str, object]
    text: Iterable[str] = ()
    warnings: list[str] = field(default_factory=list)
    errors: Sequence[Failure] = ()
    """Failures of parts of the work; the first one gives the exit code."""
    incomplete: bool = False
    warned_in_text: bool = False
    """Whether the text contains the warnings already."""
    is_verbatim: bool = False
    """Whether names in the text are written as the bytes that they are: for programs that read a pipe."""


class WarningLog(logging.Handler):
    """Keeps logged warnings for the outcome."""

    def __init__(self, call: Call) -> None:
        super().__init__(logging.WARNING)
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._call.logged.append(record.getMessage())


def _ask(question: str) -> str:
    """Raises UsageError where the person gives no answer."""
    import getpass

    try:
        return getpass.getpass(question, sys.stderr)
    except EOFError:
        raise UsageError("no passphrase was given") from None


def call_of(context: typer.Context) -> Call:
    """Return the call that a command belongs to."""
    call = context.obj
    assert isinstance(call, Call)
    return call


def global_options_first(arguments: list[str]) -> list[str]:
    """Bring the global options in front of the command, so that they are accepted anywhere before `--`."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument in _FLAGS or argument.partition("=")[0] in _WITH_VALUE:
            front.append(argument)
            if argument in _WITH_VALUE:
                front.extend(value for value in [next(left, None)] if value is not None)
            continue
        rest.append(argument)
        if argument == "--":
            rest.extend(left)
    return front + rest


def command_at(arguments: list[str]) -> int | None:
    """Where the command stands that is called, where the global options are in front of it; None if there is none."""
    left = iter(enumerate(arguments))
    for at, argument in left:
        if argument in _WITH_VALUE:
            next(left, None)
        elif not argument.startswith("-"):
            return at
    return None


def write_data(buffers: Iterable[bytes | memoryview]) -> None:
    """Write data to standard output. Raises OutputClosed, StoreError."""
    for buffer in buffers:
        sys.stdout.buffer.write(buffer)
    sys.stdout.buffer.flush()
