"""PostgreSQL, Redis and MariaDB are written to while they are backed up; what is restored is whole.

Each entry that a server acknowledged before it was stopped or paused, or before its dump began, has to be there again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import (
    MARIADB,
    POSTGRES,
    REDIS,
    SERVICES,
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
from tests.support.events import Event, Events
from tests.support.mariadb import assert_mariadb_is_consistent, mariadb_entries, mariadb_load
from tests.support.repository import new_repository
from tests.support.s3 import S3Server

POSTGRES_PATH, REDIS_PATH, MARIADB_PATH = "/var/lib/postgresql", "/data", "/var/lib/mysql"
EVENTS = {"--stop": ("die", "start", "stopped"), "--pause": ("pause", "unpause", "paused")}
"""What the engine tells when a container becomes still, and when it runs again; and what the manifest says then."""
CLOCKS_S = 0.1
STOPPED = "stopped"
Committed = dict[str, set[int]]


@pytest.fixture(scope="module")
def compose(engine: EngineSession) -> Iterator[Compose]:
    make_images()
    with compose_project(engine, *SERVICES) as project:
        yield project


@pytest.fixture(scope="module")
def loads(compose: Compose) -> Iterator[dict[str, Load]]:
    with (
        postgres_load(compose.ports["postgres"]) as postgres,
        redis_load(compose.ports["redis"]) as redis,
        mariadb_load(compose.container("mariadb")) as mariadb,
    ):
        yield {"postgres": postgres, "redis": redis, "mariadb": mariadb}


@pytest.fixture(scope="module")
def run_volback(engine: EngineSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volback]:
    """One repository for all, so that each test's backup is an increment."""
    volback = Volback(tmp_path_factory.mktemp("volback"), engine.client_ids)
    new_repository(volback.repository)
    yield volback
    volback.note_client_id()


@pytest.fixture(scope="module")
def volumes(compose: Compose) -> list[str]:
    return [compose.volume(service) for service in SERVICES]


@pytest.fixture(scope="module")
def parents(loads: dict[str, Load], volumes: list[str], run_volback: Volback) -> None:
    """Full backups, read live and under load: they promise nothing, and say so; increments on them are whole."""
    _at_work(loads)
    done = run_volback("backup", *volumes, "--json", check_exit=None)
    assert done.exit_code in {0, 3}, "3: a file was changed or removed while it was read"
    made = done.json["result"]["backups"]
    assert [(backup["kind"], backup["consistency"]) for backup in made] == [("full", "live")] * len(volumes)


def _increments(result: dict[str, Any], consistency: str) -> None:
    """A backup of each volume was made, stands upon the one before and is called that."""
    made = [(backup["kind"], backup["consistency"]) for backup in result["backups"]]
    assert made == [("incremental", consistency)] * len(SERVICES)


@dataclass(frozen=True)
class Restored:
    """Restores each service's volume beside the running ones, and looks at it through a server of its own."""

    engine: EngineSession
    run_volback: Volback
    compose: Compose
    copies: dict[str, str]

    def holds(self, committed: Committed, *, recovered: bool) -> None:
        """All that was committed is there; `recovered`: the servers did not end before they were read."""
        self._each(self._holds_postgres, self._holds_redis, self._holds_mariadb)(committed, recovered)

    def holds_dumps_of(self, committed: Committed) -> None:
        self._each(self._holds_postgres_dump, self._holds_redis_dump, self._holds_mariadb_dump)(committed)

    def _each(self, *looks: Callable[..., None]) -> Callable[..., None]:
        """At once, as most of it is waiting."""

        def look_at_all(*arguments: Any) -> None:
            with ThreadPoolExecutor(len(looks)) as pool:
                for done in [pool.submit(look, *arguments) for look in looks]:
                    done.result()

        return look_at_all

    def _copy(self, service: str) -> str:
        self.run_volback("restore", self.compose.volume(service), "--as", self.copies[service])
        return self.copies[service]

    def _holds_postgres(self, committed: Committed, recovered: bool) -> None:
        with served(self.engine, POSTGRES, self._copy("postgres"), POSTGRES_PATH) as postgres:
            assert committed["postgres"] <= postgres_entries(postgres)
            assert_postgres_is_consistent(postgres)
            assert (b"automatic recovery in progress" in postgres.logs()) == recovered

    def _holds_redis(self, committed: Committed, recovered: bool) -> None:
        copy = self._copy("redis")
        checked(self.engine, REDIS, copy, REDIS_PATH, "redis-check-aof", "appendonlydir/appendonly.aof.manifest")
        with served(self.engine, REDIS, copy, REDIS_PATH, *_redis("yes")) as redis:
            assert committed["redis"] <= redis_entries(redis)

    def _holds_mariadb(self, committed: Committed, recovered: bool) -> None:
        with served(self.engine, MARIADB, self._copy("mariadb"), MARIADB_PATH) as mariadb:
            assert committed["mariadb"] <= mariadb_entries(mariadb)
            assert_mariadb_is_consistent(mariadb)
            assert recovered or b"crash recovery" not in mariadb.logs()

    def _holds_postgres_dump(self, committed: Committed) -> None:
        with served(self.engine, POSTGRES, self._copy("postgres"), POSTGRES_PATH) as postgres:  # a new, empty cluster
            said(postgres, "pg_restore", "--exit-on-error", "--dbname=postgres", f"{POSTGRES_PATH}/dump")
            assert committed["postgres"] <= postgres_entries(postgres)
            assert_postgres_is_consistent(postgres)

    def _holds_redis_dump(self, committed: Committed) -> None:
        copy = self._copy("redis")
        checked(self.engine, REDIS, copy, REDIS_PATH, "redis-check-rdb", "dump.rdb")
        with served(self.engine, REDIS, copy, REDIS_PATH, *_redis("no")) as redis:
            assert committed["redis"] <= redis_entries(redis)

    def _holds_mariadb_dump(self, committed: Committed) -> None:
        with served(self.engine, MARIADB, self._copy("mariadb"), MARIADB_PATH) as mariadb:  # as PostgreSQL's
            said(mariadb, "sh", "-c", f"mariadb test < {MARIADB_PATH}/dump.sql")
            assert committed["mariadb"] <= mariadb_entries(mariadb)
            assert_mariadb_is_consistent(mariadb)


