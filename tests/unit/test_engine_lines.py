"""Hosts and engines in one repository: which hosts there are is said, and engines of one name are kept apart."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.library import Library, open_from
from tests.support.repository import IDS, make_backup, new_repository
from volback.catalog.adoptions import line_of, read_adoptions, write_adoptions
from volback.catalog.keys import BackupKey
from volback.cli.main import run
from volback.errors import NotFoundError, UsageError
from volback.operations.adopt import adopt
from volback.operations.lines import Lines
from volback.operations.list import list_backups, shared_names
from volback.operations.prune import prune
from volback.operations.prune_result import PruneResult
from volback.operations.verify import verify
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.local import LocalStore

OLD, NEW, OTHER = "OLD-ENGINE-1", "NEW-ENGINE-2", "OTHER-ENGINE-3"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    settings = Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1")
    return open_from(settings, now=lambda: datetime(2026, 11, 28, 12, tzinfo=UTC))


def back_up(library: Library, made: dict[str, list[int]], volume: str = "db") -> dict[str, list[BackupKey]]:
    """Backups of some engines, each of the days that are given."""
    store = library.repository.store
    return {
        engine: [make_backup(store, IDS[day], volume=volume, data_bytes=10, engine_id=engine) for day in days]
        for engine, days in made.items()
    }


def kept(result: PruneResult) -> set[BackupKey]:
    assert result.errors == ()
    return {judged.key for judged in result.judged if judged.is_kept}


def test_the_rules_count_each_engines_backups_by_themselves(library: Library) -> None:
    made = back_up(library, {OLD: [0, 1, 2], NEW: [3, 4, 5]})
    result = prune(*library, KeepRules(last=2))
    assert kept(result) == {*made[OLD][1:], *made[NEW][1:]}
    (notice,) = result.notices
    assert notice.startswith(f"web1/db has backups of several engines of that name ({NEW[:12]}, {OLD[:12]})")
    assert notice.endswith("volback adopt web1")
    assert result.warnings == []


def test_a_job_removes_only_its_own_engines_backups(library: Library) -> None:
    made = back_up(library, {OLD: [0, 1, 2], NEW: [3, 4, 5]})
    result = prune(*library, KeepRules(last=1), engine_id=NEW)
    assert kept(result) == {*made[OLD], made[NEW][-1]}
    reasons = [judged.reasons for judged in result.judged if judged.key in made[OLD]]
    assert reasons == [["another engine's"]] * 3
    adopt(library.repository, "web1", NEW)
    assert kept(prune(*library, KeepRules(last=1), engine_id=NEW)) == {made[NEW][-1]}


def test_one_engine_alone_is_not_worth_a_word(library: Library) -> None:
    back_up(library, {NEW: [0, 1]})
    result = prune(*library, KeepRules(last=1))
    assert (len(kept(result)), result.notices) == (1, ())


def test_a_flood_of_another_engine_pushes_nothing_out(library: Library) -> None:
    made = back_up(library, {NEW: [1, 2], OTHER: list(range(3, 27))})
    assert set(made[NEW]) <= kept(prune(*library, KeepRules(last=2)))


def test_what_was_adopted_counts_with_the_new_engines(library: Library) -> None:
    made = back_up(library, {OLD: [0, 1, 2], NEW: [3]})
    before = {path: path.read_bytes() for path in Path(library.repository.store.url).rglob("manifest.json")}
    done = adopt(library.repository, "web1", NEW)
    assert (done.engine_id, done.engines) == (NEW, {OLD: 3})
    assert {path: path.read_bytes() for path in before} == before, "no manifest changes"
    result = prune(*library, KeepRules(last=2))
    assert (kept(result), result.notices) == ({made[OLD][2], made[NEW][0]}, ())
    assert adopt(library.repository, "web1", NEW).engines == {}
    assert verify(library.ctx, library.repository, []).damaged == []


def test_one_of_several_is_adopted(library: Library) -> None:
    back_up(library, {OLD: [0], OTHER: [1], NEW: [2]})
    assert adopt(library.repository, "web1", NEW, wanted=["OLD"]).engines == {OLD: 1}
    lines = Lines(library.repository)
    assert lines.of("web1", OLD) == lines.of("web1", NEW) != lines.of("web1", OTHER)


def test_a_second_reinstall_takes_over_both(library: Library) -> None:
    back_up(library, {OLD: [0], NEW: [1]})
    adopt(library.repository, "web1", NEW)
    back_up(library, {OTHER: [2]})
    assert set(adopt(library.repository, "web1", OTHER).engines) == {OLD, NEW}
    assert {Lines(library.repository).of("web1", id_) for id_ in (OLD, NEW, OTHER)} == {OTHER}


def test_an_engine_that_came_back_adopts_its_heir(library: Library) -> None:
    back_up(library, {OLD: [0], NEW: [1]})
    adopt(library.repository, "web1", NEW)
    write_adoptions(library.repository.store, "web1", {OLD: NEW, NEW: OLD})  # as two machines may have left it
    adoptions = read_adoptions(library.repository.store, "web1")
    assert line_of(OLD, adoptions) == line_of(NEW, adoptions)


def test_adoptions_that_cannot_be_read_join_nothing(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    made = back_up(library, {OLD: [0, 1], NEW: [2]})
    adopt(library.repository, "web1", NEW)
    (document,) = Path(library.repository.store.url).glob("web1/%adoptions.json")
    document.write_bytes(document.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert kept(prune(*library, KeepRules(last=1))) == {made[OLD][1], made[NEW][0]}
    assert "counted by themselves" in caplog.text


def test_another_hosts_backups_are_not_adopted(library: Library) -> None:
    back_up(library, {OLD: [0]})
    with pytest.raises(UsageError, match="filed under web1, not web2") as caught:
        adopt(library.repository, "web2", NEW)
    assert "VOLBACK_HOSTNAME=web2" in str(caught.value.hint)
    with pytest.raises(NotFoundError, match="of an engine 'x'"):
        adopt(library.repository, "web1", NEW, wanted=["x"])


def test_a_restore_finds_the_latest_whoever_made_it(library: Library) -> None:
    made = back_up(library, {NEW: [0], OLD: [1]})
    assert library.repository.find("db").key == made[OLD][0]


def test_the_latest_of_one_engine_is_found_for_comparisons(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    made = back_up(library, {OLD: [0], NEW: [1, 2], OTHER: [3, 4]})
    keys = sorted(key for keys in made.values() for key in keys)
    catalog, now = library.repository.catalog, library.ctx.now()
    with caplog.at_level(logging.WARNING):
        assert catalog.newest(keys, now=now, counts=Lines(library.repository).counts(NEW)) == made[NEW][1]
    assert caplog.text.count("volback adopt web1") == 1
    assert catalog.newest(keys, now=now, counts=Lines(library.repository).counts("none")) is None
    adopt(library.repository, "web1", NEW)
    assert catalog.newest(keys, now=now, counts=Lines(library.repository).counts(NEW)) == made[OTHER][1]


def test_list_says_which_engines_share_a_name(library: Library) -> None:
    back_up(library, {OLD: [0], NEW: [1]})
    back_up(library, {NEW: [0]}, volume="alone")
    (notice,) = shared_names(library.repository, list_backups(library.ctx, library.repository))
    assert notice.startswith("web1/db has backups of several engines")


# other hosts


@pytest.fixture
def new_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository of a host that has no backup yet."""
    for name, value in {
        "VOLBACK_REPO": str(tmp_path / "repository"), "VOLBACK_STATE_DIR": str(tmp_path / "state"),
        "VOLBACK_HOSTNAME": "web2", "VOLBACK_CONFIG": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    new_repository(tmp_path / "repository")
    return tmp_path / "repository"


def test_list_on_a_new_host_names_the_others(new_host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    assert capsys.readouterr().out == f"no backups in {new_host}\n"
    for host, id_ in (("web1", IDS[0]), ("web1", IDS[1]), ("db1", IDS[2])):
        make_backup(LocalStore(new_host), id_, host=host, data_bytes=10)
    assert run(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"no backups of host web2 in {new_host}",
        "there are 1 of db1, 2 of web1: volback list --all-hosts shows them",
    ]
    assert run(["list", "db"]) == 4
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: no backup of db in {new_host}"
    assert hint == "hint: there are some of db1, web1: volback list db1/db or volback list web1/db"
