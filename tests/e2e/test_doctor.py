"""Doctor: every check by itself, on a good day and on each bad one, and what --fix removes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.library import open_from, open_library
from tests.support.remote import wait_for
from volback.catalog.repository import Catalog
from volback.engine.helper import CLIENT_LABEL, MADE_LABEL
from volback.errors import StoreError
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.doctor import Check, DoctorReport, doctor
from volback.operations.sources import volume_source
from volback.policy.inherited import RESTORE_LABEL
from volback.settings import Settings
from volback.state.client import client_id
from volback.state.journal import NewBackup, Replacing
from volback.state.runs import Run
from volback.store.faults import FailPut, FaultStore
from volback.store.local import LocalStore

NAMES = [
    "state", "engine", "image", "transport", "repository", "repository write", "space", "unfinished",
    "leftovers", "replaced volumes", "elsewhere", "empty volumes",
]  # fmt: skip


def _by_name(report: DoctorReport) -> dict[str, Check]:
    assert [check.name for check in report.checks] == NAMES
    return {check.name: check for check in report.checks}


def _statuses(report: DoctorReport, status: str) -> set[str]:
    return {check.name for check in report.checks if check.status == status}


def _everything(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.name != "client-id"}


def test_all_is_well(engine: EngineSession, tmp_path: Path) -> None:
    library = open_library(engine, tmp_path)
    report = doctor(*library, fix=False)
    checks = _by_name(report)
    assert _statuses(report, "ok") == set(NAMES)
    assert report.exit_code == 0
    assert checks["engine"].facts["host"] == library.engine.info.name
    assert checks["transport"].facts["transport"] == "pipe"
    assert int(checks["transport"].facts["bytes_per_s"]) > 0
    assert library.engine.leftover_helpers() == []
    repository, state = tmp_path / "repository", tmp_path / "state"
    remembered = (state / "repositories", state / "recipients", state / "documents")
    remembered_files = {*remembered, *(path for directory in remembered for path in directory.rglob("*"))}
    assert Catalog(LocalStore(repository)).info().id in {path.name for path in remembered_files}
    assert _everything(tmp_path) == {
        repository, repository / "volback.json", state, state / "runs", *remembered_files
    }  # fmt: skip


def test_a_forced_transport_is_measured(engine: EngineSession, tmp_path: Path) -> None:
    settings = Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", transport="attach")
    engine.client_ids.add(client_id(settings.state))
    assert _by_name(doctor(*open_from(settings), fix=False))["transport"].facts["transport"] == "attach"


def test_without_an_engine_the_repository_is_checked(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path / "repository"), tmp_path / "state", engine=f"unix://{tmp_path}/none.sock")
    report = doctor(*open_from(settings), fix=False)
    assert _statuses(report, "failed") == {"engine"}
    assert _statuses(report, "ok") == {"state", "repository", "repository write", "space", "unfinished"}
    assert report.exit_code == 8


def test_a_state_directory_that_cannot_be_used_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    report = doctor(*open_from(Settings(str(tmp_path / "repository"), tmp_path / "state")), fix=False)
    assert "state" in _statuses(report, "failed")
    assert {"repository", "repository write", "space"} <= _statuses(report, "ok")
    assert report.exit_code == 1


def test_a_repository_that_cannot_be_written_is_a_failure(engine: EngineSession, tmp_path: Path) -> None:
    library = open_library(engine, tmp_path)
    full = FaultStore(library.repository.store, [FailPut(1, StoreError("it is full"))])
    report = doctor(*library.on(full), fix=False)
    assert "repository write" in _statuses(report, "failed")
    assert {"engine", "transport", "repository", "leftovers"} <= _statuses(report, "ok")
    assert report.exit_code == 1


def test_a_repository_that_is_not_there_is_a_failure_and_is_not_made(engine: EngineSession, tmp_path: Path) -> None:
    library = open_library(engine, tmp_path)
    shutil.rmtree(tmp_path / "repository")
    report = doctor(*library, fix=True)
    assert _statuses(report, "failed") == {"repository"}
    assert _statuses(report, "warning") == {"repository write", "space", "unfinished"}
    assert report.exit_code == 9
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(("document", "exit_code"), [(b'{"format":99,"id":"x"}', 7), (b"\0garbage", 7)])
def test_a_repository_of_another_format_is_a_failure(
    engine: EngineSession, tmp_path: Path, document: bytes, exit_code: int
) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "volback.json").write_bytes(document)
    report = doctor(*open_library(engine, tmp_path), fix=False)
    assert _statuses(report, "failed") == {"repository"}
    assert report.exit_code == exit_code


def test_a_killed_run_is_found_and_only_fix_removes_what_it_left(
    run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str]
) -> None:
    def fill(path: Path) -> None:
        with (path / "endless").open("wb") as file:
            file.truncate(1 << 40)
        (path / "endless").chmod(0o600)
        for number in range(200):
            (path / f"{number}").write_bytes(bytes(1 << 20))

    process = run_volback.start("backup", volume_factory(fill=fill))
    wait_for(lambda: bool(_helpers(engine, run_volback)), "the helper")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = _json_checks(run_volback)["leftovers"]
    assert found["status"] == "warning"
    assert "1 helper container" in found["text"]
    assert "doctor --fix" in found["hint"]
    assert _helpers(engine, run_volback)
    assert "removed 1 helper container" in _json_checks(run_volback, "--fix")["leftovers"]["text"]
    assert _helpers(engine, run_volback) == []
    assert _json_checks(run_volback)["leftovers"]["text"] == "crashed runs left nothing"


def test_a_volume_whose_replacement_was_cut_off_is_named_with_the_way_back(
    engine: EngineSession, tmp_path: Path
) -> None:
    library = open_library(engine, tmp_path)
    with Run(library.ctx.settings.state, "restore") as run:
        safety = "host/db@20261123T160254Z-3f9c"
        run.note(Replacing(engine=library.engine.info.id, volume="db", safety_backup=safety))
    for fix in (False, True, False):
        check = _by_name(doctor(*library, fix=fix))["replaced volumes"]
        assert check.status == "warning"
        assert "'db'" in check.text
        assert "volback restore host/db@20261123T160254Z-3f9c --as db --replace" in (check.hint or "")


def test_a_backup_of_a_volume_whose_replacement_was_cut_off_warns(
    engine: EngineSession, tmp_path: Path, volume_factory: Callable[..., str]
) -> None:
    library = open_library(engine, tmp_path)
    broken, good = volume_factory("broken"), volume_factory("good")
    with Run(library.ctx.settings.state, "restore") as run:
        run.note(Replacing(engine=library.engine.info.id, volume=broken))
    sources = [volume_source(library.engine, name) for name in (broken, good)]
    made = backup_set(*library, sources, SetOptions())
    assert len(made.backups) == 2
    assert [warning for warning in made.warnings if "a run died while it replaced its content" in warning] == [
        f"volume {broken!r} may be incomplete: a run died while it replaced its content; see `volback doctor`"
    ]


def test_a_run_that_is_kept_for_another_repository_is_not_litter_of_this_one(
    engine: EngineSession, tmp_path: Path
) -> None:
    library = open_library(engine, tmp_path)
    with Run(library.ctx.settings.state, "backup") as run:
        run.note(NewBackup(repository=str(tmp_path / "elsewhere"), prefix="host/db/20261123T160254Z-3f9c/"))
    for fix in (False, True, True):
        checks = _by_name(doctor(*library, fix=fix))
        assert checks["leftovers"].text == "crashed runs left nothing"
        assert f"half-made backup host/db/20261123T160254Z-3f9c in {tmp_path}/elsewhere" in checks["elsewhere"].text
    assert run.directory.is_dir(), "a run that uses that repository will need it"


def _die(state: Path, journal: bytes) -> str:
    """A run that died with that journal; returns its id."""
    with Run(state, "restore") as run:
        run.note(NewBackup(repository="/", prefix="kept"))
    (run.directory / "journal.json").write_bytes(journal)
    return run.id


def test_a_journal_of_an_earlier_version_is_carried_out_where_its_volume_is(
    engine: EngineSession, volume_name: Callable[..., str], tmp_path: Path
) -> None:
    """It does not name its engine: the volume's label does, and one that is not here may be on another."""
    library = open_library(engine, tmp_path)
    name, elsewhere = volume_name(), volume_name()
    run_id, _ = (_die(library.ctx.settings.state, _old_journal(volume)) for volume in (name, elsewhere))
    assert _by_name(doctor(*library, fix=True))["leftovers"].text == "crashed runs left nothing"
    engine.client.volumes.create(name, labels=engine.labels | {RESTORE_LABEL: run_id})
    checks = _by_name(doctor(*library, fix=True))
    assert checks["leftovers"].text == "removed 1 half-restored volume, 1 crashed run"
    assert f"half-restored volume {elsewhere!r} on an unknown engine" in checks["elsewhere"].text
    assert name not in {volume.name for volume in engine.client.volumes.list()}


