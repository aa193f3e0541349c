"""A helper container is killed, or its image removed, in the middle of a backup or a restore."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.engine import CLIENT_LABEL, EngineSession, Result, Volback, remove_containers
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted
from tests.support.remote import SecondEngine, second_engine, wait_for
from volback.catalog.repository import Catalog
from volback.engine import image
from volback.store.local import LocalStore

VOLUME = "db"
HELPER_IMAGE = f"{image.REPOSITORY}:{image.TAG}"


def _fill(path: Path) -> None:
    """32 MiB that do not compress: more than all buffers between tar and the repository."""
    for number in range(8):
        (path / f"file-{number}").write_bytes(os.urandom(4 << 20))


def _helpers(client: docker.DockerClient, run_volback: Volback) -> list[str]:
    label = f"{CLIENT_LABEL}={(run_volback.state / 'client-id').read_text()}"
    return [helper.id for helper in client.containers.list(all=True, ignore_removed=True, filters={"label": label})]


def _assert_nothing_is_left(client: docker.DockerClient, run_volback: Volback) -> None:
    assert _helpers(client, run_volback) == []
    assert list((run_volback.state / "runs").iterdir()) == []
    assert Catalog(LocalStore(run_volback.repository)).litter() == []


@pytest.fixture(params=["pipe", "attach"])
def transport(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"VOLBACK_TRANSPORT": request.param}


@pytest.fixture
def killed(engine: EngineSession, run_volback: Volback, transport: dict[str, str]) -> Callable[..., Result]:
    """Runs volback and kills its helper at a step."""

    def run(step: str, *arguments: str) -> Result:
        with halted(run_volback, step, *arguments, env=transport) as halt:
            (helper,) = _helpers(engine.client, run_volback)
            # As the kernel does when memory is out; `docker kill` would wait until its output has been taken.
            os.kill(engine.client.containers.get(helper).attrs["State"]["Pid"], signal.SIGKILL)
        return halt.ended

    return run


def _assert_says_that_it_was_killed(ended: Result) -> None:
    assert ended.exit_code == 1, ended.stderr
    error, hint = ended.stderr.splitlines()
    assert re.match("error: (helper for|the helper that copies)", error)
    assert "was killed" in error
    assert hint.startswith("hint: ")


def test_backup_whose_helper_is_killed(
    engine: EngineSession, run_volback: Volback, killed: Callable[..., Result],
    volume_factory: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    source = volume_factory(fill=_fill)
    before = fingerprint(volume_path(source))
    _assert_says_that_it_was_killed(killed("buffer 1 of read", "backup", source))
    assert run_volback("list", "--json").json["result"]["backups"] == []
    _assert_nothing_is_left(engine.client, run_volback)
    assert differences(before, fingerprint(volume_path(source))) == []


def test_restore_whose_helper_is_killed(
    engine: EngineSession, run_volback: Volback, killed: Callable[..., Result],
    volume_factory: Callable[..., str], volume_name: Callable[..., str],
) -> None:  # fmt: skip
    source, copy = volume_factory(fill=_fill), volume_name("copy")
    run_volback("backup", source)
    _assert_says_that_it_was_killed(killed("buffer 1 of write", "restore", source, "--as", copy))
    assert engine.client.volumes.list(filters={"name": copy}) == []
    _assert_nothing_is_left(engine.client, run_volback)


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    """An engine whose helper image nobody else needs."""
    with second_engine() as running:
        yield running


@pytest.fixture
def client(second: SecondEngine) -> Iterator[docker.DockerClient]:
    """It has the volume; in the end all of its volumes go."""
    with closing(second.client()) as client:
        _fill(Path(client.volumes.create(VOLUME).attrs["Mountpoint"]))
        yield client
        remove_containers(client.containers.list(all=True, ignore_removed=True))
        for volume in client.volumes.list():
            volume.remove()


def _has_helper_image(client: docker.DockerClient) -> bool:
    return any(HELPER_IMAGE in found.tags for found in client.images.list())


def test_the_image_removed_in_mid_run_is_made_anew(
    second: SecondEngine, client: docker.DockerClient, run_volback: Volback, transport: dict[str, str]
) -> None:
    env = transport | {"DOCKER_HOST": second.url}
    before = fingerprint(second.volume_path(VOLUME))
    with halted(run_volback, "buffer 1 of read", "backup", VOLUME, env=env) as backup:
        client.images.remove(HELPER_IMAGE, force=True)
        assert not _has_helper_image(client)
    assert backup.ended.exit_code == 0, backup.ended.stderr
    restore = ("restore", VOLUME, "--as", "copy", "--prove")
    with halted(run_volback, "buffer 1 of write", *restore, env=env) as restored:
        client.images.remove(HELPER_IMAGE, force=True)
        assert not _has_helper_image(client)
    assert restored.ended.exit_code == 0, restored.ended.stderr
    assert _has_helper_image(client), "the proof needed it again"
    assert differences(before, fingerprint(second.volume_path("copy"))) == []
    _assert_nothing_is_left(client, run_volback)


@pytest.mark.parametrize(
    ("is_first", "transport"),
    [(True, "pipe"), (False, "attach")],
    ids=["helper", "its writing tar"],
    indirect=["transport"],
)
def test_a_clone_whose_one_helper_is_killed_while_it_copies(
    is_first: bool, engine: EngineSession, run_volback: Volback, transport: dict[str, str],
    *, volume_factory: Callable[..., str], volume_name: Callable[..., str], volume_path: Callable[[str], Path],
    container_factory: Callable[..., Any],
) -> None:  # fmt: skip
    """It gets so little processor time that all would take many seconds."""
    source, copy = volume_factory(fill=_fill), volume_name("copy")
    before = fingerprint(volume_path(source))
    user = container_factory(volumes={source: "/data"})

    def kill(helper: Any) -> None:
        wait_for((volume_path(copy) / "file-1").exists, "the second file")
        assert not (volume_path(copy) / "file-7").exists(), "it is in mid-copy"
        helper.reload()
        tar = helper.attrs["State"]["Pid"] if is_first else _process(b"--checkpoint-action=dot", helper.id)
        os.kill(tar, signal.SIGKILL)
        if not is_first:
            helper.update(cpu_period=100_000, cpu_quota=100_000)  # it has all the rest to read

    with ThreadPoolExecutor(1) as executor:
        with halted(run_volback, "end of scan", "clone", source, copy, env=transport) as halt:
            (found,) = _helpers(engine.client, run_volback)
            helper = engine.client.containers.get(found)
            helper.update(cpu_period=100_000, cpu_quota=2_000)
            killing = executor.submit(kill, helper)
        killing.result()
    _assert_says_that_it_was_killed(halt.ended)
    assert engine.client.volumes.list(filters={"name": copy}) == []
    _assert_nothing_is_left(engine.client, run_volback)
    assert differences(before, fingerprint(volume_path(source))) == []
    user.reload()
    assert user.status == "running"


@pytest.mark.parametrize(
    "program", ["tee", *(pytest.param(other, marks=pytest.mark.long) for other in ("sha256sum", "sh"))]
)
def test_a_clone_of_whose_helper_one_program_is_killed(
    program: str, engine: EngineSession, run_volback: Volback, *, volume_factory: Callable[..., str],
    volume_name: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """It never ends well, whichever of them it is: tee and the digest stand between both tars, the shell above."""
    source, copy = volume_factory(fill=_fill), volume_name("copy")
    before = fingerprint(volume_path(source))

    def kill(helper: Any) -> None:
        wait_for((volume_path(copy) / "file-1").exists, "the second file")
        assert not (volume_path(copy) / "file-7").exists(), "it is in mid-copy"
        os.kill(_first_of(program, helper.id), signal.SIGKILL)
        helper.update(cpu_period=100_000, cpu_quota=100_000)  # what is left may end

    with ThreadPoolExecutor(1) as executor:
        with halted(run_volback, "end of scan", "clone", source, copy) as halt:
            (found,) = _helpers(engine.client, run_volback)
            helper = engine.client.containers.get(found)
            helper.update(cpu_period=100_000, cpu_quota=2_000)
            killing = executor.submit(kill, helper)
        killing.result()
    assert halt.ended.exit_code == 1, halt.ended.stderr
    errors = [line for line in halt.ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, halt.ended.stderr
    assert "Traceback" not in halt.ended.stderr
    assert engine.client.volumes.list(filters={"name": copy}) == []
    _assert_nothing_is_left(engine.client, run_volback)
    assert differences(before, fingerprint(volume_path(source))) == []


def _first_of(program: str, container: str) -> int:
    """The oldest process of a container that runs the program; of shells, that which has the others started."""
    found = list[tuple[int, int]]()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if words[0].split(b"/")[-1] == program.encode() and container in (path / "cgroup").read_text():
                began = int((path / "stat").read_text().rpartition(")")[2].split()[19])
                if program != "sh" or any(b"sha256sum" in word for word in words):
                    found.append((began, int(path.name)))
    assert found, f"no process of {container} runs {program}"
    return min(found)[1]


def _process(argument: bytes, container: str) -> int:
    """The process of a container with that argument."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if argument in words and words[0].endswith(b"tar") and container in (path / "cgroup").read_text():
                return int(path.name)
    raise AssertionError(f"no process of {container} has {argument!r}")
