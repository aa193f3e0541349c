"""Writers that reach a volume's storage by another way than its name: a path of the host, or a second volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.engine import Volback
from tests.support.halt import halted
from tests.support.library import Library
from volback.catalog.model import Source
from volback.errors import ConflictError
from volback.operations.backup import BackupOptions, backup
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import volume_source


@pytest.fixture
def volume(volume_factory: Callable[..., str]) -> str:
    return volume_factory(fill=lambda path: (path / "file").write_text("old"))


def bound(path: Path, **options: Any) -> list[docker.types.Mount]:
    return [docker.types.Mount("/data", str(path), type="bind", **options)]


@pytest.fixture(params=["mountpoint", "above", "below", "second volume", "link", "link above"])
def hidden(
    request: pytest.FixtureRequest,
    volume: str,
    volume_path: Callable[[str], Path],
    volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
    tmp_path: Path,
) -> Any:
    """A running container that has the volume's storage mounted, but not the volume."""
    path = volume_path(volume)
    if request.param == "second volume":
        options = {"type": "none", "o": "bind", "device": str(path)}
        return container_factory(volumes={volume_factory("second", driver_opts=options): "/data"})
    if request.param.startswith("link"):
        link = tmp_path / "link"
        link.symlink_to(path if request.param == "link" else path.parent)
        return container_factory(mounts=bound(link if request.param == "link" else link / path.name))
    (path / "sub").mkdir()
    where = {"mountpoint": path, "above": path.parent, "below": path / "sub"}[request.param]
    return container_factory(mounts=bound(where))


def test_a_backup_names_a_hidden_writer(library: Library, volume: str, hidden: Any) -> None:
    manifest = backup(*library, volume_source(library.engine, volume), BackupOptions()).manifest
    assert manifest.consistency == "live"
    (warning,) = manifest.warnings
    assert f"container {hidden.name!r} is running" in warning


def test_stop_finds_a_hidden_writer(library: Library, volume: str, hidden: Any) -> None:
    source = volume_source(library.engine, volume)
    result = backup_set(*library, [source], SetOptions(quiesce="stop"))
    assert list(result.downtime_s) == [hidden.name]
    assert [made.manifest.consistency for made in result.backups] == ["stopped"]
    hidden.reload()
    assert hidden.status == "running"


def test_replace_refuses_while_a_hidden_writer_runs(
    library: Library, volume: str, hidden: Any, volume_path: Callable[[str], Path]
) -> None:
    backup(*library, volume_source(library.engine, volume), BackupOptions())
    with pytest.raises(ConflictError, match=f"is in use by container '{hidden.name}'"):
        restore(*library, volume, RestoreOptions(replace=True))
    assert (volume_path(volume) / "file").read_text() == "old"


def test_a_read_only_bind_mount_is_not_a_writer(
    library: Library, volume: str, container_factory: Callable[..., Any], volume_path: Callable[[str], Path]
) -> None:
    container_factory(mounts=bound(volume_path(volume), read_only=True))
    manifest = backup(*library, volume_source(library.engine, volume), BackupOptions()).manifest
    assert manifest.warnings == []


@pytest.mark.alone  # a container that can write to all volumes is in the way of every other test
@pytest.mark.parametrize("way", ["path", "volume"])
def test_what_mounts_all_volumes_is_named_and_not_stopped(
    way: str,
    library: Library,
    volume: str,
    container_factory: Callable[..., Any],
    volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    if way == "path":
        agent = container_factory(mounts=bound(volume_path(volume).parents[1]))
    else:
        host = volume_factory("host", driver_opts={"type": "none", "o": "bind", "device": "/"})
        agent = container_factory(volumes={host: "/host"})
    source = volume_source(library.engine, volume)
    result = backup_set(*library, [source], SetOptions(quiesce="stop"))
    (made,) = result.backups
    assert result.downtime_s == {}
    assert made.manifest.consistency == "live"
    (warning,) = made.manifest.warnings
    assert f"container {agent.name!r} mounts the directory of all volumes" in warning
    replaced = restore(*library, volume, RestoreOptions(replace=True))
    assert len(replaced.warnings) == 1


def test_a_directory_is_written_to_through_a_volume_on_it(
    library: Library, tmp_path: Path, volume_factory: Callable[..., str], container_factory: Callable[..., Any]
) -> None:
    directory = tmp_path / "srv"
    directory.mkdir()
    options = {"type": "none", "o": "bind", "device": str(directory)}
    writer = container_factory(volumes={volume_factory(driver_opts=options): "/data"})
    result = backup_set(*library, [Source(kind="directory", name=str(directory))], SetOptions(quiesce="stop"))
    assert list(result.downtime_s) == [writer.name]
    assert [made.manifest.consistency for made in result.backups] == ["stopped"]


@pytest.fixture
def during_the_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has a function run in mid-read, before the first byte of the tar is taken."""
    from volback.operations import backup as module

    original = module._Backup._read

    def set_up(act: Callable[[], None]) -> None:
        def read(self: Any, *arguments: Any) -> Any:
            act()
            return original(self, *arguments)

        monkeypatch.setattr(module._Backup, "_read", read)

    return set_up


@pytest.mark.parametrize("way", ["volume", "path"])
def test_a_container_that_came_and_went_during_the_read_is_noticed(
    way: str,
    library: Library,
    volume: str,
    volume_path: Callable[[str], Path],
    container_factory: Callable[..., Any],
    during_the_read: Callable[[Callable[[], None]], None],
) -> None:
    names: list[str] = []

    def come_and_go() -> None:
        by_path = {"mounts": bound(volume_path(volume))}
        mounted = {"volumes": {volume: "/data"}} if way == "volume" else by_path
        one = container_factory("echo x >> /data/file; sleep 0.3", **mounted)
        names.append(one.name)
        one.wait()
        one.remove()

    during_the_read(come_and_go)
    manifest = backup(*library, volume_source(library.engine, volume), BackupOptions()).manifest
    assert manifest.consistency == "live"
    (warning,) = manifest.warnings
    assert f"container {names[0]!r} started meanwhile" in warning


def test_a_container_that_starts_while_a_volume_is_replaced_is_an_error(
    run_volback: Volback, volume: str, container_factory: Callable[..., Any]
) -> None:
    run_volback("backup", volume)
    replace = ("restore", volume, "--replace", "--no-safety-backup")
    with halted(run_volback, "buffer 0 of write", *replace) as run:
        container_factory("echo x > /data/mine", volumes={volume: "/data"})
    assert run.ended.exit_code == 5, run.ended
    assert "while it was replaced" in run.ended.stderr
