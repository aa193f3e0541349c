"""What people type for a backup: latest, a day, an id alone, a glob; no engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.repository import IDS, make_backup, use_here
from volback.cli.main import run
from volback.cli.restore import target_meant
from volback.context.naming import one_named, references_named
from volback.context.repository import Repository
from volback.errors import NotFoundError, UsageError
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ANONYMOUS = "3f9c1d2e4a5b" + "0" * 52
LATE = "20261125T233000Z-bbbb"
"""In Berlin, this is of the 26th."""
AT_NIGHT = "20261126T020000Z-cccc"


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture
def repository() -> Repository:
    """Three nights of `db`, the third one with two backups; and others."""
    store = MemoryStore("memory")
    for id_ in (IDS[22], IDS[24], LATE, AT_NIGHT):
        make_backup(store, id_, data_bytes=100)
    make_backup(store, IDS[24].replace("aaaa", "dddd"), volume="db-two", data_bytes=100)
    make_backup(store, IDS[20], volume=ANONYMOUS, data_bytes=100)
    make_backup(store, IDS[10], volume="db", host="web2", data_bytes=100)
    return Repository(store, lambda: "web1", lambda: NOW)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("db", "db"),
        ("db@latest", "db"),
        ("db@latest~0", f"web1/db@{AT_NIGHT}"),
        ("db@latest~1", f"web1/db@{LATE}"),
        ("db@latest~3", f"web1/db@{IDS[22]}"),
        ("web2/db@latest~0", f"web2/db@{IDS[10]}"),
        ("db@2026-11-23", f"web1/db@{IDS[22]}"),
        ("db@today", f"web1/db@{AT_NIGHT}"),
        ("db@20261123", "db@20261123"),
        (LATE, f"web1/db@{LATE}"),
        ("20261125T23", f"web1/db@{LATE}"),
        ("3f9c1d2e4a5b", f"web1/{ANONYMOUS}"),
        ("3f9c1d2e4a5b@2026", f"web1/{ANONYMOUS}@2026"),
        ("db-*", "db-two"),
        ("db-*@2026", "db-two@2026"),
        ("*-two@latest", "db-two"),
        ("web2/d*", "web2/db"),
        ("*2/db", "web2/db"),
        ("/srv/[a]*", "/srv/[a]*"),
    ],
)
def test_it_stands_for_one_backup(repository: Repository, typed: str, meant: str) -> None:
    assert str(one_named(repository, typed)) == meant


def test_a_day_is_of_this_machines_calendar(repository: Repository, in_berlin: None) -> None:
    assert [one.id_prefix for one in references_named(repository, "db@today")] == [LATE, AT_NIGHT]
    assert [one.id_prefix for one in references_named(repository, "db@yesterday")] == [IDS[24]]
    assert [one.id_prefix for one in references_named(repository, "db@2026-11-26")] == [LATE, AT_NIGHT]


@pytest.mark.parametrize(
    ("typed", "error", "said"),
    [
        ("db@yesterday", UsageError, f"stands for 2 backups: web1/db@{IDS[24]}, web1/db@{LATE}"),
        ("db*", UsageError, "stands for 2 volumes: db, db-two"),
        ("20261125T00", UsageError, "stands for 2 backups"),
        ("db@latest~4", NotFoundError, "no db@latest~4: 4 of its backups"),
        ("db@2026-11-22", NotFoundError, "no backup of db is of 2026-11-22"),
        ("db@2026-13-01", UsageError, "there is no day 2026-13-01"),
        ("no@yesterday", NotFoundError, "no backup of no on host web1"),
        ("no*", NotFoundError, "no volume that has backups matches 'no*'"),
        ("db@latst", UsageError, "'latst' is not the beginning of a backup id"),
        ("@latest", UsageError, "names no volume"),
    ],
)
def test_it_chooses_nothing_silently(repository: Repository, typed: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        one_named(repository, typed)
    assert said in str(caught.value)


def test_a_name_that_is_there_is_meant_before_a_pattern_or_digits(repository: Repository) -> None:
    for name in ("d[b]*", "3f9c1d2e4a5b", LATE):
        make_backup(repository.stored, IDS[3], volume=name, data_bytes=100)
        assert one_named(repository, name).volume == name


@pytest.fixture
def say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Runs a command in a repository of `db` and `db-two`; returns what it said."""
    use_here(monkeypatch, tmp_path, "repository")
    for volume, id_ in (("db", IDS[0]), ("db", IDS[1]), ("db-two", IDS[2])):
        make_backup(LocalStore(tmp_path / "repository"), id_, volume=volume, data_bytes=100)

    def run_it(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert run(list(arguments)) == code, capsys.readouterr()
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run_it


@pytest.mark.parametrize(
    "command",
    [
        "show {}", "verify {}", "du {}", "list {}", "hold {}", "note {} text", "tag add {} t", "find nothing {}",
    ],
)  # fmt: skip
def test_every_command_takes_it(say: Callable[..., tuple[str, str]], command: str) -> None:
    for typed in ("db@latest~1", "db@2026-11-01", IDS[0], "d?@20261101"):
        # The backups are made up: what reads their indexes finds damage, which names the backup that was meant.
        out, err = say(*command.format(typed).split(" "), code=7 if command.startswith("find") else 0)
        if not command.startswith("verify"):
            assert IDS[0] in out + err, typed
            assert IDS[1] not in out + err, typed


def test_a_glob_stands_for_all_that_match(say: Callable[..., tuple[str, str]]) -> None:
    listed = json.loads(say("list", "db*", "--json")[0])["result"]["backups"]
    assert [one["id"] for one in listed] == IDS[:3]
    assert say("verify", "db*")[0].startswith("2 backups checked")
    assert say("prune", "db-*", "--keep-last", "1")[0].startswith("web1/db-two: 1 of 1 backup kept")
    assert say("check", "db*")[0].startswith("3 backups checked")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("db@latest", f"name what is removed: web1/db@{IDS[1]}"),
        ("db@2026-11-01", f"name what is removed: web1/db@{IDS[0]}"),
        ("db*", "name one: db*@ID"),
        ("db-*@2026", "name one: db-*@ID"),
        ("db", "name one: db@ID"),
    ],
)
def test_what_is_removed_is_named_by_its_id(say: Callable[..., tuple[str, str]], typed: str, hint: str) -> None:
    assert hint in say("remove", typed, "--yes", code=2)[1]
    assert len(json.loads(say("list", "--json")[0])["result"]["backups"]) == 3


def test_an_id_alone_is_removed(say: Callable[..., tuple[str, str]]) -> None:
    assert say("remove", IDS[0], "--yes")[0].startswith(f"removed web1/db@{IDS[0]}")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("db:new", "volback restore db --as new"),
        ("db@latest:new", "volback restore db@latest --as new"),
        ("db:/srv/x", "volback restore db --to /srv/x"),
        ("db new", "volback restore db --as new"),
        ("db /srv/x", "volback restore db --to /srv/x"),
    ],
)
def test_a_target_that_is_typed_as_for_other_tools(typed: str, hint: str, say: Callable[..., tuple[str, str]]) -> None:
    assert hint in (target_meant(typed.split(), f"no backup of {typed.rsplit(maxsplit=1)[-1]} on host web1") or "")
    if "@" not in typed:
        assert hint in say("restore", *typed.split(), "--dry-run", code=2 if typed == "db:/srv/x" else 4)[1]
    assert target_meant(["db", "db-two"], "no backup of db on host web1") is None
