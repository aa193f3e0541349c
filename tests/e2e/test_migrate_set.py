"""Several volumes move together: one stop over all, what is proven stays, what was there is not copied again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted, struck
from tests.support.remote import SecondEngine, second_engine

PROJECT = "com.docker.compose.project"
WRITER = """
trap 'echo stopped >>/data/log; exit 0' TERM
number=0
while :; do number=$((number+1)); echo $number >>/data/log; sleep 0.02; done
"""


@pytest.fixture(scope="module")
def running() -> Iterator[SecondEngine]:
    with second_engine() as engine:
        yield engine


@pytest.fixture
def second(running: SecondEngine) -> Iterator[SecondEngine]:
    """Another host's engine, without volumes; after the test it has no helpers."""
    yield running
    with closing(running.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []
        for left in client.volumes.list():
            left.remove()


def _fill(path: Path) -> None:
    for number in range(3):
        (path / f"directory-{number}").mkdir()
        (path / f"directory-{number}" / "file").write_bytes(os.urandom(300_000))


@dataclass
class Shop:
    """A project as compose makes it: services that mount volumes, and one that mounts none."""

    project: str
    volumes: list[str]
    containers: dict[str, Any] = field(default_factory=dict)

    def began(self) -> dict[str, str]:
        """When each container was started last."""
        self.states()
        return {service: container.attrs["State"]["StartedAt"] for service, container in self.containers.items()}

    def states(self) -> dict[str, tuple[str, str]]:
        """State and restart policy of each container."""
        for container in self.containers.values():
            container.reload()
        return {
            service: (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"])
            for service, container in self.containers.items()
        }


@pytest.fixture
def shop(
    engine: EngineSession, volume_factory: Callable[..., str], create_container: Callable[..., Any]
) -> Iterator[Shop]:
    project = engine.new_name("shop")
    volumes = sorted(
        volume_factory(name, fill=_fill, labels={PROJECT: project, "com.docker.compose.volume": name})
        for name in ("data", "uploads", "cache")
    )
    shop = Shop(project, volumes)
    for service, mounts in {"db": volumes[:1], "web": volumes[1:], "proxy": []}.items():
        script = WRITER if service == "db" else "trap 'exit 0' TERM; while :; do sleep 0.1; done"
        shop.containers[service] = create_container(
            script, volumes={volume: "/data" if at == 0 else f"/data{at}" for at, volume in enumerate(mounts)},
            labels={PROJECT: project, "com.docker.compose.service": service},
            restart_policy={"Name": "always"}, stop_signal="SIGTERM",
        )  # fmt: skip
    yield shop
    for container in shop.containers.values():
        container.reload()


@pytest.fixture
def started(shop: Shop) -> Shop:
    for container in shop.containers.values():
        container.start()
    return shop


def _volumes(second: SecondEngine) -> set[str]:
    with closing(second.client()) as client:
        return {volume.name for volume in client.volumes.list()}


def _by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {moved["source"]: moved for moved in result["moved"]}


VolumePath = Callable[[str], Path]


def _assert_same(shop: Shop, second: SecondEngine, volume_path: VolumePath) -> None:
    for volume in shop.volumes:
        assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(volume))) == []


