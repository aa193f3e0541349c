"""What a move has stopped stays stopped: for the run, its guard, `recover`, and an engine that starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.engine import build_image
from tests.support.forked import clean_environment
from tests.support.library import Library, open_from
from tests.support.remote import SecondEngine, second_engine, wait_for
from volback.catalog.model import Source
from volback.errors import ConflictError
from volback.live.guard import guarded
from volback.live.leaving import idle_users, leave_stopped
from volback.live.plan import QuiesceRequest, plan_quiesce, quiesce_candidates
from volback.live.quiesce import Quiesced
from volback.live.services import Services
from volback.moving.migrate import MigrateOptions, migrate
from volback.operations.recover import recover
from volback.policy.hooks import Hook
from volback.state.journal import HeldContainer, PendingHook
from volback.state.runs import Run, dead_runs

ALWAYS = {"Name": "always"}


def state_of(container: Any) -> tuple[str, str]:
    """Its state, and its restart policy."""
    container.reload()
    return str(container.status), str(container.attrs["HostConfig"]["RestartPolicy"]["Name"])


@pytest.fixture
def volume(volume_factory: Callable[..., str]) -> str:
    return volume_factory("moved")


@pytest.fixture
def writer(container_factory: Callable[..., Any], volume: str) -> Any:
    return container_factory(volumes={volume: "/data"}, restart_policy=ALWAYS)


@contextmanager
def quiesced(library: Library, *volumes: str) -> Iterator[Quiesced]:
    """Stop the writers of some volumes for a block, as a move does it."""
    requests = [QuiesceRequest(Source(kind="volume", name=name), "stop") for name in volumes]
    targets = plan_quiesce(quiesce_candidates(library.ctx, library.engine), requests, Services(library.engine))
    with (
        Run(library.ctx.settings.state, "quiesce") as run,
        guarded(library.ctx, run),
        Quiesced(library.ctx, library.engine, run, targets, may_stay=True) as held,
    ):
        yield held


def held_entry(library: Library, container: Any, **facts: Any) -> HeldContainer:
    info = library.engine.info
    return HeldContainer(
        engine=info.id, host=info.name, id=container.id, name=container.name, how="stop",
        restart_policy=("always", 0), **facts,
    )  # fmt: skip


def runs_left(library: Library) -> list[str]:
    return [path.name for path in (library.ctx.settings.state / "runs").iterdir()]


def test_what_is_left_stays_stopped_and_is_named(library: Library, volume: str, writer: Any) -> None:
    with quiesced(library, volume) as held:
        assert state_of(writer) == ("exited", "no"), "an engine that starts again now would start it"
        left = held.leave_stopped()
        assert state_of(writer) == ("exited", "no")
    assert state_of(writer) == ("exited", "no")
    (container,) = left.containers
    assert (container.name, left.services, left.warnings) == (writer.name, [], [])
    commands = [f"docker update --restart always {writer.name}", f"docker start {writer.name}"]
    assert container.start_commands == commands
    assert list(held.downtime_s) == [writer.name]
    assert not recover(library.ctx, library.engine)
    assert state_of(writer) == ("exited", "no")
    assert runs_left(library) == []


def test_what_is_not_left_runs_again_with_its_restart_policy(
    library: Library, volume: str, writer: Any, container_factory: Callable[..., Any]
) -> None:
    limited = container_factory(
        volumes={volume: "/data"}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 3}
    )
    with quiesced(library, volume):
        assert (state_of(writer), state_of(limited)) == (("exited", "no"), ("exited", "no"))
    assert (state_of(writer), state_of(limited)) == (("running", "always"), ("running", "on-failure"))
    assert limited.attrs["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] == 3


def test_only_those_of_what_was_moved_stay_stopped(
    library: Library,
    volume: str,
    writer: Any,
    volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
) -> None:
    other = volume_factory("failed")
    of_other = container_factory(volumes={other: "/data"}, restart_policy=ALWAYS)
    with quiesced(library, volume, other) as held:
        held.leave_stopped(only={writer.id})
    assert (state_of(writer), state_of(of_other)) == (("exited", "no"), ("running", "always"))


def test_one_that_did_not_run_is_not_started_by_the_engine_either(
    library: Library, volume: str, writer: Any, create_container: Callable[..., Any]
) -> None:
    """With `always`, an engine starts at its own start what a person has stopped."""
    writer.stop(timeout=0)
    create_container(volumes={volume: "/data"})
    idle = idle_users(library.engine, library.engine.storage(Source(kind="volume", name=volume)))
    assert [container.name for container in idle] == [writer.name], "the other one is never started by itself"
    with Run(library.ctx.settings.state, "quiesce") as run:
        left = leave_stopped(library.engine, library.ctx.settings.state, run, idle)
    assert state_of(writer) == ("exited", "no")
    assert left.containers[0].restart_policy == "always"
    assert runs_left(library) == []


@pytest.mark.parametrize("is_decided", [False, True], ids=["before", "after"])
def test_after_a_crash_the_journal_says_whether_it_runs_again(
    library: Library, volume: str, writer: Any, is_decided: bool
) -> None:
    """The run died when the container was stopped, or right after it was decided that it stays so."""
    writer.stop(timeout=0)
    if not is_decided:
        writer.update(restart_policy={"Name": "no"})
    with Run(library.ctx.settings.state, "quiesce") as run:
        run.note(held_entry(library, writer, phase="held", stays=is_decided))
    left = recover(library.ctx, library.engine)
    assert left.containers == (() if is_decided else (writer.name,))
    assert state_of(writer) == (("exited", "no") if is_decided else ("running", "always"))
    assert runs_left(library) == []


def test_a_command_for_a_container_that_stays_stopped_does_not_wait_for_it(
    library: Library, volume: str, writer: Any
) -> None:
    writer.stop(timeout=0)
    with Run(library.ctx.settings.state, "quiesce") as run:
        hook = PendingHook(engine=library.engine.info.id, hook=Hook(writer.name, "echo after"))
        run.note(held_entry(library, writer, phase="held"), hook)
        leave_stopped(library.engine, library.ctx.settings.state, run)
        assert run.journal.entries == []


@pytest.mark.parametrize("first", ["the move", "the backup"])
def test_another_run_that_holds_it_too_does_not_start_it(
    library: Library, volume: str, writer: Any, first: str
) -> None:
    """A backup, of another volume of the same container, that is longer under way than the move."""
    with ExitStack() as move, ExitStack() as backup:
        stacks = {"the move": move, "the backup": backup}
        (second,) = set(stacks) - {first}
        held = {name: stacks[name].enter_context(quiesced(library, volume)) for name in (first, second)}
        held["the move"].leave_stopped()
        move.close()
        assert state_of(writer) == ("exited", "no")
        backup.close()
        assert state_of(writer) == ("exited", "no")
        (warning,) = held["the backup"].warnings
        assert warning.startswith(f"container {writer.name!r} stays stopped: a move of another run has left it so")
    assert runs_left(library) == []
    writer.start()
    with quiesced(library, volume):
        assert state_of(writer)[0] == "exited"
    assert state_of(writer)[0] == "running", "it was started on purpose, so the next run starts it again"


def test_another_run_does_not_start_it_where_the_move_died_after_its_decision(
    library: Library, volume: str, writer: Any
) -> None:
    with quiesced(library, volume), Run(library.ctx.settings.state, "quiesce") as dead:
        dead.note(held_entry(library, writer, phase="held", stays=True))
    assert state_of(writer)[0] == "exited"
    recover(library.ctx, library.engine)
    assert state_of(writer) == ("exited", "no")
    assert runs_left(library) == []


def test_without_a_stop_nothing_is_moved_that_another_run_starts_again(
    library: Library, volume: str, writer: Any
) -> None:
    """It would write to the old volume, where nobody looks for it any more."""
    options = MigrateOptions(name=f"{volume}-there")
    with (
        quiesced(library, volume),
        pytest.raises(ConflictError, match=f"container '{writer.name}' writes to volume '{volume}', and another run"),
    ):
        migrate(library.ctx, library.engine, library.engine, library.repository, volume, options)
    assert state_of(writer) == ("running", "always")


MOVE = """
import os, sys
from pathlib import Path
from tests.e2e.test_leaving import quiesced
from tests.support.library import open_from
from volback.settings import Settings
library = open_from(Settings(repository=sys.argv[1], state=Path(sys.argv[2])))
with quiesced(library, sys.argv[3]) as held:
    if sys.argv[4] == "after":
        held.leave_stopped()
    print("now", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_guard_of_a_killed_run_knows_what_was_decided(
    library: Library, volume: str, writer: Any, when: str
) -> None:
    settings = library.ctx.settings
    arguments = [settings.repository, str(settings.state), volume, when]
    command = [sys.executable, "-c", textwrap.dedent(MOVE), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        assert state_of(writer) == ("exited", "no")
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: is_free(library), "the end of the guard")
    assert state_of(writer) == (("exited", "no") if when == "after" else ("running", "always"))


def is_free(library: Library) -> bool:
    """Whether no process holds a run any more; what is left is named by the sweep, and nothing is."""
    with dead_runs(library.ctx.settings.state) as dead:
        return len(dead) == len(runs_left(library))


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    with second_engine() as running:
        yield running


def test_an_engine_that_starts_again_does_not_start_it(library: Library, second: SecondEngine) -> None:
    there = open_from(replace(library.ctx.settings, engine=second.url))
    with closing(second.client()) as client:
        build_image(client, "volback-test:1", {})
        options = {"network_mode": "none", "stop_signal": "SIGKILL", "restart_policy": ALWAYS}
        moved, other = (
            client.containers.run("volback-test:1", ["/bin/sh", "-c", "exec sleep 600"], detach=True,
                                  volumes=[f"{name}:/data"], **options)
            for name in ("moved", "other")
        )  # fmt: skip
        with quiesced(there, "moved") as held:
            held.leave_stopped()
        other.stop(timeout=0)
        second.stop()
        second.start()
        wait_for(lambda: state_of(other)[0] == "running", "the start of the one that is to run")
        assert state_of(moved) == ("exited", "no")
