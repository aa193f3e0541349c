"""Moves whose connection to an engine breaks: they go on from what is there, and what arrives is proven."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.cutting import CuttingRelay
from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import delayed, halted
from tests.support.remote import SecondEngine, ssh_server, wait_for
from volback.engine import image

NAME = "moved"
LABEL = "volback.restore"
SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
TOTAL = 24 << 20
"""About what a volume of these tests holds; it does not compress."""
HELPER_IMAGE = f"{image.REPOSITORY}:{image.TAG}"
IN_IMAGE = 2 << 20
"""Bytes that go to an engine while it loads the helper image, which is 5 MB and more, for the first time."""
STEPS = ["buffer 1 of write", "end of read", "after Engine.stop_container", "buffer 0 of write#2", "end of read#2"]
"""At which an engine ends, by one of two signals: without `long`, at two."""


@pytest.fixture
def second(second: SecondEngine, run_volback: Volback) -> SecondEngine:
    """It has a helper image, so that what passes is the volume's."""
    run_volback("--host", second.url, "doctor", check_exit=None)
    return second


def fill(path: Path) -> None:
    """Files of several sizes, hard links, a directory that nobody may enter."""
    for number in range(40):
        directory = path / f"directory-{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"file-{number}").write_bytes(os.urandom(TOTAL // 60))
    (path / "z-large").write_bytes(os.urandom(TOTAL // 3))
    os.setxattr(path / "z-large", "user.text", b"value")
    os.link(path / "z-large", path / "z-second-name")
    (path / "link").symlink_to("/nowhere")
    (path / "directory-3").chmod(0o500)


def test_a_move_goes_on_from_what_is_there_after_its_connection_was_cut(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume = volume_factory("source", fill=fill)
    with CuttingRelay(second, [TOTAL // 2]) as relay:
        said = run_volback("migrate", volume, "--to", relay.url, "--as", NAME, "--json", env=far_state)
    result: dict[str, Any] = said.json["result"]
    assert (result["proven"], result["retries"]) == (True, 1)
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []
    (warning,) = said.json["warnings"]
    assert "was lost, and the move goes on" in warning
    assert relay.cut_at == [pytest.approx(TOTAL // 2, abs=1 << 20)]
    assert relay.sent_bytes - relay.cut_at[0] < TOTAL * 0.75, "it did not begin anew"
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


def test_a_move_goes_on_after_a_cut_while_the_helper_image_was_carried_over(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """The command that gives up says so; the next one is cut in the same place, and goes on."""
    volume = volume_factory("source", fill=lambda path: (path / "file").write_bytes(b"text"))
    with closing(second.client()) as client:
        client.images.remove(HELPER_IMAGE, force=True)
    command = ("migrate", volume, "--as", NAME, "--json")
    relay = CuttingRelay(second, [IN_IMAGE])
    relay.at_cut = relay.refuse
    with relay:
        said = run_volback(*command, "--to", relay.url, "--retry-for", "1s", env=far_state, check_exit=8).json
    assert "the move was given up" in said["error"]["message"]
    assert _volumes(second) == {}
    with CuttingRelay(second, [IN_IMAGE, 2 * IN_IMAGE + 1]) as relay:
        said = run_volback(*command, "--to", relay.url, env=far_state).json
    assert said["result"]["proven"]
    assert len(relay.cut_at) == 2
    assert ["was lost, and the move goes on: image" in warning for warning in said["warnings"]] == [True, True]
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []


def test_a_move_over_ssh_goes_on_after_all_of_its_ssh_processes_have_died(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_factory: Callable[..., str],
    *, volume_path: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    volume = volume_factory("source", fill=fill)
    with ssh_server(tmp_path / "ssh", second) as (url, programs):
        environment = far_state | {"PATH": f"{programs}:{os.environ['PATH']}"}
        command = ("migrate", volume, "--to", url, "--as", NAME, "--json")
        with halted(run_volback, "buffer 2 of write", *command, env=environment) as run:
            assert _kill_all(f"-F\0{tmp_path}/ssh/ssh_config\0") >= 2
    said = json.loads(run.ended.stdout)
    assert run.ended.exit_code == 0, run.ended.stderr
    assert (said["result"]["proven"], said["result"]["retries"]) == (True, 1)
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []


def _kill_all(argument: str) -> int:
    """Kill the processes with such arguments; return their number."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if argument.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                found += 1
    return found


def _volumes(second: SecondEngine) -> dict[str, dict[str, str]]:
    """Labels of its volumes."""
    with closing(second.client()) as client:
        return {volume.name: volume.attrs["Labels"] or {} for volume in client.volumes.list()}


def _migrate_until(run_volback: Volback, second: SecondEngine, *command: str) -> None:
    """Kill a move in its transfer, once something has arrived."""
    with delayed(run_volback, "buffer 2 of write", *command) as run:
        wait_for((second.volume_path(NAME) / "directory-0" / "file-7").exists, "the first files")
        os.kill(run.pid, signal.SIGKILL)


@pytest.mark.parametrize("first", range(2))
def test_a_live_move_that_is_cut_in_many_places_arrives_whole_and_its_container_has_run_once(
    first: int, second: SecondEngine, run_volback: Volback, far_state: dict[str, str],
    volume_factory: Callable[..., str], *, create_container: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """Ten cuts in each of two moves."""
    volume = volume_factory("source", fill=fill)
    script = "trap 'echo end >>/data/log; exit 0' TERM; while :; do echo x >>/data/log; sleep 0.05; done"
    container = create_container(
        script, volumes={volume: "/data"}, stop_signal="SIGTERM", restart_policy={"Name": "always"}
    )
    container.start()
    container.reload()
    began = container.attrs["State"]["StartedAt"]
    with CuttingRelay(second, [(3 + 2 * first + 4 * number) * (TOTAL // 48) for number in range(10)]) as relay:
        said = run_volback("migrate", volume, "--to", relay.url, "--as", NAME, "--live", "--json", env=far_state)
    result = said.json["result"]
    assert result["proven"]
    assert (result["retries"], len(relay.cut_at)) == (10, 10)
    assert len(said.json["warnings"]) == 10
    container.reload()
    assert (container.status, container.attrs["State"]["StartedAt"]) == ("exited", began)
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []
    run_volback("recover", env=far_state)
    container.reload()
    assert container.status == "exited"


def test_a_move_that_was_killed_goes_on_in_the_next_one(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    volume = volume_factory("source", fill=fill)
    command = ("migrate", volume, "--to", second.url, "--as", NAME)
    _migrate_until(run_volback, second, *command)
    assert LABEL in _volumes(second)[NAME]
    (second.volume_path(NAME) / "of-others").write_text("x")
    result = run_volback(*command, "--json").json["result"]
    assert (result["proven"], result["resumed"]) == (True, True)
    assert result["sent_bytes"] < TOTAL * 0.9
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []
    assert list((run_volback.state / "runs").iterdir()) == []


def test_what_was_begun_of_another_volume_is_not_gone_on_with(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    volume, other = volume_factory("source", fill=fill), volume_factory("other", fill=fill)
    to = ("--to", second.url, "--as", NAME)
    _migrate_until(run_volback, second, "migrate", volume, *to)
    with delayed(run_volback, "buffer 2 of write", "migrate", volume, *to) as run:  # goes on, and dies too
        os.kill(run.pid, signal.SIGKILL)
    assert run_volback("migrate", other, *to, "--json").json["result"]["resumed"] is False
    assert differences(fingerprint(volume_path(other)), fingerprint(second.volume_path(NAME))) == []
    assert list((run_volback.state / "runs").iterdir()) == []


def test_what_a_killed_move_has_begun_is_removed_by_doctor(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    volume = volume_factory("source", fill=fill)
    _migrate_until(run_volback, second, "migrate", volume, "--to", second.url, "--as", NAME)
    run_volback("--host", second.url, "doctor", "--fix", check_exit=None)
    assert _volumes(second) == {}


def test_a_move_that_gives_up_keeps_what_is_there_and_its_containers_run_again(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_factory: Callable[..., str],
    container_factory: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume = volume_factory("source", fill=fill)
    container = container_factory(volumes={volume: "/data"})
    command = ("migrate", volume, "--as", NAME, "--stop", "--json")
    relay = CuttingRelay(second, [TOTAL // 2])
    relay.at_cut = relay.refuse
    with relay:
        said = run_volback(*command, "--to", relay.url, "--retry-for", "1s", env=far_state, check_exit=8).json
    assert "the move was given up" in said["error"]["message"]
    assert "it goes on from what is there" in said["error"]["hint"]
    container.reload()
    assert container.status == "running"
    assert LABEL in _volumes(second)[NAME]
    with CuttingRelay(second, []) as relay:
        result = run_volback(*command, "--to", relay.url, env=far_state).json["result"]
        assert relay.sent_bytes < TOTAL * 0.75
    assert (result["proven"], result["resumed"]) == (True, True)
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []


@pytest.mark.parametrize(("number", "step"), [
    pytest.param(number, step, id=f"{number.name}-{step}", marks=[pytest.mark.long] * (at not in (0, 8)))
    for at, (number, step) in enumerate(product([signal.SIGTERM, signal.SIGKILL], STEPS))
])  # fmt: skip
def test_a_target_engine_that_is_started_again_does_not_end_a_live_move(
    number: signal.Signals, step: str, second: SecondEngine, run_volback: Volback, far_state: dict[str, str],
    *, volume_factory: Callable[..., str], create_container: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume = volume_factory("source", fill=fill)
    script = "trap 'cat /data/z-large >/data/last; exit 0' TERM; while :; do sleep 0.05; done"
    container = create_container(script, volumes={volume: "/data"}, stop_signal="SIGTERM")
    container.start()
    command = ("migrate", volume, "--to", second.url, "--as", NAME, "--live", "--json")
    with halted(run_volback, step, *command, env=far_state) as run:
        second.stop(number)
        second.start()
    said = json.loads(run.ended.stdout)
    assert run.ended.exit_code == 0, run.ended.stderr
    assert said["result"]["proven"]
    assert said["result"]["retries"] >= ("buffer" in step), "where all had been read, nothing was lost"
    container.reload()
    assert container.status == "exited"
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []


def test_a_source_engine_that_is_started_again_does_not_end_a_move(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    with closing(second.client()) as client:
        fill(Path(client.volumes.create("far").attrs["Mountpoint"]))
    near = volume_name("near")
    command = ("migrate", "far", "--from", second.url, "--to", SOCKET, "--as", near, "--json")
    with halted(run_volback, "buffer 1 of read", *command, env=far_state) as run:
        second.stop(signal.SIGKILL)
        second.start()
    assert run.ended.exit_code == 0, run.ended.stderr
    result = json.loads(run.ended.stdout)["result"]
    assert (result["proven"], result["retries"]) == (True, 1)
    assert differences(fingerprint(second.volume_path("far")), fingerprint(volume_path(near))) == []


def test_live_passes_are_repeated_while_they_shrink(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str],
    create_container: Callable[..., Any], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """The second pass brings the log alone, so the third may; it cannot bring less without end."""
    volume = volume_factory("source", fill=fill)
    filled_at = time.time()
    wait_for(lambda: time.time() > filled_at + 3, "a time when what was written before counts as settled")
    script = "trap 'echo end >>/data/log; exit 0' TERM; while :; do echo x >>/data/log; sleep 0.05; done"
    container = create_container(script, volumes={volume: "/data"}, stop_signal="SIGTERM")
    container.start()
    arguments = ("migrate", volume, "--to", second.url, "--as", NAME, "--live")
    result = run_volback(*arguments, "--passes", "20", "--json").json["result"]
    *live, last = result["each_pass"]
    assert [one["live"] for one in live] == [True] * len(live)
    assert (last["live"], result["passes"]) == (False, len(live) + 1)
    assert 2 <= len(live) < 20
    sizes = [one["raw_bytes"] for one in live]
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[1] < sizes[0] / 2
    assert result["proven"]
    assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(NAME))) == []
    assert "--passes goes with --live" in run_volback(*arguments[:-1], "--passes", "2", check_exit=2).stderr
