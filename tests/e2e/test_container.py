"""volback in a container, built from the Dockerfile: all works from inside, and it leaves nothing when it is ended."""

from __future__ import annotations

import base64
import os
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.container import HOME, SOCKET, USER, Contained, built_image
from tests.support.engine import EngineSession, Volback, engine_socket, said_in
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import wait_for
from tests.support.tree import make_odd_tree
from volback.operations.backup import rfc3339
from volback.state.history import JobRun, note_run

SLOWLY = ("--level", "19")
"""So that there is time to strike. Not every kernel can limit a helper's processor time."""


@pytest.fixture(scope="module")
def image(engine: EngineSession) -> Iterator[str]:
    with built_image(engine) as tag:
        yield tag


@pytest.fixture
def contained(
    engine: EngineSession, image: str, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> Contained:
    """Runs volback in containers, each with the same volume on /var/lib/volback."""
    volume = volume_factory("home")
    return Contained(engine, image, volume, volume_path(volume))


def _checks(report: dict[str, Any], *warnings: str) -> dict[str, Any]:
    """What each check found; all but `warnings` are well."""
    assert {check["name"]: check["status"] for check in report["checks"] if check["status"] != "ok"} == dict.fromkeys(
        warnings, "warning"
    )
    return {check["name"]: check["facts"] for check in report["checks"]}


@pytest.mark.parametrize("root", [True, False], ids=["root", "socket's group"])
def test_a_volume_there_and_back(
    contained: Contained, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], root: bool,
) -> None:  # fmt: skip
    volume, copy = volume_factory(fill=lambda path: make_odd_tree(path, deep=False)), volume_name("copy")
    made, listed, restored, report = contained.json(
        f"backup {volume}", "list", f"restore {volume} --as {copy} --prove", "doctor", root=root
    )
    host = contained.engine.client.info()["Name"]
    assert [backup["host"] for backup in (*made["backups"], *listed["backups"])] == [host, host]
    assert restored["proven"] is True
    assert differences(fingerprint(volume_path(volume)), fingerprint(volume_path(copy))) == []
    checks = _checks(report)
    assert checks["transport"]["transport"] == "pipe", "the pipes lie in the volume that both mount"
    assert (contained.home / "repository/volback.json").stat().st_uid == (0 if root else USER)


