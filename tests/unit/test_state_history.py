"""The history of jobs: noted when they begin and end, and what was killed is found."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from volback.errors import StoreError
from volback.state.history import JobRun, note_dead_runs, note_run, read_history


def run(number: int, **more: object) -> JobRun:
    return JobRun(id=f"{number}", started_at=f"2026-11-24T02:30:{number:02}+00:00", **more)  # type: ignore[arg-type]


def test_a_run_is_noted_and_then_replaced_by_its_end(tmp_path: Path) -> None:
    assert read_history(tmp_path, "a/b") == []
    note_run(tmp_path, "a/b", run(1))
    note_run(tmp_path, "a/b", run(1, status="success", exit_code=0))
    assert read_history(tmp_path, "a/b") == [run(1, status="success", exit_code=0)]
    assert read_history(tmp_path, "other") == []


def test_only_the_last_runs_are_kept(tmp_path: Path) -> None:
    for number in range(60):
        note_run(tmp_path, "n", run(number))
    assert [known.id for known in read_history(tmp_path, "n")] == [str(number) for number in range(10, 60)]


def test_runs_that_never_ended_are_found_once(tmp_path: Path) -> None:
    note_run(tmp_path, "n", run(1, status="success"))
    note_run(tmp_path, "n", run(2))
    assert [dead.id for dead in note_dead_runs(tmp_path, "n")] == ["2"]
    assert note_dead_runs(tmp_path, "n") == []
    assert [known.status for known in read_history(tmp_path, "n")] == ["success", "died"]


def test_two_that_note_at_once_lose_nothing(tmp_path: Path) -> None:
    threads = [threading.Thread(target=note_run, args=(tmp_path, "n", run(number))) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_history(tmp_path, "n")) == 20


def test_a_damaged_file_is_begun_anew_and_a_denied_one_reported(tmp_path: Path) -> None:
    note_run(tmp_path, "n", run(1))
    (tmp_path / "jobs/n.json").write_text("{")
    note_run(tmp_path, "n", run(2))
    assert [known.id for known in read_history(tmp_path, "n")] == ["2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="state directory cannot be used"):
        note_run(tmp_path / "file", "n", run(1))
