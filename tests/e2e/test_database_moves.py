"""PostgreSQL and Redis move to another engine while they are written to: there they start, with all that they kept."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.support.databases import (
    POSTGRES,
    REDIS,
    Load,
    assert_postgres_is_consistent,
    compose_project,
    make_images,
    postgres_entries,
    postgres_load,
    redis_entries,
    redis_load,
    served,
)
from tests.support.engine import EngineSession, Volback
from tests.support.remote import SecondEngine, own_filesystem, second_engine

REDIS_APPENDS = ("redis-server", "--dir", "/data", "--appendonly", "yes", "--save", "")


def _acknowledged(load: Load) -> set[int]:
    return {entry for entry, _ in list(load.acknowledged)}


def _with_images(engine: EngineSession, second: SecondEngine) -> Any:
    """What `served` needs of the other engine, which has the servers' images then."""
    there = second.client()
    for name in (POSTGRES, REDIS):
        there.images.load(b"".join(engine.client.images.get(name).save(named=True)))
    return there


def test_no_committed_entry_is_lost_up_to_the_stop(engine: EngineSession, run_volback: Volback, tmp_path: Path) -> None:
    make_images()
    with (
        second_engine() as second,
        closing(_with_images(engine, second)) as there,
        own_filesystem(tmp_path / "own") as own,
        compose_project(engine, "postgres", "redis") as compose,
        postgres_load(compose.ports["postgres"]) as postgres,
        redis_load(compose.ports["redis"]) as redis,
    ):
        loads, environment, kept = {"postgres": postgres, "redis": redis}, {"VOLBACK_STATE_DIR": str(own / "state")}, {}
        for service, load in loads.items():
            load.wait_for_more(50)
            command = ("migrate", compose.volume(service), "--to", second.url, "--live", "--json")
            result = run_volback(*command, env=environment).json["result"]
            assert (result["proven"], result["passes"], result["consistency"]) == (True, 2, "stopped")
            assert [left["name"] for left in result["left_stopped"]] == [compose.container(service).name]
            assert result["downtime_s"] > 0
            kept[service] = _acknowledged(load)
            assert len(kept[service]) > 50

        other = cast(EngineSession, SimpleNamespace(client=there, labels=engine.labels))
        with served(other, POSTGRES, compose.volume("postgres"), "/var/lib/postgresql") as server:
            assert kept["postgres"] <= postgres_entries(server)
            assert_postgres_is_consistent(server)
            assert b"automatic recovery in progress" not in server.logs(), "it was stopped, and not cut off"
        with served(other, REDIS, compose.volume("redis"), "/data", *REDIS_APPENDS) as server:
            assert kept["redis"] <= redis_entries(server)