def test_host_paths_are_the_hosts(contained: Contained, tmp_path: Path) -> None:
    """Sources and targets lie on the engine's host, and need not be mounted into volback's container."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    make_odd_tree(source, deep=False)
    contained(f"backup {source}", f"restore {source} --to {target}")
    assert differences(fingerprint(source), fingerprint(target)) == []


def test_a_bound_host_directory_carries_pipes_too(contained: Contained, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (report,) = contained.json("doctor", volumes={str(engine_socket()): SOCKET, str(tmp_path): HOME})
    contained.engine.client_ids.add((tmp_path / "state/client-id").read_text())
    assert _checks(report)["transport"]["transport"] == "pipe"


def test_without_a_volume_helpers_are_attached_to(
    contained: Contained, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    volume, copy = volume_factory(fill=lambda path: make_odd_tree(path, deep=False)), volume_name("copy")
    report, _, restored = contained.json(
        "doctor",  # which warns, as what a killed run leaves would be forgotten
        f"backup {volume}",
        f"restore {volume} --as {copy} --prove",
        volumes={str(engine_socket()): SOCKET},
    )
    assert _checks(report, "transport")["transport"]["transport"] == "attach"
    assert restored["proven"] is True


def test_the_helper_image_is_made_of_the_containers_own_programs(
    contained: Contained, run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    engine, tag = contained.engine, f"volback-test-helper:{secrets.token_hex(6)}"
    line = (
        "from base64 import b64encode; from volback.engine.image import assemble; print(b64encode(assemble()).decode())"
    )
    made = base64.b64decode(_python(contained, line))  # encoded, as an engine keeps logs as text
    engine.client.api.import_image_from_data(made, repository=tag.partition(":")[0], tag=tag.partition(":")[2])
    try:
        run_volback("backup", volume_factory(), env={"VOLBACK_HELPER_IMAGE": tag})
    finally:
        engine.client.images.remove(tag)


def test_it_leaves_its_own_volumes_out_and_never_stops_itself(
    contained: Contained, volume_factory: Callable[..., str], container_factory: Callable[..., Any]
) -> None:
    label = {"of-this-test": secrets.token_hex(4)}
    shared, other = volume_factory(labels=label), volume_factory(labels=label)
    writer = container_factory(volumes={shared: "/shared", other: "/other"})
    mounts = {str(engine_socket()): SOCKET, contained.volume: HOME, shared: "/shared"}
    labelled, named = contained.json(
        f"backup --live --label of-this-test={label['of-this-test']}",
        f"backup {shared} --stop",
        volumes=mounts,
        check_exit=3,
    )
    assert [backup["volume"] for backup in labelled["backups"]] == [other]
    assert [backup["consistency"] for backup in named["backups"]] == ["live"], "it could have written itself"
    assert list(named["downtime_s"]) == [writer.name]


def test_the_scheduler_runs_a_job_and_ends_at_a_signal(
    contained: Contained, container_factory: Callable[..., Any], volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    """The job is due every hour, and was not run for two: it is caught up with at once."""
    volume = volume_factory()
    writer = container_factory(volumes={volume: "/data"})
    config = tmp_path / "volback.toml"
    config.write_text(
        f'[repositories.main]\nurl = "{HOME}/repository"\n'
        f'[jobs.nightly]\nvolumes = ["{volume}"]\nrepository = "main"\ncreate = true\n'
        'quiesce = "stop"\nschedule = "@hourly"\n'
    )
    began = datetime.now(UTC) - timedelta(hours=2)
    earlier = JobRun(id="x", started_at=rfc3339(began), ended_at=rfc3339(began), status="success")
    note_run(contained.home / "state", "nightly", earlier)
    for path in (contained.home, *contained.home.rglob("*")):
        os.chown(path, USER, USER)
    mounts = {str(engine_socket()): SOCKET, contained.volume: HOME, str(config): "/etc/volback/volback.toml"}
    container = contained.start(volumes=mounts)
    try:
        wait_for(lambda: any(contained.home.glob("repository/*/*/*/manifest.json")), "the job's backup", limit_s=120)
        wait_for(lambda: b"job nightly ended with exit code 0" in container.logs(), "the job's end", limit_s=120)
        check = container.attrs["Config"]["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        assert said_in(container, *check[1:])[0] == 0
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] == 0, container.logs().decode()
    finally:
        contained.end(container)
    writer.reload()
    assert writer.status == "running"
    assert list((contained.home / "state/runs").iterdir()) == []


def test_stopped_in_mid_backup_it_ends_at_once_and_leaves_nothing(
    contained: Contained, volume_factory: Callable[..., str]
) -> None:
    contained()
    container = contained.start("backup", *SLOWLY, volume_factory(fill=_fill_big))
    try:
        wait_for(lambda: any(contained.home.glob("repository/*/*/*")), "the backup's first bytes")
        began = time.monotonic()
        container.stop(timeout=60)
        assert time.monotonic() - began < 30
        assert container.wait()["StatusCode"] == 143, container.logs().decode()
    finally:
        contained.end(container)
    assert contained.engine.containers() == []
    assert list(contained.home.glob("repository/*/*/*")) == []
    assert list((contained.home / "state/runs").iterdir()) == []


def test_killed_in_mid_backup_what_it_stopped_runs_again_before_the_container_ends(
    contained: Contained, volume_factory: Callable[..., str], container_factory: Callable[..., Any]
) -> None:
    """As when memory runs out: the guard is an orphan of process 1 then, which waits for it."""
    volume = volume_factory(fill=_fill_big)
    writer = container_factory(volumes={volume: "/data"})
    contained()
    container = contained.start("backup", "--stop", *SLOWLY, volume)
    try:
        wait_for(lambda: any(contained.home.glob("repository/*/*/*")), "the backup's first bytes")
        writer.reload()
        assert writer.status == "exited"
        kill = 'read -r child </proc/1/task/1/children; kill -9 "$child"'
        assert said_in(container, "sh", "-c", kill)[0] == 0
        assert container.wait(timeout=60)["StatusCode"] == 137, container.logs().decode()
        writer.reload()
        assert writer.status == "running"
    finally:
        contained.end(container)
    contained("doctor --fix")
    assert [left for left in contained.engine.containers() if left.id != writer.id] == []


def test_the_image_is_small_unprivileged_and_whole(contained: Contained) -> None:
    image = contained.engine.client.images.get(contained.image)
    facts = image.attrs
    *added, _ = image.history()  # the newest first; the last is its base, which this engine need not have
    assert facts["Config"]["User"] == "volback"
    assert facts["Config"]["Entrypoint"] == ["volback"]
    assert 0 < sum(layer["Size"] for layer in added) < 110_000_000  # of which cryptography is 20 MB
    create = "[session.client(name, region_name='x') for name in ('s3', 'sts', 'sso', 'sso-oidc')]"
    _python(contained, f"import boto3; session = boto3.Session(); {create}")


def _fill_big(path: Path) -> None:
    (path / "big").write_bytes(secrets.token_bytes(64 * 1024 * 1024))


def _python(contained: Contained, line: str) -> bytes:
    """What a line of Python says in the image."""
    said: bytes = contained.engine.client.containers.run(
        contained.image, ["-c", line], entrypoint="/opt/volback/bin/python",
        remove=True, network_mode="none", labels=contained.engine.labels,
    )  # fmt: skip
    return said
