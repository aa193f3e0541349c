"""`config init`: a volback.toml for what runs, which is good as it is, and never in place of another one."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.support.repository import use_here
from volback.cli import config as command
from volback.cli.main import run
from volback.config.draft import DraftDatabase, DraftJob, draft, jobs_of
from volback.config.loading import load_config
from volback.config.model import Config
from volback.errors import ConflictError
from volback.policy.databases import POSTGRESQL, database_of
from volback.store.locate import keys_of

DB = DraftDatabase("shop-db-1", "postgres:15", POSTGRESQL)


def loaded(directory: Path, jobs: list[DraftJob], *, uncommented: bool = False) -> Config:
    """The draft as it is read; `uncommented`: with all that it offers in comments."""
    lines = list(draft(jobs, url=str(directory / "repository"), host="web1"))
    if uncommented:
        lines = [re.sub(r"^# (?=\w+ = |\[)", "", line) for line in lines]
    file = directory / "volback.toml"
    file.write_text("\n".join(lines))
    return load_config([file], {}, keys_of=keys_of)


def test_the_draft_is_good_and_says_when_databases_are_stopped(tmp_path: Path) -> None:
    jobs = jobs_of({"shop": ["shop_up", "shop_db"]}, ["wiki", "notes", "pg"], {"shop_db": [DB], "pg": [DB]})
    config = loaded(tmp_path, jobs)
    assert config.problems == ()
    assert [(job.name, job.sources.projects, job.sources.volumes, job.quiesce) for job in config.jobs.values()] == [
        ("shop", ("shop",), (), "stop"),
        ("pg", (), ("pg",), "stop"),
        ("volumes", (), ("wiki", "notes"), None),
    ]
    assert [job.schedule for job in config.jobs.values()] == ["30 2 * * *", "40 2 * * *", "50 2 * * *"]
    assert config.repositories["main"].default is True


def test_an_engine_without_volumes_gives_an_example(tmp_path: Path) -> None:
    assert (loaded(tmp_path, []).problems, loaded(tmp_path, []).jobs) == ((), {})
    assert loaded(tmp_path, [], uncommented=True).jobs.keys() == {"shop"}


@pytest.mark.parametrize("name", ["a b", "${HOME}", 'quo"te', "line\nbreak", "-", "ü", "a.b", "x" * 200])
def test_any_name_of_a_project_comes_back_as_it_is(tmp_path: Path, name: str) -> None:
    jobs = [DraftJob(name, (name,), name, (DB,)), DraftJob(name, ("other",))]
    config = loaded(tmp_path, jobs)
    assert config.problems == ()
    first, second = config.jobs.values()
    assert (first.sources.projects, second.sources.volumes) == ((name,), ("other",))


def test_what_it_offers_in_comments_is_good_too(tmp_path: Path) -> None:
    lines = list(draft([DraftJob("shop", ("db",), "shop", (DB,))], url="/srv", host="web1"))
    [hook] = [line.removeprefix("# ") for line in lines if line.startswith("# exec_pre")]
    read = tomllib.loads(hook)["exec_pre"][0]
    assert read == {"container": "shop-db-1", "command": POSTGRESQL.dump}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("postgres", "PostgreSQL"), ("postgres:15-alpine", "PostgreSQL"),
        ("docker.io/bitnami/postgresql:16", "PostgreSQL"),
        ("timescale/timescaledb:latest-pg16", "PostgreSQL"), ("localhost:5000/mysql", "MySQL"),
        ("mariadb@sha256:0", "MariaDB"),
        ("redis/redis-stack-server", "Redis"), ("valkey/valkey:8", "Redis"), ("mongo:7", "MongoDB"),
        ("clickhouse/clickhouse-server", "ClickHouse"), ("nginx", None), ("sha256:0123", None), ("", None),
        ("postgres-exporter", None),
    ],
)  # fmt: skip
def test_servers_are_known_by_their_images(image: str, name: str | None) -> None:
    found = database_of(image)
    assert (None if found is None else found.name) == name


def test_a_file_that_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_here(monkeypatch, tmp_path, "repository")
    (tmp_path / "volback.toml").write_text("mine")
    os.symlink("nowhere", tmp_path / "link.toml")
    for name in ("volback.toml", "link.toml"):
        assert run(["config", "init", name]) == 5, "before the engine is asked"
        assert "is there already, and stays as it is" in capsys.readouterr().err
    assert (tmp_path / "volback.toml").read_text() == "mine"
    new = tmp_path / "new/volback.toml"
    command._write_new(new, "text")
    assert (new.read_text(), new.stat().st_mode & 0o777) == ("text", 0o600)
    with pytest.raises(ConflictError):
        command._write_new(new, "other")
    assert run(["config", "init", "-"]) == 8
