"""volback makes the engine's API calls that the documentation lists, and works behind a proxy that allows no others."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Target
from tests.support.api_proxy import ApiProxy, Rule
from tests.support.engine import PROJECT, EngineSession, Volback
from tests.support.remote import second_engine
from volback.engine import image
from volback.engine.engine import Engine
from volback.errors import EngineError

CALLS = (PROJECT / "docs/reference/engine-api.md").read_text()
EXAMPLE = (PROJECT / "docs/how-to/run-in-a-container.md").read_text()


def _listed(heading: str = "# Engine API calls") -> set[str]:
    """The documented calls, as `POST /containers/ID/start`: of the first table, or the one below that text."""
    table = CALLS.partition(heading)[2].partition("| call of the engine's API |")[2].partition("\n\n")[0]
    return {call for line in table.splitlines() for call in re.findall(r"`((?:GET|POST|DELETE) [^`]+)`", line)}


def _allowed() -> list[Rule]:
    """The expressions of the documented compose example."""
    return re.findall(r"^ +- -allow([A-Z]+)=(\S+)", EXAMPLE, re.MULTILINE)


def _general(call: str) -> str:
    call = re.sub(r"(?<=/containers/)(?!json$|create$)[^/]+", "ID", call)
    call = re.sub(r"(?<= /exec/)[^/]+", "ID", call)
    return re.sub(r"(?<=/volumes/)(?!create$)[^/]+|(?<=/images/).+(?=/(?:json|get|tag)$)", "NAME", call)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ApiProxy]:
    with ApiProxy(tmp_path / "engine.sock", _allowed()) as running:
        yield running


def test_what_the_documentation_lists_is_what_is_called(
    proxy: ApiProxy, engine: EngineSession, run_volback: Volback, volume_factory: Callable[..., str],
    *, container_factory: Callable[..., Any], volume_name: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    volume = volume_factory(fill=lambda path: (path / "file").write_bytes(b"x" * 3_000_000))
    environment = {"DOCKER_HOST": proxy.url}
    for command in (
        ["doctor"],
        ["backup", volume],
        ["list"],
        ["restore", volume, "--as", volume_name("copy"), "--prove"],
        ["restore", volume, "--replace"],
        ["volumes"],
    ):
        run_volback(*command, env=environment)
    labels = engine.labels | {"volback.exec-pre": "cat /data/file"}
    container_factory(volumes={volume: "/data"}, labels=labels)
    for how in ("--stop", "--pause"):
        run_volback("backup", volume, how, env=environment)
    run_volback("backup", volume, env=environment | {"VOLBACK_TRANSPORT": "attach"})
    _rare_calls(proxy, engine, volume_factory, tmp_path, monkeypatch)
    assert proxy.refused == []
    assert {_general(call) for call in proxy.calls} == _listed()
    assert proxy.used == set(_allowed())


def _rare_calls(
    proxy: ApiProxy, engine: EngineSession, volume_factory: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is only called where there is no helper image yet, and where something fails."""
    client_id = f"test-{engine.id}-{secrets.token_hex(4)}"
    engine.client_ids.add(client_id)
    ours, volume = Engine(proxy.url, client_id=lambda: client_id), volume_factory()
    with (
        pytest.raises(EngineError, match="killed"),
        ours.writer(
            Target("volume", volume), run="test", directory=tmp_path / "pipes", write=["sh", "-c", "cat; exit 137"]
        ) as writer,
    ):
        writer.write([b"x"])
    ours.remove_volume(volume)
    monkeypatch.setattr(image, "TAG", f"test-{engine.id}")
    made = ours.ensure_image()
    engine.client.images.remove(made)


def test_what_a_migration_calls_beyond_that_is_listed_too(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    volume = volume_factory()
    with (
        second_engine() as second,
        ApiProxy(tmp_path / "here.sock") as here,
        ApiProxy(tmp_path / "there.sock", engine=second.directory / "docker.sock") as there,
    ):
        run_volback("migrate", volume, "--from", here.url, "--to", there.url)
    listed, everywhere = _listed("`migrate` also makes"), _listed()
    assert {_general(call) for call in here.calls} - everywhere == {"GET /images/NAME/get"}
    assert {_general(call) for call in there.calls} - everywhere == {"POST /images/load"}
    assert listed == {"GET /images/NAME/get", "POST /images/load", "POST /images/NAME/tag"}


def test_a_call_that_is_not_allowed_is_an_error_that_says_so(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    readable: list[Any] = [("GET", ".*")]
    with ApiProxy(tmp_path / "engine.sock", readable) as proxy:
        result = run_volback("backup", volume_factory(), env={"DOCKER_HOST": proxy.url}, check_exit=1)
    assert "the proxy does not allow this" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
