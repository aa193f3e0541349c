"""What people type who know docker, restic, borg or offen: it works, or the answer names the right command."""

from __future__ import annotations

import re

import pytest

from volback.cli.app import commands, invoke
from volback.cli.call import Call
from volback.cli.guesses import ALIASES, command_meant
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


def _hint(word: str) -> str:
    """What the refusal of a word advises."""
    with pytest.raises(UsageError) as caught:
        command_meant(word, commands())
    assert caught.value.message == f"no command {word!r}"
    return caught.value.hint or ""
