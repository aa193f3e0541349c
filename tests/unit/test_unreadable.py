"""A manifest that the store does not return is not damaged: nothing is deleted, and the error is the store's."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.library import open_from
from tests.support.repository import IDS, make_backup, use_here
from volback.catalog.keys import BackupKey
from volback.cli.main import run
from volback.errors import IntegrityError, ManifestUnreadable, StoreDenied
from volback.operations.recover import discard
from volback.operations.repack import repack
from volback.operations.repack_plan import Packing
from volback.settings import Settings
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

WHY, HINT = "its rights do not allow to read it", "ask its owner"
DENIED = StoreDenied(WHY, HINT)
KEYS = [BackupKey("web1", "db", id_) for id_ in IDS[:3]]


class Commands:
    """Runs commands on a repository with three backups, of which some objects are not returned."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        use_here(monkeypatch, directory, "repository")
        self.store = LocalStore(directory / "repository")
        for key in KEYS:
            make_backup(self.store, key.id, data_bytes=5000)
        self.denied: set[str] = set()
        self._capsys = capsys
        opened = LocalStore.open

        def open_unless_denied(
            store: LocalStore, key: str, *, start: int = 0, length: int | None = None
        ) -> Generator[bytes, None, None]:
            if key in self.denied:
                raise DENIED
            return opened(store, key, start=start, length=length)

        monkeypatch.setattr(LocalStore, "open", open_unless_denied)

    def __call__(self, *arguments: str, code: int) -> tuple[str, str]:
        before = {info.key for info in self.store.list()}
        ended = run(list(arguments))
        printed = self._capsys.readouterr()
        assert ended == code, printed
        assert {info.key for info in self.store.list()} == before
        return printed.out, printed.err


@pytest.fixture
def volback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys)


def test_remove_says_why_and_ends_with_1(volback: Commands) -> None:
    volback.denied = {KEYS[1].manifest}
    _, error = volback("remove", f"db@{IDS[0]}", "--yes", code=1)
    assert f"while it is unknown what web1/db@{IDS[1]} needs: {WHY}" in error
    assert f"hint: {HINT}" in error
    assert "volback remove" not in error, "nothing says that it is lost"
    _, error = volback("remove", f"db@{IDS[1]}", "--yes", code=1)
    assert error == f"error: {WHY}\nhint: {HINT}\n"


def test_where_one_is_damaged_the_code_is_7(volback: Commands) -> None:
    volback.denied = {KEYS[1].manifest}
    volback.store.put(KEYS[2].manifest, [b"{}"])
    _, error = volback("remove", f"db@{IDS[0]}", "--yes", code=7)
    assert "and 1 more needs: manifest " in error


def test_prune_keeps_all_of_the_volume_and_says_why(volback: Commands) -> None:
    volback.denied = {KEYS[1].manifest}
    out, error = volback("prune", "--keep-last", "1", code=3)
    assert "3 of 3 backups kept" in out
    assert f"the manifest of backup web1/db@{IDS[1]} cannot be read" in error
    assert WHY in error


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["verify"], f"unread   web1/db@{IDS[1]}: {WHY}"),
        (["check"], WHY),
        (["list"], "unreadable"),
        (["du"], IDS[1]),
        (["find", "*"], "nothing matches"),
        (["repair"], "3 backups"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_looks_at_it_ends_with_1_and_calls_nothing_damaged(
    volback: Commands, command: list[str], line: str
) -> None:
    if command[0] in {"find", "repair"}:  # they read indexes, which are made up here
        for key in (KEYS[0], KEYS[2]):
            for name in (key.manifest, key.index, key.data):
                volback.store.delete(name)
        line = line.replace("3 backups", "1 backup")
    volback.denied = {KEYS[1].manifest}
    out, error = volback(*command, code=1)
    assert line in out
    assert "damage" not in out + error
    assert f"hint: {HINT}" in error
    _, error = volback("--json", *command, code=1)
    assert error == ""


def test_check_counts_what_is_wrong_beside_it(volback: Commands) -> None:
    volback.denied = {KEYS[1].manifest, KEYS[0].notes}
    volback.store.put(KEYS[0].notes, [b"{}"])
    out, error = volback("check", code=1)
    assert "error: 2 objects of the repository cannot be read" in error
    volback.store.delete(KEYS[2].data)
    out, error = volback("check", code=7)
    assert "error: 1 object of the repository is not as needed" in error
    assert "2 objects of the repository cannot be read" in error
    assert KEYS[2].data in out


def test_verify_names_both_what_is_damaged_and_what_is_unread(volback: Commands) -> None:
    volback.denied = {KEYS[1].manifest}
    volback.store.delete(KEYS[2].data)
    out, error = volback("verify", code=7)
    assert f"damaged  web1/db@{IDS[2]}" in out
    assert f"error: damaged: web1/db@{IDS[2]}" in error
    assert f"cannot be read: web1/db@{IDS[1]}" in error
    document = json.loads(volback("--json", "verify", code=7)[0])
    assert document["error"]["kind"] == "integrity"


def test_what_a_failed_run_left_stays_and_the_run_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore("bucket")
    for key in KEYS[:2]:
        make_backup(store, key.id, data_bytes=10)
    store.delete(KEYS[1].manifest)
    library = open_from(Settings(str(tmp_path / "unused"), tmp_path / "state", engine="unix:///no", host="web1"))
    denied = library.on(FaultStore(store, [FailCall("open", DENIED, nth=None, key=KEYS[0].manifest)]))
    assert not discard(denied.repository, KEYS[1])
    assert WHY in caplog.text
    assert store.stat(KEYS[1].data).size_bytes == 10
    (error,) = repack(*denied, Packing()).errors
    assert (type(error), error.exit_code, error.hint) == (ManifestUnreadable, 1, HINT)
    assert not isinstance(error, IntegrityError)
