"""What people type who know docker, restic, borg or offen: it works, or the answer names the right command."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from volback.cli.app import commands, invoke, parser
from volback.cli.call import Call, command_at, global_options_first
from volback.cli.guesses import ALIASES, command_meant, within
from volback.errors import UsageError

GUESSES = [
    "snapshots", "ps", "status", "init", "save", "dump", "rm", "delete", "forget", "inspect", "info", "describe",
    "clone", "migrate", "mv", "move", "diff", "find", "search", "mount", "browse", "stats", "check", "test",
    "history", "tag", "key", "unlock", "sync", "pull", "push", "validate", "edit", "completion", "help", "upgrade",
    "repos", "logs", "create", "rename", "repo", "cp", "ls-backups", "load", "archives", "backups",
]  # fmt: skip
_DESTRUCTIVE = ("remove", "prune", "repack", "restore")


@pytest.mark.parametrize("word", GUESSES)
def test_a_word_of_another_tool_is_a_command_or_is_answered_with_one(word: str) -> None:
    if word in commands() or word in ALIASES:
        assert command_meant(word, commands()) in commands()
        return
    hint = _hint(word)
    named = re.findall(r"volback (?!--)(\w+)", hint) + re.findall(r"(?<=mean )\w+", hint)
    assert named or "volback --" in hint, hint
    assert set(named) <= {*commands(), "COMMAND"}, hint


@pytest.mark.parametrize("word", ["move", "rename", "repo", "logs", "heal", "prose", "repait", "stop", "cut"])
def test_a_harmless_word_is_not_answered_with_what_removes(word: str) -> None:
    offered = _hint(word).partition("did you mean ")[2].partition("?")[0]
    assert not set(offered.split(" or ")) & set(_DESTRUCTIVE)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("remvoe", "remove"),
        ("purne", "prune"),
        ("bakcup", "backup"),
        ("snapshot", "list"),
        ("restroe", "restore"),
        ("lits", "list"),
    ],
)
def test_a_word_that_is_nearly_a_command_is_answered_with_it(typed: str, meant: str) -> None:
    assert meant in re.split(r"\W+", _hint(typed))


def test_an_alias_runs_its_command() -> None:
    assert invoke(["--repo", "rm", "rm", "--help"], Call()) is None
    with pytest.raises(UsageError) as caught:
        invoke(["--repo", "rm", "rm"], Call())
    assert caught.value.hint == "see `volback remove --help`"


def test_aliases_hide_no_command() -> None:
    assert not set(ALIASES) & set(commands())
    assert set(ALIASES.values()) <= set(commands())


# Every guess of the list that was made on 2026-11-25, as it is typed: what it runs, or a part of the answer.
TABLE = {
    # commands
    "snapshots": "list", "ps": "?volback volumes", "status": "status", "init": "init", "save": "?volback backup",
    "dump db etc": "cat", "rm db@2026": "remove", "delete db@2026": "remove", "forget": "?volback prune",
    "inspect db": "show", "info db": "show", "describe db": "show", "clone db new": "clone",
    "migrate db --to web": "migrate", "mv": "?volback migrate", "move": "?volback migrate", "diff db": "diff",
    "find x": "find", "search x": "find", "mount": "?volback ls", "browse": "?volback ls", "stats": "du",
    "check": "check", "test": "?volback verify", "history db etc": "history", "tag add db x": "tag add",
    "key list": "key list", "unlock": "?volback recover", "sync": "?volback copy", "pull": "?volback restore",
    "push": "?volback copy", "validate": "?volback config check", "edit": "?volback config check",
    "completion": "completion", "help": "?volback --help", "upgrade": "?volback version", "repos": "?config show",
    "logs": "?volback jobs", "create db": "backup", "rename": "?--as NAME", "config init": "config init",
    "config path": "config check", "schedule list": "schedule show", "schedule status": "schedule show",
    "jobs nightly": "jobs", "plugin install": "plugin install", "backups": "?backup",
    "cp db --to x": "copy", "repo": "?--repo REPO",
    # options; for `docker volback` see tests/unit/test_plugin.py
    "backup -a": "backup", "backup db -n": "backup", "backup db -t x": "backup", "backup -l K=V": "backup",
    "backup db -f": "?--full", "backup db -q": "backup", "-V": "", "list -a": "list", "list -n 3": "list",
    "list -t x": "list", "list -l": "list", "list -f x": "?--tag TAG", "list -q": "list", "ls db -l": "ls",
    "backup --volume db": "backup", "backup --compose shop": "backup", "backup db --output x": "?--repo REPO",
    "backup --all --exclude-volume 'x*'": "backup", "backup db --note x": "backup",
    "backup db --description x": "backup",
    "restore db:new": "restore", "restore db new": "restore", "restore db --target new": "?--as NAME",
    "restore db --name new": "restore", "restore db --into new": "?--as NAME", "restore db --overwrite": "?--replace",
    "restore db --dry-run": "restore", "restore --all": "restore", "restore db --include etc": "restore",
    "restore db --stop": "?docker stop", "restore db --latest": "?takes the latest", "list --tag x": "list",
    "list --project shop": "list", "list --last 3": "list", "list --latest": "list", "backup 'shop_*'": "backup",
    # references: tests/unit/test_naming.py says what they stand for
    "show db@latest": "show", "show db@yesterday": "show", "show db@2026-11-25": "show", "show db@20261125": "show",
    "show 20261125T160254Z-3f9c": "show", "backup shop": "backup",
}  # fmt: skip


@pytest.mark.parametrize("typed", TABLE)
def test_every_guess_works_or_is_answered(typed: str) -> None:
    expected = TABLE[typed]
    if expected.startswith("?"):
        with pytest.raises(UsageError) as caught:
            invoke(shlex.split(typed), Call())
        assert expected[1:] in f"{caught.value.hint}"
        return
    words = global_options_first(shlex.split(typed))
    at = command_at(words)
    name = "" if at is None else command_meant(words[at], commands())
    rest = [] if at is None else within(name, words[at + 1 :])
    command: Any = parser(name).commands.get(name)
    while rest and rest[0] in getattr(command, "commands", {}):
        name, command, rest = f"{name} {rest[0]}", command.commands[rest[0]], rest[1:]
    assert name == expected
    if command is not None:
        command.make_context(name, rest)


def _hint(word: str) -> str:
    """What the refusal of a word advises."""
    with pytest.raises(UsageError) as caught:
        command_meant(word, commands())
    assert caught.value.message == f"no command {word!r}"
    return caught.value.hint or ""
