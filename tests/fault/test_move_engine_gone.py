"""Moves one of whose engines dies and stays dead: containers run again, and the next run goes on from what is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cutting import CuttingRelay
from tests.support.engine import Result, Volback, build_image
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted
from tests.support.remote import SecondEngine, wait_for

NAME = "moved"
SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
SIZE = 8 << 20
WRITER = """
trap 'cat /data/file-* >/data/last; exit 0' TERM
while :; do echo x >>/data/log; sleep 0.05; done
"""
PHASES = {"the stop": "after Engine.stop_container", "the proof": "end of scan#6"}
"""Of a live move; the sixth scan is that of the last proof, whose helper waits then for what it is to read. Once it
reads, it may have ended, and have said all, before its engine is dead."""


def _fill(path: Path) -> None:
    for number in range(8):
        (path / f"file-{number}").write_bytes(os.urandom(SIZE // 8))


@contextmanager
def _alive_again(second: SecondEngine) -> Iterator[None]:
    """Whatever happens in the block, the engine runs after it."""
    try:
        yield
    finally:
        if second.process is None:
            second.start()


def _assert_given_up(ended: Result) -> None:
    assert ended.exit_code == 8, ended.stderr
    *others, error, hint = ended.stderr.splitlines()
    assert error.startswith("error: the move was given up: "), ended.stderr
    assert hint == "hint: run the same command again: it goes on from what is there"
    assert all(line.startswith("warning: ") for line in others), ended.stderr


def _state(container: Any) -> tuple[str, str]:
    container.reload()
    return container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"]


@pytest.mark.parametrize("phase", [pytest.param("the stop", marks=pytest.mark.long), "the proof"])
def test_a_target_engine_that_stays_dead(
    phase: str, second: SecondEngine, run_volback: Volback, far_state: dict[str, str],
    *, volume_factory: Callable[..., str], create_container: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume = volume_factory("source", fill=_fill)
    options = {"stop_signal": "SIGTERM", "restart_policy": {"Name": "always"}}
    container = create_container(WRITER, volumes={volume: "/data"}, **options)
    container.start()
    command = ("migrate", volume, "--to", second.url, "--as", NAME, "--live")
    with _alive_again(second):
        with halted(run_volback, PHASES[phase], *command, "--retry-for", "1s", env=far_state) as run:
            second.stop(signal.SIGKILL)
        _assert_given_up(run.ended)
        assert _state(container) == ("running", "always")
        assert (volume_path(volume) / "last").exists(), "it was stopped, and started again"
    result = run_volback(*command, "--json", env=far_state).json["result"]
    assert (result["proven"], result["resumed"]) == (True, True)
    assert _state(container) == ("exited", "no")
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


@pytest.fixture
def far(second: SecondEngine) -> Iterator[Any]:
    """A container there that writes to the volume `far`."""
    with closing(second.client()) as client:
        build_image(client, "volback-test:far", {})
        _fill(Path(client.volumes.create("far").attrs["Mountpoint"]))
        container = client.containers.run(
            "volback-test:far", ["/bin/sh", "-c", WRITER], detach=True, network_mode="none", stop_signal="SIGTERM",
            restart_policy={"Name": "always"}, volumes={"far": {"bind": "/data", "mode": "rw"}},
        )  # fmt: skip
        yield container
        container.remove(force=True)


@pytest.mark.parametrize("phase", ["the stop", pytest.param("the proof", marks=pytest.mark.long)])
def test_a_source_engine_that_stays_dead(
    phase: str, second: SecondEngine, far: Any, run_volback: Volback, far_state: dict[str, str],
    *, volume_name: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """Its containers run again once it does: the guard waits for it."""
    near = volume_name("near")
    command = ("migrate", "far", "--from", second.url, "--to", SOCKET, "--as", near, "--live")
    with _alive_again(second):
        with halted(run_volback, PHASES[phase], *command, "--retry-for", "1s", env=far_state) as run:
            second.stop(signal.SIGKILL)
        _assert_given_up(run.ended)
        assert f"warning: container '{far.name}' is still stopped: " in run.ended.stderr
        assert "run: volback recover" in run.ended.stderr
    wait_for(lambda: _state(far) == ("running", "always"), "the container")
    result = run_volback(*command, "--json", env=far_state).json["result"]
    assert (result["proven"], result["resumed"]) == (True, True)
    assert _state(far) == ("exited", "no")
    assert differences(fingerprint(second.volume_path("far")), fingerprint(volume_path(near))) == []
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


def test_a_target_that_fills_up_while_a_move_that_was_cut_goes_on(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], *, volume_factory: Callable[..., str],
    container_factory: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """Others write there meanwhile."""
    volume = volume_factory("source", fill=_fill)
    before, container = fingerprint(volume_path(volume)), container_factory(volumes={volume: "/data"})
    place = second.directory / "small"
    place.mkdir()
    second.inside("mount", "-t", "tmpfs", "-o", f"size={SIZE * 5 // 4}", "tmpfs", place)
    second.inside("mkdir", place / "volume")
    run_volback("--host", second.url, "doctor", check_exit=None)
    with closing(second.client()) as client:
        options = {"type": "none", "o": "bind", "device": str(place / "volume")}
        client.volumes.create(NAME, driver_opts=options)
    with CuttingRelay(second, [SIZE // 2]) as relay:
        relay.at_cut = lambda: second.inside("sh", "-c", f"cat /dev/urandom >{place}/theirs 2>/dev/null || true")
        command = ("migrate", volume, "--to", relay.url, "--as", NAME, "--stop", "--json")
        said = run_volback(*command, env=far_state, check_exit=1)
    assert len(relay.cut_at) == 1
    assert f"no space left in volume '{NAME}': " in said.json["error"]["message"]
    assert _state(container)[0] == "running"
    second.inside("sh", "-c", f'test -z "$(ls -A {place}/volume)"')
    assert differences(before, fingerprint(volume_path(volume))) == []
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []
    second.inside("umount", "--lazy", place)
