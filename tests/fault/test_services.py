"""Services of a swarm: `--stop` scales them to 0 and back, whatever happens meanwhile, and never to what a person did
not want."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from tests.support.api_proxy import ApiProxy
from tests.support.engine import PROJECT, Result, Volback
from tests.support.halt import guard_of, halted, struck
from tests.support.remote import wait_for
from tests.support.repository import new_repository
from tests.support.swarm import Service, Swarm, one_node_swarm
from volback.state.journal import HeldService, decode_journal
from volback.state.runs import Run

READ = "buffer 0 of read"
STEPS = (
    "before Engine.scale_service", "after Engine.scale_service", READ, "before Engine.scale_service#2",
    "after Engine.scale_service#2",
)  # fmt: skip
"""The service is planned, scaled down, at 0; about to be scaled back, scaled back."""
AGAIN_S = 60.0
"""For a machine under load; a second or two is usual."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with one_node_swarm() as running:
        yield running


@dataclass
class Lane:
    """A service on a volume, and a volback for it."""

    volback: Volback
    swarm: Swarm
    volume: str
    service: Service

    def run(self, *arguments: str, check_exit: int = 0) -> Result:
        return self.volback(*arguments, env=self.swarm.environment, check_exit=check_exit)

    def halted(self, *options: str, step: str = READ) -> Any:
        return halted(self.volback, step, "backup", self.volume, "--stop", *options, env=self.swarm.environment)

    def kill(self, step: str) -> None:
        exit_code = struck(
            self.volback, signal.SIGKILL, step, "backup", self.volume, "--stop", env=self.swarm.environment
        )
        assert exit_code == -signal.SIGKILL, step

    def kill_with_its_guard(self, step: str) -> None:
        with self.halted(step=step) as run:
            os.kill(guard_of(self.volback), signal.SIGKILL)
            os.kill(run.pid, signal.SIGKILL)
        assert run.ended.exit_code == -signal.SIGKILL, (step, run.ended)

    def consistency(self) -> str:
        return str(self.run("show", self.volume, "--json").json["result"]["backup"]["consistency"])

    def held(self) -> list[str]:
        """What the journals of its runs still name."""
        journals = [decode_journal(path.read_bytes()) for path in self.volback.state.glob("runs/*/journal.json")]
        return [entry.what for journal in journals for entry in journal.quiescing]


@pytest.fixture
def lane_factory(swarm: Swarm, tmp_path: Path) -> Iterator[Callable[..., Lane]]:
    """Makes lanes; their services have one more volume for each argument, and are removed after the test."""
    made: list[Lane] = []

    def make(*more: str, **options: Any) -> Lane:
        volume = swarm.volume()
        directory = tmp_path / volume
        directory.mkdir()
        volback = Volback(directory, set())
        new_repository(volback.repository)
        made.append(Lane(volback, swarm, volume, swarm.service(volume, *more, **options)))
        return made[-1]

    yield make
    for lane in made:
        with suppress(docker.errors.NotFound):
            lane.service.remove()


def _at_once(*tasks: Callable[[], None]) -> None:
    """They mostly wait for the swarm."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def test_a_service_is_scaled_to_0_while_its_volumes_are_read_and_has_all_else_as_before(
    swarm: Swarm, run_volback: Volback, tmp_path: Path
) -> None:
    """Two replicas, two volumes, labels that ask for it, and hooks: the one after runs in a new container."""
    first, second = swarm.volume(), swarm.volume()
    labels = {
        "volback.quiesce": "stop",
        "volback.exec-pre": f"echo before >>/{first}/pre",
        "volback.exec-post": f"echo after >>/{first}/post",
    }
    service = swarm.service(first, second, replicas=0, container_labels=labels, stop_grace_period=7 * 10**9)
    service.change(_fill)
    service.scale(2)
    service.wait_for_tasks(2)
    before, were = service.facts, {container.name for container in service.containers()}
    with swarm.events() as events, ApiProxy(tmp_path / "engine.sock", engine=swarm.socket) as proxy:
        said = run_volback("backup", first, second, "--json", env={"DOCKER_HOST": proxy.url})
        happened = events.since(0)
    assert service.running_tasks() == 2, "it has waited for them"
    result = said.json["result"]
    assert [made["consistency"] for made in result["backups"]] == ["stopped", "stopped"]
    shown = [run_volback("show", name, "--json", env=swarm.environment) for name in (first, second)]
    assert [set(backup.json["result"]["containers"]) for backup in shown] == [were, were]
    assert result["downtime_s"].keys() == were
    assert service.facts["Spec"] == before["Spec"]
    assert {container.name for container in service.containers()}.isdisjoint(were)
    for name in were:
        actions = [event.action for event in happened if event.name == name]
        assert "start" not in actions[actions.index("die") :], "swarm starts new ones; nobody starts those again"
    path = swarm.volume_path(first)
    assert ((path / "pre").read_text(), (path / "post").read_text()) == ("before\n" * 2, "after\n" * 2)
    documented = (PROJECT / "docs/reference/engine-api.md").read_text()
    called = {call.partition("/services/")[0] + "/services/ID" for call in proxy.calls if "/services/" in call}
    assert all(f"`{call}" in documented for call in called | {"GET /tasks"}), called


def _fill(spec: dict[str, Any]) -> None:
    """Settings that the library's own way to update a service would lose."""
    spec["Labels"] = {"team": "b"}
    spec["UpdateConfig"] = {"Parallelism": 2, "MaxFailureRatio": 0.5, "Order": "stop-first"}
    template = spec["TaskTemplate"]
    template["ForceUpdate"] = 3
    template["Resources"] = {"Limits": {"Pids": 100}}
    template["ContainerSpec"]["Ulimits"] = [{"Name": "nofile", "Soft": 512, "Hard": 1024}]


