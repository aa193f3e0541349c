"""`status`: what is late or wrong comes first, and nothing that does not answer ends it. Without an engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.library import Library, open_from
from tests.support.repository import IDS, make_backup, new_repository, use_here
from volback.catalog.keys import BackupKey
from volback.catalog.notes import NoteFields, Notes
from volback.catalog.repository import Catalog
from volback.cli.main import run
from volback.config.loading import load_config
from volback.config.model import Config
from volback.jobs import status as operation
from volback.jobs.status import Status
from volback.operations.standing import standing
from volback.settings import Settings
from volback.state.history import JobRun, note_run
from volback.state.journal import HeldContainer
from volback.state.runs import Run
from volback.store.local import LocalStore
from volback.store.locate import keys_of

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
NIGHTLY = '[jobs.nightly]\nvolumes = ["db", "wiki"]\nrepository = "main"\nschedule = "0 0 * * *"\ntimezone = "UTC"\n'


class Place:
    """A repository, a configuration and a state directory, at a fixed time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        settings = Settings(
            str(directory / "repository"), directory / "state", engine=f"unix://{directory}/no.sock", host="web1"
        )
        self.library: Library = open_from(settings, now=lambda: NOW)
        self.store = LocalStore(directory / "repository")

    def config(self, text: str) -> Config:
        file = self.directory / "volback.toml"
        file.write_text(f'[repositories.main]\nurl = "{self.directory}/repository"\n{text}')
        return load_config([file], {}, keys_of=keys_of)

    def status(self, text: str = NIGHTLY, *, max_age_s: float | None = None) -> Status:
        ctx, engine, repository = self.library
        run_by = {"nightly": "cron"}
        return operation.status(
            ctx, engine, self.config(text), {"main": repository}, run_by=run_by, max_age_s=max_age_s
        )

    def said(self, *kinds: str, **options: Any) -> list[str]:
        """The problems, without the engine, which is never there."""
        found = self.status(**options)
        return [one.message for one in found.problems if one.kind != "engine" and (not kinds or one.kind in kinds)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_volume_is_late_if_it_was_due_since_its_last_good_backup(place: Place) -> None:
    make_backup(place.store, "20261128T000001Z-aaaa", volume="db", data_bytes=10)
    make_backup(place.store, "20261127T000001Z-aaaa", volume="wiki", data_bytes=10)
    found = place.status()
    assert [(one.volume, one.is_late, one.missed) for one in found.volumes] == [("wiki", True, 1), ("db", False, 0)]
    assert [one.kind for one in found.problems] == ["volume", "engine"], "what matters most comes first"
    assert found.problems[0].message == "volume wiki is late: its last good backup is 35 h 59 min old"
    assert found.problems[0].hint == "volback run nightly"


def test_one_that_was_never_backed_up_is_late_and_one_without_a_schedule_only_by_its_age(place: Place) -> None:
    assert place.said("volume") == ["volume db has no good backup", "volume wiki has no good backup"]
    unscheduled = '[jobs.by-hand]\nvolumes = ["db"]\nrepository = "main"\n'
    assert place.said("volume", text=unscheduled) == []
    make_backup(place.store, IDS[0], volume="db", data_bytes=10)
    assert place.said("volume", text=unscheduled) == []
    assert place.said("volume", text="", max_age_s=86_400.0) == [
        "volume db is late: its last good backup is 27 d 12 h old"
    ]


def test_a_job_that_is_at_work_makes_nothing_late(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volback.jobs.list.note_dead_runs", lambda *_: [])
    note_run(place.library.ctx.settings.state, "nightly", JobRun(id="1", started_at="2026-11-28T00:00:00+00:00"))
    assert place.said("volume") == []


def test_a_damaged_backup_is_not_the_last_good_one(place: Place) -> None:
    make_backup(place.store, IDS[20], volume="db", data_bytes=10)
    damaged = make_backup(place.store, IDS[21], volume="db", data_bytes=10)
    [data] = (place.directory / "repository" / damaged.prefix).glob("data*")
    data.write_bytes(b"")
    unreadable = make_backup(place.store, IDS[22], volume="db", data_bytes=10)
    (place.directory / "repository" / unreadable.prefix / "manifest.json").write_text("{}")
    make_backup(place.store, "20270101T000000Z-aaaa", volume="db", data_bytes=10)
    [db] = [one for one in place.status().volumes if one.volume == "db"]
    assert db.last == BackupKey("web1", "db", IDS[20])
    said = place.said("backup")
    assert [IDS[21] in said[2], IDS[22] in said[1], "from the future" in said[0]] == [True] * 3


def test_what_jobs_have_come_to_is_said(place: Place) -> None:
    failed = JobRun(
        id="1",
        started_at="2026-11-26T00:00:00+00:00",
        ended_at="2026-11-26T00:00:01+00:00",
        status="failure",
        error="no",
    )
    note_run(place.library.ctx.settings.state, "nightly", failed)
    broken = "[jobs.broken]\nlevel = 99\n"
    said = place.said("job", "config", text=NIGHTLY + broken + "[metric]\n")
    assert said[:2] == ["job nightly missed 2 runs", "job nightly failed: no"]
    assert any(one.startswith("job broken cannot run: ") for one in said)
    assert any("metric: is unknown" in one for one in said)
    ctx, engine, repository = place.library
    found = operation.status(ctx, engine, place.config(NIGHTLY), {"main": repository}, run_by={})
    assert "job nightly has a schedule, and nothing runs it" in [one.message for one in found.problems]


def test_containers_that_a_dead_run_left_stopped_come_first(place: Place) -> None:
    state = place.library.ctx.settings.state
    entry = HeldContainer(engine="E", id="1", name="shop-db", how="stop", phase="held")
    with Run(state, "quiesce") as alive:
        alive.note(entry)
        [held] = place.status().held
        assert (held.name, held.is_left) == ("shop-db", False)
        assert place.said("held") == []
    [held] = place.status().held
    assert (held.name, held.is_left) == ("shop-db", True)
    found = place.status()
    assert (found.problems[0].kind, found.problems[0].hint) == ("held", "volback recover")
    assert found.problems[0].message == "stopped container 'shop-db' was left so by a backup that died"


def test_a_repository_that_is_not_there_or_does_not_answer_is_a_problem_beside_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_backup(place.store, IDS[27], volume="db", data_bytes=10)
    ctx, engine, repository = place.library
    never = threading.Event()
    real = standing

    def slow(asked: Any, **options: Any) -> Any:
        if options["name"] == "slow":
            never.wait()
        return real(asked, **options)

    monkeypatch.setattr(operation, "standing", slow)
    monkeypatch.setattr(operation, "ANSWER_S", 0.5)
    found = operation.status(
        ctx, engine, place.config(NIGHTLY), {"main": repository, "slow": repository}, run_by={"nightly": "cron"}
    )
    never.set()
    [silent] = [one for one in found.problems if one.kind == "repository"]
    assert silent.message == f"repository {repository.store.url} gave no answer in 0.5 s"
    assert [(one.name, one.backups) for one in found.repositories] == [("main", 1), ("slow", 0)]


def test_it_reads_one_manifest_for_each_volume_and_says_when_one_was_verified(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id_ in IDS[:27]:
        make_backup(place.store, id_, volume="db", data_bytes=10)
    key = BackupKey("web1", "db", IDS[3])
    notes = Catalog(place.store).notes
    fields = NoteFields(format=1, verified_at="2026-11-20T00:00:00Z", proven_at="2026-11-21T00:00:00Z")
    notes.replace(key, Notes(fields))
    opened: list[str] = []
    real = LocalStore.open

    def watched(self: LocalStore, name: str, **how: Any) -> Any:
        opened.append(name)
        return real(self, name, **how)

    monkeypatch.setattr(LocalStore, "open", watched)
    [db] = [one for one in place.status().volumes if one.volume == "db"]
    assert [name.rpartition("/")[2] for name in opened if name.startswith("web1/db/")] == [
        "manifest.json",
        "notes.json",
    ]
    assert (db.verified_at, db.proven_at) == ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z")


# the command


Say = Callable[..., list[str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    use_here(monkeypatch, tmp_path, "repository")
    monkeypatch.delenv("VOLBACK_REPO")
    file = tmp_path / "volback.toml"
    file.write_text(f'[repositories.main]\nurl = "{tmp_path}/repository"\n{NIGHTLY}')
    monkeypatch.setenv("VOLBACK_CONFIG", str(file))

    def call(*options: str, code: int = 3) -> list[str]:
        assert run(["status", *options]) == code
        return capsys.readouterr().out.splitlines()

    return call


def test_the_screen_has_problems_first_and_fits_80_columns(say: Say, tmp_path: Path) -> None:
    made = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ-aaaa")
    make_backup(LocalStore(tmp_path / "repository"), made, volume="db", data_bytes=3000)
    lines = say()
    assert lines[0] == "PROBLEM  volume wiki has no good backup"
    assert lines[1] == "         hint: volback run nightly"
    blank = [at for at, line in enumerate(lines) if not line]
    headings = [lines[at + 1].split("  ")[0] for at in blank]
    assert headings == ["VOLUME", "JOB", "REPOSITORY"]
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    assert say("--quiet") == []


def test_many_late_volumes_of_a_job_are_one_line(say: Say, tmp_path: Path) -> None:
    new_repository(tmp_path / "repository")
    file = tmp_path / "volback.toml"
    file.write_text(file.read_text().replace('["db", "wiki"]', '["a", "b", "c", "d", "e", "f"]'))
    lines = say()
    assert lines[0] == "PROBLEM  6 volumes are late, or have no good backup: a, b, c, d, e, ..."
    assert lines[1] == "         hint: volback run nightly"
    [line] = say("--json")
    assert sum(one["kind"] == "volume" for one in json.loads(line)["result"]["problems"]) == 6


def test_the_document(say: Say, tmp_path: Path) -> None:
    new_repository(tmp_path / "repository")
    [line] = say("--json")
    document = json.loads(line)
    assert document["ok"] is True
    result = document["result"]
    assert list(result) == ["problems", "jobs", "volumes", "repositories", "held", "unprotected"]
    assert {one["kind"] for one in result["problems"]} == {"volume", "engine", "job"}
    assert result["repositories"][0]["backups"] == 0
    assert [one["late"] for one in result["volumes"]] == [True, True]
