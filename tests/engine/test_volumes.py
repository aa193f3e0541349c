"""Volumes as the engine tells of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.api_proxy import ApiProxy
from tests.support.engine import Volback
from tests.support.tree import make_deep_path
from volback.engine.engine import Engine


def test_sizes_are_returned_to_many_who_ask_at_once(
    open_engine: Callable[..., Engine], volume_factory: Callable[..., str]
) -> None:
    name = volume_factory(fill=lambda path: (path / "file").write_bytes(bytes(5000)))
    engines = [open_engine() for _ in range(4)]

    def ask(engine: Engine) -> list[int]:
        return [engine.volume_sizes()[name] for _ in range(4)]

    with ThreadPoolExecutor(len(engines)) as pool:
        sizes = [size for found in pool.map(ask, engines) for size in found]
    assert len(sizes) == 16
    assert set(sizes) == {5000}


@pytest.mark.parametrize(
    "answer",
    [
        {"LayersSize": 1, "Volumes": [{"Name": "db", "UsageData": {"Size": 7, "RefCount": 1}}]},
        {"VolumeUsage": {"TotalSize": 7, "Items": [{"Name": "db", "UsageData": {"Size": 7, "RefCount": 1}}]}},
        {"VolumeUsage": {"Items": [{"Name": "db", "UsageData": {"Size": 7}}]}, "Volumes": []},
    ],
    ids=["up to API 1.51", "from API 1.53 on", "between"],
)
def test_sizes_are_read_in_either_form(tmp_path: Path, answer: dict[str, object]) -> None:
    own = {"/system/df": json.dumps(answer).encode()}
    with ApiProxy(tmp_path / "proxy.sock", own_answers=own) as proxy:
        assert Engine(proxy.url, client_id=str).volume_sizes() == {"db": 7}


@pytest.mark.parametrize("answer", [None, b"{}", b"[]"], ids=["never", "without fields", "of another form"])
def test_volumes_are_listed_where_sizes_are_not_known(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path, answer: bytes | None
) -> None:
    name = volume_factory("bound", driver_opts={"type": "none", "o": "bind", "device": str(tmp_path)})
    with ApiProxy(tmp_path / "proxy.sock", own_answers={"/system/df": answer}) as proxy:
        listed = run_volback("--host", proxy.url, "volumes", env={"VOLBACK_ENGINE_TIMEOUT": "3"})
    assert name in listed.stdout
    assert listed.stderr.startswith("warning: the sizes are not known: sizes of volumes: ")


def test_volumes_are_listed_beside_one_that_is_too_deep_to_be_measured(
    run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    """Docker leaves out the size of that one; Podman fails and repeats the path, so that no size is known."""
    name = volume_factory(fill=lambda path: make_deep_path(path / "deep"))
    listed = run_volback("--json", "volumes")
    assert all(len(warning) < 1000 for warning in listed.json["warnings"])
    sizes = [volume["size_bytes"] for volume in listed.json["result"]["volumes"] if volume["name"] == name]
    assert sizes == [None]


def test_volumes_are_listed_without_a_repository(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    """Where none was made yet it is a warning; where one was, its disk may not be mounted."""
    name, usb = volume_factory("first"), tmp_path / "usb"
    command = ["volumes", "--no-sizes", "--repo", str(usb)]
    first = run_volback(*command, check_exit=3)
    assert re.search(rf"^{name} .* unknown ", first.stdout, re.M)
    assert first.stderr.startswith(f"warning: no backups yet: no repository in {usb}: it is empty or does not exist;")
    assert f"to make one: volback init --repo {usb}" in first.stderr
    run_volback("init", "--repo", str(usb))
    assert re.search(rf"^{name} .* never ", run_volback(*command).stdout, re.M)
    usb.rename(tmp_path / "unmounted")
    lost = run_volback(*command, check_exit=9)
    assert re.search(rf"^{name} .* unknown ", lost.stdout, re.M)
    assert f"error: no repository in {usb}: it is empty or does not exist; its id was" in lost.stderr


def test_a_volume_with_driver_options_is_listed(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    """Engines leave it out where they measure: just the volumes that are easily forgotten."""
    name = volume_factory("bound", driver_opts={"type": "none", "o": "bind", "device": str(tmp_path)})
    listed = run_volback("--json", "volumes").json["result"]["volumes"]
    assert [volume["size_bytes"] for volume in listed if volume["name"] == name] == [None]
