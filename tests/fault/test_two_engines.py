"""Two engines and one state directory: what a run left on the one is not forgotten by a run on the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.contexts import Contexts
from tests.support.engine import Volback, build_image, remove_containers
from tests.support.halt import guard_of, halted, struck
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
        remove_containers(client.containers.list(all=True, ignore_removed=True))
        for left in client.volumes.list():
            left.remove()


def _volumes(second: SecondEngine) -> set[str]:
    with closing(second.client()) as client:
        return {volume.name for volume in client.volumes.list()}


def _kill_in_mid_restore(run_volback: Volback, environment: dict[str, str], *arguments: str) -> None:
    exit_code = struck(run_volback, signal.SIGKILL, "buffer 1 of write", *arguments, env=environment)
    assert exit_code == -signal.SIGKILL


def _leftovers(run_volback: Volback, check: str, *options: str, env: dict[str, str] | None = None) -> dict[str, str]:
    checks = run_volback("doctor", *options, "--json", env=env).json["result"]["checks"]
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


def test_what_a_killed_migration_left_on_another_engine_is_removed_there(
    second: SecondEngine,
    there: dict[str, str],
    run_volback: Volback,
    volume_factory: Callable[..., str],
    tmp_path: Path,
) -> None:
    """By the name of a docker context, too: the journal knows the engine, not how it was called."""
    source = volume_factory(fill=lambda path: (path / "file").write_bytes(os.urandom(9 << 20)))
    _kill_in_mid_restore(run_volback, {}, "migrate", source, "--to", second.url, "--as", TARGET)
    assert TARGET in _volumes(second)
    for fix in ((), ("--fix",)):
        check = _leftovers(run_volback, "elsewhere", *fix)
        assert check["text"].endswith(f"half-restored volume '{TARGET}' on the engine of host {second.name}")
    contexts = Contexts(tmp_path / "docker")
    contexts.create("there", second.url)
    by_context = contexts.environment | {"DOCKER_CONTEXT": "there", "DOCKER_HOST": ""}
    assert "1 half-restored volume" in _leftovers(run_volback, "leftovers", env=by_context)["text"]
    assert _leftovers(run_volback, "leftovers", "--fix", env=by_context)["text"].startswith("removed ")
    assert _volumes(second) == {VOLUME}
    assert _leftovers(run_volback, "elsewhere")["status"] == "ok"
    assert list((run_volback.state / "runs").iterdir()) == []


def test_what_is_on_another_engine_is_named(
    second: SecondEngine, there: dict[str, str], run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    _kill_in_mid_restore(run_volback, there, *RESTORE)
    said = run_volback("backup", volume_factory()).stderr
    assert f"warning: a crashed run left half-restored volume '{TARGET}' on the engine of host {second.name}" in said
    for fix in ((), ("--fix",)):
        check = _leftovers(run_volback, "elsewhere", *fix)
        assert check["status"] == "warning"
        assert check["text"].endswith(f"half-restored volume '{TARGET}' on the engine of host {second.name}")
    assert _leftovers(run_volback, "leftovers", "--fix", env=there)["text"].startswith("removed ")
    assert _leftovers(run_volback, "elsewhere")["status"] == "ok"
    assert _volumes(second) == {VOLUME}


def test_a_cut_off_replacement_is_only_forgotten_on_its_own_engine(
    second: SecondEngine, there: dict[str, str], run_volback: Volback, volume_name: Callable[..., str]
) -> None:
    """Both engines have a volume of that name; the one here is replaced to its end."""
    name = volume_name()
    with closing(second.client()) as client:
        client.volumes.create(name)
    run_volback("restore", f"{second.name}/{VOLUME}", "--as", name)
    _kill_in_mid_restore(run_volback, there, "restore", VOLUME, "--as", name, "--replace")
    run_volback("restore", f"{second.name}/{VOLUME}", "--as", name, "--replace")
    assert f"half-replaced volume '{name}'" in _leftovers(run_volback, "elsewhere")["text"]
    check = _leftovers(run_volback, "replaced volumes", env=there)
    assert check["status"] == "warning"
    assert check["hint"].endswith(f"--as {name} --replace")
    run_volback("restore", VOLUME, "--as", name, "--replace", "--no-safety-backup", env=there)
    assert _leftovers(run_volback, "replaced volumes", env=there)["status"] == "ok"
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_directory_of_another_engines_host_is_named_there(
    second: SecondEngine,
    there: dict[str, str],
    run_volback: Volback,
    volume_factory: Callable[..., str],
    tmp_path: Path,
) -> None:
    target = tmp_path / "target"
    _kill_in_mid_restore(run_volback, there, "restore", VOLUME, "--to", str(target))
    run_volback("backup", volume_factory())
    assert str(target) in _leftovers(run_volback, "elsewhere")["text"]
    assert f"died while it restored into {target}" in _leftovers(run_volback, "leftovers", env=there)["text"]


def test_containers_that_are_down_on_another_engine_are_named_and_run_again_there(
    second: SecondEngine, there: dict[str, str], run_volback: Volback
) -> None:
    with closing(second.client()) as client:
        build_image(client, "held:1", {})
        client.containers.run(
            "held:1", ["/bin/sh", "-c", "exec sleep 600"], name="held", detach=True, network_mode="none",
            volumes={VOLUME: {"bind": "/data", "mode": "rw"}}, stop_signal="SIGKILL",
        )  # fmt: skip
        with halted(run_volback, "buffer 1 of read", "backup", VOLUME, "--stop", "--full", env=there) as run:
            os.kill(guard_of(run_volback), signal.SIGKILL)
            os.kill(run.pid, signal.SIGKILL)
        assert client.containers.get("held").status == "exited"
        said = run_volback("recover")
        assert said.stdout == "no container was left down\n"
        assert f"stopped container 'held' on the engine of host {second.name}" in said.stderr
        assert run_volback("recover", env=there).stdout == "container held runs again\n"
        assert client.containers.get("held").status == "running"
