"""Migrate: a volume goes to another engine, and is proven there; the source stays as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.e2e.test_json_contract import COMPARED, shape
from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import struck
from tests.support.remote import Relay, SecondEngine, ssh_server
from tests.support.tree import make_odd_tree

NAME = "moved"
MIGRATED = {
    "source": "str", "volume": "str", "files": "int", "raw_bytes": "int", "sockets_skipped": "int",
    "consistency": "str", "containers": [], "proven": "bool", "proof": COMPARED, "duration_s": "float",
    "from": "str", "to": "str", "sent_bytes": "int", "retries": "int", "resumed": "bool",
    "safety_backup": "null", "source_removed": "bool",
    "passes": "int", "each_pass": [], "downtime_s": "null", "left_stopped": [],
}  # fmt: skip
"""The result of `migrate` as programs rely on it."""


def _odd(path: Path) -> None:
    make_odd_tree(path, deep=False)


def _small(path: Path) -> None:
    (path / "directory").mkdir()
    (path / "directory" / "file").write_text("text")
    (path / "other").write_bytes(os.urandom(3 << 20) + bytes(2 << 20))


def _there(second: SecondEngine, name: str = NAME) -> dict[bytes, Any]:
    return fingerprint(second.volume_path(name))


def _volumes(second: SecondEngine) -> set[str]:
    with closing(second.client()) as client:
        return {volume.name for volume in client.volumes.list()}


def _make(second: SecondEngine, name: str, fill: Callable[[Path], object], **labels: str) -> None:
    with closing(second.client()) as client:
        fill(Path(client.volumes.create(name, labels=labels).attrs["Mountpoint"]))


def test_a_volume_goes_to_another_engine_with_its_name_and_labels(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    labels = {"team": "red", "com.docker.compose.project": "shop", "com.docker.volume.anonymous": ""}
    volume = volume_factory("odd", fill=_odd, labels=labels)
    before = fingerprint(volume_path(volume))

    said = run_volback("migrate", volume, "--to", second.url, "--json").json

    assert (said["result"]["proven"], said["result"]["to"], said["warnings"]) == (True, second.name, [])
    assert differences(before, _there(second, volume)) == []
    assert differences(before, fingerprint(volume_path(volume))) == [], "the source is only read"
    with closing(second.client()) as client:
        made = client.volumes.get(volume).attrs["Labels"]
    assert {key: made.get(key) for key in labels} == labels | {"com.docker.volume.anonymous": None}
    assert list((run_volback.state / "runs").iterdir()) == []
    assert shape(said["result"]) == MIGRATED


def test_over_ssh_it_is_compressed_by_the_other_host(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    def fill(path: Path) -> None:
        _small(path)
        os.setxattr(path / "other", "user.text", b"value")
        (path / "zeros").write_bytes(bytes(30 << 20))

    _make(second, "far", fill)
    near = volume_name("near")
    with ssh_server(tmp_path / "ssh", second) as (url, programs):
        environment = far_state | {"PATH": f"{programs}:{os.environ['PATH']}"}
        run_volback("migrate", "far", "--from", url, "--to", _local(), "--as", near, env=environment)
        assert differences(_there(second, "far"), fingerprint(volume_path(near))) == []
        said = run_volback(
            "migrate", near, "--to", url, "--as", "back", "--bandwidth", "1GiB", "--json", "--debug", env=environment
        )
    assert differences(_there(second, "far"), _there(second, "back")) == []
    result = said.json["result"]
    assert result["proven"]
    assert "compared path by path" not in said.stderr, "the helper's digest is that of this side"
    assert result["sent_bytes"] < result["raw_bytes"] - (28 << 20)


def test_from_one_host_to_another_it_stays_compressed(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str]
) -> None:
    _make(second, "far", _small)
    with Relay(second) as relay:
        for name, options in (("packed", ()), ("plain", ("--no-compress",))):
            arguments = ("far", "--from", relay.url, "--to", relay.url, "--as", name, "--bandwidth", "1GiB", *options)
            said = run_volback("migrate", *arguments, "--json", env=far_state).json["result"]
            assert said["proven"]
            assert (said["sent_bytes"] < said["raw_bytes"] - (1 << 20)) is not bool(options)
            assert differences(_there(second, "far"), _there(second, name)) == []


def test_a_volume_that_holds_something_is_replaced_only_on_request(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    volume = volume_factory("small", fill=_small)
    _make(second, NAME, lambda path: (path / "former").write_text("former"))
    before, arguments = _there(second), ("migrate", volume, "--to", second.url, "--as", NAME)

    refused = run_volback(*arguments, check_exit=5).stderr
    assert "exists already, and is not empty: it holds 'former'" in refused
    assert "give --replace" in refused
    assert differences(before, _there(second)) == []

    done = run_volback(*arguments, "--replace", "--json").json["result"]
    assert differences(fingerprint(volume_path(volume)), _there(second)) == []
    assert done["safety_backup"].startswith(f"{second.name}/{NAME}@")
    run_volback("--host", second.url, "restore", done["safety_backup"], "--as", "former")
    assert differences(before, _there(second, "former")) == []

    assert run_volback(*arguments, "--replace", "--no-safety-backup", "--json").json["result"]["safety_backup"] is None


def test_the_source_is_removed_only_on_request_and_once_proven(
    second: SecondEngine, run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str],
    create_container: Callable[..., Any],
) -> None:  # fmt: skip
    volume = volume_factory("small", fill=_small)
    container = create_container(volumes={volume: "/data"})
    arguments = ("migrate", volume, "--to", second.url, "--remove-source")
    assert "needs the proof" in run_volback(*arguments, "--no-prove", check_exit=2).stderr
    said = run_volback(*arguments, "--json", check_exit=5).json
    assert (said["result"]["proven"], said["result"]["source_removed"]) == (True, False)
    assert "volume is in use" in said["error"]["message"]
    container.remove()
    said = run_volback(*arguments, "--as", "again", "--json").json
    assert said["result"]["source_removed"] is True
    assert volume not in {found.name for found in engine.client.volumes.list()}
    assert {volume, "again"} <= _volumes(second)


def test_a_volume_that_is_written_to_is_not_migrated(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
) -> None:  # fmt: skip
    volume = volume_factory("written", fill=_small)
    container = container_factory(volumes={volume: "/data"})
    refused = run_volback("migrate", volume, "--to", second.url, check_exit=5).stderr
    assert f"is in use by container '{container.name}'" in refused
    assert f"docker stop {container.name}" in refused
    assert _volumes(second) == set()


def test_an_address_that_leads_nowhere_is_named_by_its_option(
    run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    volume = volume_factory("small")
    said = run_volback("migrate", volume, "--to", "unix:///nobody.sock", check_exit=8).stderr
    assert "--to" in said.partition("hint: ")[2]
    said = run_volback("migrate", volume, "--from", "unix:///nobody.sock", "--to", _local(), check_exit=8).stderr
    assert "--from" in said.partition("hint: ")[2]


def test_it_is_not_moved_onto_itself(run_volback: Volback, volume_factory: Callable[..., str]) -> None:
    volume = volume_factory("small", fill=_small)
    assert "is on that engine already" in run_volback("migrate", volume, "--to", _local(), check_exit=5).stderr


def test_a_migration_that_was_killed_is_cleaned_up_by_the_next_one(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    volume = volume_factory("small", fill=_small)
    command = ("migrate", volume, "--to", second.url, "--as", NAME)
    assert struck(run_volback, signal.SIGKILL, "buffer 0 of write", *command) == -signal.SIGKILL
    assert NAME in _volumes(second)
    said = run_volback(*command)
    assert said.stderr == ""
    assert differences(fingerprint(volume_path(volume)), _there(second)) == []
    assert list((run_volback.state / "runs").iterdir()) == []


def _local() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
