"""A prune that fails half-way says what is freed, and what the next one will do; that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.library import open_from
from tests.support.repository import IDS, make_backup, use_here
from volback.cli.main import run
from volback.context.repository import Repository
from volback.errors import StoreError
from volback.operations.check import check
from volback.operations.prune import prune
from volback.operations.prune_result import PruneResult
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

FULL = StoreError("the disk fails")


class Place:
    """A repository with four backups of `db`; the third uses data of the first."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.store = directory, LocalStore(directory / "repository")
        for number, id_ in enumerate(IDS[:4]):
            make_backup(self.store, id_, data_bytes=5000, depends_on=[IDS[0]] if number == 2 else None)
        self.size = self.bytes()

    def bytes(self) -> int:
        return sum(stored.size_bytes for stored in self.store.list())

    def prune(self, *plan: FailCall) -> PruneResult:
        settings = Settings(
            str(self.directory / "repository"), self.directory / "state", engine="unix:///no", host="web1"
        )
        store = FaultStore(self.store, plan)
        result = prune(*open_from(settings).on(store), KeepRules(last=2))
        store.assert_all_hit()
        return result


_ANNOUNCED = "web1/db: 2 backups to remove, 16.9 KiB in 5 objects to free\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("os.fsync", lambda _: None)
    return Place(tmp_path)


@pytest.mark.parametrize("nth", range(1, 6))
def test_what_is_freed_and_what_is_left_is_said_at_each_step(place: Place, nth: int) -> None:
    """Two manifests are deleted, then the index of the first, and both objects of the second."""
    result = place.prune(FailCall("delete", FULL, nth=nth, key="web1/db/*"))
    assert result.errors == (FULL,)
    assert result.freed_bytes == place.size - place.bytes()
    assert result.left_backups == max(3 - nth, 0)
    unused = check(Repository(place.store, lambda: "web1"))
    assert (result.left_objects, result.left_bytes) == (len(unused.findings), unused.unreferenced_bytes)
    assert result.still_used_bytes == (5000 if nth > 2 else 0)
    after = place.prune()
    assert (after.errors, after.left_backups, after.left_objects) == ((), 0, 0)


def test_the_command_says_what_the_next_one_will_do(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_here(monkeypatch, place.directory, "repository")
    monkeypatch.setattr(LocalStore, "delete", _refuse)
    assert run(["prune", "--keep-last", "2"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(_ANNOUNCED)
    assert "the next prune goes on: 2 backups to remove, 0 objects (0 B) to free\n" in said.out
    assert said.err.endswith("manifest.json cannot be deleted\n")
    assert run(["--json", "prune", "--keep-last", "2"]) == 1
    assert json.loads(capsys.readouterr().out)["result"]["left"] == {"backups": 2, "objects": 0, "bytes": 0}


def test_what_is_removed_is_said_before_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_here(monkeypatch, place.directory, "repository")
    said_before: list[str] = []

    def stop(_: LocalStore, key: str) -> None:
        captured = capsys.readouterr()
        said_before.append(captured.out + captured.err)
        raise StoreError(f"{key} cannot be deleted")

    monkeypatch.setattr(LocalStore, "delete", stop)
    assert run(["prune", "--keep-last", "2"]) == 1
    assert said_before[0] == _ANNOUNCED
    capsys.readouterr()
    said_before.clear()
    assert run(["--quiet", "prune", "--keep-last", "2"]) == 1
    assert said_before[0] == ""
    capsys.readouterr()
    said_before.clear()
    assert run(["--json", "--verbose", "prune", "--keep-last", "2"]) == 1
    assert said_before[0].endswith(_ANNOUNCED)
    assert json.loads(capsys.readouterr().out)["error"]["message"].endswith("cannot be deleted")


def _refuse(_: LocalStore, key: str) -> None:
    raise StoreError(f"{key} cannot be deleted")
