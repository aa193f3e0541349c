"""Runs: what is begun is on disk before it is made, and dropped only when nothing of it is left."""

from __future__ import annotations

import os
import resource
import stat
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from volback.errors import FormatError, StoreError
from volback.state.journal import InRepository, Journal, NewBackup, NewVolume, Reading, Replacing, decode_journal
from volback.state.runs import Run, dead_runs, live_journals, live_prefixes, live_runs, open_run

VOLUME = NewVolume(engine="A", name="v")
BACKUP = NewBackup(repository="/r", prefix="h/v/1/")


def on_disk(run: Run) -> Journal:
    return decode_journal((run.directory / "journal.json").read_bytes())


def kill(state: Path, *entries: NewVolume | NewBackup | Reading | Replacing) -> Run:
    """A run that was killed with these entries in its journal."""
    run = Run(state, "restore").__enter__()
    run.note(*entries)
    os.close(run.lock_fd)
    return run


def test_an_entry_is_on_disk_for_its_block_alone(tmp_path: Path) -> None:
    with Run(tmp_path, "restore", "v") as run:
        with run.begun(VOLUME):
            assert on_disk(run) == Journal(pid=os.getpid(), kind="restore", subject="v", entries=[VOLUME])
        assert on_disk(run).entries == []
    assert not run.directory.exists()


def test_an_entry_stays_where_nothing_undoes_it(tmp_path: Path) -> None:
    with Run(tmp_path, "restore") as run, pytest.raises(ValueError, match="cut"), run.begun(VOLUME):
        raise ValueError("cut off")
    assert on_disk(run).entries == [VOLUME]


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_entry_is_dropped_when_undo_says_that_nothing_is_left(tmp_path: Path, is_gone: bool) -> None:
    with (
        Run(tmp_path, "restore") as run,
        pytest.raises(ValueError, match="cut"),
        run.begun(VOLUME, undo=lambda: is_gone),
    ):
        raise ValueError("cut off")
    assert run.directory.exists() == (not is_gone)


def test_an_entry_stays_where_undo_fails_and_the_first_error_is_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def undo() -> bool:
        raise StoreError("the repository is away")

    with Run(tmp_path, "restore") as run, pytest.raises(ValueError, match="cut off"), run.begun(VOLUME, undo=undo):
        raise ValueError("cut off")
    assert on_disk(run).entries == [VOLUME]
    assert f"{VOLUME.what} stays until a later run removes it: the repository is away" in caplog.text


def test_nothing_is_begun_where_it_cannot_be_noted(tmp_path: Path) -> None:
    begun = False
    with Run(tmp_path, "restore") as run:
        (run.directory / ".journal.json~").mkdir()
        with pytest.raises(StoreError), run.begun(VOLUME):
            begun = True
    assert not begun
    assert not run.directory.exists()


def test_what_is_finished_is_not_an_error_where_that_cannot_be_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Run(tmp_path, "restore") as run, run.begun(VOLUME):
        (run.directory / ".journal.json~").mkdir()
    assert "half-restored volume 'v'" in caplog.text
    assert not run.directory.exists()


def test_a_dead_run_is_found_and_a_living_one_is_not(tmp_path: Path) -> None:
    dead = kill(tmp_path, VOLUME)
    with Run(tmp_path, "backup") as alive, dead_runs(tmp_path) as found:
        assert [(run.id, run.journal.entries, run.is_open) for run in found] == [(dead.id, [VOLUME], True)]
        assert [run_id for run_id, _ in live_journals(tmp_path) if run_id != dead.id] == [alive.id]
    with dead_runs(tmp_path) as found:
        found[0].drop(*found[0].journal.entries)
        assert not found[0].is_open
        found[0].forget()
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("data", [b"", b'{"pid": 1, "kind": "of-tomorrow"}', b"garbage"])
def test_a_run_whose_journal_cannot_be_read_is_not_taken_for_finished(tmp_path: Path, data: bytes) -> None:
    run = kill(tmp_path, VOLUME)
    (run.directory / "journal.json").write_bytes(data)
    with dead_runs(tmp_path) as found:
        assert [(dead.is_readable, dead.is_open) for dead in found] == [(False, True)]


