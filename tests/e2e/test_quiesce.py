"""`backup --stop` and `--pause`, labels and hooks, with real containers: who is still, in which order, how long."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import docker.types
import pytest

from tests.support.engine import EngineSession, Volback, said_in
from tests.support.events import Events
from tests.support.halt import delayed, halted
from tests.support.library import Library, open_library
from tests.support.remote import wait_for
from volback.engine.containers import Container
from volback.engine.engine import Engine
from volback.errors import EngineError
from volback.live.plan import quiesce_candidates
from volback.operations import recover as recover_module
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.sources import volume_source
from volback.state.journal import HeldContainer
from volback.state.runs import Run

Containers = Callable[..., Any]
Volumes = Callable[..., str]

WRITER = """
trap 'echo stopped well >/data/farewell; exit 0' USR1
echo started >>/data/log
while :; do sleep 600 & wait $!; done
"""
READY = {"stop_signal": "SIGUSR1"}


def _state(container: Any) -> str:
    container.reload()
    return str(container.status)


def _events(events: Events, since: float, *containers: Any) -> list[tuple[str, str]]:
    """What happened to the containers, in order: (name, die | start | pause | unpause).

    An engine reports a moment after it has acted: the last event of each has to be what brought it to its state.
    """
    wait_for(lambda: _are_reported(events, *containers), "the report of the last event")
    return _reported(events, since, *containers)


def _are_reported(events: Events, *containers: Any) -> bool:
    last = dict(_reported(events, 0, *containers))
    brought_by = {"running": ("start", "unpause"), "paused": ("pause",), "exited": ("die",)}
    here = containers[0].client.api.containers(all=True, filters={"id": [one.id for one in containers]})
    states = {one["Names"][0].removeprefix("/"): str(one["State"]) for one in here}
    return all(name not in last or last[name] in brought_by.get(states[name], last.values()) for name in states)


def _reported(events: Events, since: float, *containers: Any) -> list[tuple[str, str]]:
    ids = {one.id for one in containers}
    return [(event.name, event.action) for event in events.since(since) if event.container in ids]


def _after_the_end(events: Events, container: Any) -> float:
    """A time after a container that ends was reported as dead: newer engines do that a little after it has ended."""
    wait_for(lambda: (container.name, "die") in _events(events, 0, container), f"the end of {container.name}")
    return time.time()


def _wait_for(path: Path) -> None:
    wait_for(path.exists, str(path))


@pytest.fixture
def volume(volume_factory: Volumes) -> str:
    return volume_factory("still", fill=lambda path: (path / "data").write_bytes(b"x" * 100_000) and None)


@pytest.fixture
def writer(container_factory: Containers, volume: str, volume_path: Callable[[str], Path]) -> Any:
    """A container that writes to the volume, and ends well by its own signal alone."""
    container = container_factory(WRITER, volumes={volume: "/data"}, **READY)
    _wait_for(volume_path(volume) / "log")
    return container


def test_stop_ends_a_container_by_its_own_signal_and_starts_it_again(
    run_volback: Volback, events: Events, volume: str, writer: Any
) -> None:
    since = time.time()
    said = run_volback("backup", volume, "--stop", "--json").json["result"]
    assert said["backups"][0]["consistency"] == "stopped"
    assert 0 < said["downtime_s"][writer.name] < 300
    assert run_volback("cat", volume, "farewell").stdout == "stopped well\n"
    assert run_volback("show", volume, "--json").json["result"]["containers"] == [writer.name]
    assert _state(writer) == "running"
    assert _events(events, since, writer) == [(writer.name, "die"), (writer.name, "start")]


def test_a_stop_that_fails_and_goes_on_is_waited_for_on_a_busy_engine(
    library: Library, volume: str, volume_path: Callable[[str], Path], container_factory: Containers,
    monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:  # fmt: skip
    """The engine forgets that it has sent the signal: it keeps 256 events. The container ends a second after that."""
    ends = "until [ -e /data/forgotten ]; do sleep 0.1; done; sleep 1; exit 0"
    slow = container_factory(f"trap '{ends}' TERM; sleep 600 & wait", volumes={volume: "/data"})

    def stop(_: Engine, id: str, *, grace_s: int) -> None:
        slow.kill("SIGTERM")
        for _number in range(260):
            slow.client.api.exec_create(id, "true")
        (volume_path(volume) / "forgotten").touch()
        raise EngineError("the engine did not answer in time")

    monkeypatch.setattr(Engine, "stop_container", stop)
    options = SetOptions(quiesce="stop", stop_timeout_s=120)  # on a busy machine all these events take their time
    result = backup_set(*library, [volume_source(library.engine, volume)], options)
    assert [error.message for error in result.errors] == ["the engine did not answer in time"]
    time.sleep(0.2)
    slow.reload()
    assert (slow.status, slow.attrs["State"]["FinishedAt"] > "0001-01-02") == ("running", True)


def test_pause_freezes_a_container_that_goes_on_where_it_was(
    run_volback: Volback, events: Events, volume: str, writer: Any
) -> None:
    since = time.time()
    said = run_volback("backup", volume, "--pause")
    assert f"{writer.name} was down for" in said.stdout
    assert run_volback("show", volume, "--json").json["result"]["backup"]["consistency"] == "paused"
    assert _events(events, since, writer) == [(writer.name, "pause"), (writer.name, "unpause")]


def test_who_only_reads_or_does_not_run_is_left_alone(
    run_volback: Volback, events: Events, volume: str, container_factory: Containers, test_image: str
) -> None:
    reader = container_factory(volumes={}, mounts=[docker.types.Mount("/data", volume, read_only=True)])
    done = container_factory("exit 0", volumes={volume: "/data"})
    since = _after_the_end(events, done)
    said = run_volback("backup", volume, "--stop", "--json").json
    assert said["result"]["downtime_s"] == {}
    assert _events(events, since, reader, done) == []
    assert _state(done) == "exited"


def test_a_container_that_would_be_gone_is_not_stopped_and_the_others_go_on(
    run_volback: Volback, volume_factory: Volumes, volume: str, container_factory: Containers
) -> None:
    passing = container_factory(volumes={volume: "/data"}, auto_remove=True)
    other = volume_factory("other")
    said = run_volback("backup", volume, other, "--stop", check_exit=5)
    assert f"container {passing.name!r} would be removed as soon as it stops (--rm)" in said.stderr
    assert "hint: pause it instead" in said.stderr
    assert _state(passing) == "running"
    assert [row["volume"] for row in run_volback("list", "--json").json["result"]["backups"]] == [other]
    run_volback("backup", volume, "--pause")


SWARM = {"com.docker.swarm.service.name": "web", "com.docker.swarm.task.id": "t1"}


def test_what_a_scheduler_would_replace_is_not_stopped_but_may_be_paused(
    run_volback: Volback, engine: EngineSession, events: Events, volume: str, writer: Any, container_factory: Containers
) -> None:
    task = container_factory(volumes={volume: "/data"}, labels=engine.labels | SWARM)
    since = time.time()
    said = run_volback("backup", volume, "--stop", check_exit=5)
    assert f"container {task.name!r} belongs to swarm service 'web'" in said.stderr
    assert "docker service scale web=0" in said.stderr
    assert _events(events, since, writer, task) == [], "nothing was stopped before that was seen"
    run_volback("backup", volume, "--pause")
    assert _events(events, since, task) == [(task.name, "pause"), (task.name, "unpause")]


def test_a_label_that_asks_to_stop_what_a_scheduler_owns_fails_that_volume_alone(
    run_volback: Volback, engine: EngineSession, volume: str, volume_factory: Volumes, container_factory: Containers
) -> None:
    other = volume_factory("other")
    labels = engine.labels | {"PODMAN_SYSTEMD_UNIT": "app.service", "volback.quiesce": "stop"}
    unit = container_factory(volumes={volume: "/data"}, labels=labels)
    said = run_volback("backup", volume, other, check_exit=5)
    assert f"container {unit.name!r} belongs to systemd unit 'app.service'" in said.stderr
    assert "systemctl stop app.service" in said.stderr
    assert [row["volume"] for row in run_volback("list", "--json").json["result"]["backups"]] == [other]


@pytest.mark.parametrize("what", ["ended", "removed"])
def test_a_paused_container_that_its_scheduler_has_replaced_is_not_started(
    run_volback: Volback, engine: EngineSession, events: Events, volume: str, container_factory: Containers, what: str
) -> None:
    task = container_factory(volumes={volume: "/data"}, labels=engine.labels | SWARM)
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--pause") as run:
        task.unpause()
        task.kill()
        since = _after_the_end(events, task)
        if what == "removed":
            task.remove()
    assert run.ended.exit_code == 3, run.ended
    assert "swarm service 'web' starts another one" in run.ended.stderr
    assert _events(events, since, task) == []
    assert list((run_volback.state / "runs").iterdir()) == []


def test_recover_does_not_start_what_a_scheduler_owns(
    run_volback: Volback, engine: EngineSession, volume: str, container_factory: Containers
) -> None:
    """Such a journal is one of a version that stopped it."""
    task = container_factory(volumes={volume: "/data"}, labels=engine.labels | SWARM)
    task.kill()
    engine_id = engine.client.info()["ID"]
    with Run(run_volback.state, "quiesce") as run:
        run.note(HeldContainer(engine=engine_id, id=task.id, name=task.name, how="stop", phase="held"))
    said = run_volback("recover")
    assert "swarm service 'web' starts another one" in said.stderr
    assert _state(task) == "exited"
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_container_that_crashes_again_and_again_cannot_be_paused_but_stopped(
    run_volback: Volback, volume: str, container_factory: Containers
) -> None:
    container = container_factory("exit 1", volumes={volume: "/data"}, restart_policy={"Name": "always"})
    _wait_until_it_crashes_all_the_time(container)
    said = run_volback("backup", volume, "--pause", check_exit=5)
    assert f"container {container.name!r} ends and is restarted again and again" in said.stderr
    assert "hint: stop it instead with --stop" in said.stderr
    run_volback("backup", volume, "--stop")
    assert _state(container) in ("running", "restarting")


def test_a_container_that_begins_to_crash_before_it_is_paused_gets_the_same_message(
    run_volback: Volback, volume: str, container_factory: Containers, volume_path: Callable[[str], Path]
) -> None:
    script = "until [ -e /data/crash ]; do sleep 0.01; done; exit 1"
    container = container_factory(script, volumes={volume: "/data"}, restart_policy={"Name": "always"})
    with halted(run_volback, "before Engine.pause_container", "backup", volume, "--pause") as run:
        (volume_path(volume) / "crash").touch()
        _wait_until_it_crashes_all_the_time(container)
    assert run.ended.exit_code == 5
    assert f"error: container {container.name!r} ends and is restarted again and again" in run.ended.stderr
    assert "hint: stop it instead with --stop" in run.ended.stderr


def _wait_until_it_crashes_all_the_time(container: Any) -> None:
    """Before each further restart the engine now waits for seconds."""
    wait_for(lambda: _state(container) == "restarting" and container.attrs["RestartCount"] >= 5, "its fifth restart")


def test_dependants_stop_first_and_start_last(
    run_volback: Volback, engine: EngineSession, events: Events, volume_factory: Volumes, container_factory: Containers
) -> None:
    """By a shared network, also where the dependant has no volume; and by compose's depends_on."""
    volume = volume_factory("order")
    compose = {"com.docker.compose.project": "shop"}
    named = {"z": "db", "a": "web"}
    labels = {key: engine.labels | compose | {"com.docker.compose.service": name} for key, name in named.items()}
    labels["a"]["com.docker.compose.depends_on"] = "db:service_started:false"
    database = container_factory(volumes={volume: "/data"}, labels=labels["z"])
    web = container_factory(volumes={volume: "/data"}, labels=labels["a"])
    sidecar = container_factory(network_mode=f"container:{database.id}")
    since = time.time()
    run_volback("backup", volume, "--stop")
    happened = _events(events, since, database, web, sidecar)
    order = [happened.index((one.name, "die")) for one in (sidecar, database)]
    assert order == sorted(order)
    assert happened.index((web.name, "die")) < happened.index((database.name, "die"))
    assert happened.index((database.name, "start")) < happened.index((web.name, "start"))
    assert happened.index((database.name, "start")) < happened.index((sidecar.name, "start"))
    assert [_state(one) for one in (database, web, sidecar)] == ["running"] * 3


