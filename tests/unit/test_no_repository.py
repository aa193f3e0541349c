"""What is not there is not empty: without a repository, or with another one than before, every command says so."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repository import make_backup, new_repository, use_here
from volback.catalog.repository import Catalog
from volback.cli.main import run
from volback.config.loading import load_config
from volback.config.model import Job, Sources
from volback.context import Access, Context, open_repository
from volback.errors import ConflictError, IntegrityError, NoRepository, UsageError
from volback.jobs.open_config import open_configured
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.init import init
from volback.operations.list import list_backups
from volback.operations.verify import verify
from volback.settings import Settings
from volback.state.journal import NewBackup
from volback.store.local import LocalStore
from volback.store.locate import address_of, keys_of

READING = [
    ["list"], ["show", "web1/db"], ["ls", "web1/db"], ["cat", "web1/db", "file"], ["verify"], ["verify", "web1/db"],
    ["prune", "--keep-last", "1"], ["remove", "web1/db@2026"], ["export", "web1/db", "out.tar"],
    ["copy", "web1/db", "--to", "other"],
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the repository should be, for commands that run here, on a host without an engine."""
    use_here(monkeypatch, tmp_path, "place")
    return tmp_path / "place"


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Settings(repository=str(tmp_path / "place"), state=tmp_path / "state", host="web1"))


def accepting(context: Context) -> Context:
    return Context(context.settings, accept_repository=True)


def id_at(place: Path) -> str:
    return Catalog(LocalStore(place)).info().id


