"""Commands in running containers: their output as it comes, their end in time, and what cannot run is said so."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Opener
from tests.support.engine import said_in
from tests.support.image import image_tar
from tests.support.remote import Relay, SecondEngine, ssh_server, wait_for
from volback.engine.engine import Engine
from volback.engine.execute import LINE_MAX_BYTES
from volback.errors import EngineError, EngineUnreachable, NotFoundError, NotRunningError

Factory = Callable[..., Any]
LIMIT_S = 120.0


@pytest.fixture
def ours(open_engine: Opener) -> Engine:
    return open_engine()


def run(engine: Engine, container: str, command: str, *, user: str | None = None) -> tuple[list[str], int | None]:
    """What a command said, and its exit status."""
    with engine.execute(container, command, user=user, limit_s=LIMIT_S) as execution:
        return list(execution.lines()), execution.status


def commands_in(container: Any) -> list[str]:
    """The command lines of all that runs in the container, but for the one that looks."""
    look = "for file in /proc/[0-9]*/cmdline; do cat $file; echo; done"
    said = said_in(container, "/bin/sh", "-c", look)[1].decode()
    found = [line.strip("\0").replace("\0", " ") for line in said.splitlines()]
    return [line for line in found if line and look not in line and "/cmdline" not in line]


def root_of(container: Any) -> Path:
    container.reload()
    return Path(f"/proc/{container.attrs['State']['Pid']}/root")


def test_output_and_status_of_a_command(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    said, status = run(
        ours, container.name, "echo out; echo 'the user'\\''s err' >&2; printf 'caf\\351\\r\\n\\nend'; exit 3"
    )
    assert (sorted(said), status) == (["", "caf\\xe9", "end", "out", "the user's err"], 3)
    assert run(ours, container.id[:12], "exit 0") == ([], 0)
    assert run(ours, container.name, "kill -TERM $$")[1] == 143
    assert run(ours, container.name, "nonsense") == (["/bin/sh: 1: nonsense: not found"], 127)


def test_lines_come_before_the_command_ends(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    with ours.execute(
        container.name, "echo 1; until [ -e /tmp/go ]; do sleep 0.05; done; echo 2", limit_s=LIMIT_S
    ) as it:
        lines = it.lines()
        assert next(lines) == "1"
        assert it.container == container.name
        assert said_in(container, "/bin/sh", "-c", ": >/tmp/go") == (0, b"")
        assert (list(lines), it.status) == (["2"], 0)


def test_a_command_runs_as_the_user_that_is_asked_for(ours: Engine, container_factory: Factory) -> None:
    container = container_factory(user="1:2")
    assert run(ours, container.name, "stat -c %u:%g /proc/self/.") == (["1:2"], 0)
    assert run(ours, container.name, "stat -c %u:%g /proc/self/.", user="34:56") == (["34:56"], 0)
    with pytest.raises(EngineError, match=r"cannot be run: .*nobody-of-that-name") as caught:
        run(ours, container.name, "true", user="nobody-of-that-name")
    assert caught.value.hint == "check whether its user exists there"


def test_a_container_without_a_shell_is_said_to_have_none(ours: Engine, container_factory: Factory) -> None:
    container = container_factory("rm /bin/sh; exec sleep 600")
    wait_for(lambda: not (root_of(container) / "bin/sh").is_symlink(), "the end of its shell")
    with pytest.raises(EngineError, match=f"container '{container.name}' has no /bin/sh"):
        run(ours, container.name, "true")


def test_a_container_that_does_not_run_is_an_error_of_its_own(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    container.pause()
    with pytest.raises(NotRunningError, match="is paused"):
        run(ours, container.name, "true")
    container.unpause()
    container.kill()
    with pytest.raises(NotRunningError, match=f"container '{container.name}' is exited"):
        run(ours, container.name, "true")
    with pytest.raises(NotFoundError, match="container 'no-such-container' does not exist"):
        run(ours, "no-such-container", "true")


def test_output_is_not_held_in_memory(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    count = longest = 0
    with ours.execute(container.name, "truncate -s 32M /tmp/f; cat /tmp/f; rm /tmp/f", limit_s=LIMIT_S) as execution:
        tracemalloc.start()
        try:
            for line in execution.lines():
                count, longest = count + 1, max(longest, len(line))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (count, longest, execution.status) == (32 * 1024 * 1024 // LINE_MAX_BYTES, LINE_MAX_BYTES, 0)
    assert peak < 4 * 1024 * 1024


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    ours: Engine, container_factory: Factory
) -> None:
    container = container_factory()
    command = "trap '' TERM HUP INT; sleep 501 & (sleep 502 | cat &); bash -mc 'sleep 503 & wait' & echo go; sleep 504"
    ended = pytest.raises(EngineError, match=r"container '.*' did not end within 3 s, so it was ended")
    with ours.execute(container.name, command, limit_s=3) as execution, ended:
        assert list(execution.lines()) == ["go", "never"]
    assert commands_in(container) == ["sleep 600"]


def test_a_command_whose_caller_gives_up_is_ended(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    with pytest.raises(KeyboardInterrupt), ours.execute(container.name, "sleep 500", limit_s=LIMIT_S):
        raise KeyboardInterrupt
    with ours.execute(container.name, "echo err >&2; echo 1; echo 2; sleep 500", limit_s=LIMIT_S) as execution:
        assert next(execution.lines()) in ("err", "1")
    assert commands_in(container) == ["sleep 600"]


def test_what_a_command_leaves_running_holds_nobody_up(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    assert run(ours, container.name, "sleep 500 & echo done") == (["done"], 0)
    assert sorted(commands_in(container)) == ["sleep 500", "sleep 600"]


def test_a_command_that_closes_its_output_is_waited_for(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    assert run(ours, container.name, "exec >&- 2>&-; sleep 1; exit 5") == ([], 5)


def test_a_container_that_dies_takes_the_command_with_it(ours: Engine, container_factory: Factory) -> None:
    container = container_factory()
    with ours.execute(container.name, "echo started; sleep 500", limit_s=LIMIT_S) as execution:
        lines = execution.lines()
        assert next(lines) == "started"
        container.kill()
        assert (list(lines), execution.status) == ([], 137)


@pytest.fixture(scope="module")
def far(second: SecondEngine) -> str:
    """A container of the second engine, which goes with it."""
    with closing(second.client()) as client:
        client.api.import_image_from_data(image_tar(), repository="far", tag="latest", changes=["ENV PATH=/bin"])
        return str(client.containers.run("far", ["sleep", "600"], detach=True, network_mode="none").id)


def test_over_tcp_and_ssh(
    second: SecondEngine, far: str, open_engine: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "echo out; echo err >&2; truncate -s 1M /tmp/f; cat /tmp/f; exit 3"
    with Relay(second) as relay, ssh_server(tmp_path / "ssh", second) as (ssh_url, programs):
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        for url in (relay.url, ssh_url):
            said, status = run(open_engine(url=url), far, command)
            assert ({"out", "err"} <= set(said), sum(map(len, said)), status) == (True, 1024 * 1024 + 6, 3)


def test_an_engine_that_hangs_is_found_out(second: SecondEngine, far: str, open_engine: Opener) -> None:
    ours = open_engine(url=second.url, timeout_s=2)
    try:
        with ours.execute(far, "echo started; sleep 500", limit_s=LIMIT_S) as execution:
            lines = execution.lines()
            assert next(lines) == "started"
            os.kill(second.pid, signal.SIGSTOP)
            with pytest.raises(EngineUnreachable, match="does not answer"):
                next(lines)
    finally:
        os.kill(second.pid, signal.SIGCONT)