def _health(command: str) -> Any:
    return docker.types.Healthcheck(test=["CMD-SHELL", command], interval=300_000_000, retries=1)


SLOW = """
at_the_end() {
  echo asked >>/data/ends
  until set -- $(cat /data/ends); [ $# -ge 3 ]; do sleep 0.05; done
  echo ended >>/data/ends
  exit 0
}
trap at_the_end USR1
echo ready >/data/$HOSTNAME
while :; do sleep 600 & wait $!; done
"""


def test_containers_that_do_not_need_one_another_stop_at_the_same_time(
    run_volback: Volback, volume: str, volume_path: Callable[[str], Path], container_factory: Containers
) -> None:
    """None of them ends before all have been asked to."""
    several = [container_factory(SLOW, volumes={volume: "/data"}, **READY) for _ in range(3)]
    for container in several:
        _wait_for(volume_path(volume) / container.id[:12])
    said = run_volback("backup", volume, "--stop", "--stop-timeout", "60s", "--json").json["result"]
    assert said["backups"][0]["consistency"] == "stopped"
    assert run_volback("cat", volume, "ends").stdout.split() == ["asked"] * 3 + ["ended"] * 3
    assert [_state(container) for container in several] == ["running"] * 3


def test_a_container_with_a_health_check_is_healthy_when_the_backup_ends(
    run_volback: Volback, volume: str, container_factory: Containers
) -> None:
    container = container_factory(
        "rm -f /data/up; sleep 1; : >/data/up; exec sleep 600",
        volumes={volume: "/data"},
        healthcheck=_health("test -e /data/up"),
    )
    run_volback("backup", volume, "--stop")
    container.reload()
    assert container.attrs["State"]["Health"]["Status"] == "healthy"


