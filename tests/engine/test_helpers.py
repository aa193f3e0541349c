"""A helper has the least that it needs, goes whatever happens, and never makes a volume by mounting it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from tests.engine.conftest import Directory, Opener, Target
from tests.support.archive import scan_fields
from tests.support.engine import EngineSession, Volback
from tests.support.library import Library, open_library
from tests.support.remote import SecondEngine
from volback.archive import tar
from volback.engine import helper, image
from volback.engine.connect import connect
from volback.engine.engine import Engine
from volback.engine.helper import Limits
from volback.engine.streams import VolumeReader
from volback.errors import EngineError, NotFoundError
from volback.operations import recover
from volback.operations.backup import BackupOptions, backup
from volback.operations.leftovers import Leftovers
from volback.operations.recover import sweep
from volback.operations.sources import volume_source
from volback.operations.volumes import open_reader
from volback.settings import Transport
from volback.state.runs import Run, live_runs


def _reader(engine: Engine, target: Target, directory: Path) -> Any:
    return engine.reader(target, run="run", directory=directory, scan=tar.FIND, read=tar.CREATE, scan_end=tar.SCAN_END)


def _writer(engine: Engine, target: Target, directory: Path) -> Any:
    return engine.writer(target, run="run", directory=directory, write=["cat"])


def _inspect(engine: EngineSession, ours: Engine) -> dict[str, Any]:
    (container,) = ours.leftover_helpers()
    return dict(engine.client.api.inspect_container(container))


def test_one_that_copies_reads_one_volume_and_writes_the_other(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], engine: EngineSession,
    transport: Transport,
) -> None:  # fmt: skip
    source, target, ours = volume_factory(), volume_factory(), open_engine(transport)
    with ours.reader(
        Target("volume", source), run="run", directory=directory(), scan=tar.FIND, read=tar.CREATE,
        scan_end=tar.SCAN_END, into=Target("volume", target),
    ):  # fmt: skip
        facts = _inspect(engine, ours)
    mounts = {mount["Destination"]: (mount["Name"], mount["RW"]) for mount in facts["Mounts"] if "Name" in mount}
    assert mounts == {"/volume": (source, False), "/target": (target, True)}
    added = set(facts["HostConfig"]["CapAdd"])  # Podman names those alone that not every container has
    assert {"DAC_READ_SEARCH", "MKNOD"} <= added <= {*helper.READ_CAPABILITIES, *helper.WRITE_CAPABILITIES}
    assert facts["HostConfig"]["NetworkMode"] == "none"
    assert facts["Config"]["Labels"][helper.LABEL] == "copy"


@pytest.mark.parametrize(
    ("open_stream", "capabilities", "writable"),
    [
        (_reader, {"DAC_READ_SEARCH"}, False),
        (_writer, {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}, True),
    ],
    ids=["reading", "writing"],
)
def test_it_has_the_least_that_it_needs(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], engine: EngineSession,
    *, transport: Transport, open_stream: Callable[..., Any], capabilities: set[str], writable: bool,
) -> None:  # fmt: skip
    name, ours = volume_factory(), open_engine(transport, limits=Limits(cpus=0.5, memory_bytes=128 * 1024 * 1024))
    with open_stream(ours, Target("volume", name), directory()):
        facts = _inspect(engine, ours)
    host = facts["HostConfig"]
    assert set(host["CapAdd"]) == capabilities
    assert host["CapDrop"] == ["ALL"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["LogConfig"]["Type"] == "none"
    assert (host["NanoCpus"], host["Memory"]) == (500_000_000, 128 * 1024 * 1024)
    mounts = {mount["Destination"]: mount for mount in facts["Mounts"]}
    assert mounts["/volume"]["Name"] == name
    assert mounts["/volume"]["RW"] is writable
    assert set(mounts) - {"/io"} == {"/volume"}
    labels = facts["Config"]["Labels"]
    assert labels[helper.LABEL] == ("write" if writable else "read")
    assert labels[helper.RUN_LABEL] == "run"
    assert labels[helper.CLIENT_LABEL] in engine.client_ids


def test_the_kernel_gives_it_no_more(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    """What PID 1 of the helper may do, as the kernel says it."""
    see = "exec cat /proc/self/status /proc/self/net/route"
    read = ["sh", "-c", f'cat "${{1#--files-from=}}" >/dev/null; {see}', "sh"]
    target, ours = Target("volume", volume_factory()), open_engine(transport)
    with ours.reader(
        target, run="run", directory=directory(), scan=tar.FIND, read=read, scan_end=tar.SCAN_END
    ) as reader:
        list(reader.scan())
        status, routes = b"".join(reader.read([b"x"])).decode().split("Iface", 1)
    assert len(routes.splitlines()) == 1, "it has a network"
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH
    assert facts["NoNewPrivs"] == "1"
    assert facts["Pid"] == "1"


def test_a_volume_is_not_written_to_by_reading(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    touch = ["sh", "-c", "echo >made", "sh"]
    ours = open_engine(transport)
    with ours.reader(
        Target("volume", volume_factory()), run="run", directory=directory(), scan=touch, read=touch, scan_end=""
    ) as reader:
        list(reader.scan())
        assert b"Read-only file system" in reader.messages()


@pytest.mark.parametrize("open_stream", [_reader, _writer], ids=["reading", "writing"])
def test_a_volume_that_is_gone_is_not_made_anew(
    open_engine: Opener, directory: Directory, volume_name: Callable[..., str], engine: EngineSession,
    *, transport: Transport, open_stream: Callable[..., Any],
) -> None:  # fmt: skip
    name, ours = volume_name(), open_engine(transport)
    with (
        pytest.raises(NotFoundError, match=f"volume '{name}' does not exist"),
        open_stream(ours, Target("volume", name), directory()),
    ):
        pytest.fail("a stream was given")
    with pytest.raises(docker.errors.NotFound):
        engine.client.volumes.get(name)
    assert ours.leftover_helpers() == []
    assert ours.volumes_made_by_mounting() == []


def test_a_backup_of_a_volume_that_vanishes_meanwhile_fails_and_leaves_nothing(
    engine: EngineSession, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    library, name = open_library(engine, tmp_path), volume_factory()
    source = volume_source(library.engine, name)
    engine.client.volumes.get(name).remove()
    with pytest.raises(NotFoundError, match=name):
        backup(*library, source, BackupOptions())
    assert not library.engine.has_volume(name)
    assert library.repository.catalog.backups() == []
    assert library.repository.catalog.litter() == []


def test_a_volume_that_exists_keeps_its_labels(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], transport: Transport
) -> None:
    name, ours = volume_factory(labels={"kept": "yes"}), open_engine(transport)
    before = ours.volume(name)
    with _reader(ours, Target("volume", name), directory()) as reader:
        list(reader.scan())
    assert ours.volume(name) == before


def test_helpers_are_gone_after_success_and_after_failure(
    engine: EngineSession, volume_factory: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    name = volume_factory(fill=lambda path: (path / "file").write_bytes(b"x" * 100_000))
    good: Library = open_library(engine, tmp_path)
    backup(*good, volume_source(good.engine, name), BackupOptions())
    assert good.engine.leftover_helpers() == []
    with pytest.raises(EngineError):
        _break_in_the_middle(good.engine, Target("volume", name), tmp_path / "io")
    assert good.engine.leftover_helpers() == []
    assert not (tmp_path / "io").exists()
    assert (volume_path(name) / "file").stat().st_size == 100_000


def test_a_helper_that_is_being_removed_is_gone_when_its_removal_returns(
    open_engine: Opener, directory: Directory, volume_factory: Callable[..., str], engine: EngineSession
) -> None:
    """A signal removes the helpers of threads that remove them too, and remove their volume then."""
    name, ours = volume_factory(), open_engine()
    with _writer(ours, Target("volume", name), directory()):
        (container,) = ours.leftover_helpers()

        def remove_it(_: int) -> list[Any]:
            ours.remove_helper(container)
            return list(engine.client.api.containers(all=True, filters={"id": container}))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(remove_it, range(4))) == [[]] * 4


def _break_in_the_middle(ours: Engine, target: Target, directory: Path) -> None:
    with _reader(ours, target, directory) as reader:
        list(reader.scan())
        raise EngineError("as if")


def test_the_image_is_made_without_a_network_and_made_again_when_it_goes(
    open_engine: Opener, second: SecondEngine, tmp_path: Path
) -> None:
    """The second engine has neither network nor images."""
    ours, target = open_engine(None, second.url), Target("directory", str(second.directory / "etc"))
    with closing(second.client()) as client:
        assert not ours.has_image()
        with _reader(ours, target, tmp_path / "first") as reader:
            client.images.remove(ours.ensure_image(), force=True)
            assert not ours.has_image()
            scan = b"".join(reader.scan())
            assert scan.endswith(tar.SCAN_END.encode())
            assert len(b"".join(reader.read([b".\0"]))) >= 10240
        with _reader(ours, target, tmp_path / "second") as reader:
            assert scan_fields(b"".join(reader.scan()))[0] == scan_fields(scan)[0]
        assert ours.has_image()
        assert client.containers.list(all=True, ignore_removed=True) == []


def test_a_helper_image_that_is_not_to_be_had_says_what_to_do(run_volback: Volback, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    environment = {"VOLBACK_HELPER_IMAGE": "127.0.0.1:9/volback-test:none"}
    result = run_volback("backup", tmp_path / "source", env=environment, check_exit=None)
    assert result.exit_code == 1
    assert "127.0.0.1:9/volback-test:none" in result.stderr
    assert "VOLBACK_HELPER_IMAGE" in result.stderr


def test_runs_that_make_the_image_at_once_all_have_it(engine: EngineSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "TAG", secrets.token_hex(6))
    name = f"{image.REPOSITORY}:{image.TAG}"

    def make(_: int) -> str:
        client, info = connect()
        with closing(client):
            made = image.ensure_image(client, info)
            return made if image.is_present_soon(client, made) else "gone"

    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(make, range(8))) == [name] * 8
    finally:
        engine.client.images.remove(name, force=True)


def test_a_sweep_leaves_the_helper_of_a_run_that_begins_meanwhile(
    engine: EngineSession, volume_factory: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs at once, of one state directory: each begins with a sweep."""
    library, name = open_library(engine, tmp_path), volume_factory()
    source, state = volume_source(library.engine, name), library.ctx.settings.state
    with ExitStack() as begun:

        def begin_after(asked: Path) -> list[str]:
            alive = live_runs(asked)
            run = begun.enter_context(Run(state, "backup", name))
            readers.append(begun.enter_context(open_reader(library.engine, run, source)))
            return alive

        readers: list[VolumeReader] = []
        monkeypatch.setattr(recover, "live_runs", begin_after)
        assert sweep(*library) == Leftovers()
        (reader,) = readers
        assert b"".join(reader.scan())
        assert len(library.engine.leftover_helpers()) == 1
