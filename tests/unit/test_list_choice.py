"""`list`: which backups it shows, and how they are named at a terminal of 80 columns; no engine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.repository import IDS, make_backup, use_here
from volback.catalog.model import SetOf
from volback.cli.main import run
from volback.policy.durations import read_since
from volback.policy.invalid import InvalidValue
from volback.policy.projects import PROJECT
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

ANONYMOUS = "3f9c1d2e4a5b" + "0" * 52
NOW = datetime.now(UTC)
NEW = f"{NOW - timedelta(hours=1):%Y%m%dT%H%M%SZ}-aaaa"
LONG = "shop_a-volume-with-a-name-that-is-long"


@pytest.fixture
def listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Lists a repository: returns the lines."""
    use_here(monkeypatch, tmp_path, "repository")
    store = LocalStore(tmp_path / "repository")
    made = SetOf(id=IDS[1], volumes=["db", LONG], project="shop")
    make_backup(store, IDS[0], data_bytes=100)
    make_backup(store, IDS[1], data_bytes=100, set=made)
    make_backup(store, IDS[1].replace("aaaa", "bbbb"), volume=LONG, data_bytes=100, set=made)
    make_backup(store, NEW, volume="web", labels={PROJECT: "site"}, data_bytes=100)
    make_backup(store, IDS[2], volume=ANONYMOUS, data_bytes=100)

    def lines(*arguments: str, code: int = 0) -> list[str]:
        assert run(["list", *arguments]) == code, capsys.readouterr()
        captured = capsys.readouterr()
        return (captured.out or captured.err).splitlines()

    return lines


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--latest"], [IDS[2], IDS[1], IDS[1].replace("aaaa", "bbbb"), NEW]),
        (["--last", "2", "db"], [IDS[0], IDS[1]]),
        (["--project", "shop"], [IDS[1], IDS[1].replace("aaaa", "bbbb")]),
        (["--project", "shop", "--project", "site", "db*", "web"], [IDS[1], NEW]),
        (["--since", "2h"], [NEW]),
        (["--since", "2026-11-02", "db"], [IDS[1]]),
    ],
)
def test_which_backups_are_listed(listed: Callable[..., list[str]], arguments: list[str], ids: list[str]) -> None:
    found = [line.split()[0].rpartition("@")[2] for line in listed(*arguments)[1:]]
    assert found == ids


def test_a_choice_that_leaves_none_says_so(listed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed("--project", "other") == ["none of the backups is one of these"]
    monkeypatch.setenv("VOLBACK_HOSTNAME", "web9")
    assert listed()[0].startswith("no backups of host web9 in ")
    assert listed("--latest", "--last", "2", code=2)[0] == "error: --latest is --last 1"
    assert listed("--since", "never", code=2)[0].startswith("error: --since 'never'")


def test_ids_and_sets_are_whole_at_80_columns(
    listed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = listed()
    assert any(line.startswith(f"{ANONYMOUS}@{IDS[2]}  ") for line in whole)
    monkeypatch.setattr("volback.cli.browse.terminal_width", lambda: 80)
    lines = listed()
    assert [line for line in lines if len(line) > 80] == []
    text = "\n".join(lines)
    for shown in (f"db@{IDS[0]}", f"{LONG}@{IDS[1].replace('aaaa', 'bbbb')}", f"3f9c1d2e4a5b@{IDS[2]}", NEW):
        assert shown in text
    assert text.count(f"set {IDS[1]}") == 2
    assert "anonymous: " in text
    assert ANONYMOUS not in text


@pytest.mark.parametrize("text", ["2026-02-30", "2026-11", "soon", "7"])
def test_a_time_that_is_not_valid(text: str) -> None:
    with pytest.raises(InvalidValue):
        read_since(text, NOW)


def test_since_when() -> None:
    today = NOW.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    assert read_since("today", NOW) == today
    assert read_since("yesterday", NOW).date() == today.date() - timedelta(days=1)
    assert read_since("36h", NOW) == NOW - timedelta(hours=36)


def test_prune_forgets_an_anonymous_volume_and_no_other(
    listed: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def ids() -> set[str]:
        return {line.split()[0].partition("@")[0] for line in listed()[1:]}

    rules = ["--keep-last", "1", "--anonymous-after"]
    assert run(["prune", *rules, "9999d"]) == 0
    capsys.readouterr()
    assert ids() == {"db", LONG, "web", ANONYMOUS}
    assert run(["prune", *rules, "1h", "--dry-run"]) == 0
    assert "anonymous, not backed up any more" in " ".join(capsys.readouterr().out.split())
    assert ids() == {"db", LONG, "web", ANONYMOUS}
    assert run(["prune", *rules, "1h"]) == 0
    capsys.readouterr()
    assert ids() == {"db", LONG, "web"}