def test_a_container_that_does_not_get_healthy_is_a_warning(
    run_volback: Volback, volume: str, container_factory: Containers
) -> None:
    container = container_factory(volumes={volume: "/data"}, healthcheck=_health("exit 1"))
    said = run_volback("backup", volume, "--stop", "--health-timeout", "1s", check_exit=3)
    assert f"container {container.name!r} runs again, but is not healthy after 1 s" in said.stderr


def test_containers_run_again_before_all_is_stored(run_volback: Volback, volume: str, writer: Any) -> None:
    with delayed(run_volback, "buffer 0 of put index.jsonl.zst", "backup", volume, "--pause") as run:
        wait_for(lambda: _state(writer) == "running", "the end of the pause")
    assert run.ended.exit_code == 0, run.ended


def test_one_volume_in_several_containers(
    run_volback: Volback, volume: str, writer: Any, container_factory: Containers
) -> None:
    second = container_factory(volumes={volume: "/data"})
    said = run_volback("backup", volume, "--stop", "--json").json["result"]
    assert sorted(said["downtime_s"]) == sorted([writer.name, second.name])
    assert (_state(writer), _state(second)) == ("running", "running")


def test_a_second_run_does_not_get_a_shared_container_restarted_under_its_feet(
    run_volback: Volback, volume_factory: Volumes, container_factory: Containers, events: Events
) -> None:
    one, other = volume_factory("one"), volume_factory("other")
    shared = container_factory(volumes={one: "/one", other: "/other"})
    since = time.time()
    with halted(run_volback, "end of read", "backup", one, "--stop") as first:
        said = run_volback("backup", other, "--stop", "--json").json["result"]
        assert said["backups"][0]["consistency"] == "stopped"
        assert _state(shared) == "exited"
    assert first.ended.exit_code == 0, first.ended
    assert _state(shared) == "running"
    assert _events(events, since, shared) == [(shared.name, "die"), (shared.name, "start")]
    assert run_volback("show", one, "--json").json["result"]["backup"]["consistency"] == "stopped"


