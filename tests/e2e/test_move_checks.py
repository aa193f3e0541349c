"""What is known before a volume is moved is said, or refused, before the first byte: on real disks and engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import loop_device, make_ext4, mounted
from tests.support.engine import EngineSession, Volback, build_image
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import SecondEngine, namespaced_engine
from tests.support.rootless import rootless_engine

MIB = 1024 * 1024
SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
BIND = ("--driver-opt=type=none", "--driver-opt=o=bind")


def exists(engine: EngineSession, name: str) -> bool:
    return any(volume.name == name for volume in engine.client.volumes.list())


def test_a_disk_that_is_too_small_is_refused_with_figures(
    run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    source = volume_factory(fill=lambda path: (path / "large").write_bytes(os.urandom(6 * MIB)))
    copy = volume_name("copy")
    image = make_ext4(tmp_path / "image", 4 * MIB)
    with loop_device(image) as device, mounted(tmp_path / "disk", device) as disk:
        failed = run_volback("clone", source, copy, *BIND, f"--driver-opt=device={disk}", check_exit=1)
        assert [path.name for path in disk.iterdir()] == ["lost+found"]
    assert "what was written stays" not in failed.stderr, "nothing was written"
    *_, first, hint = failed.stderr.splitlines()
    assert first.startswith(f"error: volume '{source}' does not fit: it takes 6.0 MiB, and on the ext4 of host ")
    assert first.endswith(" MiB free")
    assert hint == "hint: make room there, or use another filesystem"
    assert not exists(engine, copy)


@pytest.fixture
def with_attributes(volume_factory: Callable[..., str]) -> str:
    def fill(path: Path) -> None:
        (path / "marked").write_text("x")
        os.setxattr(path / "marked", "user.mark", b"1")
        (path / "plain").write_text("y")

    return volume_factory(fill=fill)


def test_a_filesystem_without_attributes_is_said_and_they_can_be_dropped(
    run_volback: Volback, with_attributes: str, volume_name: Callable[..., str], tmp_path: Path
) -> None:
    with mounted(tmp_path / "ramfs", "-t", "ramfs", "volback-test") as path:
        options = [*BIND, f"--driver-opt=device={path}"]
        said = run_volback("clone", with_attributes, volume_name("copy"), *options, "--json", check_exit=3).json
        assert "takes no ACLs or extended attributes" in said["warnings"][0]
        assert (path / "plain").read_text() == "y"
        for file in path.iterdir():
            file.unlink()
        dropped = (*options, "--drop", "acl,xattr")
        said = run_volback("clone", with_attributes, volume_name("dropped"), *dropped, "--json").json
        assert (said["warnings"], said["result"]["proven"]) == ([], True)
        assert (path / "marked").read_text() == "x"


def test_a_kind_that_does_not_exist_is_refused(run_volback: Volback, with_attributes: str) -> None:
    failed = run_volback("clone", with_attributes, "other", "--drop", "acls", check_exit=2)
    assert failed.stderr.splitlines()[0] == "error: --drop acls is not valid: 'acls' is neither acl nor xattr"


@pytest.fixture(scope="module")
def namespaced() -> Iterator[SecondEngine]:
    with namespaced_engine() as running:
        yield running


def test_into_a_user_namespace_goes_what_can_have_its_owners_there(
    run_volback: Volback, namespaced: SecondEngine, volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    source = volume_factory(fill=lambda path: (path / "file").write_text("x"))
    os.chown(volume_path(source) / "file", 999, 999)
    said = run_volback("migrate", source, "--to", namespaced.url, "--json").json
    assert (said["warnings"], said["result"]["proven"]) == ([], True)
    there = fingerprint(namespaced.volume_path(source))
    assert set(there) == set(fingerprint(volume_path(source)))
    os.chown(volume_path(source) / "file", 70_000, 999)
    failed = run_volback("migrate", source, "--to", namespaced.url, "--as", "other", check_exit=1)
    first = failed.stderr.splitlines()[0]
    assert "whose engine runs in a user namespace: file (user 70000)" in first
    with closing(namespaced.client()) as client:
        assert [volume.name for volume in client.volumes.list()] == [source]


def test_from_and_to_an_engine_without_root(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], *, create_container: Callable[..., Any],
) -> None:  # fmt: skip
    """It may not open root's state directory, and with that the pipes in it."""

    def fill(path: Path) -> None:
        (path / "file").write_bytes(os.urandom(MIB))
        os.setxattr(path / "file", "user.text", b"value")
        os.link(path / "file", path / "second-name")
        os.chown(path / "file", 999, 999)

    source, back, home = volume_factory(fill=fill), volume_name("back"), volume_name("home")
    run_volback.directory.chmod(0o700)
    with rootless_engine() as rootless, closing(rootless.client()) as client:
        assert "name=rootless" in client.info()["SecurityOptions"]
        there = run_volback("migrate", source, "--to", rootless.url, "--json").json
        here = ("--from", rootless.url, "--to", SOCKET)
        again = run_volback("migrate", source, *here, "--as", back, "--json").json
        assert differences(fingerprint(volume_path(source)), fingerprint(volume_path(back))) == []
        script = "trap 'echo end >>/data/log; exit 0' TERM; while :; do echo x >>/data/log; sleep 0.05; done"
        container = create_container(script, volumes={source: "/data"}, stop_signal="SIGTERM")
        container.start()
        live = run_volback("migrate", source, "--to", rootless.url, "--as", "live", "--live", "--json").json
        log = (rootless.volume_path("live") / "log").read_text()
        build_image(client, "volback-test:writer", {})
        writer = client.containers.run(
            "volback-test:writer", ["/bin/sh", "-c", script], volumes={"live": {"bind": "/data"}}, detach=True,
            network_mode="none", restart_policy={"Name": "always"}, stop_signal="SIGTERM",
        )  # fmt: skip
        returned = run_volback("migrate", "live", *here, "--as", home, "--live", "--json").json
        writer.reload()
        left = writer.status, writer.attrs["HostConfig"]["RestartPolicy"]["Name"]
        assert (volume_path(home) / "log").read_bytes() == (rootless.volume_path("live") / "log").read_bytes()
        writer.remove()
    assert (returned["result"]["proven"], returned["result"]["passes"], left) == (True, 2, ("exited", "no"))
    assert (volume_path(home) / "log").read_text().count("end\n") == 2
    assert (volume_path(home) / "file").stat().st_uid == 999
    for said in (there, again):
        assert (said["warnings"], said["result"]["proven"]) == ([], True)
    assert (live["result"]["proven"], log.endswith("x\nend\n")) == (True, True)
    container.reload()
    assert container.status == "exited"
