"""Helping: what `--help` shows beyond the parser's own text: groups of commands, and the options of every command."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from volback.cli.option_guesses import understand

GROUPS = {
    "Back up": ("backup", "copy", "export", "import"),
    "Restore": ("restore", "clone", "migrate"),
    "Look": ("list", "show", "ls", "cat", "diff", "find", "history", "du", "volumes"),
    "Check and keep": (
        "verify", "prove", "check", "repair", "hold", "release", "tag", "note", "prune", "remove", "repack",
    ),
    "Run": ("run", "jobs", "status", "schedule", "scheduler", "recover", "notify"),
    "Set up": ("init", "config", "key", "adopt", "doctor", "completion", "plugin", "version"),
}  # fmt: skip

_GLOBAL = """\
--repo REPO, --host ENGINE, --context NAME, --config FILE|DIR, --identity FILE, --accept-repository, --json,
--log-format text|json, -q/--quiet, -v/--verbose, --debug: see `volback --help`."""


class Grouped(TyperGroup):
    """The commands of volback, in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each group; a command that is in none is written with the last one."""
        last = [*GROUPS][-1]
        grouped = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in grouped)
        width = max(map(len, self.list_commands(ctx)), default=0)
        for title, names in GROUPS.items():
            there = [name for name in (*names, *(others if title == last else ())) if name in self.commands]
            there = [name for name in there if not self.commands[name].hidden]
            limit = formatter.width - 4 - width
            rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in there]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def finish(root: Any) -> Any:
    """Let each command below answer to other names of its options, and show the global options in its help."""
    for name, command in root.commands.items():
        understand(command, name)
        _with_global_options(command)
        for below in getattr(command, "commands", {}).values():
            _with_global_options(below)
    return root


def _with_global_options(command: Any) -> None:
    own = command.format_options

    def format_options(context: Any, formatter: Any) -> None:
        own(context, formatter)
        with formatter.section("Global options, before or after the command"):
            formatter.write_text(_GLOBAL.replace("\n", " "))

    command.format_options = format_options
