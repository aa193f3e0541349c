"""What `prune`, `remove` and `du` say of a repository on a file server: what is condemned, and until when."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import IDS, make_backup, use_here
from volback.cli.main import run
from volback.store.local import LocalStore


class Commands:
    """Runs commands in a directory with a repository that other machines may use."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = LocalStore(directory / "repository")
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code
        return self._capsys.readouterr().out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))["result"]


@pytest.fixture
def volback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    use_here(monkeypatch, tmp_path, "repository")
    monkeypatch.setattr("volback.store.local.is_local_filesystem", lambda _: False)
    commands = Commands(tmp_path, capsys)
    for id_ in IDS[:3]:
        make_backup(commands.store, id_, data_bytes=5000)
    return commands


TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def test_prune_says_what_is_freed_and_what_is_condemned_until_when(volback: Commands) -> None:
    dry = volback("prune", "--keep-last", "2", "--dry-run").splitlines()
    done = volback("prune", "--keep-last", "2").splitlines()
    assert re.fullmatch(rf"9\.8 KiB condemned: a prune after {TIME} [0-9:]{{8}} frees it", done[-1])
    assert dry[-1].split(" after ")[0] == done[-1].split(" after ")[0]
    assert done[-2].startswith("1 backup removed, ")
    found = volback.json("prune", "--keep-last", "2")
    (waiting,) = found["condemned"]
    assert (found["freed_bytes"], found["condemned_bytes"], waiting["bytes"]) == (0, 10014, 10014)
    assert (waiting["host"], waiting["volume"], waiting["objects"]) == ("web1", "db", 2)
    assert re.fullmatch(rf"{TIME}T[0-9:]{{8}}Z", waiting["until"])
    freed = volback.json("prune", "--keep-last", "2", "--grace", "0s")
    assert (freed["freed_bytes"], freed["condemned"]) == (10014, [])


def test_remove_and_du_say_it_too(volback: Commands) -> None:
    removed = volback("remove", f"db@{IDS[0]}", "--yes", "--grace", "2d").splitlines()
    assert re.fullmatch(rf"9\.8 KiB condemned: a prune after {TIME} [0-9:]{{8}} frees it", removed[-1])
    assert "KiB, 9.8 KiB of it condemned" in volback("du")
    assert volback.json("du")["volumes"][0]["condemned_bytes"] == 10014
    again = volback.json("remove", f"db@{IDS[1]}")
    assert again["condemned_bytes"] == 10014
    assert again["until"] is not None
    last = volback.json("remove", f"db@{IDS[2]}", "--grace", "0s")
    assert (last["condemned_bytes"], last["until"]) == (0, None)
    assert list(volback.store.list("web1/")) == []


@pytest.mark.parametrize("grace", ["24", "11y", "-1h", "soon"])
@pytest.mark.parametrize("command", [["prune", "--keep-last", "1"], ["remove", f"db@{IDS[0]}"]])
def test_a_grace_time_that_is_not_valid_is_refused(volback: Commands, command: list[str], grace: str) -> None:
    volback(*command, f"--grace={grace}", code=2)
