"""Nothing stays down: volback, its guard, both or the engine are killed at each step of quiesce, read and restart."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.fault.conftest import StepsOf
from tests.support.engine import EngineSession, Volback, build_image
from tests.support.halt import guard_of, halted, struck
from tests.support.remote import SecondEngine, second_engine, wait_for
from tests.support.repository import new_repository
from volback.catalog.repository import Catalog
from volback.state.runs import live_runs
from volback.store.local import LocalStore

LANES = 3
"""Strikes that are under way at the same time: they mostly wait for the engine."""
AGAIN_S = 60.0
"""For a machine under load. The guard needs about a second, which is shown."""
EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}
STOP = ("--stop", "--full")
HELD = (  # both containers are planned, stopping, held; read; resumed
    "before Engine.stop_container",
    "after Engine.stop_container",
    "before Engine.stop_container#2",
    "before a helper",
    "buffer 0 of read",
    "before Engine.resume_container",
    "after Engine.resume_container",
    "before Engine.resume_container#2",
)


@dataclass
class Lane:
    """Two containers on a volume, one in the other's network, and one that does not run; and a volback for them."""

    volback: Volback
    volume: str
    running: list[Any]
    idle: Any
    slowest: tuple[float, str] = (0.0, "")
    restarts: int = 0
    starts: list[str] = field(default_factory=list)

    def struck(self, number: int, step: str, *how: str, log: Path | None = None) -> int:
        """Back up, struck by a signal at a step; return the exit code."""
        self.starts = self._starts()
        env = {"STRIKE_LOG": str(log)} if log else None
        return struck(self.volback, number, step, "backup", self.volume, *(how or STOP), env=env)

    def assert_run_again(self, step: str, limit_s: float = 0.0) -> None:
        """What ran runs, at once or within the limit; what did not run does not."""
        began = time.monotonic()
        while not all(self._runs(container) for container in self.running):
            seen = {container.name: container.status for container in self.running}
            assert time.monotonic() - began < limit_s, f"{step}: {seen}"
            time.sleep(0.02)
        self.slowest = max(self.slowest, (time.monotonic() - began, step))
        self.restarts += self._starts() != self.starts
        self.idle.reload()
        assert self.idle.status == "created", step

    def assert_nothing_is_left(self, step: str) -> None:
        label = f"volback.client={(self.volback.state / 'client-id').read_text()}"
        assert self.idle.client.containers.list(all=True, ignore_removed=True, filters={"label": label}) == [], step
        assert list((self.volback.state / "runs").iterdir()) == [], step
        if self.volback.repository.exists():
            assert Catalog(LocalStore(self.volback.repository)).litter() == [], step

    def _runs(self, container: Any) -> bool:
        container.reload()
        return bool(container.status == "running")

    def _starts(self) -> list[str]:
        for container in self.running:
            container.reload()
        return [container.attrs["State"]["StartedAt"] for container in self.running]


@pytest.fixture
def lanes(
    engine: EngineSession,
    test_image: str,
    volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],  # later than volumes, so that they are removed before them, in their order
    tmp_path: Path,
) -> list[Lane]:
    def make(number: int) -> Lane:
        directory = tmp_path / f"lane-{number}"
        directory.mkdir()
        volume = volume_factory("still", fill=lambda path: (path / "data").write_bytes(os.urandom(100_000)))
        mounted = {volume: "/data"}
        writer = container_factory(volumes=mounted, restart_policy={"Name": "unless-stopped"})
        sharer = container_factory(network_mode=f"container:{writer.id}")
        idle = engine.client.containers.create(
            test_image, "sleep 600", labels=engine.labels, volumes={volume: {"bind": "/data", "mode": "rw"}}
        )
        volback = Volback(directory, engine.client_ids)
        new_repository(volback.repository)
        return Lane(volback, volume, [writer, sharer], idle)

    return [make(number) for number in range(LANES)]


