"""Options that people type who know docker, restic or borg: they work, or the answer names the right one."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from volback.cli.app import build, commands, invoke
from volback.cli.call import Call
from volback.cli.guesses import within
from volback.cli.option_guesses import guesses, instead_of, understand
from volback.errors import UsageError

pytestmark = pytest.mark.unit

SAME = [
    ("backup -a", "backup --all"),
    ("backup db -n", "backup db --dry-run"),
    ("backup db -t nightly", "backup db --tag nightly"),
    ("backup -l K=V", "backup --label K=V"),
    ("backup --compose shop", "backup --project shop"),
    ("backup db --description text", "backup db --note text"),
    ("restore -a", "restore --all"),
    ("restore db -n", "restore db --dry-run"),
    ("restore db --name new", "restore db --as new"),
    ("restore db --include etc", "restore db --path etc"),
    ("list -a", "list --all-hosts"),
    ("list --all", "list --all-hosts"),
    ("list -t release", "list --tag release"),
    ("list -n 3", "list --last 3"),
    ("list -l", "list --latest"),
    ("list --compose shop", "list --project shop"),
    ("prune --keep-last 1 -n", "prune --keep-last 1 --dry-run"),
    ("repack -n", "repack --dry-run"),
    ("repair -n", "repair --dry-run"),
    ("run -a -n", "run --all --dry-run"),
    ("verify db --read-data", "verify db --data"),
    ("migrate -a --target ssh://web2", "migrate --all --to ssh://web2"),
    ("import x.tar --name db", "import x.tar --as db"),
    ("ls db -l", "ls db"),
    ("ls db -l -a", "ls db"),
]

ANSWERED = [
    ("backup db --output x.tar", "volback export BACKUP FILE"),
    ("backup db -o x.tar", "volback export BACKUP FILE"),
    ("backup db -f", "--full"),
    ("backup db -V", "see `volback backup --help`"),
    ("restore db --target new", "--as NAME is a new volume, --to DIR"),
    ("restore db -t new", "--as NAME is a new volume, --to DIR"),
    ("restore db --into new", "--as NAME is a new volume, --to DIR"),
    ("restore db --overwrite", "--replace"),
    ("restore db -f", "--replace"),
    ("restore db --stop", "docker stop"),
    ("restore db --latest", "takes the latest"),
    ("list -f tag=release", "--tag TAG"),
    ("prune -a", "--keep-daily 7"),
    ("prune -f", "does not ask"),
    ("remove db@2026 -f", "--yes"),
    ("remove db@2026 -n", "volback du BACKUP"),
    ("export db -o db.tar", "volback export BACKUP FILE"),
    ("volumes -f dangling=true", "--json"),
]


def _parsed(line: str) -> dict[str, Any]:
    name, *arguments = line.split()
    group: Any = typer.main.get_command(build(name))
    command = group.commands[name]
    understand(command, name)
    parsed = command.make_context(name, arguments).params
    return {key: value for key, value in parsed.items() if value}


@pytest.mark.parametrize(("typed", "meant"), SAME)
def test_it_means_the_same(typed: str, meant: str) -> None:
    assert _parsed(typed) == _parsed(meant) != {}


@pytest.mark.parametrize(("typed", "hint"), ANSWERED)
def test_it_is_answered_with_the_right_one(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        invoke(typed.split(), Call())
    assert hint in str(caught.value.hint)
    assert caught.value.message.startswith("No such option")


def test_no_guess_hides_an_option_and_none_is_shown() -> None:
    for name, option in guesses():
        assert name in commands()
        command: Any = typer.main.get_command(build(name))
        command = command.commands[name]
        before = command.get_help(typer.Context(command))
        taken = {known for parameter in command.params for known in (*parameter.opts, *parameter.secondary_opts)}
        assert option not in taken, (name, option)
        understand(command, name)
        command.make_parser(typer.Context(command))
        assert command.get_help(typer.Context(command)) == before


def test_no_guess_replaces_or_removes_anything() -> None:
    for name in ("remove", "prune"):
        assert all(instead_of(name, option) for option in ("-f", "--force", "-a", "--all"))
    assert all(instead_of("restore", option) for option in ("-f", "--force", "--overwrite"))


def test_a_volume_that_is_given_as_an_option_is_backed_up() -> None:
    given, named = _parsed("backup --volume db --volume web"), _parsed("backup db web")
    assert given.pop("volume") == named.pop("sources") == ("db", "web")
    assert given == named


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("schedule list", "show"), ("schedule status", "show"), ("config path", "check"), ("config validate", "check"),
        ("key ls", "list"), ("tag rm", "remove"), ("schedule show", "show"), ("ls show", "show"),
    ],
)  # fmt: skip
def test_words_within_a_group(typed: str, meant: str) -> None:
    group, word = typed.split()
    assert within(group, [word, "--x"]) == [meant, "--x"]


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_as_an_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    invoke([option], Call())
    assert capsys.readouterr().out.startswith("volback ")
