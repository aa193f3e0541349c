"""`--stop` and `--pause` in two passes: most is read while containers run, and what has changed while they are down."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.events import Events, of_client
from tests.support.halt import halted, struck
from tests.support.library import Library, open_library
from tests.support.remote import wait_for
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.errors import StoreError
from volback.operations.backup import BackupOptions, BackupResult, backup
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.sources import volume_source
from volback.operations.verify import verify
from volback.state.client import client_id
from volback.store.faults import FailPut, FaultStore
from volback.store.local import LocalStore

Volumes = Callable[..., str]
Containers = Callable[..., Any]

STOP = SetOptions(quiesce="stop")
WRITER = """
trap 'cp /bin/bash /data/farewell; exit 0' TERM
echo started >/data/log
while :; do sleep 600 & wait $!; done
"""


def _fill(root: Path) -> None:
    dice = random.Random(4)
    (root / "database").write_bytes(dice.randbytes(3_000_000))
    for number in range(50):
        (root / f"file-{number}").write_bytes(dice.randbytes(2000))


@pytest.fixture
def volume(volume_factory: Volumes) -> str:
    return volume_factory("passes", fill=_fill)


@pytest.fixture
def writer(container_factory: Containers, volume: str, volume_path: Callable[[str], Path]) -> Any:
    """A container that writes to the volume as it is stopped."""
    container = container_factory(WRITER, volumes={volume: "/data"}, stop_signal="SIGTERM")
    wait_for((volume_path(volume) / "log").exists, "the writer's first line")
    return container


@pytest.fixture
def library(engine: EngineSession, tmp_path: Path) -> Library:
    return open_library(engine, tmp_path)


def _state(container: Any) -> str:
    container.reload()
    return str(container.status)


def _stopped(library: Library, *volumes: str, two_passes: bool | None = None) -> list[BackupResult]:
    sources = [volume_source(library.engine, name) for name in volumes]
    done = backup_set(*library, sources, SetOptions(quiesce="stop", two_passes=two_passes))
    assert done.errors == ()
    return list(done.backups)


def test_what_is_written_as_containers_stop_is_in_the_backup(
    run_volback: Volback,
    engine: EngineSession,
    events: Events,
    volume: str,
    writer: Any,
    volume_path: Callable[[str], Path],
) -> None:
    run_volback("backup", volume, "--live")
    (volume_path(volume) / "database").write_bytes(random.Random(5).randbytes(3_000_000))
    since = time.time()
    result = run_volback("backup", volume, "--stop", "--json").json["result"]
    made = result["backups"][0]
    assert (made["passes"], made["kind"], made["consistency"]) == (2, "incremental", "stopped")
    assert 3_300_000 < made["stored_bytes"] < 4_500_000, "the database and the farewell, once"
    assert made["unused_bytes"] < 100_000
    assert 0 < result["downtime_s"][writer.name] < 300
    assert events.actions(since, writer) == ["die", "start"]
    farewell = volume_path(volume) / "farewell"
    run_volback("verify", "--data")
    run_volback("restore", volume, "--as", f"{volume}-copy")
    try:
        assert (volume_path(f"{volume}-copy") / "farewell").read_bytes() == farewell.read_bytes()
    finally:
        engine.client.volumes.get(f"{volume}-copy").remove()
    said = run_volback("backup", volume, "--pause", "--no-two-pass", "--json").json["result"]["backups"][0]
    assert (said["passes"], said["consistency"]) == (1, "paused")


def test_without_an_earlier_backup_two_passes_make_one_that_needs_no_other(
    library: Library, volume: str, writer: Any
) -> None:
    (made,) = _stopped(library, volume, two_passes=True)
    manifest = made.manifest
    assert (made.passes, manifest.kind, manifest.parent, manifest.uses) == (2, "incremental", None, [])
    assert manifest.consistency == "stopped"
    assert manifest.warnings == []
    (after,) = _stopped(library, volume)
    assert (after.manifest.parent, after.passes) == (manifest.id, 2)
    assert verify(library.ctx, library.repository, [], data=True).damaged == []


def test_all_first_passes_come_before_the_first_stop(
    library: Library,
    engine: EngineSession,
    events: Events,
    volume: str,
    volume_factory: Volumes,
    container_factory: Containers,
) -> None:
    other = volume_factory("other")
    container = container_factory(volumes={volume: "/one", other: "/other"})
    sources = [volume_source(library.engine, name) for name in (volume, other)]
    first = backup_set(*library, sources, SetOptions(quiesce="pause"))
    assert [made.passes for made in first.backups] == [1, 1], "with no earlier backup, two are not cheap"
    since = time.time()
    second = backup_set(*library, sources, SetOptions(quiesce="pause"))
    assert [made.passes for made in second.backups] == [2, 2]
    happened = events.since(since)
    stopped_ns = next(one.time_ns for one in happened if (one.container, one.action) == (container.id, "pause"))
    helpers = of_client(happened, client_id(library.ctx.settings.state))
    before = Counter(helper.action for helper in helpers if helper.time_ns < stopped_ns)
    assert (before["start"], before["die"]) == (4, 2)


def test_a_container_that_comes_during_the_first_pass_is_paused_too(
    run_volback: Volback, volume: str, writer: Any, container_factory: Containers
) -> None:
    run_volback("backup", volume, "--live")
    with halted(run_volback, "buffer 0 of read", "backup", volume, "--pause", "--json") as run:
        late = container_factory(volumes={volume: "/data"})
    result = run.ended.json["result"]
    assert set(result["downtime_s"]) == {writer.name, late.name}
    assert result["backups"][0]["consistency"] == "paused"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
@pytest.mark.parametrize(
    ("step", "stops"), [("buffer 0 of read", 0), ("buffer 0 of read#2", 1)], ids=["first", "second"]
)
def test_a_run_that_is_struck_in_one_of_its_passes_leaves_nothing(
    run_volback: Volback, events: Events, volume: str, writer: Any, *, step: str, stops: int, number: int
) -> None:
    run_volback("backup", volume, "--live")
    since = time.time()
    struck(run_volback, number, step, "backup", volume, "--stop")
    run_volback("recover")
    assert (_state(writer), events.actions(since, writer).count("die")) == ("running", stops)
    run_volback("verify", "--data")
    run_volback("backup", volume, "--live")
    assert Catalog(LocalStore(run_volback.repository)).litter() == []
    assert len(run_volback("list", "--json").json["result"]["backups"]) == 2
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_store_that_fails_in_the_second_pass_leaves_nothing_and_nobody_down(
    library: Library, volume: str, writer: Any
) -> None:
    source = volume_source(library.engine, volume)
    backup(*library, source, BackupOptions())
    store = FaultStore(library.repository.store, [FailPut(100_000, StoreError("disk full"), key="*data.zst")])
    done = backup_set(*library._replace(repository=Repository(store, lambda: library.repository.host)), [source], STOP)
    store.assert_all_hit()
    assert [error.message for error in done.errors] == ["disk full"]
    assert list(done.downtime_s) == [writer.name]
    assert _state(writer) == "running"
    assert len(library.repository.catalog.backups()) == 1
    assert library.repository.catalog.litter() == []
