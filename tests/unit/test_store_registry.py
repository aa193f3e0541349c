"""A store that volback does not know: one file (here, this one) and one registration bring it in, by its URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.repository import make_backup
from volback.config.loading import load_config
from volback.config.model import Config
from volback.context import Access, Context, open_repository
from volback.context.repository import Repository
from volback.errors import StoreDenied, UsageError
from volback.jobs.open_config import access_of, check_config, open_configured
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.init import init
from volback.operations.list import list_backups
from volback.settings import Settings
from volback.store import registry
from volback.store.base import Store
from volback.store.limit import LimitStore
from volback.store.locate import check_address, keys_of, open_store
from volback.store.memory import MemoryStore
from volback.store.registry import StoreKeys, register

# The store's one file.

SHELVES: dict[str, MemoryStore] = {}


@dataclass(frozen=True, slots=True)
class ShelfSettings:
    name: str
    floor: int


def read_shelf_url(url: str, environment: Mapping[str, str]) -> ShelfSettings:
    floor = environment.get("VOLBACK_SHELF_FLOOR", "0")
    if not floor.isdecimal():
        raise UsageError(f"VOLBACK_SHELF_FLOOR={floor} is not a number", "give a number from 0")
    return ShelfSettings(url.removeprefix("shelf://"), int(floor))


def open_shelf(settings: ShelfSettings, credentials: Mapping[str, str]) -> Store:
    if credentials.get("badge") != "open sesame":
        raise StoreDenied(f"shelf {settings.name}: the badge is not valid")
    return SHELVES.setdefault(f"{settings.name}/{settings.floor}", MemoryStore(settings.name))


SHELF_KEYS = StoreKeys(
    credentials=("badge",),
    variables=("VOLBACK_SHELF_FLOOR",),
    check=lambda given: None if "badge" in given else "has no badge",
)

# Its registration.


@pytest.fixture(autouse=True)
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register("shelf", form="shelf://NAME", read_settings=read_shelf_url, open=open_shelf, address=str, keys=SHELF_KEYS)
    yield
    SHELVES.clear()


BADGE = {"badge": "open sesame"}
TOML = """\
[repositories.shelf]
url = "shelf://left"
badge = "open sesame"
environment = { VOLBACK_SHELF_FLOOR = "2" }
"""


def context_in(directory: Path) -> Context:
    return Context(Settings(repository="unused", state=directory / "state", host="web1"))


def repository_at(url: str, directory: Path, credentials: Mapping[str, str] | None = None) -> Repository:
    return open_repository(context_in(directory), url=url, access=Access(credentials=credentials or {}))


def loaded(directory: Path, text: str) -> Config:
    file = directory / "volback.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_config([file], {}, keys_of=keys_of)


def test_operations_use_it_by_its_url(tmp_path: Path) -> None:
    ctx = context_in(tmp_path)
    source = repository_at(str(tmp_path / "repository"), tmp_path)
    target = repository_at("shelf://right", tmp_path, BADGE)
    key = make_backup(source.store)
    assert init(ctx, target).made
    prepare_target(ctx, source, target)
    assert [copy_backup(ctx, source, target, item).done for item in plan_copies(source, target, ["db"])] == ["copied"]
    assert [row.name for row in list_backups(ctx, target)] == [f"web1/db@{key.id}"]
    assert list(SHELVES) == ["right/0"]


def test_volback_toml_has_its_keys(tmp_path: Path) -> None:
    config = loaded(tmp_path, TOML)
    assert check_config(config) == []
    make_backup(open_configured(context_in(tmp_path), config.repositories["shelf"]).store)
    assert list(SHELVES) == ["left/2"]
    assert "sesame" not in f"{config} {access_of(config.repositories['shelf'])} {config.shown}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TOML.replace('badge = "open sesame"', ""), "1: repositories.shelf: has no badge"),
        (TOML.replace("badge", "bagde"), "3: repositories.shelf.bagde: is unknown; did you mean badge?"),
        (TOML + 'access_key_id = "x"\n',
         "5: repositories.shelf.access_key_id: is unknown; there are badge, default, environment, identity_command, "
         "identity_file, passphrase_command, passphrase_file, recipient, url"),
        (TOML.replace('"2"', '"two"'),
         "2: repositories.shelf.url: VOLBACK_SHELF_FLOOR=two is not a number (give a number from 0)"),
        (TOML.replace("SHELF_FLOOR", "SHELF_FLOR"),
         "4: repositories.shelf.environment.VOLBACK_SHELF_FLOR: is unknown; did you mean VOLBACK_SHELF_FLOOR?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_its_keys_is_named_with_file_and_line(tmp_path: Path, text: str, problem: str) -> None:
    assert f"{tmp_path}/volback.toml:{problem}" in [str(found) for found in check_config(loaded(tmp_path, text))]


@pytest.mark.parametrize("url", ["sftp:nas:/srv", "s3:https://nas/bucket", "nas:/srv", "//nas/share"])
def test_volback_toml_must_not_hold_an_address_of_another_program(tmp_path: Path, url: str) -> None:
    [problem] = check_config(loaded(tmp_path, f'[repositories.nas]\nurl = "{url}"\nbadge = "x"\n'))
    assert "volback.toml:2: repositories.nas.url: " in str(problem)
    assert "another program's address" in str(problem)


def test_volback_toml_says_who_may_read_a_directory(tmp_path: Path) -> None:
    text = (
        f'[repositories.here]\nurl = "{tmp_path}/r"\nbadge = "x"\nenvironment = {{ VOLBACK_REPO_ACCESS = "group" }}\n'
    )
    config = loaded(tmp_path, text)
    assert check_config(config) == []
    make_backup(open_configured(context_in(tmp_path), config.repositories["here"]).store)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "r").rglob("*")} == {0o640, 0o750}
    [problem] = check_config(loaded(tmp_path, text.replace("group", "all")))
    assert "VOLBACK_REPO_ACCESS: 'all' is not valid (give private or group)" in str(problem)


def test_an_address_is_checked_without_opening_the_store() -> None:
    check_address("shelf://left", {})
    with pytest.raises(UsageError, match="VOLBACK_SHELF_FLOOR=x"):
        check_address("shelf://left", {"VOLBACK_SHELF_FLOOR": "x"})
    assert SHELVES == {}


def test_a_bandwidth_limits_it_as_any_other() -> None:
    assert type(open_store("shelf://left", {}, credentials=BADGE, bandwidth_bytes_s=1e6)) is LimitStore


def test_a_directory_takes_the_keys_of_every_store(tmp_path: Path) -> None:
    text = '[repositories.here]\nurl = "/srv"\nbadge = "x"\nsession_token = "y"\n'
    assert check_config(loaded(tmp_path, text)) == []


def test_who_mistypes_a_scheme_is_shown_its_form_too() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("shelv://left")
    assert caught.value.hint == "give a directory (/path, ~/path or file:///path), s3://BUCKET/PREFIX or shelf://NAME"


def test_a_scheme_is_registered_once() -> None:
    with pytest.raises(ValueError, match="shelf:// is registered already"):
        register("shelf", form="shelf://", read_settings=read_shelf_url, open=open_shelf, address=str)
