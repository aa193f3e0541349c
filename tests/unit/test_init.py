"""`volback init`: a repository is made on purpose, once, and only where nothing else is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from volback.catalog.repository import Catalog
from volback.cli.main import run
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import ConflictError, FormatError
from volback.operations.init import InitResult, init
from volback.settings import Settings
from volback.store.base import Store
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state"))


def made_in(context: Context, store: Store) -> InitResult:
    return init(context, Repository(store, lambda: "web1"))


def test_a_repository_is_made_and_known_again(context: Context, tmp_path: Path) -> None:
    for store in (MemoryStore("test"), LocalStore(tmp_path / "deep/in/repository")):
        first = made_in(context, store)
        assert (first.url, first.format, first.made) == (store.url, 1, True)
        assert Catalog(store).info().id == first.id
        again = made_in(context, store)
        assert (again.id, again.made) == (first.id, False)


def test_a_new_disk_is_as_good_as_empty(context: Context, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert made_in(context, LocalStore(tmp_path)).made


@pytest.mark.parametrize("name", ["file.txt", "a name that is not a key", ".hidden"])
def test_a_directory_of_something_else_is_left_alone(context: Context, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConflictError, match="not a repository, and not empty") as caught:
        made_in(context, LocalStore(tmp_path))
    assert name in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_prefix_of_something_else_is_left_alone(context: Context) -> None:
    store = MemoryStore("test")
    store.put("photos/1", [b"mine"])
    with pytest.raises(ConflictError, match="it holds 'photos/1'"):
        made_in(context, store)


def test_a_damaged_document_is_not_replaced(context: Context, tmp_path: Path) -> None:
    (tmp_path / "volback.json").write_text("{}")
    with pytest.raises(FormatError):
        made_in(context, LocalStore(tmp_path))
    assert (tmp_path / "volback.json").read_text() == "{}"


def test_two_that_make_one_at_once_get_the_same(context: Context, tmp_path: Path) -> None:
    together = Barrier(4)

    def make(_: int) -> InitResult:
        together.wait()
        return made_in(context, LocalStore(tmp_path / "repository"))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(make, range(4)))
    assert len({result.id for result in results}) == 1
    assert [result.made for result in results].count(True) == 1


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "repository"
    assert run(["init", "--repo", str(where)]) == 0
    id_ = Catalog(LocalStore(where)).info().id
    assert capsys.readouterr().out == f"made repository {where}, id {id_}\n"
    assert run(["init", "--repo", str(where)]) == 0
    assert capsys.readouterr().out == f"{where} is a repository already, id {id_}\n"
    assert run(["init", "--repo", str(where), "--json"]) == 0
    result = {"url": str(where), "id": id_, "format": 1, "made": False, "recipient": None}
    assert json.loads(capsys.readouterr().out)["result"] == result


def test_the_command_refuses_a_directory_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    assert run(["init", "--repo", str(tmp_path)]) == 5
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: {tmp_path} is not a repository, and not empty: it holds 'photo.jpg'"
    assert said[1].startswith("hint: ")
