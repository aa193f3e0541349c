"""Another host's engine, over ssh and TCP: backup, restore, proof, with the bytes that a local engine gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted
from tests.support.remote import Relay, SecondEngine, second_engine, ssh_server
from tests.support.tree import make_odd_tree


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    with second_engine() as running:
        yield running


@pytest.fixture
def volume(second: SecondEngine) -> Iterator[str]:
    """A volume of the second engine with an odd tree; it and its restored copy are removed after the test.

    It is more than all buffers on the way hold: 27 MiB that do not compress.
    """
    with closing(second.client()) as client:
        created = client.volumes.create("far", labels={"kept": "yes"})
        make_odd_tree(Path(created.attrs["Mountpoint"]), deep=False)
        yield "far"
        for left in client.volumes.list():
            left.remove()


def _there_and_back(
    run_volback: Volback, second: SecondEngine, url: str, environment: dict[str, str]
) -> dict[str, Any]:
    before = fingerprint(second.volume_path("far"))
    (made,) = run_volback("--host", url, "--json", "backup", "far", env=environment).json["result"]["backups"]
    assert made["host"] == second.name
    run_volback("--host", url, "restore", f"{second.name}/far", "--as", "near", "--prove", env=environment)
    assert differences(before, fingerprint(second.volume_path("near"))) == []
    with closing(second.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []
    return dict(made)


@pytest.mark.usefixtures("volume")
def test_over_ssh(run_volback: Volback, second: SecondEngine, far_state: dict[str, str], tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh", second) as (url, programs):
        environment = far_state | {"PATH": f"{programs}:{os.environ['PATH']}"}
        transport = _checks(run_volback, url, environment)["transport"]
        assert transport["facts"]["transport"] == "attach"
        far = _there_and_back(run_volback, second, url, environment)
    environment = {"VOLBACK_TRANSPORT": "pipe"}
    result = run_volback("--host", second.url, "--json", "backup", "far", env=environment).json["result"]
    assert far["digest"] == result["backups"][0]["digest"]


@pytest.mark.usefixtures("volume")
def test_over_tcp(run_volback: Volback, second: SecondEngine, far_state: dict[str, str]) -> None:
    with Relay(second) as relay:
        _there_and_back(run_volback, second, relay.url, far_state)
        again = ("restore", f"{second.name}/far", "--as", "near", "--replace")
        run_volback("--host", relay.url, *again, env=far_state)
    near = fingerprint(second.volume_path("near"))
    assert differences(fingerprint(second.volume_path("far")), near) == []


@pytest.mark.usefixtures("volume")
def test_a_connection_that_breaks_leaves_nothing_that_the_next_run_does_not_remove(
    run_volback: Volback, second: SecondEngine, far_state: dict[str, str]
) -> None:
    (second.volume_path("far") / "big").write_bytes(os.urandom(32 * 1024 * 1024))
    with Relay(second) as relay:
        with halted(run_volback, "buffer 2 of read", "--host", relay.url, "backup", "far", env=far_state) as run:
            relay.cut()
        assert run.ended.exit_code in (1, 7, 8), run.ended
        assert "Traceback" not in run.ended.stderr
        assert "internal" not in run.ended.stderr
        run_volback("--host", relay.url, "doctor", "--fix", env=far_state)
        assert run_volback("--host", relay.url, "list", "--all-hosts", "--json").json["result"]["backups"] == []
        assert _stored_bytes(run_volback) < 1000
    with closing(second.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []


def _stored_bytes(run_volback: Volback) -> int:
    return sum(path.lstat().st_size for path in run_volback.repository.rglob("*") if path.is_file())


def _checks(run_volback: Volback, url: str, environment: dict[str, str]) -> dict[str, Any]:
    result = run_volback("--host", url, "--json", "doctor", env=environment)
    return {check["name"]: check for check in result.json["result"]["checks"]}