def test_a_container_that_cannot_be_started_again_is_reported_by_every_run_and_recovered(
    run_volback: Volback, volume: str, container_factory: Containers, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"
    needed.mkdir()
    mounts = [docker.types.Mount("/data", volume), docker.types.Mount("/needed", str(needed), type="bind")]
    container = container_factory(mounts=mounts)
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        needed.rename(tmp_path / "away")
    assert run.ended.exit_code == 1
    assert f"container {container.name!r} is still stopped" in run.ended.stderr
    assert "volback recover" in run.ended.stderr
    assert "needed" in run.ended.stderr
    assert len(run_volback("list", volume, "--json").json["result"]["backups"]) == 1, "what was read is a backup"
    (tmp_path / "away").rename(needed)
    run_volback("recover")
    wait_for(lambda: _state(container) == "running", "the container's start")
    assert list((run_volback.state / "runs").iterdir()) == []


@pytest.mark.parametrize("step", ["after Engine.stop_container", "buffer 0 of read"])
def test_what_others_start_meanwhile_is_named_and_makes_the_backup_live(
    run_volback: Volback, engine: EngineSession, volume: str, writer: Any, container_factory: Containers, step: str
) -> None:
    """A watcher starts what it finds stopped, and it may end again; `compose up --scale` adds a container."""
    added = engine.labels | {f"com.docker.compose.{key}": "2" for key in ("project", "service", "container-number")}
    with halted(run_volback, step, "backup", volume, "--stop") as run:
        writer.start()
        if step == "buffer 0 of read":
            writer.kill()
        second = container_factory(volumes={volume: "/data"}, labels=added)
    assert run.ended.exit_code == 3
    assert f"container {writer.name!r} was started by others" in run.ended.stderr
    assert f"container {second.name!r} " in run.ended.stderr
    assert run_volback("show", volume, "--json").json["result"]["backup"]["consistency"] == "live"
    assert (_state(writer), _state(second)) == ("running", "running")


def test_a_container_that_is_removed_meanwhile_is_reported(run_volback: Volback, volume: str, writer: Any) -> None:
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        writer.remove()
    assert run.ended.exit_code == 1
    assert f"container {writer.name!r} was removed" in run.ended.stderr
    assert list((run_volback.state / "runs").iterdir()) == []


def _compose(number: str) -> dict[str, str]:
    keys = ("project", "service", "container-number")
    return {f"com.docker.compose.{key}": value for key, value in zip(keys, ("shop", "db", number), strict=True)}


def test_a_container_that_was_made_anew_while_it_was_down_is_started(
    run_volback: Volback, volume: str, writer: Any, create_container: Containers
) -> None:
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        writer.remove()
        new = create_container(volumes={volume: "/data"}, name=writer.name)
    assert run.ended.exit_code == 0, run.ended
    assert _state(new) == "running"
    assert run_volback("show", volume, "--json").json["result"]["backup"]["consistency"] == "stopped"
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_container_that_was_made_anew_and_runs_already_counts_as_resumed(
    run_volback: Volback, events: Events, volume: str, writer: Any, create_container: Containers
) -> None:
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        writer.remove()
        new = create_container(volumes={volume: "/data"}, name=writer.name)
        since = time.time()
        new.start()
    assert run.ended.exit_code == 3, run.ended
    assert f"container {writer.name!r} was started by others" in run.ended.stderr, "it wrote while it was read"
    assert run_volback("show", volume, "--json").json["result"]["backup"]["consistency"] == "live"
    assert _events(events, since, new) == [(new.name, "start")]


def test_a_compose_service_is_found_again_under_another_name(
    run_volback: Volback, engine: EngineSession, volume: str, create_container: Containers
) -> None:
    first, second = (
        create_container(volumes={volume: "/data"}, labels=engine.labels | _compose(number)) for number in "12"
    )
    first.start()
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        first.remove()
        new = create_container(volumes={volume: "/data"}, labels=engine.labels | _compose("1"))
    assert run.ended.exit_code == 0, run.ended
    assert (_state(new), _state(second)) == ("running", "created")


def test_a_container_is_not_started_beside_the_one_that_runs_in_its_place(
    run_volback: Volback, engine: EngineSession, volume: str, writer: Any, create_container: Containers
) -> None:
    name = writer.name
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--stop") as run:
        writer.rename(f"{name}-old")
        new = create_container(volumes={volume: "/data"}, name=name)
        new.start()
    assert run.ended.exit_code == 3, run.ended
    assert (_state(writer), _state(new)) == ("exited", "running")


def test_recover_starts_what_was_made_anew(
    run_volback: Volback, engine: EngineSession, volume: str, create_container: Containers
) -> None:
    new = create_container(volumes={volume: "/data"}, labels=engine.labels | _compose("1"))
    gone = HeldContainer(
        engine=engine.client.info()["ID"], id="f" * 64, name=f"{new.name}-gone", how="stop", phase="held",
        replica=("shop", "db", "1"),
    )  # fmt: skip
    with Run(run_volback.state, "quiesce") as run:
        run.note(gone)
    run_volback("recover")
    assert _state(new) == "running"
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_host_directory_that_containers_bind(
    run_volback: Volback, container_factory: Containers, tmp_path: Path
) -> None:
    directory = tmp_path / "www"
    (directory / "below").mkdir(parents=True)
    container = container_factory(mounts=[docker.types.Mount("/www", str(directory / "below"), type="bind")])
    said = run_volback("backup", str(directory), "--stop", "--json").json["result"]
    assert list(said["downtime_s"]) == [container.name]
    assert said["backups"][0]["consistency"] == "stopped"


def test_labels_say_who_is_still_what_is_excluded_and_what_is_run(
    run_volback: Volback, engine: EngineSession, events: Events, volume: str, container_factory: Containers
) -> None:
    labels = engine.labels | {
        "volback.quiesce": "pause", "volback.exclude": "*.log", "volback.stopp-timeout": "3",
        "volback.exec-pre": "echo dumped >/data/dump; echo junk >/data/x.log",
        "volback.exec-post": "cat /data/dump >/data/after; rm /data/dump",
    }  # fmt: skip
    container = container_factory(volumes={volume: "/data"}, labels=labels)
    said = run_volback("--verbose", "backup", volume, check_exit=3)
    assert f"{container.name} was down for" in said.stdout
    assert "label volback.stopp-timeout" in said.stderr
    assert "did you mean volback.stop-timeout?" in said.stderr
    assert run_volback("cat", volume, "dump").stdout == "dumped\n"
    assert run_volback("cat", volume, "x.log", check_exit=4).stdout == ""
    assert said_in(container, "/bin/cat", "/data/after") == (0, b"dumped\n")
    since = time.time()
    run_volback("backup", volume, "--stop", check_exit=3)
    assert _events(events, since, container)[0] == (container.name, "die"), "the call counts before labels"


def test_a_failed_command_fails_its_volume_and_its_counterpart_runs_all_the_same(
    run_volback: Volback, engine: EngineSession, volume: str, volume_factory: Volumes, container_factory: Containers
) -> None:
    labels = engine.labels | {
        "volback.exec-pre": "echo no space left >&2; exit 7", "volback.exec-post": "echo after >/data/after"
    }  # fmt: skip
    container = container_factory(volumes={volume: "/data"}, labels=labels)
    other = volume_factory("other")
    said = run_volback("backup", volume, other, check_exit=1)
    assert f"{volume} not backed up: exec-pre in container {container.name!r} failed with status 7" in said.stderr
    assert "no space left" in said.stderr
    assert said_in(container, "/bin/cat", "/data/after") == (0, b"after\n")
    assert [row["volume"] for row in run_volback("list", "--json").json["result"]["backups"]] == [other]


def test_volumes_that_are_named_together_are_one_set_under_one_quiesce(
    run_volback: Volback, events: Events, volume_factory: Volumes, container_factory: Containers
) -> None:
    volumes = [volume_factory("one"), volume_factory("other")]
    container = container_factory(volumes={volumes[0]: "/one", volumes[1]: "/other"})
    since = time.time()
    run_volback("backup", *volumes, "--stop")
    assert _events(events, since, container) == [(container.name, "die"), (container.name, "start")]
    sets = [row["set"] for row in run_volback("list", "--json").json["result"]["backups"]]
    assert sets[0] == sets[1]
    assert sets[0]["volumes"] == volumes
    assert sets[0]["project"] is None


def test_all_leaves_out_what_is_disabled(
    run_volback: Volback, engine: EngineSession, volume_factory: Volumes, container_factory: Containers
) -> None:
    mark = {f"test.{engine.id}": "all"}
    off = volume_factory("off", labels=mark | {"volback.enable": "false"})
    by_container, on = volume_factory("by-container", labels=mark), volume_factory("on", labels=mark)
    container_factory(volumes={by_container: "/data"}, labels=engine.labels | {"volback.enable": "false"})
    run_volback("backup", "--label", f"test.{engine.id}=all")
    assert [row["volume"] for row in run_volback("list", "--json").json["result"]["backups"]] == [on]
    run_volback("backup", off)


def test_stop_and_pause_exclude_each_other(run_volback: Volback, volume: str) -> None:
    said = run_volback("backup", volume, "--stop", "--pause", check_exit=2)
    assert said.stderr.startswith("error: --stop and --pause exclude each other\n")


def test_recover_without_anything_to_do(run_volback: Volback) -> None:
    assert run_volback("recover").stdout == "no container was left down\n"


def test_what_a_guard_still_tries_is_an_error_of_recover(
    tmp_path: Path, engine: EngineSession, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run holds its lock, as its guard would, and its process is dead."""
    monkeypatch.setattr(recover_module, "GUARD_S", 0.0)
    library = open_library(engine, tmp_path)
    with Run(library.ctx.settings.state, "quiesce") as run:
        run.journal.pid = _pid_of_nobody()
        held = HeldContainer(engine=library.engine.info.id, id=writer.id, name=writer.name, how="stop", phase="held")
        run.note(held)
        (error,) = recover_module.recover(library.ctx, library.engine).errors
        run.drop(held)
    assert (
        error.message == f"stopped container {writer.name!r} is left to the guard of a crashed run, which still tries"
    )


@pytest.mark.parametrize("is_held_before", [True, False], ids=["ends", "begins"])
def test_a_hold_of_another_run_that_changes_while_containers_are_listed_is_seen(
    tmp_path: Path, engine: EngineSession, writer: Any, monkeypatch: pytest.MonkeyPatch, is_held_before: bool
) -> None:
    """Not running when the engine lists containers, and not in the journal before, or after."""
    library = open_library(engine, tmp_path)
    writer.stop(timeout=0)
    with Run(library.ctx.settings.state, "quiesce") as run:
        held = HeldContainer(engine=library.engine.info.id, id=writer.id, name=writer.name, how="stop", phase="held")
        change = run.drop if is_held_before else run.note
        if is_held_before:
            run.note(held)
        listed = Engine.containers

        def listing(self: Engine) -> list[Container]:
            found = listed(self)
            change(held)
            return found

        monkeypatch.setattr(Engine, "containers", listing)
        assert writer.id in {container.id for container in quiesce_candidates(library.ctx, library.engine)}
        run.drop(held)


def _pid_of_nobody() -> int:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_what_a_crashed_run_had_not_touched_stays_as_somebody_else_left_it(
    run_volback: Volback, engine: EngineSession, writer: Any, container_factory: Containers
) -> None:
    """One that its user had paused, another that its user stopped before its turn came."""
    stopped = container_factory()
    stopped.stop(timeout=0)
    writer.pause()
    with Run(run_volback.state, "quiesce") as run:
        engine_id = engine.client.info()["ID"]
        run.note(*(HeldContainer(engine=engine_id, id=one.id, name=one.name, how="pause") for one in (writer, stopped)))
    assert run_volback("recover").stdout == "no container was left down\n"
    assert (_state(writer), _state(stopped)) == ("paused", "exited")
    assert not run.directory.exists()
    writer.unpause()


def test_the_volumes_of_a_container(
    run_volback: Volback, volume_factory: Volumes, container_factory: Containers
) -> None:
    volumes = sorted([volume_factory("one"), volume_factory("other")])
    container = container_factory(volumes={volumes[0]: "/one", volumes[1]: "/other"})
    made = run_volback("backup", "--container", container.name, "--pause", "--json").json["result"]["backups"]
    assert [backup["volume"] for backup in made] == volumes
    said = run_volback("backup", "--project", "no-such-project", check_exit=4)
    assert "no compose project 'no-such-project'" in said.stderr


def test_a_lock_is_waited_for(run_volback: Volback, volume: str) -> None:
    with halted(run_volback, "buffer 0 of read", "backup", volume) as first:
        assert "is locked" in run_volback("backup", volume, check_exit=6).stderr
        second = run_volback.start("backup", volume, "--wait", "2m")
    assert first.ended.exit_code == 0
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert len(run_volback("list", volume, "--json").json["result"]["backups"]) == 2


def test_labels_that_are_not_valid_are_named_where_the_backup_fails_too(
    run_volback: Volback, engine: EngineSession, volume: str, container_factory: Containers
) -> None:
    labels = engine.labels | {"volback.exec-pre": "exit 7", "volback.stop-timeout": "soon"}
    container_factory(volumes={volume: "/data"}, labels=labels)
    said = run_volback("backup", volume, check_exit=1)
    assert "failed with status 7" in said.stderr
    assert "volback.stop-timeout" in said.stderr