@pytest.fixture
def restored(
    engine: EngineSession, run_volback: Volback, compose: Compose, volume_name: Callable[..., str]
) -> Restored:
    return Restored(engine, run_volback, compose, {service: volume_name(service) for service in SERVICES})


def _at_work(loads: dict[str, Load]) -> None:
    for load in loads.values():
        load.wait_for_more(50)


def _event_ns(events: list[Event], container: Any, action: str) -> int:
    """When the engine said this of a container, once."""
    (time_ns,) = [one.time_ns for one in events if (one.container, one.action) == (container.id, action)]
    return time_ns


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("options", ["--stop --no-two-pass", "--pause --no-two-pass", "--stop --two-pass"])
def test_quiesced_databases_are_restored_whole(
    options: str,
    compose: Compose,
    loads: dict[str, Load],
    volumes: list[str],
    run_volback: Volback,
    restored: Restored,
    *,
    events: Events,
) -> None:
    how, passes = options.split()
    still, again, consistency = EVENTS[how]
    _at_work(loads)
    began_s = time.time()
    result = run_volback("backup", *volumes, how, passes, "--json").json["result"]
    _at_work(loads)

    _increments(result, consistency)
    committed, happened = {}, events.since(began_s)
    for service, load in loads.items():
        container = compose.container(service)
        still_ns = _event_ns(happened, container, still)
        seen_s = (_event_ns(happened, container, again) - still_ns) / 1e9
        assert result["downtime_s"][container.name] > seen_s - CLOCKS_S
        committed[service] = load.before(still_ns)
    restored.holds(committed, recovered=how == "--pause")


@pytest.mark.usefixtures("parents")
def test_a_live_backup_of_databases_is_called_so_and_recovers_if_nothing_is_written(
    compose: Compose, loads: dict[str, Load], volumes: list[str], run_volback: Volback, restored: Restored
) -> None:
    """What is read live under load promises nothing, and its name says so. Servers that run and write nothing are the
    only ones whose recovery from it is certain."""
    _at_work(loads)
    with ExitStack() as held:
        for load in loads.values():
            held.enter_context(load.held())
        said(compose.container("postgres"), "psql", "--command", "CHECKPOINT")  # so that it makes none for minutes
        committed = {service: load.before(time.time_ns()) for service, load in loads.items()}
        done = run_volback("backup", *volumes, "--json", check_exit=None)
    assert done.exit_code in {0, 3}, "3: PostgreSQL may have removed a file by itself"
    result = done.json["result"]
    _increments(result, "live")
    assert result["downtime_s"] == {}
    restored.holds(committed, recovered=True)


@pytest.mark.usefixtures("parents")
def test_databases_that_dump_themselves_before_are_restored_whole(
    compose: Compose, loads: dict[str, Load], volumes: list[str], run_volback: Volback, restored: Restored,
    tmp_path: Path,
) -> None:  # fmt: skip
    """By hooks, with no down-time: labels say what is run in the containers, and that only the dumps are kept."""
    override = tmp_path / "dump.yaml"
    override.write_text(
        "services:\n"
        "  postgres: {labels: {volback.exec-pre: pg_dump --format=custom --file=/var/lib/postgresql/dump postgres,"
        " volback.exclude: data}}\n"
        "  redis: {labels: {volback.exec-pre: redis-cli SAVE, volback.exclude: appendonlydir}}\n"
        "  mariadb: {labels: {volback.exec-pre: mariadb-dump --single-transaction"
        " --result-file=/var/lib/mysql/dump.sql test, volback.exclude: data}}\n"
    )
    compose.up(*SERVICES, override=override)
    _at_work(loads)
    committed = {service: load.before(time.time_ns()) for service, load in loads.items()}
    connections = sum(load.connections for load in loads.values())
    smaller = ("--shrink-ratio", "0")  # than the parents, which hold all files
    result = run_volback("backup", *volumes, *smaller, "--json").json["result"]
    _increments(result, "live")
    assert result["downtime_s"] == {}
    assert sum(load.connections for load in loads.values()) == connections
    restored.holds_dumps_of(committed)


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


def _redis(append_only: str) -> list[str]:
    return ["redis-server", "--dir", REDIS_PATH, "--appendonly", append_only]
