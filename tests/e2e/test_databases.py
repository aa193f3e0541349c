"""PostgreSQL and Redis are written to all the time while they are backed up; what is restored is whole.

Each entry that a server acknowledged before it was stopped or paused, or before its dump began, has to be there again.
"""
# ruff: noqa: PLR0917 - fixtures

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import (
    POSTGRES,
    REDIS,
    Compose,
    Load,
    assert_postgres_is_consistent,
    checked,
    compose_project,
    make_images,
    postgres_entries,
    postgres_load,
    redis_entries,
    redis_load,
    said,
    served,
    wait_until,
)
from tests.support.engine import EngineSession, Volback
from tests.support.s3 import S3Server

POSTGRES_PATH, REDIS_PATH = "/var/lib/postgresql", "/data"
EVENTS = {"--stop": ("die", "start", "stopped"), "--pause": ("pause", "unpause", "paused")}
"""What the engine tells when a container becomes still, and when it runs again; and what the manifest says then."""
CLOCKS_S = 0.1
STOPPED = "stopped"


@pytest.fixture(scope="module")
def compose(engine: EngineSession) -> Iterator[Compose]:
    make_images()
    with compose_project(engine) as project:
        yield project


@pytest.fixture(scope="module")
def loads(compose: Compose) -> Iterator[dict[str, Load]]:
    with postgres_load(compose.ports["postgres"]) as postgres, redis_load(compose.ports["redis"]) as redis:
        yield {"postgres": postgres, "redis": redis}


@pytest.fixture
def volumes(compose: Compose) -> tuple[str, str]:
    return compose.volume("postgres"), compose.volume("redis")


def _at_work(loads: dict[str, Load]) -> None:
    for load in loads.values():
        load.wait_for_more()


def _event_ns(container: Any, action: str, since_ns: int) -> int:
    """When the engine said this of a container, once since then."""
    since, until = (f"{at // 10**9}.{at % 10**9:09}" for at in (since_ns, time.time_ns()))
    asked = {"container": container.id, "event": action}
    (event,) = container.client.api.events(since=since, until=until, filters=asked, decode=True)
    return int(event["timeNano"])


def _full_copy_s(source: Path, target: Path) -> float:
    began = time.monotonic()
    subprocess.run(["cp", "--archive", source, target], check=True)
    subprocess.run(["sync", "--file-system", target], check=True)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["--stop", "--pause"])
def test_quiesced_databases_are_restored_whole(
    how: str, compose: Compose, loads: dict[str, Load], volumes: tuple[str, str], run_volback: Volback,
    engine: EngineSession, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    still, again, consistency = EVENTS[how]
    _at_work(loads)
    began_ns = time.time_ns()
    result = run_volback("backup", *volumes, how, "--json").json["result"]
    _at_work(loads)

    assert [backup["consistency"] for backup in result["backups"]] == [consistency] * 2
    committed = {}
    for service, load in loads.items():
        container = compose.container(service)
        still_ns = _event_ns(container, still, began_ns)
        seen_s = (_event_ns(container, again, began_ns) - still_ns) / 1e9
        downtime_s = result["downtime_s"][container.name]
        assert downtime_s > seen_s - CLOCKS_S
        committed[service] = load.before(still_ns)
        copy_s = _full_copy_s(volume_path(compose.volume(service)), tmp_path / service)
        with capsys.disabled():
            print(f"\n{service} {how}: {downtime_s:.2f} s down; a full copy of its volume takes {copy_s:.2f} s", end="")

    _restore(run_volback, volumes, copies := (volume_name("postgres"), volume_name("redis")))
    with served(engine, POSTGRES, copies[0], POSTGRES_PATH) as postgres:
        assert committed["postgres"] <= postgres_entries(postgres)
        assert_postgres_is_consistent(postgres)
    checked(engine, REDIS, copies[1], REDIS_PATH, "redis-check-aof", "appendonlydir/appendonly.aof.manifest")
    with served(engine, REDIS, copies[1], REDIS_PATH, *_redis("yes")) as redis:
        assert committed["redis"] <= redis_entries(redis)


def test_databases_that_dump_themselves_before_are_restored_whole(
    compose: Compose, loads: dict[str, Load], volumes: tuple[str, str], run_volback: Volback,
    engine: EngineSession, volume_name: Callable[..., str], tmp_path: Path,
) -> None:  # fmt: skip
    """By hooks, with no down-time: labels say what is run in the containers, and that only the dumps are kept."""
    override = tmp_path / "dump.yaml"
    override.write_text(
        "services:\n"
        "  postgres: {labels: {volback.exec-pre: pg_dump --format=custom --file=/var/lib/postgresql/dump postgres,"
        " volback.exclude: data}}\n"
        "  redis: {labels: {volback.exec-pre: redis-cli SAVE, volback.exclude: appendonlydir}}\n"
    )
    compose.up(override=override)
    _at_work(loads)
    committed = {service: load.before(time.time_ns()) for service, load in loads.items()}
    connections = sum(load.connections for load in loads.values())
    result = run_volback("backup", *volumes, "--json").json["result"]
    assert result["downtime_s"] == {}
    assert sum(load.connections for load in loads.values()) == connections

    _restore(run_volback, volumes, copies := (volume_name("postgres"), volume_name("redis")))
    with served(engine, POSTGRES, copies[0], POSTGRES_PATH) as postgres:  # a new, empty cluster beside the dump
        said(postgres, "pg_restore", "--exit-on-error", "--dbname=postgres", "/var/lib/postgresql/dump")
        assert committed["postgres"] <= postgres_entries(postgres)
        assert_postgres_is_consistent(postgres)
    checked(engine, REDIS, copies[1], REDIS_PATH, "redis-check-rdb", "dump.rdb")
    with served(engine, REDIS, copies[1], REDIS_PATH, *_redis("no")) as redis:
        assert committed["redis"] <= redis_entries(redis)


def test_containers_run_again_while_the_store_is_still_busy(
    container_factory: Callable[..., Any], volume_factory: Callable[..., str], run_volback: Volback, rclone: S3Server
) -> None:
    def fill(path: Path) -> None:
        with Path("/dev/urandom").open("rb") as noise:
            (path / "data").write_bytes(noise.read(4 << 20))

    volume = volume_factory("slow", fill=fill)
    container = container_factory(volumes={volume: "/data"})
    before = _started_at(container)
    with rclone.bucket() as bucket:
        slow = {**rclone.environment(), "VOLBACK_REPO": f"s3://{bucket}/", "VOLBACK_S3_BANDWIDTH": "0.5"}
        run_volback("init", env=slow)
        process = run_volback.start("backup", volume, "--stop", "--json", env=slow)
        try:
            wait_until(lambda: _started_at(container) not in {before, STOPPED}, "the container's start")
            assert process.poll() is None, "it ran on until all was stored"
            stored = rclone.client().list_objects_v2(Bucket=bucket).get("Contents", [])
            assert [entry["Key"] for entry in stored] == ["volback.json"]
        finally:
            process.terminate()
            process.communicate(timeout=60)
            run_volback.note_client_id()


def _started_at(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["StartedAt"]) if container.status == "running" else STOPPED


def _restore(run_volback: Volback, volumes: tuple[str, str], copies: tuple[str, str]) -> None:
    for volume, copy in zip(volumes, copies, strict=True):
        run_volback("restore", volume, "--as", copy)


def _redis(append_only: str) -> list[str]:
    return ["redis-server", "--dir", REDIS_PATH, "--appendonly", append_only]
