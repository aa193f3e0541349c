"""What an engine is known by, and how its errors are understood, where engines differ."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import docker.errors
import pytest
import requests

from tests.support.api_proxy import ApiProxy
from tests.support.engine import EngineSession
from volback.engine.connect import connect, translated
from volback.engine.engine import Engine
from volback.errors import EngineError, NotFoundError

PODMAN = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 5.8.6\r\nContent-Length: 2\r\n\r\nOK"
"""What Podman 5.8 answers to a ping."""


def test_an_engine_has_the_same_id_whenever_it_is_asked(open_engine: Callable[..., Engine]) -> None:
    assert open_engine().info.id == open_engine().info.id


def test_podman_is_known_by_its_host_and_the_directory_of_its_data(engine: EngineSession, tmp_path: Path) -> None:
    """It answers with a new id each time."""

    def id_of(number: int, **facts: str) -> str:
        info = engine.client.info() | {"ID": str(uuid.uuid4()), "Name": "web1", "DockerRootDir": "/data"} | facts
        own = {"/_ping": PODMAN, "/info": json.dumps(info).encode()}
        with ApiProxy(tmp_path / f"{number}.sock", own_answers=own) as proxy:
            return connect(proxy.url)[1].id

    assert id_of(1) == id_of(2)
    others = {id_of(3), id_of(4, Name="web2"), id_of(5, DockerRootDir="/home/user/data")}
    assert len(others) == 3


@pytest.mark.parametrize(("asked_for", "expected"), [("5c83de74", NotFoundError), ("0000aaaa", EngineError)])
def test_a_container_that_goes_while_podman_is_asked_for_it_does_not_exist(
    asked_for: str, expected: type[Exception]
) -> None:
    """Of another one, the same reason is an error: what was asked for may still be there."""
    response = requests.Response()
    response.status_code = 500
    reason = "no container with ID 5c83de74 found in database: no such container"
    with pytest.raises(Exception, match="no such container") as raised, translated(f"container {asked_for!r}"):
        raise docker.errors.APIError("500 Server Error", response, reason)
    assert type(raised.value) is expected


def test_a_ping_tells_the_api_and_one_request_the_rest(engine: EngineSession, tmp_path: Path) -> None:
    with ApiProxy(tmp_path / "engine.sock", [("GET", "/_ping"), ("GET", "/v[0-9.]+/info")]) as proxy:
        client, info = connect(proxy.url)
    said = engine.client.version()
    assert (client.api_version, info.version) == (said["ApiVersion"], said["Version"])
    assert info.api_version == said["ApiVersion"]
