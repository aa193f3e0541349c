"""Locks and the client's id: one holder at a time, also of those that come at the same moment."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.leftovers import Leftovers
from volback.errors import LockedError, StoreError
from volback.state.client import client_id
from volback.state.locks import is_locked, lock, lock_file
from volback.state.runs import Run, dead_runs


def test_a_lock_that_is_held_is_refused_and_its_holder_named(tmp_path: Path) -> None:
    with lock(tmp_path, "e-db", "volume 'db'"):
        with lock(tmp_path, "e-web", "volume 'web'"):
            pass
        with (
            pytest.raises(LockedError, match=f"^volume 'db' is locked by process {os.getpid()}$"),
            lock(tmp_path, "e-db", "volume 'db'"),
        ):
            raise AssertionError("two hold it")
    with lock(tmp_path, "e-db", "volume 'db'"):
        pass


@pytest.mark.parametrize("name", ["e\0-v", "../../e-/etc/x", "e" * 5000, "ü" * 200, "\ud800-v", "%2F"])
def test_any_text_names_a_lock_of_its_own(tmp_path: Path, name: str) -> None:
    """The engine's id in it can come from a manifest."""
    with lock(tmp_path, name, "one"), lock(tmp_path, f"{name}2", "another"):
        names = [path.name for path in (tmp_path / "locks").iterdir()]
    assert len(names) == 2
    assert max(map(len, names)) <= 200


def test_a_lock_is_waited_for_and_no_longer_than_asked(tmp_path: Path) -> None:
    with lock(tmp_path, "x", "x"):
        began = time.monotonic()
        with pytest.raises(LockedError), lock(tmp_path, "x", "x", wait_s=0.3):
            raise AssertionError("two hold it")
        assert time.monotonic() - began >= 0.3
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock(tmp_path, "x", "x"):
            held.set()
            let_go.wait(30)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(30)
        threading.Timer(0.3, let_go.set).start()
        with lock(tmp_path, "x", "x", wait_s=30):
            assert let_go.is_set()
        holding.result()


def test_a_name_with_a_slash_is_one_file(tmp_path: Path) -> None:
    with lock(tmp_path, "s3://bucket/a", "it"):
        assert [path.name for path in (tmp_path / "locks").iterdir()] == ["s3:%2F%2Fbucket%2Fa"]


def test_a_client_keeps_its_id_and_only_its_user_may_read_it(tmp_path: Path) -> None:
    first = client_id(tmp_path / "state")
    assert len(first) == 32
    assert client_id(tmp_path / "state") == first
    assert client_id(tmp_path / "other") != first
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["client-id"]


def test_clients_that_begin_at_one_moment_agree_on_an_id(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> str:
        start.wait()
        return client_id(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(ask, range(8)))
    assert len(ids) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["client-id"]


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match=str(tmp_path / "state")):
        client_id(tmp_path / "state")


def test_whether_a_lock_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    fd = lock_file(path)
    assert is_locked(path)
    os.close(fd)
    assert not is_locked(path)


def test_a_lock_that_another_asks_about_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    os.close(lock_file(path))
    with path.open("r+b") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_locked(path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EIO])
def test_a_state_directory_without_locks_is_one_line_that_names_it(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """As on NFS without its lock daemon. That a run is dead is not concluded from it."""

    def refused(file: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/lock").touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(StoreError, match=f"^state directory cannot be used: .* {os.strerror(code)}$") as caught:
        lock_file(tmp_path / "x")
    assert "on a local filesystem" in str(caught.value.hint)
    with pytest.raises(StoreError), lock(tmp_path, "x", "x"):
        raise AssertionError("nobody can hold it")
    with pytest.raises(StoreError):
        is_locked(tmp_path / "runs/one/lock")
    with pytest.raises(StoreError), Run(tmp_path, "backup"):
        raise AssertionError("no run can be known to be alive")
    with dead_runs(tmp_path) as dead:
        assert dead == []
    assert leftovers.descriptors() == []
    assert sorted(os.listdir(tmp_path / "runs")) == ["one"]
