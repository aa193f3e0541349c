"""`check`: what backups reference is there, at its size; what they do not need is said; no engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.counting import CountingStore
from tests.support.repository import IDS, make_backup, use_here
from volback.catalog.keys import REPOSITORY_KEY
from volback.cli.main import run
from volback.context import Context, open_engine
from volback.context.repository import Repository
from volback.operations.check import check
from volback.operations.repair import repair
from volback.settings import Settings
from volback.store.base import ObjectInfo
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit


class Place:
    """A repository of two full backups, an increment of the first, and one of another host."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = directory / "repository"
        store = LocalStore(self.root)
        self.first, self.second, self.third = (
            make_backup(store, id_, data_bytes=5000, depends_on=depends)
            for id_, depends in zip(IDS, ([], [], [IDS[0]]), strict=False)
        )
        self.elsewhere = make_backup(store, IDS[5], host="web2", volume="files", data_bytes=5000)
        self._capsys = capsys
        self.out = self.err = ""

    def path(self, key: str) -> Path:
        return self.root / key

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code, self._capsys.readouterr()
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def findings(self, *arguments: str, code: int = 7) -> list[tuple[str, str]]:
        """Kind and object of each finding."""
        document = json.loads(self("--json", "check", *arguments, code=code))
        return [(finding["kind"], finding["object"]) for finding in document["result"]["findings"]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    use_here(monkeypatch, tmp_path, "repository")
    return Place(tmp_path, capsys)


def test_a_repository_in_order_has_no_findings(place: Place) -> None:
    assert place("check") == "3 backups checked, which use 6 objects: none wrong\n"
    assert place("check", "--all-hosts") == "4 backups checked, which use 8 objects: none wrong\n"
    assert place("check", "web2/files") == "1 backup checked, which use 2 objects: none wrong\n"
    assert place("check", "web2/files", "web2/files") == "1 backup checked, which use 2 objects: none wrong\n"
    place("hold", f"db@{IDS[0]}")
    assert place.findings("--all-hosts", code=0) == []


def test_what_is_missing_is_named_once_with_the_backups_that_need_it(place: Place) -> None:
    place.path(place.first.data).unlink()
    out = place("check", code=7)
    users = ", ".join(f"web1/db@{id_}" for id_ in (IDS[0], IDS[2]))
    assert out.splitlines() == [
        f"wrong     {place.first.data} is missing; needed by {users}",
        "3 backups checked, which use 6 objects: 1 wrong",
    ]
    assert place.err == (
        "error: 1 object of the repository is not as needed\n"
        "hint: volback repair says what can be rebuilt, and which files are lost\n"
    )
    assert place.findings() == [("missing", place.first.data)]


def test_an_object_of_another_size_is_wrong(place: Place) -> None:
    path = place.path(place.second.index)
    path.write_bytes(path.read_bytes() + b"x")
    assert place.findings() == [("wrong_size", place.second.index)]


def test_what_no_backup_uses_is_said_and_endangers_nothing(place: Place) -> None:
    place.path(place.second.manifest).unlink()
    assert place.findings(code=0) == [("unreferenced", place.second.data), ("unreferenced", place.second.index)]
    assert place("check").splitlines()[0] == f"unused    {place.second.data} is used by no backup"
    assert place.out.splitlines()[-1] == "2 backups checked, which use 4 objects: none wrong; 9.8 KiB used by none"
    place.path(place.first.manifest).unlink()
    kinds = {key: kind for kind, key in place.findings(code=0)}
    assert place.first.data not in kinds, "an increment uses it"
    assert kinds[place.first.index] == "unreferenced"


def test_what_is_condemned_waits_or_stays_and_endangers_nothing(tmp_path: Path) -> None:
    store = MemoryStore("m", is_shared=True)
    first, second = (make_backup(store, id_, data_bytes=10) for id_ in IDS[:2])
    repository = Repository(store, lambda: "web1")
    repository.catalog.condemn([first.data, second.data, second.index], 60)
    store.delete(second.manifest)
    found = check(repository)
    assert [(finding.kind, finding.key, finding.backups) for finding in found.findings] == [
        ("condemned", first.data, (f"web1/db@{IDS[0]}",)),
        ("condemned", second.data, ()),
        ("condemned", second.index, ()),
    ]
    assert found.wrong == []
    assert found.unreferenced_bytes == 10 + store.stat(second.index).size_bytes
    assert "is condemned: a prune after 20" in found.findings[1].message
    context = Context(Settings("", tmp_path))
    for dry_run in (True, False):
        done = repair(context, open_engine(context), repository, dry_run=dry_run)
        assert (done.lifted, done.healed) == ([first.data], [])
    assert set(repository.catalog.condemned("web1", "db")) == {second.data, second.index}


def test_beside_a_manifest_that_cannot_be_read_nothing_is_called_unused(place: Place) -> None:
    place.path(place.first.manifest).write_bytes(b"garbage")
    assert place.findings() == [("unreadable", place.first.manifest)]


@pytest.mark.parametrize("name", ["notes", "repository"])
def test_other_documents_that_cannot_be_read_are_found(place: Place, name: str) -> None:
    key = {"notes": place.first.notes, "repository": REPOSITORY_KEY}[name]
    place.path(key).write_bytes(b"garbage")
    assert place.findings() == [("unreadable", key)]


def test_many_unused_objects_are_not_all_printed(place: Place) -> None:
    for number in range(60):
        place.path(place.first.prefix + f"left-{number}").write_bytes(b"x")
    assert place("check").splitlines()[-2] == "... and 10 more: --json lists all"


def test_a_volume_without_backups_is_an_error(place: Place) -> None:
    place("check", "other", code=4)
    place("check", f"db@{IDS[0]}", code=2)
    assert "hint: name a volume; for one backup: volback verify" in place.err


def test_no_data_and_no_object_is_asked_for() -> None:
    """Manifests are read, the rest is listed, however many backups there are."""
    store = _Asked(MemoryStore("m"))
    keys = [make_backup(store, id_, data_bytes=10) for id_ in IDS[:5]]
    repository = Repository(store, lambda: "web1")
    store.asked.clear()
    store.reads.clear()
    assert check(repository).findings == ()
    assert {read.key for read in store.reads} == {REPOSITORY_KEY, *(key.manifest for key in keys)}
    assert [what for what in store.asked if what.endswith(".zst")] == []


def test_what_others_remove_and_commit_meanwhile_is_not_wrong() -> None:
    """Manifests are read, and then the rest is listed: another machine removes a backup in between, and makes one."""
    memory = MemoryStore("m")
    first, _ = (make_backup(memory, id_, data_bytes=10) for id_ in IDS[:2])

    def meanwhile() -> None:
        for key in (first.manifest, first.data, first.index):
            memory.delete(key)
        make_backup(memory, IDS[2], data_bytes=10, depends_on=[IDS[1]])

    done = check(Repository(_Listed(memory, meanwhile), lambda: "web1"))
    assert done.findings == ()
    assert done.backups == 1


class _Listed(CountingStore):
    """Something happens before the second listing."""

    def __init__(self, inner: MemoryStore, before: Callable[[], None]) -> None:
        super().__init__(inner)
        self._before = [before]
        self._listings = 0

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._listings += 1
        if self._listings == 2:
            self._before.pop()()
        return super().list(prefix)


class _Asked(CountingStore):
    """Remembers the keys that were asked for one by one."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.asked: list[str] = []

    def stat(self, key: str) -> Any:
        self.asked.append(key)
        return super().stat(key)