Said = Callable[..., list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command, and returns the lines on standard error."""

    def say(*arguments: str, exit_code: int) -> list[str]:
        code = run(list(arguments))
        printed = capsys.readouterr()
        assert code == exit_code, printed
        return printed.err.splitlines()

    return say


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_command_without_a_repository_ends_with_9(
    place: Path, said: Said, command: list[str], *, is_there: bool
) -> None:
    if is_there:
        place.mkdir()
    error, hint = said(*command, exit_code=9)
    assert error == f"error: no repository in {place}: it is empty or does not exist"
    assert hint == f"hint: is the path right and mounted? to make one: volback init --repo {place}"
    assert place.exists() == is_there
    assert not is_there or list(place.iterdir()) == []


def test_a_directory_of_something_else_is_not_an_empty_repository(place: Path, said: Said) -> None:
    place.mkdir()
    (place / "photo.jpg").write_text("mine")
    error, hint = said("list", exit_code=9)
    assert error == f"error: no repository in {place}: it holds 'photo.jpg' and no volback.json"
    assert hint == "hint: is the path right and mounted? to make one: choose an empty place"


def test_a_program_gets_the_kind_of_the_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--json"]) == 9
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_code"]) == ("no_repository", 9)


def test_a_new_repository_is_empty(place: Path, said: Said) -> None:
    said("init", exit_code=0)
    assert said("list", exit_code=0) == []
    assert said("verify", exit_code=0) == []
    assert said("prune", "--keep-last", "1", exit_code=0) == []


def test_nothing_is_copied_to_where_nothing_is(place: Path, said: Said, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    error, _ = said("copy", "db", "--to", str(tmp_path / "usb"), exit_code=9)
    assert error == f"error: no repository in {tmp_path / 'usb'}: it is empty or does not exist"
    assert not (tmp_path / "usb").exists()
    said("init", "--repo", str(tmp_path / "usb"), exit_code=0)
    said("copy", "db", "--to", str(tmp_path / "usb"), exit_code=0)


def test_the_repository_of_the_configuration_is_named(
    place: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volback.toml").write_text(f'[repositories.main]\nurl = "{tmp_path / "main"}"\n')
    monkeypatch.delenv("VOLBACK_REPO")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for options in ([], ["--repo", "main"]):
        _, hint = said("--config", str(tmp_path / "volback.toml"), *options, "list", exit_code=9)
        assert hint.endswith("volback init --repo main")


def test_the_repository_of_before_is_expected(place: Path, said: Said) -> None:
    make_backup(LocalStore(place))
    said("list", exit_code=0)
    before = id_at(place)
    place.rename(place.with_name("unmounted"))
    place.mkdir()
    error, hint = said("list", exit_code=9)
    assert error == f"error: no repository in {place}: it is empty or does not exist; its id was {before}"
    assert hint.endswith(f"volback init --repo {place} --accept-repository")
    error, _ = said("init", exit_code=9)
    assert before in error
    assert list(place.iterdir()) == []
    assert said("list", "--accept-repository", exit_code=9)[0].startswith("error: no repository in")
    said("init", "--accept-repository", exit_code=0)
    assert id_at(place) != before


def test_another_repository_is_refused_until_it_is_accepted(place: Path, said: Said, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    said("list", exit_code=0)
    first = id_at(place)
    place.rename(tmp_path / "disk1")
    new_repository(place)
    second = id_at(place)
    for command in (["list"], ["prune", "--keep-last", "1"], ["init"]):
        error, hint = said(*command, exit_code=9)
        assert error == f"error: repository {place} is another one than before: its id is {second}, and was {first}"
        assert hint.endswith("repeat the command with --accept-repository")
    said("--accept-repository", "list", exit_code=0)
    said("list", exit_code=0)
    place.rename(tmp_path / "disk2")
    (tmp_path / "disk1").rename(place)
    said("list", exit_code=0)  # two disks that take turns: each was accepted once


def test_to_forget_the_state_does_no_harm(place: Path, said: Said, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    said("list", exit_code=0)
    shutil.rmtree(tmp_path / "state")
    shutil.rmtree(place)
    new_repository(place)
    said("list", exit_code=0)


def test_who_cannot_write_the_state_may_read(place: Path, said: Said, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    (tmp_path / "state").write_text("not a directory")
    said("list", exit_code=0)


def test_a_copied_disk_is_another_address_of_one_repository(place: Path, said: Said, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    shutil.copytree(place, tmp_path / "copy")
    for _ in range(2):
        said("list", exit_code=0)
        said("list", "--repo", str(tmp_path / "copy"), exit_code=0)


def test_one_place_has_one_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = [f"{tmp_path}/r", f"{tmp_path}/r/", f"{tmp_path}//x/../r", "r", "./r/", "~/r", f"file://{tmp_path}/r"]
    assert {address_of(way) for way in ways} == {f"{tmp_path}/r"}
    s3 = ["s3://bucket/p", "s3://bucket/p/", "s3://bucket//p", "s3://bucket/p?parallel=2"]
    assert len({address_of(way, {"VOLBACK_S3_ENDPOINT": "https://s3.example.org/"}) for way in s3}) == 1
    assert address_of(s3[0], {}) == address_of(s3[3], {})
    assert address_of(s3[0], {}) != address_of(s3[0], {"VOLBACK_S3_ENDPOINT": "https://s3.example.org"})


def test_repositories_of_two_endpoints_are_two(tmp_path: Path) -> None:
    """The same bucket's name and prefix, with the settings of two tables of volback.toml."""
    context = Context(Settings(repository="unused", state=tmp_path / "state", host="web1"))
    addresses = set()
    for endpoint in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        access = Access({"VOLBACK_S3_ENDPOINT": endpoint})
        opened = open_repository(context, url="s3://bucket/prefix", access=access)
        assert opened._memory is not None
        addresses.add(opened._memory.address)
    assert len(addresses) == 2


# jobs


def test_create_does_not_replace_what_was_there(context: Context, tmp_path: Path) -> None:
    """`create = true` on a disk that is not mounted: the first run made the repository, the next one misses it."""
    made = init(context, open_repository(context))
    shutil.rmtree(made.url)
    with pytest.raises(NoRepository, match=made.id):
        init(context, open_repository(context))
    assert not Path(made.url).exists()
    again = init(accepting(context), open_repository(accepting(context)))
    assert (again.made, again.id != made.id) == (True, True)


def test_a_job_creates_only_if_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "volback.toml"
    file.write_text(
        '[repositories.main]\nurl = "/srv"\n[jobs.a]\nrepository = "main"\nall = true\ncreate = true\n'
        '[jobs.b]\nrepository = "main"\nall = true\n'
    )
    jobs = load_config([file], {}, keys_of=keys_of).jobs
    assert (jobs["a"].create, jobs["b"].create) == (True, False)
    assert not Job("c", ("main",), Sources()).create


def test_the_hint_names_a_repository_as_the_configuration_does(context: Context, tmp_path: Path) -> None:
    file = tmp_path / "volback.toml"
    file.write_text(f'[repositories.main]\nurl = "{tmp_path / "main"}"\n')
    configured = load_config([file], {}, keys_of=keys_of).repositories["main"]
    with pytest.raises(NoRepository) as caught:
        _ = open_configured(context, configured).catalog
    assert str(caught.value.hint).endswith("volback init --repo main")


# a repository without its own document


def test_backups_without_a_document_can_be_read_and_get_a_new_one(
    context: Context, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = make_backup(LocalStore(place))
    (place / "volback.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert [row.key for row in list_backups(context, open_repository(context))] == [key]
    assert "has lost its volback.json" in caplog.text
    damaged = verify(context, open_repository(context), []).damaged
    assert [item.object for item in damaged] == ["volback.json"]
    with pytest.raises(NoRepository):
        _ = open_repository(context).info
    with pytest.raises(ConflictError, match=r"holds backups, but its volback\.json is lost"):
        init(context, open_repository(context))
    assert init(accepting(context), open_repository(accepting(context))).made
    assert verify(context, open_repository(context), []).damaged == []


def test_a_damaged_document_takes_no_copy(context: Context, place: Path, tmp_path: Path) -> None:
    make_backup(LocalStore(place))
    new_repository(tmp_path / "target")
    (tmp_path / "target/volback.json").write_text("{}")
    target = open_repository(context, url=str(tmp_path / "target"))
    with pytest.raises(IntegrityError):
        prepare_target(context, open_repository(context), target)


# by id, not by address


def test_a_repository_is_not_copied_into_itself_under_another_name(
    context: Context, place: Path, tmp_path: Path
) -> None:
    make_backup(LocalStore(place))
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(UsageError, match="the one to copy from"):
        prepare_target(context, open_repository(context), open_repository(context, url=str(tmp_path / "link")))
    assert [path.name for path in place.iterdir() if path.is_file()] == ["volback.json"]


def test_a_copied_disk_takes_copies_of_its_original(context: Context, place: Path, tmp_path: Path) -> None:
    new_repository(place)
    shutil.copytree(place, tmp_path / "usb")
    key = make_backup(LocalStore(place))
    source, usb = open_repository(context), open_repository(context, url=str(tmp_path / "usb"))
    prepare_target(context, source, usb)
    assert [copy_backup(context, source, usb, item).done for item in plan_copies(source, usb, ["db"])] == ["copied"]
    assert usb.catalog.backups() == [key]
    assert [found.key for found in usb.store.list() if "/" not in found.key] == ["volback.json"]


def test_an_entry_of_a_journal_is_of_the_repository_with_its_id(context: Context, place: Path, tmp_path: Path) -> None:
    new_repository(place)
    (tmp_path / "link").symlink_to(place)
    repository = open_repository(context)
    assert repository.has(NewBackup(repository=str(tmp_path / "link"), repository_id=repository.id, prefix="h/v/1/"))
    assert not repository.has(NewBackup(repository=str(place), repository_id="another", prefix="h/v/1/"))
    assert repository.has(NewBackup(repository=str(place), prefix="h/v/1/")), "a journal of an earlier version"
