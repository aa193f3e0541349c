"""The engine ends, or hangs, in the middle of a backup or a restore, and comes back: a second, real dockerd."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.engine import Result, Volback, remove_containers
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted
from tests.support.remote import SecondEngine, second_engine
from volback.catalog.repository import Catalog
from volback.store.local import LocalStore

VOLUME = "db"


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    with second_engine() as running:
        yield running


@pytest.fixture
def source(second: SecondEngine) -> Iterator[Path]:
    """Where the volume lies: 32 MiB that do not compress, more than all buffers between tar and the repository."""
    with closing(second.client()) as client:
        path = Path(client.volumes.create(VOLUME).attrs["Mountpoint"])
    for number in range(8):
        (path / f"file-{number}").write_bytes(os.urandom(4 << 20))
    yield path
    if second.process is None:
        second.start()
    with closing(second.client()) as client:
        remove_containers(client.containers.list(all=True, ignore_removed=True))
        for left in client.volumes.list():
            left.remove()


@pytest.fixture
def environment(transport: str, second: SecondEngine) -> dict[str, str]:
    return {"DOCKER_HOST": second.url, "VOLBACK_TRANSPORT": transport}


def _struck(
    second: SecondEngine, number: int, run_volback: Volback, environment: dict[str, str], step: str, *arguments: str
) -> Result:
    with halted(run_volback, step, *arguments, env=environment) as run:
        second.stop(number)
    return run.ended


def _assert_says_that_the_engine_is_gone(ended: Result) -> None:
    assert ended.exit_code == 8, ended.stderr
    lines = ended.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-2:-1], ended.stderr
    assert lines[-1].startswith("hint: "), ended.stderr
    assert all(line.startswith("warning: ") for line in lines[:-2]), ended.stderr


def _listed(run_volback: Volback, environment: dict[str, str]) -> int:
    return len(run_volback("list", "--all-hosts", "--json", env=environment).json["result"]["backups"])


def _assert_nothing_is_left(second: SecondEngine, run_volback: Volback, *, volumes: set[str]) -> None:
    with closing(second.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []
        assert {volume.name for volume in client.volumes.list()} == volumes
    assert list((run_volback.state / "runs").iterdir()) == []
    assert Catalog(LocalStore(run_volback.repository)).litter() == []


@pytest.mark.parametrize(
    ("transport", "number"),
    [
        ("pipe", signal.SIGKILL),
        pytest.param("attach", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("pipe", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("attach", signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_backup_while_the_engine_stops(
    second: SecondEngine, source: Path, run_volback: Volback, environment: dict[str, str], number: int
) -> None:
    before = fingerprint(source)
    ended = _struck(second, number, run_volback, environment, "buffer 1 of read", "backup", VOLUME)
    _assert_says_that_the_engine_is_gone(ended)
    assert _listed(run_volback, environment) == 0
    second.start()
    run_volback("backup", VOLUME, env=environment)
    _assert_nothing_is_left(second, run_volback, volumes={VOLUME})
    assert _listed(run_volback, environment) == 1
    assert differences(before, fingerprint(source)) == []


@pytest.mark.parametrize(
    ("transport", "number"),
    [
        pytest.param("pipe", signal.SIGTERM, marks=pytest.mark.long),
        ("attach", signal.SIGKILL),
        pytest.param("pipe", signal.SIGKILL, marks=pytest.mark.long),
        pytest.param("attach", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_restore_while_the_engine_stops(
    second: SecondEngine, source: Path, run_volback: Volback, environment: dict[str, str], number: int
) -> None:
    before = fingerprint(source)
    run_volback("backup", VOLUME, env=environment)
    restore = ("restore", VOLUME, "--as", "copy")
    ended = _struck(second, number, run_volback, environment, "buffer 1 of write", *restore)
    _assert_says_that_the_engine_is_gone(ended)
    second.start()
    run_volback("doctor", "--fix", env=environment)
    _assert_nothing_is_left(second, run_volback, volumes={VOLUME})
    run_volback(*restore, "--prove", env=environment)
    assert differences(before, fingerprint(second.volume_path("copy"))) == []
    assert differences(before, fingerprint(source)) == []


BACKUP = ("buffer 1 of read", ("backup", VOLUME))
RESTORE = ("buffer 1 of write", ("restore", VOLUME, "--as", "copy"))


@pytest.mark.parametrize(
    ("transport", "step", "command"),
    [
        ("pipe", *BACKUP),
        ("attach", *RESTORE),
        pytest.param("pipe", *RESTORE, marks=pytest.mark.long),
        pytest.param("attach", *BACKUP, marks=pytest.mark.long),
    ],
)
def test_an_engine_that_hangs_in_mid_run_is_given_up_in_time(
    second: SecondEngine, source: Path, run_volback: Volback, environment: dict[str, str], step: str,
    command: tuple[str, ...],
) -> None:  # fmt: skip
    run_volback("backup", VOLUME, env=environment)
    assert second.process is not None
    try:
        with halted(run_volback, step, *command, env=environment | {"VOLBACK_ENGINE_TIMEOUT": "3"}) as run:
            second.process.send_signal(signal.SIGSTOP)
    finally:
        second.process.send_signal(signal.SIGCONT)
    _assert_says_that_the_engine_is_gone(run.ended)
    run_volback("doctor", "--fix", env=environment)
    _assert_nothing_is_left(second, run_volback, volumes={VOLUME})
    assert _listed(run_volback, environment) == 1