def _old_journal(volume: str) -> bytes:
    return json.dumps({"pid": 1, "command": "restore db", "engine": None, "volumes": [volume]}).encode()


def test_a_run_whose_journal_cannot_be_read_is_kept_and_named(engine: EngineSession, tmp_path: Path) -> None:
    library = open_library(engine, tmp_path)
    run_id = _die(library.ctx.settings.state, b'{"pid": 1, "kind": "of-tomorrow"}')
    for _ in range(2):
        check = _by_name(doctor(*library, fix=True))["elsewhere"]
        assert (check.status, run_id in check.text) == ("warning", True)
    assert (library.ctx.settings.state / "runs" / run_id).is_dir()


def test_a_volume_made_by_mounting_is_named(
    engine: EngineSession, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    library = open_library(engine, tmp_path)
    labels = {MADE_LABEL: "0123456789abcdef"}
    name = volume_factory(labels=labels | {CLIENT_LABEL: client_id(library.ctx.settings.state)})
    volume_factory(labels=labels)  # another client's
    check = _by_name(doctor(*library, fix=True))["empty volumes"]
    assert check.status == "warning"
    assert check.text.endswith(f"created them again: {name}")
    assert engine.client.volumes.get(name)


def _json_checks(run_volback: Volback, *options: str) -> dict[str, Any]:
    result = run_volback("--json", "doctor", *options, check_exit=None).json["result"]
    return {check["name"]: check for check in result["checks"]}


def _helpers(engine: EngineSession, run_volback: Volback) -> list[Any]:
    run_volback.note_client_id()
    path = run_volback.state / "client-id"
    if not path.is_file():  # the run has only just begun
        return []
    return list(
        engine.client.containers.list(
            all=True, ignore_removed=True, filters={"label": f"volback.client={path.read_text()}"}
        )
    )
