"""Moves of volumes that containers write to: stopped for the last pass only, proven, and then left stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import loop_device, make_ext4
from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted, struck

SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
WRITER = """
number=0
at_the_end() {
  cd /data
  rm -r removed becomes-a-directory directory-1
  mkdir -m 700 becomes-a-directory; echo x >becomes-a-directory/inside; echo file >directory-1
  ln directory-3/file second-name; mv directory-4 moved; echo other >directory-5/file
  echo stopped >>log; exit 0
}
trap at_the_end TERM
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
    arguments = ("migrate", volume, "--to", SOCKET, "--as", new, *options, "--json", "--debug")
    said = run_volback(*arguments, check_exit=check_exit)
    assert ("compared path by path" in said.stderr) is (check_exit == 7), "only what was sent again is read again"
    return said.json


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


def test_a_difference_starts_the_containers_again(
    run_volback: Volback, engine: EngineSession, writing: tuple[str, Any], volume_name: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Inodes of 128 bytes have no room for parts of a second."""
    (volume, container), new = writing, volume_name("new")
    with loop_device(make_ext4(tmp_path / "image", 16_000_000, "-I", "128")) as device:
        options = ("--driver-opt=type=ext4", f"--driver-opt=device={device}")
        said = _move(run_volback, volume, new, "--live", *options, check_exit=7)
        engine.client.volumes.get(new).remove()
    assert "directory-0/file" in said["result"]["proof"]["different"]
    assert (said["result"]["left_stopped"], said["error"]["kind"]) == ([], "integrity")
    container.reload()
    assert (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]) == ("running", "always")


def test_what_somebody_puts_into_the_target_between_the_passes_is_named(
    run_volback: Volback, writing: tuple[str, Any], volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    (volume, container), new = writing, volume_name("new")
    command = ("migrate", volume, "--to", SOCKET, "--as", new, "--live", "--json")
    with halted(run_volback, "before Engine.stop_container", *command) as halt:
        (volume_path(new) / "directory-0" / "somebody").touch()
    assert halt.ended.exit_code == 7, halt.ended.stderr
    assert halt.ended.json["result"]["proof"]["extra"] == ["directory-0/somebody"]
    _runs_again(halt.ended.json, container)


def test_what_somebody_changes_in_the_target_before_the_proof_is_named(
    run_volback: Volback, writing: tuple[str, Any], volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    (volume, container), new = writing, volume_name("new")
    command = ("migrate", volume, "--to", SOCKET, "--as", new, "--stop", "--json")
    with halted(run_volback, "after write", *command) as halt:
        (volume_path(new) / "directory-0" / "file").write_text("of somebody else")
        (volume_path(new) / "directory-6" / "file").unlink()
    assert halt.ended.exit_code == 7, halt.ended.stderr
    proof = halt.ended.json["result"]["proof"]
    assert (proof["different"], proof["missing"]) == (["directory-0/file", "directory-6"], ["directory-6/file"])
    _runs_again(halt.ended.json, container)


def _runs_again(said: Any, container: Any) -> None:
    assert (said["result"]["left_stopped"], said["error"]["kind"]) == ([], "integrity")
    container.reload()
    assert (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]) == ("running", "always")


def test_a_move_that_is_killed_while_the_containers_are_stopped(
    run_volback: Volback, engine: EngineSession, writing: tuple[str, Any], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    (volume, container), new = writing, volume_name("new")
    command = ("migrate", volume, "--to", SOCKET, "--as", new, "--live")
    assert struck(run_volback, signal.SIGKILL, "after Engine.stop_container", *command) == -signal.SIGKILL
    run_volback("recover")
    container.reload()
    assert (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]) == ("running", "always")
    assert "volback.restore" in engine.client.volumes.get(new).attrs["Labels"]
    run_volback(*command)
    assert differences(fingerprint(volume_path(volume)), fingerprint(volume_path(new))) == []
    assert list((run_volback.state / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "back"), [pytest.param(signal.SIGTERM, 2, marks=pytest.mark.long), (signal.SIGKILL, 5)]
)
def test_near_the_end_one_side_at_least_can_be_used(
    number: signal.Signals, back: int, run_volback: Volback, engine: EngineSession, writing: tuple[str, Any],
    *, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    """Struck at one of the last steps: the target is whole, or the old side runs."""
    (volume, container), new, log = writing, volume_name("new"), tmp_path / "log"
    command = ("migrate", volume, "--to", SOCKET, "--stop", "--as")
    assert struck(run_volback, number, 0, *command, volume_name("first"), env={"STRIKE_LOG": str(log)}) == 0
    container.start()
    struck(run_volback, number, len(log.read_text().splitlines()) - back, *command, new)
    run_volback("recover")
    container.reload()
    if container.status == "exited":
        assert differences(fingerprint(volume_path(volume)), fingerprint(volume_path(new))) == []
    run_volback("doctor", "--fix", check_exit=None)
    assert container.status == "running" or new in {found.name for found in engine.volumes()}


def test_options_that_contradict_each_other_are_refused(run_volback: Volback) -> None:
    said = run_volback("migrate", "any", "--to", SOCKET, "--restart-source", check_exit=2)
    assert "--restart-source goes with --live or --stop" in said.stderr