def _each(lanes: list[Lane], steps: list[str], strike: Callable[[Lane, str], None]) -> None:
    """Strike at each of the steps, and let what may be left be cleaned up by a run that nobody strikes."""

    def work(number: int) -> None:
        for step in steps[number::LANES]:
            strike(lanes[number], step)
        lanes[number].volback("backup", lanes[number].volume, "--live")
        lanes[number].assert_nothing_is_left("in the end")

    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(work, range(LANES)))


def _steps(lane: Lane, log: Path) -> list[str]:
    """The steps from the first note in the journal to the last container's health, by name.

    Those before a call and within streams: what is after one call is before the next. Those of the store only as far
    as they are of another kind: the containers run again, or are about to.
    """
    assert lane.struck(signal.SIGKILL, "0", log=log) == 0
    foreign = ("after ", "before LocalStore", "buffer 1", "buffer 2", "end of put")
    return [step for step in _numbered(log) if not step.startswith(foreign)]


def _numbered(log: Path) -> list[str]:
    """All steps from the first note in the journal on, by name and number."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in log.read_text().splitlines():
        seen[name] += 1
        numbered.append(f"{name}#{seen[name]}")
    return numbered[numbered.index("before Run.write_journal#1") :]


def test_after_a_kill_the_guard_lets_containers_run_again(
    lanes: list[Lane], tmp_path: Path, capsys: pytest.CaptureFixture[str], some_of: StepsOf
) -> None:
    every = _steps(lanes[0], tmp_path / "log")
    assert len(every) >= 25
    steps = some_of(every)

    def kill(lane: Lane, step: str) -> None:
        assert lane.struck(signal.SIGKILL, step) == -signal.SIGKILL, step
        lane.assert_run_again(step, limit_s=AGAIN_S)

    _each(lanes, steps, kill)
    assert sum(lane.restarts for lane in lanes) > len(steps) // 2, "most of the steps come after the first stop"
    seconds, step = max(lane.slowest for lane in lanes)
    with capsys.disabled():
        print(f"\n{len(steps)} kills: all containers ran again after {seconds:.2f} s at most ({step})", end="")


def test_after_a_kill_the_guard_lets_a_paused_container_go_on(lanes: list[Lane]) -> None:
    def kill(lane: Lane, step: str) -> None:
        assert lane.struck(signal.SIGKILL, step, "--pause", "--full") == -signal.SIGKILL, step
        lane.assert_run_again(step, limit_s=AGAIN_S)

    _each(lanes, ["before Engine.pause_container", "after Engine.pause_container", "buffer 0 of read"], kill)


def test_a_kill_in_two_passes_without_a_parent_leaves_containers_running_and_no_backup(
    lanes: list[Lane], tmp_path: Path, some_of: StepsOf
) -> None:
    """In the first pass nothing is stopped yet. The next backup goes on with what was stored, and is whole."""
    passes = ("--stop", "--two-pass")
    assert lanes[0].struck(signal.SIGKILL, "0", *passes, log=tmp_path / "log") == 0
    steps = _numbered(tmp_path / "log")
    reads = [step for step in steps if step.startswith("buffer 0 of read#")]
    assert len(reads) == 2, "the source is read twice"
    committing = steps.index("before Catalog.commit#1")

    def kill(lane: Lane, step: str) -> None:
        catalog = Catalog(LocalStore(lane.volback.repository))
        if there := catalog.backups():
            catalog.remove(there)
        assert lane.struck(signal.SIGKILL, step, *passes) in (-signal.SIGKILL, 0), step
        lane.assert_run_again(step, limit_s=AGAIN_S)
        assert catalog.backups() == [] or steps.index(step) >= committing, step
        lane.volback("backup", lane.volume, *passes)
        lane.assert_nothing_is_left(step)

    _each(lanes, [*some_of(steps), reads[1]], kill)
    for lane in lanes:
        lane.volback("verify", "--data")


def test_interrupted_volback_lets_containers_run_again_before_it_ends(
    lanes: list[Lane], tmp_path: Path, some_of: StepsOf
) -> None:
    steps = some_of(_steps(lanes[0], tmp_path / "log"))
    numbers = dict(zip(steps, itertools.cycle([signal.SIGINT, signal.SIGTERM]), strict=False))

    def interrupt(lane: Lane, step: str) -> None:
        exit_code = lane.struck(numbers[step], step)
        assert exit_code in (EXIT[numbers[step]], 0), step
        lane.assert_run_again(step)
        lane.assert_nothing_is_left(step)

    _each(lanes, steps, interrupt)


def test_without_its_guard_volback_lets_containers_run_again(lanes: list[Lane], some_of: StepsOf) -> None:
    def kill_the_guard(lane: Lane, step: str) -> None:
        with halted(lane.volback, step, "backup", lane.volume, "--stop", "--full") as run:
            os.kill(guard_of(lane.volback), signal.SIGKILL)
        assert run.ended.exit_code == 0, (step, run.ended)
        lane.assert_run_again(step)
        lane.assert_nothing_is_left(step)

    _each(lanes, some_of(HELD), kill_the_guard)


def test_after_a_kill_of_both_recover_lets_containers_run_again(lanes: list[Lane], some_of: StepsOf) -> None:
    def kill_both(lane: Lane, step: str) -> None:
        with halted(lane.volback, step, "backup", lane.volume, "--stop", "--full") as run:
            os.kill(guard_of(lane.volback), signal.SIGKILL)
            os.kill(run.pid, signal.SIGKILL)
        assert run.ended.exit_code == -signal.SIGKILL, (step, run.ended)
        lane.volback("recover")
        lane.assert_run_again(step)

    _each(lanes, some_of(HELD), kill_both)


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    with second_engine() as running:
        with closing(running.client()) as client:
            build_image(client, "volback-test:second", {})
        yield running


@pytest.mark.parametrize(
    "power_cut", [pytest.param(False, marks=pytest.mark.long), True], ids=["engine", "engine, volback and guard"]
)
def test_after_the_engine_was_killed_recover_lets_containers_run_again(
    power_cut: bool, second: SecondEngine, run_volback: Volback
) -> None:
    environment = {"DOCKER_HOST": second.url}
    with closing(second.client()) as client:
        client.volumes.create("db")
        mounted = {"db": {"bind": "/data", "mode": "rw"}}
        made: dict[str, Any] = {"network_mode": "none", "volumes": mounted, "stop_signal": "SIGKILL"}
        client.containers.run("volback-test:second", "sleep 600", name="writer", detach=True, **made)
        client.containers.create("volback-test:second", "sleep 600", name="idle", **made)
    for step in ("after Engine.stop_container", "buffer 0 of read", "before Engine.resume_container"):
        with halted(run_volback, step, "backup", "db", "--stop", env=environment) as run:
            lane = Lane(run_volback, "db", [], None)
            if power_cut:
                os.kill(guard_of(lane.volback), signal.SIGKILL)
                os.kill(run.pid, signal.SIGKILL)
            second.stop(signal.SIGKILL)
        assert run.ended.exit_code == (-signal.SIGKILL if power_cut else 8), (step, run.ended)
        second.start()
        run_volback("recover", env=environment)
        with closing(second.client()) as client:
            wait_for(partial(_writer_runs, client), f"the writer, after {step}")
            assert client.containers.get("idle").status == "created"
    run_volback("doctor", "--fix", env=environment)
    with closing(second.client()) as client:
        assert sorted(container.name for container in client.containers.list(all=True, ignore_removed=True)) == [
            "idle",
            "writer",
        ]
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True)


def _writer_runs(client: docker.DockerClient) -> bool:
    return bool(client.containers.get("writer").status == "running")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
@pytest.mark.parametrize("step", ["before Engine.stop_container#2", "after Engine.stop_container"])
def test_several_that_stop_at_the_same_time_run_again(
    run_volback: Volback,
    volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
    number: signal.Signals,
    step: str,
) -> None:
    volume = volume_factory("several")
    several = [container_factory(volumes={volume: "/data"}) for _ in range(3)]
    exit_code = struck(run_volback, number, step, "backup", volume, "--stop")
    assert exit_code == EXIT.get(number, -number)
    wait_for(lambda: not live_runs(run_volback.state), "the guard is still waited for")
    for container in several:
        container.reload()
    assert [container.status for container in several] == ["running"] * 3
