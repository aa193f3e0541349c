"""Several volumes whose way is cut, or of which one fails after the stop: what is proven stays, and the rest runs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.cutting import CuttingRelay
from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import struck
from tests.support.remote import SecondEngine

PROJECT = "com.docker.compose.project"
EACH = 6 << 20
"""About what a volume of these tests holds; it does not compress."""
LAST = EACH * 2 // 3
"""What a container writes when it is stopped."""
WRITER = """
trap 'cat /data/file-[0-7] >/data/last; exit 0' TERM
while :; do echo x >>/data/log; sleep 0.05; done
"""

VolumePath = Callable[[str], Path]


@pytest.fixture
def second(second: SecondEngine, run_volback: Volback) -> SecondEngine:
    """It has a helper image, so that what passes is the volumes'."""
    run_volback("--host", second.url, "doctor", check_exit=None)
    return second


def _cut_off(
    second: SecondEngine, after_bytes: int, run_volback: Volback, command: Sequence[str], env: dict[str, str]
) -> Any:
    """What a move says whose connection is cut there, and which gives up, as no other one comes about."""
    relay = CuttingRelay(second, [after_bytes])
    relay.at_cut = relay.refuse
    with relay:
        return run_volback(*command, "--to", relay.url, "--retry-for", "1s", env=env, check_exit=8).json


def _fill(path: Path) -> None:
    for number in range(12):
        (path / f"file-{number}").write_bytes(os.urandom(EACH // 12))


@dataclass
class Pair:
    """Two volumes, and for each a container that writes to it all the time."""

    volumes: list[str]
    project: str
    """Empty where they have none."""
    containers: list[Any] = field(default_factory=list)

    def states(self) -> list[tuple[str, str]]:
        """State and restart policy of each container."""
        for container in self.containers:
            container.reload()
        return [(one.status, one.attrs["HostConfig"]["RestartPolicy"]["Name"]) for one in self.containers]

    def began(self) -> list[str]:
        """When each container was started last."""
        self.states()
        return [container.attrs["State"]["StartedAt"] for container in self.containers]


@pytest.fixture
def pair_of(
    engine: EngineSession, volume_factory: Callable[..., str], create_container: Callable[..., Any]
) -> Callable[..., Pair]:
    def make(*, project: bool) -> Pair:
        name = engine.new_name("shop") if project else ""
        labels = {PROJECT: name} if name else {}
        pair = Pair([volume_factory(hint, fill=_fill, labels=labels) for hint in ("first", "other")], name)
        for volume in pair.volumes:
            container = create_container(
                WRITER, volumes={volume: "/data"}, labels=labels, stop_signal="SIGTERM",
                restart_policy={"Name": "always"},
            )  # fmt: skip
            container.start()
            pair.containers.append(container)
        return pair

    return make


RUNNING, LEFT = ("running", "always"), ("exited", "no")


def _assert_same(volumes: list[str], second: SecondEngine, volume_path: VolumePath) -> None:
    for volume in volumes:
        assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(volume))) == []