def test_a_paused_service_is_not_scaled_and_a_used_volume_names_the_command(lane_factory: Callable[..., Lane]) -> None:
    lane = lane_factory()
    before, were = lane.service.facts, lane.service.containers()
    lane.run("backup", lane.volume, "--pause")
    assert lane.consistency() == "paused"
    assert lane.service.facts == before
    assert lane.service.containers() == were
    said = lane.run("restore", lane.volume, "--replace", check_exit=5)
    assert f"hint: stop it first: docker service scale {lane.service.name}=0" in said.stderr


def test_what_cannot_be_scaled_to_0_and_back_is_refused_with_what_to_type(
    swarm: Swarm, lane_factory: Callable[..., Lane]
) -> None:
    everywhere = lane_factory(mode="global")
    job = lane_factory(mode="replicated-job")
    updated = lane_factory(replicas=2, update_config={"Parallelism": 1, "Delay": 3600 * 10**9})
    updated.service.change(lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
    wait_for(lambda: updated.service.facts.get("UpdateStatus", {}).get("State") == "updating", "the update")
    shared = lane_factory()
    (task,) = shared.service.containers()
    sharer = swarm.client.containers.run(
        task.image, ["/bin/sleep", "600"], detach=True, network_mode=f"container:{task.id}", stop_signal="SIGKILL"
    )
    for lane, words in (
        (everywhere, "runs on every node (global mode): it cannot be scaled to 0 and back"),
        (everywhere, "; then back up without --stop, and run: docker service update --constraint-rm node.id!="),
        (job, "is a job: it cannot be scaled to 0 and back"),
        (updated, "is being updated (updating): scaled now, that would be lost"),
        (shared, f"container {sharer.name!r} uses a namespace of container {task.name!r}"),
    ):
        before = lane.service.facts
        said = lane.run("backup", lane.volume, "--stop", check_exit=5)
        assert words in said.stderr
        assert lane.service.facts == before
        assert lane.held() == []


def test_what_a_person_did_meanwhile_stays(lane_factory: Callable[..., Lane]) -> None:
    up, down, gone, constrained = (lane_factory(replicas=number) for number in (2, 1, 1, 1))

    def scale_up() -> None:
        with up.halted() as run:
            up.service.scale(1)
            up.service.wait_for_tasks(1)
        assert run.ended.exit_code == 3, run.ended
        assert (
            f"service {up.service.name!r} was scaled to 1 by others while it was down, and stays so" in run.ended.stderr
        )
        assert "was started by others while volume" in run.ended.stderr
        assert (up.consistency(), up.service.replicas) == ("live", 1)

    def scale_to_0() -> None:
        with down.halted() as run:
            down.service.scale(0)
        assert run.ended.exit_code == 3, run.ended
        assert f"to have it back: docker service scale {down.service.name}=1" in run.ended.stderr
        assert (down.consistency(), down.service.replicas) == ("stopped", 0)

    def remove() -> None:
        with gone.halted() as run:
            gone.service.remove()
        assert run.ended.exit_code == 3, run.ended
        assert f"service {gone.service.name!r} was removed while it was scaled to 0" in run.ended.stderr

    def constrain() -> None:
        """It has no node to run on then: this run waits for its tasks in vain."""
        with constrained.halted("--health-timeout", "1s", "--stop-timeout", "12s") as run:
            constrained.service.change(
                lambda spec: spec["TaskTemplate"].update(Placement={"Constraints": ["node.hostname==none"]})
            )
        assert run.ended.exit_code == 3, run.ended
        assert f"service {constrained.service.name!r} has its own 10 s to end, not 12" in run.ended.stderr
        assert "is scaled back, but runs 0 of 1 tasks after 1 s" in run.ended.stderr
        after = constrained.service.facts["Spec"]
        assert after["TaskTemplate"]["Placement"] == {"Constraints": ["node.hostname==none"]}
        assert constrained.service.replicas == 1

    _at_once(scale_up, scale_to_0, remove, constrain)
    assert [lane.held() for lane in (up, down, gone, constrained)] == [[]] * 4


def test_a_service_that_others_scale_to_0_is_waited_for_and_stays_there(
    lane_factory: Callable[..., Lane],
) -> None:
    lane = lane_factory()
    lane.service.scale(0)
    lane.run("backup", lane.volume, "--stop")
    assert (lane.consistency(), lane.service.replicas, lane.held()) == ("stopped", 0, [])


def test_two_runs_hold_one_service_and_the_last_one_scales_it_back(
    swarm: Swarm, lane_factory: Callable[..., Lane]
) -> None:
    second = swarm.volume()
    lane = lane_factory(second)
    joined = halted(lane.volback, READ, "backup", second, "--stop", env=swarm.environment)
    with lane.halted() as first, joined as other:
        assert len(lane.held()) == 2
        os.kill(first.pid, signal.SIGCONT)
        wait_for(lambda: len(lane.held()) == 1, "the end of the first run")
        assert lane.service.replicas == 0, "the other one still reads"
    assert (first.ended.exit_code, other.ended.exit_code) == (0, 0), (first.ended, other.ended)
    assert lane.service.running_tasks() == 1


def test_after_a_kill_the_guard_or_recover_scales_back(
    lane_factory: Callable[..., Lane], request: pytest.FixtureRequest
) -> None:
    every = request.config.getoption("--every-step")

    def struck_by(lane: Lane, strike: Callable[[Lane, str], None], steps: Sequence[str]) -> None:
        for step in STEPS if every else steps:
            strike(lane, step)
            wait_for(lambda: lane.service.running_tasks() == 2, f"two tasks, after {step}", limit_s=AGAIN_S)
            wait_for(lambda: lane.held() == [], f"the guard, after {step}", limit_s=AGAIN_S)

    def with_guard(lane: Lane, step: str) -> None:
        lane.kill(step)

    def without_guard(lane: Lane, step: str) -> None:
        lane.kill_with_its_guard(step)
        said = lane.run("recover")
        assert (f"service {lane.service.name} is scaled back" in said.stdout) == (step in STEPS[1:4]), (step, said)

    first, second = lane_factory(replicas=2), lane_factory(replicas=2)
    _at_once(lambda: struck_by(first, with_guard, STEPS[1::3]), lambda: struck_by(second, without_guard, STEPS[3:4]))
    second.run("backup", second.volume, "--stop")
    assert second.consistency() == "stopped"


def test_a_change_that_a_killed_run_had_asked_for_comes_too_late(lane_factory: Callable[..., Lane]) -> None:
    """The engine may still have the call, and nobody would scale the service back after it."""
    lane = lane_factory()
    before = lane.service.facts
    version = before["Version"]["Index"]
    entry = HeldService(
        engine=lane.swarm.client.info()["ID"], id=lane.service.id, name=lane.service.name, node="", phase="stopping",
        version=version, replicas=1,
    )  # fmt: skip
    with Run(lane.volback.state, "quiesce") as run:
        run.note(entry)
    lane.run("recover")
    assert lane.held() == []
    with pytest.raises(docker.errors.APIError, match="out of sequence"):
        lane.service.scale(0, version=version)
    assert lane.service.facts["Spec"] == before["Spec"]


def test_after_a_power_cut_recover_scales_back(swarm: Swarm, lane_factory: Callable[..., Lane]) -> None:
    lane = lane_factory()
    with lane.halted() as run:
        os.kill(guard_of(lane.volback), signal.SIGKILL)
        os.kill(run.pid, signal.SIGKILL)
        swarm.engine.stop(signal.SIGKILL)
    swarm.engine.start()
    assert lane.run("recover").stdout == f"service {lane.service.name} is scaled back\n"
    wait_for(lambda: lane.service.running_tasks() == 1, "the task")
    assert lane.held() == []
