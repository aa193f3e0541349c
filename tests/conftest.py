"""Fixtures on the real engine. A part that is missing fails the tests; nothing is skipped or stood in for."""

from __future__ import annotations

import gc
import logging
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.support")  # before its modules are imported: an assertion there says its values

from tests.support import clients
from tests.support.engine import EngineSession, Volback, build_image, connect, remove_containers, remove_volume
from tests.support.events import Events, followed
from tests.support.leftovers import Leftovers
from tests.support.other_host import far_state, running, second
from tests.support.repository import new_repository
from tests.support.s3 import moto, radosgw, rclone, seaweedfs
from tests.support.sweeper import swept
from tests.support.turns import turn

__all__ = ["far_state", "moto", "radosgw", "rclone", "running", "seaweedfs", "second"]

# A shell's background job ignores SIGINT, and so would all that the tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: a handler lets it pass here, and no child inherits it
    signal.signal(signal.SIGHUP, lambda *_: None)

_S3 = "s3"
_ALONE = "alone"
LONGEST_FIRST = (
    _S3, "fault/test_move_cut.py", "e2e/test_quiesce.py", "e2e/test_restore_parts.py", "e2e/test_commands.py",
    "e2e/test_container.py", "fault/test_engine_stopped.py", "e2e/test_increments.py", "e2e/test_run.py",
    "e2e/test_migrate_set.py", "fault/test_quiesce_kill.py", "e2e/test_remote_engine.py", "e2e/test_import.py",
    "e2e/test_databases.py", "e2e/test_hidden_writers.py", "e2e/test_storage.py", "e2e/test_directories.py",
    "engine/test_transports.py", "fault/test_services.py", "e2e/test_migrate.py", "e2e/test_live_move.py",
    "e2e/test_json_contract.py", "e2e/test_restore_limits.py", "e2e/test_projects.py", "e2e/test_database_moves.py",
    "fault/", "store/", "e2e/", "engine/", _ALONE, "",
)  # fmt: skip
"""Groups by the seconds that they take together: one that began last would run on while the other workers idle.

What must have the engine to itself comes when the others are about to be done with it, as it waits for all of them.
"""
_SERVERS = {"radosgw", "rclone", "seaweedfs", "moto"}
_NEEDS = {
    "engine": "engine", "radosgw": "ceph", "rclone": "rclone", "seaweedfs": "seaweedfs", "moto": "moto",
    "mount_small": "root",
}  # fmt: skip
"""Fixtures, and the marker of what a test needs for them."""
_NEEDED = {*_NEEDS.values(), "programs"}
_UNIT = {"fuzz", "notify", "schedule", "store", "unit"}
"""Directories whose tests are unit tests, as far as they need nothing of a machine."""
_EACH_ALONE = ("fault/test_kill.py", "e2e/test_docs.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--every-step`, which `scripts/test long` gives."""
    help_ = "strike runs at every step, not at a spread of them, and run what is marked long"
    parser.addoption("--every-step", action="store_true", help=help_)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For workers beside each other: a file's tests stay together, with its fixtures, and those on S3 servers.

    The longest come first, so that no worker is left alone with them in the end.
    """
    if not config.getoption("every_step"):
        _leave_out(config, items, "long")
    tests = Path(__file__).parent
    for item in items:
        assert isinstance(item, pytest.Function)
        for fixture in _NEEDS.keys() & item.fixturenames:
            item.add_marker(_NEEDS[fixture])
        if item.path.relative_to(tests).parts[0] in _UNIT and not any(map(item.get_closest_marker, _NEEDED)):
            item.add_marker("unit")
        if item.get_closest_marker("xdist_group") is None:
            file = item.path.relative_to(tests).as_posix()
            group = item.nodeid if file in _EACH_ALONE else file
            if item.get_closest_marker("alone"):
                group = _ALONE
            item.add_marker(pytest.mark.xdist_group(_S3 if _SERVERS.intersection(item.fixturenames) else group))
    items.sort(key=_rank)


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str) -> None:
    left_out = [item for item in items if item.get_closest_marker(marker)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker(marker)]


def _rank(item: pytest.Item) -> int:
    """The place of a test's group among those that come first, else of its directory."""
    group = item.get_closest_marker("xdist_group")
    assert group is not None
    file = item.path.relative_to(Path(__file__).parent).as_posix()
    name = group.args[0]
    file = "" if name == _ALONE else file
    return next(rank for rank, start in enumerate(LONGEST_FIRST) if name == start or file.startswith(start))


def pytest_collection_finish(session: pytest.Session) -> None:
    """With a pytest that pytest-xdist does not know, groups are lost without a word."""
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist gave the tests no groups: mind the bound of pytest in pyproject.toml")
    gc.collect()
    gc.freeze()  # thousands of tests and modules stay to the end: no collection looks at them again


@pytest.fixture(scope="session")
def session_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The id of this process's tests. What they start and make is removed also where this process is killed."""
    id_ = secrets.token_hex(6)
    with swept(id_, tmp_path_factory.getbasetemp()):
        yield id_


@pytest.fixture(scope="session")
def engine(session_id: str) -> Iterator[EngineSession]:
    """The engine and this session's label on it; in the end nothing of this session may be left."""
    try:
        session = EngineSession(connect(), session_id)
    except RuntimeError as exc:
        pytest.fail(str(exc), pytrace=False)
    yield session
    leftovers = session.leftovers_in_the_end()
    session.remove()
    session.client.close()
    assert not leftovers, f"left behind by this session's tests: {leftovers}"


@pytest.fixture(scope="session")
def events(engine: EngineSession) -> Iterator[Events]:
    """What happens to containers, from this fixture's first use on."""
    with followed(engine) as events:
        yield events


@pytest.fixture(scope="session", autouse=True)
def _clients() -> Iterator[None]:
    with clients.noted():
        yield


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """A command that a test runs in this process says what is logged, and where; for the next test it is as before."""
    logger = logging.getLogger("volback")
    level, handlers = logger.level, [*logger.handlers]
    yield
    logger.setLevel(level)
    logger.handlers = handlers


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests marked `alone` have the engine to themselves, among all workers of this run."""
    if request.node.get_closest_marker("engine") is None:
        yield
        return
    of_all_workers = tmp_path_factory.getbasetemp().parent
    with turn(of_all_workers, alone=request.node.get_closest_marker("alone") is not None):
        yield
    clients.disconnect()


@pytest.fixture
def leftovers() -> Leftovers:
    """What this process has that it had not when the test began."""
    return Leftovers()


@pytest.fixture
def volume_name(engine: EngineSession) -> Iterator[Callable[..., str]]:
    """Gives names of volumes that do not exist yet; what came to be under them is removed after the test."""
    names: list[str] = []

    def give(hint: str = "volume") -> str:
        names.append(engine.new_name(hint))
        return names[-1]

    yield give
    for name in names:
        remove_volume(engine.client, name)


@pytest.fixture
def volume_factory(engine: EngineSession, volume_name: Callable[..., str]) -> Callable[..., str]:
    """Creates labelled volumes and returns their names; `fill=` takes a function that gets the host path."""

    def create(hint: str = "volume", *, fill: Callable[[Path], None] | None = None, **options: Any) -> str:
        labels = engine.labels | options.pop("labels", {})
        volume = engine.client.volumes.create(volume_name(hint), labels=labels, **options)
        if fill is not None:
            fill(_mountpoint(engine, volume.name))
        return str(volume.name)

    return create


@pytest.fixture
def volume_path(engine: EngineSession) -> Callable[[str], Path]:
    """Where a local volume lies on this host: tests fill and read it there, as root."""
    return lambda name: _mountpoint(engine, name)


@pytest.fixture(scope="session")
def test_image(engine: EngineSession) -> Iterator[str]:
    """An image of this machine's own programs, for containers that hold or change a volume."""
    tag = f"volback-test:{engine.id}"
    build_image(engine.client, tag, engine.labels)
    yield tag
    engine.client.images.remove(tag, force=True)


@pytest.fixture
def create_container(engine: EngineSession, test_image: str) -> Iterator[Callable[..., Any]]:
    """Creates containers: `create_container("script", volumes={NAME: "/data"})`; they are removed after the test."""
    created: list[Any] = []

    def create(script: str = "exec sleep 600", *, volumes: dict[str, str] | None = None, **options: Any) -> Any:
        mounts = {name: {"bind": path, "mode": "rw"} for name, path in (volumes or {}).items()}
        options = {"init": False, "network_mode": "none", "labels": engine.labels, "stop_signal": "SIGKILL"} | options
        options["network_disabled"] = options["network_mode"] == "none"  # the engine starts it in half the time
        container = engine.client.containers.create(test_image, ["/bin/sh", "-c", script], volumes=mounts, **options)
        created.append(container)
        return container

    yield create
    remove_containers(reversed(created))  # Podman keeps one whose network another uses


@pytest.fixture
def container_factory(create_container: Callable[..., Any]) -> Callable[..., Any]:
    """Starts containers, as `create_container` creates them."""

    def start(*arguments: Any, **options: Any) -> Any:
        container = create_container(*arguments, **options)
        container.start()
        return container

    return start


@pytest.fixture
def run_volback(engine: EngineSession, tmp_path: Path) -> Iterator[Volback]:
    """Runs volback as a process: `run_volback("backup", NAME, check_exit=0)`; a new repository and state in
    tmp_path."""
    directory = tmp_path / "volback"
    directory.mkdir()
    volback = Volback(directory, engine.client_ids)
    new_repository(volback.repository)
    yield volback
    volback.note_client_id()


def _mountpoint(engine: EngineSession, name: str) -> Path:
    path = Path(engine.client.volumes.get(name).attrs["Mountpoint"])
    if not path.is_dir():
        pytest.fail(f"the engine's volume {name} is not reachable at {path}: tests need root and a local engine")
    return path
