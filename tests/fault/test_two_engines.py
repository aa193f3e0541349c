"""Two engines and one state directory: what a run left on the one is not forgotten by a run on the other."""
# ruff: noqa: PLR0917 - fixtures

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.engine import Volback, remove_containers
from tests.support.halt import struck
from tests.support.remote import SecondEngine, second_engine

VOLUME, TARGET = "db", "half"
RESTORE = ("restore", VOLUME, "--as", TARGET)


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    with second_engine() as running:
        yield running


@pytest.fixture
def there(second: SecondEngine, run_volback: Volback) -> Iterator[dict[str, str]]:
    """The environment of runs on the second engine, which has a volume with a backup."""
    with closing(second.client()) as client:
        path = Path(client.volumes.create(VOLUME).attrs["Mountpoint"])
    for number in range(8):
        (path / f"file-{number}").write_bytes(os.urandom(4 << 20))
    environment = {"DOCKER_HOST": second.url}
    run_volback("backup", VOLUME, env=environment)
    yield environment
    with closing(second.client()) as client:
        remove_containers(client.containers.list(all=True))
        for left in client.volumes.list():
            left.remove()


def _volumes(second: SecondEngine) -> set[str]:
    with closing(second.client()) as client:
        return {volume.name for volume in client.volumes.list()}


def _kill_in_mid_restore(run_volback: Volback, environment: dict[str, str], *arguments: str) -> None:
    exit_code = struck(run_volback, signal.SIGKILL, "buffer 1 of write", *arguments, env=environment)
    assert exit_code == -signal.SIGKILL


def _leftovers(run_volback: Volback, check: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    checks = run_volback("doctor", "--json", env=environment).json["result"]["checks"]
    (found,) = (item for item in checks if item["name"] == check)
    return dict(found)


def test_a_half_restored_volume_is_not_forgotten_by_a_run_on_another_engine(
    second: SecondEngine, there: dict[str, str], run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    _kill_in_mid_restore(run_volback, there, *RESTORE)
    assert TARGET in _volumes(second)
    run_volback("backup", volume_factory())
    run_volback("backup", "--all", env=there)
    assert _volumes(second) == {VOLUME}
    backups = run_volback("list", "--all-hosts", "--json").json["result"]["backups"]
    assert TARGET not in {backup["volume"] for backup in backups}, "half of a volume was backed up as a whole one"
    assert list((run_volback.state / "runs").iterdir()) == []
