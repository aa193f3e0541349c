"""Completion: what the tab key offers after the words that were typed, and the scripts of the shells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import IDS, make_backup, use_here
from volback.catalog.repository import Catalog
from volback.cli.app import invoke
from volback.cli.call import Call
from volback.cli.completion import SCRIPTS, answer, install
from volback.cli.main import run
from volback.errors import UsageError
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SLOW = ("docker", "boto3", "botocore", "msgspec", "rich", "zstandard", "requests", "urllib3")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of `db` and `dbx`, which is not the default one."""
    use_here(monkeypatch, tmp_path, "default")
    for volume, id_ in (("db", IDS[0]), ("db", IDS[1]), ("dbx", IDS[0])):
        make_backup(LocalStore(tmp_path / "repository"), id_, volume=volume, data_bytes=100)
    return tmp_path / "repository"


def _words(*typed: str) -> list[str]:
    return [line.partition("\t")[0] for line in answer(list(typed))]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sch"], ["scheduler", "schedule"]),
        (["--js"], ["--json"]),
        (["list", "--las"], ["--last"]),
        (["snapshots", "--las"], ["--last"]),
        (["list", "--rep"], ["--repo"]),
        (["--quiet", "list", "--hel"], ["--help"]),
        (["tag", ""], ["add", "remove"]),
        (["tag", "add", "--jso"], ["--json"]),
        (["list", "--last", ""], []),
        (["list", "--last=3", "--lat"], ["--latest"]),
        (["nothing", ""], []),
    ],
)
def test_commands_and_options(typed: list[str], offered: list[str], repository: Path) -> None:
    assert _words(*typed) == offered


def test_backups_are_those_of_the_repository_that_is_named(repository: Path) -> None:
    for place in (["--repo", str(repository)], [f"--repo={repository}"]):
        assert _words(*place, "show", "d") == ["db", "dbx"]
        assert _words("restore", *place, "db", "dbx@2") == [f"dbx@{IDS[0]}"]
        assert _words("show", *place, "db@") == [f"db@{IDS[0]}", f"db@{IDS[1]}"]
        assert _words("cat", *place, "db", "") == [], "nobody asks for paths"
    assert _words("show", "d") == []


def test_names_of_the_configuration_are_offered(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = repository.parent / "volback.toml"
    jobs = "".join(f'[jobs.{name}]\nvolumes = ["db"]\nrepository = "main"\n' for name in ("nightly", "noon", "weekly"))
    file.write_text(f'[repositories.main]\nurl = "{repository}"\n[repositories.offsite]\nurl = "/x"\n{jobs}')
    monkeypatch.delenv("VOLBACK_REPO")
    monkeypatch.setenv("DOCKER_CONFIG", str(repository.parent / "docker"))
    options = ["--config", str(file)]
    assert _words(*options, "run", "n") == ["nightly", "noon"]
    assert _words(*options, "jobs", "nightly", "w") == ["weekly"]
    assert _words(*options, "prune", "--job", "") == ["nightly", "noon", "weekly"]
    assert _words(*options, "list", "--repo", "") == ["main", "offsite"]
    assert _words("copy", *options, "db", "--to=o") == ["--to=offsite"]
    assert _words("list", *options, "--repo", "main", "d") == ["db", "dbx"], "a name is a repository, too"
    assert _words("--context", "") == ["default"]
    assert _words("migrate", "db", "--to", "def") == ["default"]
    assert _words("--config", "/absent", "run", "") == []


def test_tags_and_projects_are_those_of_the_newest_backups(repository: Path) -> None:
    labels = {"com.docker.compose.project": "shop"}
    key = make_backup(LocalStore(repository), IDS[2], volume="shop_db", labels=labels, data_bytes=100)
    Catalog(LocalStore(repository)).notes.change(key, lambda notes: notes.with_(tags=["weekly"]))
    place = ["--repo", str(repository)]
    assert _words("list", *place, "--project", "") == ["shop"]
    assert _words("restore", *place, "--project=s") == ["--project=shop"]
    assert _words("list", *place, "--tag", "w") == ["weekly"]
    assert _words("backup", "--project", "") == [], "there is no engine"


def test_every_word_has_its_help_and_each_is_there_once(repository: Path) -> None:
    lines = answer(["list", "--"])
    assert all(re.fullmatch(r"--[a-z-]+\t[^\t\n]+", line) for line in lines)
    assert len({line.partition("\t")[0] for line in lines}) == len(lines)
    assert "--volume" not in _words("backup", "--"), "what is hidden is not offered"


def test_whatever_goes_wrong_nothing_is_said(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    assert run(["__complete", "show", "--repo", "gopher://x", ""]) == 0
    assert run(["__complete"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_own_script(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = invoke(["completion", shell], Call())
    assert done is not None
    assert "\n".join(done.text) + "\n" == SCRIPTS[shell]
    assert {"bash": "complete -o default -F", "zsh": "#compdef", "fish": "complete --command"}[shell] in SCRIPTS[shell]
    for _ in range(2):
        assert install(shell).read_text() == SCRIPTS[shell]
    rc = tmp_path / f".{shell}rc"
    assert not rc.exists() or len(rc.read_text().splitlines()) == 1


def test_a_shell_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="no completion for 'tcsh'"):
        invoke(["completion", "tcsh"], Call())


def test_the_words_of_a_command_need_nothing_slow() -> None:
    """Time is not measured here: an answer takes 0.14 s, and 0.22 s where all commands are offered.

    Of 1,000 backups in a directory, ids, tags and projects take 0.25 to 0.27 s, and jobs 0.17 s.
    """
    script = (
        "import sys\n"
        "from volback.cli.main import run\n"
        "code = run(['__complete', 'list', '--'])\n"
        f"print([name for name in {SLOW!r} if name in sys.modules], code, file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.strip() == "[] 0"
    assert "--latest\t" in done.stdout


def test_bash_completes_ids_after_a_sign_that_ends_its_words(repository: Path, tmp_path: Path) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(
        SCRIPTS["bash"]
        + f'volback() {{ PYTHONPATH="{ROOT}" "{sys.executable}" -m volback "$@"; }}\n'
        + 'COMP_LINE=$1 COMP_POINT=${#1}; _volback_completion volback; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    for typed, offered in (
        (f"volback show --repo={repository} db@2", [IDS[0], IDS[1]]),
        ("volback schedule ", ["install", "remove", "show"]),
    ):
        done = subprocess.run(["bash", str(script), typed], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == offered