def test_a_project_moves_and_a_second_run_copies_nothing_again(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", shop.project, "--to", second.url)
    said = run_volback(*command, "--json").json
    assert (said["ok"], said["warnings"], said["result"]["not_moved"]) == (True, [], [])
    assert {name: one["proven"] for name, one in _by_name(said["result"]).items()} == dict.fromkeys(shop.volumes, True)
    _assert_same(shop, second, volume_path)

    with (volume_path(shop.volumes[1]) / "directory-1" / "file").open("r+b") as file:
        file.write(b"changed")
    again = run_volback(*command, "--json", check_exit=5).json
    moved = _by_name(again["result"])
    assert set(moved) == {shop.volumes[0], shop.volumes[2]}
    assert {(one["was_there"], one["proven"], one["sent_bytes"]) for one in moved.values()} == {(True, True, 0)}
    assert again["result"]["not_moved"] == [shop.volumes[1]], "what changed is not taken for proven"
    assert "exists already, and is not empty" in again["error"]["message"]

    text = run_volback(*command, "--replace", "--no-safety-backup").stdout
    assert text.count("was there, proven") == 2
    assert max(map(len, text.splitlines())) <= 80
    _assert_same(shop, second, volume_path)
    assert list((run_volback.state / "runs").iterdir()) == []


def test_one_stop_over_all_and_all_stay_stopped(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--live", "--jobs", "3")
    said = run_volback(*command, "--json").json
    result = said["result"]
    assert (said["ok"], said["warnings"]) == (True, [])
    assert {one["passes"] for one in result["moved"]} == {2}
    assert {left["name"]: left["restart_policy"] for left in result["left_stopped"]} == {
        container.name: "always" for container in started.containers.values()
    }
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("exited", "no"))
    _assert_same(started, second, volume_path)
    assert (second.volume_path(started.volumes[1]) / "directory-0").exists()
    run_volback("recover")
    assert started.states()["db"] == ("exited", "no")


def test_where_one_fails_its_project_runs_on_and_nothing_was_stopped(
    second: SecondEngine, run_volback: Volback, started: Shop
) -> None:
    before = started.began()
    with closing(second.client()) as client:
        (Path(client.volumes.create(started.volumes[0]).attrs["Mountpoint"]) / "theirs").write_text("x")
    command = ("migrate", "--project", started.project, "--to", second.url, "--live")
    said = run_volback(*command, "--json", check_exit=5).json
    assert sorted(said["result"]["not_moved"]) == started.volumes
    assert started.volumes[0] in said["error"]["message"]
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    assert started.began() == before
    assert _volumes(second) == {started.volumes[0]}


def test_one_that_fails_does_not_undo_the_others(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    with closing(second.client()) as client:
        (Path(client.volumes.create(shop.volumes[0]).attrs["Mountpoint"]) / "theirs").write_text("x")
    command = ("migrate", *shop.volumes, "--to", second.url, "--remove-source")
    for container in shop.containers.values():
        container.remove()
    shop.containers.clear()
    said = run_volback(*command, "--json", check_exit=5).json
    assert said["result"]["not_moved"] == shop.volumes[:1]
    assert {name: one["source_removed"] for name, one in _by_name(said["result"]).items()} == dict.fromkeys(
        shop.volumes[1:], True
    )
    assert _volumes(second) == set(shop.volumes)
    assert [path.name for path in second.volume_path(shop.volumes[0]).iterdir()] == ["theirs"]
    assert len(list(volume_path(shop.volumes[0]).iterdir())) == 3


def test_a_run_that_is_killed_among_several_is_run_again(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", shop.project, "--to", second.url, "--jobs", "1")
    assert struck(run_volback, signal.SIGKILL, "buffer 0 of write#4", *command) == -signal.SIGKILL
    assert 1 < len(_volumes(second)) <= 3
    said = run_volback(*command, "--json").json
    moved = _by_name(said["result"])
    assert (said["ok"], set(moved)) == (True, set(shop.volumes))
    assert {True, False} == {one["was_there"] for one in moved.values()}
    _assert_same(shop, second, volume_path)
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_run_that_is_killed_while_all_are_stopped_is_run_again(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--live")
    assert struck(run_volback, signal.SIGKILL, "after Engine.stop_container#3", *command) == -signal.SIGKILL
    run_volback("recover")
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    said = run_volback(*command, "--json").json
    assert (said["ok"], len(said["result"]["moved"])) == (True, 3)
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("exited", "no"))
    _assert_same(started, second, volume_path)


def test_a_signal_ends_all_of_them_and_leaves_no_half_made_volume(
    second: SecondEngine, run_volback: Volback, started: Shop
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--stop", "--jobs", "3")
    with halted(run_volback, "buffer 0 of write#2", *command) as run:
        os.kill(run.pid, signal.SIGTERM)
    assert run.ended.exit_code == 128 + signal.SIGTERM
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    assert list((run_volback.state / "runs").iterdir()) == []


@pytest.mark.parametrize("option", [("--as", "other"), ("--label", "a=b"), ("--driver", "local")])
def test_options_of_one_volume_are_refused(run_volback: Volback, option: tuple[str, str]) -> None:
    said = run_volback("migrate", "one", "two", "--to", "unix:///nobody.sock", *option, check_exit=2).stderr
    assert f"does not accept {option[0]}" in said
