"""Which repository a command uses that names none: never another one than its user expects."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repository import make_backup, new_repository, use_here
from volback.cli.call import Call
from volback.cli.main import run
from volback.errors import NotFoundError, UsageError
from volback.jobs.open_config import default_repository
from volback.store.local import LocalStore

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes a volback.toml with repositories, each with further lines, and lets commands use it."""
    use_here(monkeypatch, tmp_path, "unused")
    monkeypatch.delenv("VOLBACK_REPO")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def write(more: str = "", **repositories: str) -> Path:
        tables = [f'[repositories.{name}]\nurl = "{tmp_path / name}"\n{line}\n' for name, line in repositories.items()]
        file = tmp_path / "volback.toml"
        file.write_text("".join(tables) + more)
        monkeypatch.setenv("VOLBACK_CONFIG", str(file))
        return file

    return write


def chosen(built_in: Path) -> str | None:
    found = default_repository(str(built_in))
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("repositories", "name"),
    [
        ({"main": ""}, "main"),
        ({"main": "default = true"}, "main"),
        ({"main": "", "offsite": "default = true"}, "offsite"),
        ({"main": "", "offsite": "default = false"}, "main"),
        ({"main": "default = false"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_configuration_says_it(
    configure: Configure, tmp_path: Path, repositories: dict[str, str], name: str | None
) -> None:
    configure(**repositories)
    assert chosen(tmp_path / "built-in") == name


def test_of_several_without_a_default_none_is_guessed(configure: Configure, tmp_path: Path) -> None:
    configure(main="", offsite="")
    with pytest.raises(UsageError, match=r"which repository is used: main, offsite$") as raised:
        chosen(tmp_path / "built-in")
    assert raised.value.hint == "name one, like --repo main, or write `default = true` below [repositories.main]"


def test_one_beside_a_built_in_one_that_is_used_already_is_not_taken_silently(
    configure: Configure, tmp_path: Path
) -> None:
    new_repository(tmp_path / "built-in")
    configure(main="")
    with pytest.raises(UsageError, match=rf"which repository is used: main, {tmp_path}/built-in$"):
        chosen(tmp_path / "built-in")
    configure(main="default = true")
    assert chosen(tmp_path / "built-in") == "main"
    configure(main="default = false")
    assert chosen(tmp_path / "built-in") is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[repositories.other]\nurl = "${NOT_SET}"', "repositories.other.url: the environment has no variable"),
        ("[repositories.other", "is not TOML"),
        ('[repositories.other]\nurl = "/srv/x"\ndefault = true', "main is the default already"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_not_passed_over(
    configure: Configure, tmp_path: Path, more: str, said: str
) -> None:
    configure(more, main="default = true")
    with pytest.raises(UsageError, match=f"the default repository is not known: .*{said}"):
        chosen(tmp_path / "built-in")


def test_a_broken_job_does_not_matter(configure: Configure, tmp_path: Path) -> None:
    configure("[jobs.broken]\nlevel = 99\n", main="")
    assert chosen(tmp_path / "built-in") == "main"


def test_a_file_that_is_named_must_exist(configure: Configure, tmp_path: Path) -> None:
    configure(main="").unlink()
    with pytest.raises(NotFoundError):
        chosen(tmp_path / "built-in")


def test_a_second_default_is_a_problem_of_the_file_and_stops_no_job(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    job = '[jobs.nightly]\nvolumes = ["db"]\nrepository = "offsite"\n'
    configure(job, main="default = true", offsite="default = true")
    assert run(["config", "check"]) == 2
    assert "repositories.offsite.default: main is the default already" in capsys.readouterr().out
    assert run(["run", "nightly"]) == 8, "the engine is not there, but the job is good"


def test_a_configuration_of_others_that_may_not_be_read_does_not_count(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home/volback"
    home.mkdir(parents=True)
    configure(main="").rename(home / "volback.toml")
    monkeypatch.setenv("VOLBACK_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert chosen(tmp_path / "built-in") == "main"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert chosen(tmp_path / "built-in") is None


def test_commands_use_it_and_an_option_or_the_environment_comes_first(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for volume, name in {"db": "main", "wiki": "offsite", "mail": "elsewhere"}.items():
        make_backup(LocalStore(tmp_path / name), volume=volume)
    file = configure(main="default = true", offsite="")

    def listed(*options: str) -> str:
        assert run(["list", *options]) == 0
        return capsys.readouterr().out.splitlines()[-1].partition("@")[0]

    assert listed() == "db"
    assert listed("--repo", "offsite") == "wiki"
    monkeypatch.setenv("VOLBACK_REPO", str(tmp_path / "elsewhere"))
    assert listed() == "mail"
    assert listed("--repo", "main") == "db"
    monkeypatch.setenv("VOLBACK_REPO", "offsite")
    assert listed() == "wiki", "the environment names one as --repo does"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOLBACK_REPO", "elsewhere")
    assert listed() == "mail", "a directory, where the configuration has no such name"
    monkeypatch.delenv("VOLBACK_REPO")
    with caplog.at_level(logging.INFO, "volback"), Call().opened_repository():
        assert caplog.messages == [f"repository main of {file}: {tmp_path}/main"]
    assert run(["prune", "--keep-last", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"repository main of {file}: {tmp_path}/main\n")


def test_a_command_that_needs_no_repository_does_not_fail_for_one(configure: Configure, tmp_path: Path) -> None:
    configure(main="", offsite="")
    call = Call()
    with pytest.raises(UsageError), call.opened():
        pass
    with call.opened(is_needed=False) as (_, _, repository):
        assert repository.store.url == str(tmp_path / "data/volback/repository") or os.geteuid() == 0
