"""The fixtures that the other tests stand on."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients
from tests.support.engine import EngineSession, Volback, remove_volume, said_in
from tests.support.leftovers import Leftovers
from tests.support.remote import wait_for
from volback.engine.engine import Engine


def test_a_container_sees_what_was_put_into_its_volume(
    volume_factory: Callable[..., str], volume_path: Callable[[str], Path], container_factory: Callable[..., Any]
) -> None:
    name = volume_factory(fill=lambda path: (path / "given").write_text("from the host"))
    container = container_factory("cat /data/given > /data/taken; exec sleep 600", volumes={name: "/data"})
    assert said_in(container, "cat", "/data/given") == (0, b"from the host")
    container.kill()
    container.wait()
    assert (volume_path(name) / "taken").read_text() == "from the host"


def test_what_came_together_with_the_head_of_an_answer_is_not_lost(
    container_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it comes to a process that had to wait for the processor; docker-py's own exec_run gives nothing then."""
    container, begin = container_factory(), http.client.HTTPResponse.begin

    def begin_late(answer: Any) -> None:
        connection = answer.fp.raw._sock

        def has_come() -> bool:
            head, _, body = connection.recv(65536, socket.MSG_PEEK).partition(b"\r\n\r\n")
            return b"raw-stream" not in head or b"hello" in body

        wait_for(has_come, "the output")
        begin(answer)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin_late)
    assert said_in(container, "/bin/sh", "-c", "echo hello") == (0, b"hello\n")


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
