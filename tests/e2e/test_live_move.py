"""Moves of volumes that containers write to: stopped for the last pass only, proven, and then left stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint

SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
WRITER = """
number=0
trap 'echo stopped >>/data/log; exit 0' TERM
while :; do number=$((number+1)); echo $number >>/data/log; echo $number >/data/state; sleep 0.02; done
"""


def _fill(path: Path) -> None:
    for number in range(12):
        (path / f"directory-{number}").mkdir()
        (path / f"directory-{number}" / "file").write_bytes(os.urandom(200_000))
    (path / "removed").mkdir()
    (path / "removed" / "file").write_text("x")
    (path / "becomes-a-directory").write_text("file")


@pytest.fixture
def writing(volume_factory: Callable[..., str], create_container: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """A volume, and a container that writes to it all the time, and that the engine would start again."""
    volume = volume_factory("live", fill=_fill)
    options = {"restart_policy": {"Name": "always"}, "stop_signal": "SIGTERM"}
    container = create_container(WRITER, volumes={volume: "/data"}, **options)
    container.start()
    yield volume, container
    container.reload()


def _move(run_volback: Volback, volume: str, new: str, *options: str, check_exit: int = 0) -> Any:
    arguments = ("migrate", volume, "--to", SOCKET, "--as", new, *options, "--json")
    return run_volback(*arguments, check_exit=check_exit).json


@pytest.mark.parametrize("how", ["--live", "--stop"])
def test_what_was_written_until_the_stop_arrives_and_the_old_side_stays_stopped(
    how: str, run_volback: Volback, engine: EngineSession, writing: tuple[str, Any], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    (volume, container), new = writing, volume_name("new")
    said = _move(run_volback, volume, new, how)
    result = said["result"]
    assert (result["proven"], result["passes"], result["consistency"]) == (True, 2 if how == "--live" else 1, "stopped")
    assert result["left_stopped"] == [{"name": container.name, "restart_policy": "always"}]
    assert result["downtime_s"] > 0
    container.reload()
    assert (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]) == ("exited", "no")
    assert differences(fingerprint(volume_path(volume)), fingerprint(volume_path(new))) == []
    assert (volume_path(new) / "log").read_text().endswith("stopped\n")
    run_volback("recover")
    container.reload()
    assert container.status == "exited", "two sides must not both be written"
    assert said["warnings"] == []


def test_the_containers_run_again_where_that_is_wanted(
    run_volback: Volback, writing: tuple[str, Any], volume_name: Callable[..., str]
) -> None:
    volume, container = writing
    result = _move(run_volback, volume, volume_name("new"), "--live", "--restart-source")["result"]
    assert (result["proven"], result["left_stopped"]) == (True, [])
    container.reload()
    assert (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]) == ("running", "always")


def test_a_failed_move_starts_the_containers_again_and_leaves_no_target(
    run_volback: Volback, engine: EngineSession, writing: tuple[str, Any], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    (volume, container), full = writing, volume_name("full")
    engine.client.volumes.create(full, labels=engine.labels)
    (volume_path(full) / "file").write_text("x")
    _move(run_volback, volume, full, "--live", check_exit=5)
    container.reload()
    assert container.status == "running"


def test_options_that_contradict_each_other_are_refused(run_volback: Volback) -> None:
    said = run_volback("migrate", "any", "--to", SOCKET, "--restart-source", check_exit=2)
    assert "--restart-source goes with --live or --stop" in said.stderr
