"""The fixtures that the other tests stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import clients
from tests.support.engine import EngineSession, Volback, remove_volume
from tests.support.leftovers import Leftovers
from volback.engine.engine import Engine


def test_a_container_sees_what_was_put_into_its_volume(
    volume_factory: Callable[..., str], volume_path: Callable[[str], Path], container_factory: Callable[..., Any]
) -> None:
    name = volume_factory(fill=lambda path: (path / "given").write_text("from the host"))
    container = container_factory("cat /data/given > /data/taken; exec sleep 600", volumes={name: "/data"})
    assert container.exec_run(["cat", "/data/given"]).output == b"from the host"
    container.kill()
    container.wait()
    assert (volume_path(name) / "taken").read_text() == "from the host"


def test_a_leftover_of_this_session_is_named(engine: EngineSession) -> None:
    name = engine.new_name("leftover")
    engine.client.volumes.create(name)
    try:
        assert f"volume {name}" in engine.leftovers()
    finally:
        remove_volume(engine.client, name)
    assert f"volume {name}" not in engine.leftovers()


def test_volback_runs_with_directories_of_its_own(run_volback: Volback, tmp_path: Path) -> None:
    environment = run_volback.environment({"VOLBACK_HOSTNAME": "here"})
    assert Path(environment["VOLBACK_REPO"]).is_relative_to(tmp_path)
    assert Path(environment["VOLBACK_STATE_DIR"]).is_relative_to(tmp_path)
    assert environment["VOLBACK_HOSTNAME"] == "here"


def test_no_connection_of_a_client_is_kept(open_engine: Callable[..., Engine], leftovers: Leftovers) -> None:
    ours = open_engine()
    assert ours.has_volume("volback-test-none") is False
    assert leftovers.descriptors(), "it keeps them for the next call"
    clients.disconnect()
    assert leftovers.descriptors() == []
    assert ours.has_volume("volback-test-none") is False, "it connects again"