def test_what_was_cut_goes_on_and_what_was_proven_is_not_sent_again(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], pair_of: Callable[..., Pair],
    volume_path: VolumePath,
) -> None:  # fmt: skip
    """One after the other: the second is cut in its first pass, and both after the stop: its helpers wait meanwhile."""
    pair = pair_of(project=True)
    began = pair.began()
    with CuttingRelay(second, [EACH * 3 // 2, EACH * 5 // 2]) as relay:
        command = ("migrate", "--project", pair.project, "--to", relay.url, "--live", "--jobs", "1", "--json")
        said = run_volback(*command, env=far_state).json
    assert len(relay.cut_at) == 2
    result = {one["source"]: one for one in said["result"]["moved"]}
    assert (said["ok"], said["result"]["not_moved"]) == (True, [])
    assert [result[volume]["retries"] for volume in pair.volumes] == [1, 2]
    assert all(one["proven"] for one in result.values())
    assert result[pair.volumes[0]]["each_pass"][0]["sent_bytes"] < EACH * 1.2
    assert pair.states() == [LEFT, LEFT]
    assert pair.began() == began, "they were stopped once"
    _assert_same(pair.volumes, second, volume_path)
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


def test_an_engine_that_stays_away_after_the_stop_lets_all_run_again_and_the_next_run_goes_on(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], pair_of: Callable[..., Pair],
    volume_path: VolumePath,
) -> None:  # fmt: skip
    pair = pair_of(project=True)
    command = ("migrate", "--project", pair.project, "--live", "--json")
    said = _cut_off(second, EACH * 2 + LAST // 2, run_volback, command, far_state)
    assert "the move was given up" in said["error"]["message"]
    assert "run the same command again" in said["error"]["hint"]
    assert sorted(said["result"]["not_moved"]) == pair.volumes
    assert sorted(said["result"]["running_again"]) == sorted(one.name for one in pair.containers)
    assert pair.states() == [RUNNING, RUNNING]
    with CuttingRelay(second, []) as relay:
        result = run_volback(*command, "--to", relay.url, env=far_state).json["result"]
    assert {one["resumed"] for one in result["moved"]} == {True}
    assert pair.states() == [LEFT, LEFT]
    _assert_same(pair.volumes, second, volume_path)
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


@pytest.fixture
def small_target(second: SecondEngine) -> Iterator[Callable[[str], None]]:
    """Makes a volume there that holds what the first pass brings, and not what comes at the stop."""
    place = second.directory / "small"

    def make(name: str) -> None:
        place.mkdir()
        second.inside("mount", "-t", "tmpfs", "-o", f"size={EACH + LAST // 2}", "tmpfs", place)
        options = {"type": "none", "o": "bind", "device": str(place)}
        with closing(second.client()) as client:
            client.volumes.create(name, driver_opts=options)

    yield make
    second.inside("umount", "--lazy", place)
    place.rmdir()


@pytest.mark.parametrize("project", [False, pytest.param(True, marks=pytest.mark.long)])
def test_one_that_has_no_room_after_the_stop_runs_again_and_the_others_as_far_as_they_belong_to_it(
    project: bool, second: SecondEngine, run_volback: Volback, pair_of: Callable[..., Pair],
    *, small_target: Callable[[str], None], volume_path: VolumePath,
) -> None:  # fmt: skip
    pair = pair_of(project=project)
    began, (first, other) = pair.began(), pair.volumes
    small_target(first)
    what = ("--project", pair.project) if pair.project else pair.volumes
    command = ("migrate", *what, "--to", second.url, "--live", "--json")
    said = run_volback(*command, check_exit=1).json
    assert f"no space left in volume '{first}'" in said["error"]["message"]
    result = said["result"]
    assert (result["not_moved"], [one["source"] for one in result["moved"]]) == ([first], [other])
    assert result["moved"][0]["proven"]
    assert pair.states() == ([RUNNING, RUNNING] if project else [RUNNING, LEFT])
    assert (pair.began()[0] > began[0], pair.began()[1] > began[1]) == (True, project)
    assert (second.volume_path(other) / "last").stat().st_size == LAST
    stale = f"volume '{other}' is there as it was when container '{pair.containers[1].name}' was stopped"
    assert any(stale in warning for warning in said["warnings"]) is project
    assert list((run_volback.state / "runs").iterdir()) == []


@pytest.mark.parametrize("was_there", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_directory_goes_on_from_what_is_there_and_what_is_of_others_is_not_removed(
    was_there: bool, second: SecondEngine, run_volback: Volback, far_state: dict[str, str], engine: EngineSession,
    *, tmp_path: Path, volume_factory: Callable[..., str], create_container: Callable[..., Any],
) -> None:  # fmt: skip
    here, there, project = tmp_path / "site" / "html", tmp_path / "there" / "html", engine.new_name("shop")
    here.mkdir(parents=True)
    _fill(here)
    if was_there:
        there.mkdir(parents=True)
    labels = {PROJECT: project, "com.docker.compose.service": "web"}
    create_container(volumes={str(here): "/html", volume_factory(labels=labels): "/data"}, labels=labels)
    command = ("migrate", "--project", project, "--with-binds", "--map", f"{tmp_path}/site={tmp_path}/there", "--json")
    said = _cut_off(second, EACH // 2, run_volback, command, far_state)
    assert said["result"]["not_moved"] == [str(here)]
    assert there.is_dir(), "it is kept"
    (there / "theirs").write_text("x")
    with CuttingRelay(second, []) as relay:
        refused = run_volback(*command, "--to", relay.url, env=far_state, check_exit=5).json["error"]
        assert "holds a part that another run has brought, and 'theirs', which is not of it" in refused["message"]
        (there / "theirs").unlink()
        for name in ("file-0", "file-1"):
            with (there / name).open("r+b") as file:
                file.write(b"theirs")
        refused = run_volback(*command, "--to", relay.url, env=far_state, check_exit=5).json["error"]
        assert "'file-0', which is not of it" in refused["message"]
        for name in ("file-0", "file-1"):
            assert (there / name).read_bytes()[:6] == b"theirs"
            (there / name).unlink()
        before = relay.sent_bytes
        result = run_volback(*command, "--to", relay.url, env=far_state).json["result"]
        assert relay.sent_bytes - before < EACH * 0.9
    (directory,) = (one for one in result["moved"] if one["source"] == str(here))
    assert (directory["proven"], directory["resumed"]) == (True, True)
    assert differences(fingerprint(here), fingerprint(there)) == []
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


@pytest.mark.parametrize("removed", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_directory_that_was_replaced_since_is_not_gone_on_with(
    removed: bool, second: SecondEngine, run_volback: Volback, far_state: dict[str, str], engine: EngineSession,
    *, tmp_path: Path, volume_factory: Callable[..., str], create_container: Callable[..., Any],
) -> None:  # fmt: skip
    """It has one file then that is newer than the source's, as one that was cut off has."""
    here, there, project = tmp_path / "site" / "html", tmp_path / "there" / "html", engine.new_name("shop")
    for path in (here, there):
        path.mkdir(parents=True)
    _fill(here)
    labels = {PROJECT: project, "com.docker.compose.service": "web"}
    create_container(volumes={str(here): "/html", volume_factory(labels=labels): "/data"}, labels=labels)
    command = ("migrate", "--project", project, "--with-binds", "--map", f"{tmp_path}/site={tmp_path}/there", "--json")
    _cut_off(second, EACH // 2, run_volback, command, far_state)
    (there / "theirs").write_text("x")
    if removed:
        shutil.rmtree(there)
    again = (*command, "--to", second.url)
    moved = run_volback(*again, "--replace", "--no-safety-backup", env=far_state).json["result"]["moved"]
    assert {(one["proven"], one["resumed"]) for one in moved} == {(True, False)}
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []
    (there / "file-0").write_bytes(b"theirs")
    assert "is not empty" in run_volback(*again, env=far_state, check_exit=5).json["error"]["message"]
    assert (there / "file-0").read_bytes() == b"theirs"


def test_a_directory_that_was_being_replaced_when_its_run_was_killed_is_gone_on_with(
    second: SecondEngine, run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str],
    create_container: Callable[..., Any], *, tmp_path: Path,
) -> None:  # fmt: skip
    """Its former content is removed already, and a part of the new one is there."""
    here, there, project = tmp_path / "site" / "html", tmp_path / "there" / "html", engine.new_name("shop")
    for path in (here, there):
        path.mkdir(parents=True)
    _fill(here)
    (there / "former").write_text("x")
    labels = {PROJECT: project, "com.docker.compose.service": "web"}
    create_container(volumes={str(here): "/html", volume_factory(labels=labels): "/data"}, labels=labels)
    maps = ("--map", f"{tmp_path}/site={tmp_path}/there", "--jobs", "1")
    command = ("migrate", "--project", project, "--to", second.url, "--with-binds", *maps)
    replaced = (*command, "--replace", "--no-safety-backup")
    assert struck(run_volback, signal.SIGKILL, "buffer 1 of write", *replaced) == -signal.SIGKILL
    assert not (there / "former").exists()
    moved = run_volback(*command, "--json").json["result"]["moved"]
    result = {one["source"]: (one["proven"], one["was_there"], one["resumed"]) for one in moved}
    assert result.pop(str(here)) == (True, False, True)
    assert list(result.values()) == [(True, True, False)]
    assert differences(fingerprint(here), fingerprint(there)) == []
    assert list((run_volback.state / "runs").iterdir()) == []
