"""What is done before containers are stopped: an error there stops nothing, and helpers that wait are few."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.events import Events, of_client
from tests.support.halt import halted, struck
from tests.support.image import image_tar
from tests.support.library import Library
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.errors import FormatError, StoreUnreachable, VolbackError
from volback.operations import backup_set as sets
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.set_result import SetResult
from volback.operations.sources import volume_source
from volback.state.client import client_id
from volback.state.journal import HeldContainer
from volback.state.runs import Run
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore

Volumes = Callable[..., str]
Containers = Callable[..., Any]
STOP = SetOptions(quiesce="stop")


def _journalled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What runs note as held, from now on."""
    noted: list[Any] = []
    note = Run.note

    def noting(self: Run, *entries: Any) -> None:
        noted.extend(entry for entry in entries if isinstance(entry, HeldContainer))
        note(self, *entries)

    monkeypatch.setattr(Run, "note", noting)
    return noted


def _back_up(library: Library, *names: str) -> SetResult:
    return backup_set(*library, [volume_source(library.engine, name) for name in names], STOP)


def _on(library: Library, store: FaultStore) -> Library:
    return library._replace(repository=Repository(store, lambda: library.repository.host))


def _started_at(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["StartedAt"])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (FailCall("open", StoreUnreachable("no answer"), key="volback.json"), StoreUnreachable),
        (FailCall("open", FormatError("it is of a newer format"), key="volback.json"), FormatError),
        (FailCall("list", StoreUnreachable("no answer"), nth=None), StoreUnreachable),
    ],
    ids=["down", "refuses", "down when listed"],
)
def test_where_the_repository_fails_no_container_is_stopped(
    library: Library, events: Events, volume_factory: Volumes, container_factory: Containers,
    monkeypatch: pytest.MonkeyPatch, *, fault: FailCall, error: type[VolbackError],
) -> None:  # fmt: skip
    """When the set begins, or only when its sources are prepared."""
    volume, held = volume_factory(), _journalled(monkeypatch)
    container = container_factory(volumes={volume: "/data"})
    started_at, since = _started_at(container), time.time()
    store = FaultStore(library.repository.store, [fault])
    try:
        found = _back_up(_on(library, store), volume).errors
    except VolbackError as exc:
        found = (exc,)
    store.assert_all_hit()
    assert ([type(exc) for exc in found], held) == ([error], [])
    assert list(library.repository.catalog.backups()) == []
    assert _started_at(container) == started_at
    assert events.actions(since, container) == []


def test_where_a_helper_cannot_scan_no_container_is_stopped(
    run_volback: Volback, engine: EngineSession, events: Events, volume_factory: Volumes, container_factory: Containers
) -> None:
    """Its image has a shell, and no find."""
    volume, image = volume_factory(), f"volback-test-shell:{engine.id}"
    engine.client.api.import_image_from_data(image_tar(("dash",)), repository="volback-test-shell", tag=engine.id)
    container = container_factory(volumes={volume: "/data"})
    since = time.time()
    try:
        said = run_volback("backup", volume, "--stop", env={"VOLBACK_HELPER_IMAGE": image}, check_exit=1)
    finally:
        engine.client.images.remove(image, force=True)
    assert said.stderr.startswith("error: the scan of the volume was cut off")
    assert events.actions(since, container) == []


def test_a_source_that_cannot_be_prepared_fails_alone_and_its_container_runs_on(
    library: Library, events: Events, volume_factory: Volumes, container_factory: Containers
) -> None:
    bad, good = volume_factory("bad"), volume_factory("good")
    containers = [container_factory(volumes={volume: "/data"}) for volume in (bad, good)]
    since = time.time()
    fault = FailCall("list", StoreUnreachable("no answer"), key=f"*{bad}*")
    done = _back_up(_on(library, FaultStore(library.repository.store, [fault])), bad, good)
    assert list(done.failed) == [bad]
    assert [backup.manifest.volume for backup in done.backups] == [good]
    assert events.actions(since, containers[0]) == []
    assert list(done.downtime_s) == [containers[1].name]


def test_a_helper_that_dies_while_containers_stop_fails_its_volume_alone(
    run_volback: Volback, engine: EngineSession, volume_factory: Volumes, container_factory: Containers
) -> None:
    volumes = [volume_factory("one"), volume_factory("other")]
    container = container_factory(volumes={volumes[0]: "/one", volumes[1]: "/other"})
    with halted(run_volback, "before Engine.stop_container", "backup", *volumes, "--stop") as run:
        (helper,) = [one for one in _helpers(engine, run_volback.state) if _mounts(one, volumes[0])]
        helper.kill()
    assert run.ended.exit_code == 1, run.ended
    assert "was killed" in run.ended.stderr
    container.reload()
    assert container.status == "running"
    assert [row["volume"] for row in run_volback("list", "--json").json["result"]["backups"]] == [volumes[1]]
    assert _helpers(engine, run_volback.state) == []


def _helpers(engine: EngineSession, state: Path) -> list[Any]:
    label = f"volback.client={client_id(state)}"
    return list(engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}))


def _mounts(helper: Any, volume: str) -> bool:
    return any(mount.get("Name") == volume for mount in helper.attrs["Mounts"])


def test_of_many_sources_only_a_few_have_a_helper_that_waits(
    library: Library, events: Events, volume_factory: Volumes, container_factory: Containers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sets, "HELPERS_AT_MOST", 1)
    volumes = [volume_factory(f"v{number}") for number in range(3)]
    container = container_factory(volumes={name: f"/{name}" for name in volumes})
    since = time.time()
    done = _back_up(library, *volumes)
    assert [backup.manifest.volume for backup in done.backups] == volumes
    assert {backup.manifest.consistency for backup in done.backups} == {"stopped"}
    there: set[str] = set()
    most = 0
    for event in of_client(events.since(since), client_id(library.ctx.settings.state)):
        changed = {"start": there | {event.name}, "die": there - {event.name}}
        there = changed.get(event.action, there)
        most = max(most, len(there))
    assert most == 2, "one is read, and the next one waits"
    assert _started_at(container) > ""
    assert list(done.downtime_s) == [container.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_set_that_is_struck_while_one_is_committed_and_the_next_one_read_leaves_whole_backups(
    run_volback: Volback, engine: EngineSession, volume_factory: Volumes, container_factory: Containers, number: int
) -> None:
    volumes = [volume_factory("one"), volume_factory("other")]
    container = container_factory(volumes={volumes[0]: "/one", volumes[1]: "/other"})
    struck(run_volback, number, "before Catalog.commit", "backup", *volumes, "--stop")
    run_volback("recover")
    container.reload()
    assert container.status == "running"
    run_volback("verify", "--data")
    run_volback("backup", volumes[0], "--live")
    assert Catalog(LocalStore(run_volback.repository)).litter() == []
    assert _helpers(engine, run_volback.state) == []
    assert list((run_volback.state / "runs").iterdir()) == []