def test_a_run_without_a_journal_has_begun_nothing(tmp_path: Path) -> None:
    run = kill(tmp_path, VOLUME)
    (run.directory / "journal.json").unlink()
    reopened = open_run(tmp_path, run.id)
    assert reopened is not None
    assert not reopened.is_open
    assert open_run(tmp_path, "0123456789abcdef") is None


def in_r(entry: InRepository) -> bool:
    return entry.repository == "/r"


def test_prefixes_of_living_runs_by_repository_and_type(tmp_path: Path) -> None:
    reading = Reading(repository="/r", prefix="h/v/0/")
    with Run(tmp_path, "restore") as run:
        run.note(BACKUP, reading, NewBackup(repository="/other", prefix="h/v/2/"))
        assert live_prefixes(tmp_path, NewBackup, in_r) == {"h/v/1/"}
        assert live_prefixes(tmp_path, Reading, in_r) == {"h/v/0/"}
        (run.directory / "journal.json").write_bytes(b"of tomorrow")
        assert live_prefixes(tmp_path, NewBackup, in_r) == set()
        with pytest.raises(FormatError):
            on_disk(run)


def test_nobody_else_may_read_a_journal(tmp_path: Path) -> None:
    """Commands of hooks may hold passwords. The directory itself may be entered: helpers find their pipes below it."""
    with Run(tmp_path, "quiesce") as run, run.begun(VOLUME):
        assert stat.S_IMODE((run.directory / "journal.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(run.directory.stat().st_mode) == 0o711
        assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o700


def test_a_run_that_cannot_be_noted_is_not_begun_and_leaves_nothing(tmp_path: Path) -> None:
    """As on a full disk: the kernel takes no byte more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(StoreError, match="File too large"), Run(tmp_path, "backup"):
            raise AssertionError("it was begun")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "runs").iterdir()) == []


def test_living_runs_have_their_ids_and_a_run_is_opened_by_its_own(tmp_path: Path) -> None:
    assert live_runs(tmp_path) == []
    with Run(tmp_path, "backup") as run, Run(tmp_path, "remove") as other:
        assert live_runs(tmp_path) == sorted([run.id, other.id])
        opened = open_run(tmp_path, run.id)
        assert opened is not None
        assert (opened.journal.kind, opened.is_open, opened.is_readable) == ("backup", False, True)
    assert open_run(tmp_path, run.id) is None
    assert live_runs(tmp_path) == []


def test_threads_that_look_for_dead_runs_take_turns(tmp_path: Path) -> None:
    """To each, what another one has locked would be alive."""
    kill(tmp_path, VOLUME)

    def look() -> int:
        with dead_runs(tmp_path) as found:
            return len(found)

    with ThreadPoolExecutor(1) as executor:
        with dead_runs(tmp_path) as found:
            other = executor.submit(look)
            wait([other], timeout=0.1)  # it would end within that
        assert (len(found), other.result()) == (1, 1)


def test_who_inherits_the_lock_keeps_the_run_alive(tmp_path: Path) -> None:
    with Run(tmp_path, "backup") as run:
        run.note(VOLUME)
        inherited = os.dup(run.lock_fd)
    assert live_runs(tmp_path) == [run.id]
    os.close(inherited)
    assert live_runs(tmp_path) == []
    with dead_runs(tmp_path) as found:
        assert [dead.id for dead in found] == [run.id]
        found[0].forget()
    with dead_runs(tmp_path) as found:
        assert found == []


def test_what_died_in_its_making_goes_when_it_is_old(tmp_path: Path) -> None:
    with Run(tmp_path, "backup"):
        young, old = (tmp_path / "runs" / f".new-{name}" for name in ("young", "old"))
        for directory in (young, old):
            directory.mkdir()
        os.utime(old, (0, 0))
        assert len(live_runs(tmp_path)) == 1
    assert young.exists()
    assert not old.exists()


def test_a_directory_for_scratch_is_another_each_time(tmp_path: Path) -> None:
    with Run(tmp_path, "backup") as run:
        one, two = run.scratch("pipe"), run.scratch("pipe")
        assert one.parent == two.parent == run.directory
        assert one != two
        one.mkdir()
    assert not run.directory.exists()
