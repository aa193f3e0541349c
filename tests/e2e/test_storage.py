"""A volume is its storage and not its name: no restore or import writes into a storage that it did not find empty."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import loop_device, make_ext4
from tests.support.engine import EngineSession, Volback
from tests.support.library import Library
from volback.errors import ConflictError, UsageError
from volback.operations.backup import BackupOptions, backup
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.import_ import import_tar
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import resolve_sources, volume_source


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A directory of the host that a volume is a bind of."""
    path = tmp_path / "srv"
    path.mkdir()
    (path / "file").write_text("old")
    return path


def bind_options(device: Path) -> dict[str, str]:
    return {"type": "none", "o": "bind", "device": str(device)}


@pytest.fixture
def bound(library: Library, volume_factory: Callable[..., str], device: Path) -> str:
    """A volume on `device`, backed up; what is in the directory has changed since."""
    name = volume_factory("bound", driver_opts=bind_options(device))
    backup(*library, volume_source(library.engine, name), BackupOptions())
    (device / "file").write_text("newer")
    return name


def held_by(device: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in device.iterdir()}


def test_a_copy_of_a_volume_with_a_device_is_a_plain_volume(
    library: Library, bound: str, device: Path, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    copy = volume_name("copy")
    result = restore(*library, bound, RestoreOptions(name=copy, prove=True))
    assert held_by(device) == {"file": "newer"}
    assert held_by(volume_path(copy)) == {"file": "old"}
    assert library.engine.volume(copy).options == {}
    (warning,) = result.warnings
    assert f"{copy!r} is a plain local volume now" in warning


def test_under_its_own_name_too(
    engine: EngineSession, library: Library, bound: str, device: Path, volume_path: Callable[[str], Path]
) -> None:
    """The directory outlives `docker volume rm`; the manifest's options do not lead a restore into it."""
    engine.client.volumes.get(bound).remove()
    result = restore(*library, bound, RestoreOptions())
    assert held_by(device) == {"file": "newer"}
    assert held_by(volume_path(bound)) == {"file": "old"}
    assert len(result.warnings) == 1


def test_a_device_that_is_asked_for_is_only_filled_if_it_is_empty(
    engine: EngineSession, library: Library, bound: str, device: Path
) -> None:
    engine.client.volumes.get(bound).remove()
    with pytest.raises(ConflictError, match=r"is not empty: it holds './file'"):
        restore(*library, bound, RestoreOptions(keep_driver=True))
    assert held_by(device) == {"file": "newer"}
    assert not library.engine.has_volume(bound)
    (device / "file").unlink()
    restore(*library, bound, RestoreOptions(keep_driver=True))
    assert held_by(device) == {"file": "old"}
    assert library.engine.volume(bound).options == bind_options(device)


def test_two_volumes_on_one_block_device_are_one_storage(
    library: Library,
    tmp_path: Path,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    container_factory: Callable[..., Any],
) -> None:
    with loop_device(make_ext4(tmp_path / "image", 4_000_000)) as device:
        options = {"type": "ext4", "device": device}
        one, two, copy = volume_factory(driver_opts=options), volume_factory(driver_opts=options), volume_name("copy")
        writer = container_factory("echo text >/data/file; exec sleep 600", volumes={two: "/data"})
        manifest = backup(*library, volume_source(library.engine, one), BackupOptions()).manifest
        assert manifest.files == 3
        assert f"container {writer.name!r} is running" in manifest.warnings[0]
        with pytest.raises(ConflictError, match=f"is in use by container '{writer.name}'"):
            restore(*library, manifest.name, RestoreOptions(name=copy, keep_driver=True))
        writer.remove(force=True)
        with pytest.raises(ConflictError, match=r"is not empty: it holds './file'"):
            restore(*library, manifest.name, RestoreOptions(name=copy, keep_driver=True))
        assert restore(*library, manifest.name, RestoreOptions(name=copy, prove=True)).warnings
        assert library.engine.volume(copy).options == {}


def test_options_that_are_given_replace_the_old_ones(
    library: Library, bound: str, tmp_path: Path, volume_name: Callable[..., str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    copy, plain = volume_name("copy"), volume_name("plain")
    result = restore(*library, bound, RestoreOptions(name=copy, driver_options=bind_options(other)))
    assert held_by(other) == {"file": "old"}
    assert result.warnings == ()
    restore(*library, bound, RestoreOptions(name=plain, driver="local", driver_options={"o": "", "device": ""}))
    assert library.engine.volume(plain).options == {}


def test_what_was_in_a_new_volumes_directory_is_never_removed(
    library: Library, bound: str, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    """The engine takes a directory that lies where a volume's would be: somebody has copied it there."""
    name = volume_name("adopted")
    directory = volume_path(bound).parents[1] / name / "_data"
    directory.mkdir(parents=True)
    (directory / "precious").write_text("data")
    with pytest.raises(ConflictError, match="is not empty"):
        restore(*library, bound, RestoreOptions(name=name))
    assert held_by(directory) == {"precious": "data"}


def test_a_backup_holds_no_password_of_its_volume(
    library: Library, device: Path, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    options = {**bind_options(device), "o": "bind,password=hun ter;2"}
    name, copy = volume_factory("nas", driver_opts=options, labels={"app.token": "hun ter;2"}), volume_name("copy")
    made = backup(*library, volume_source(library.engine, name), BackupOptions()).manifest
    stored = b"".join(path.read_bytes() for path in Path(library.repository.store.url).rglob("*.json"))
    assert b'"o": "bind,password=***"' in stored
    assert b"hun ter;2" not in stored
    with pytest.raises(UsageError, match="a backup holds no secrets"):
        restore(*library, made.name, RestoreOptions(name=copy, keep_driver=True))
    warnings = restore(*library, made.name, RestoreOptions(name=copy)).warnings
    assert "not restored, as a backup holds no secrets: label app.token; give it with --label" in warnings


def test_an_import_does_not_write_into_a_full_device(
    library: Library, device: Path, volume_name: Callable[..., str]
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        writer.addfile(tarfile.TarInfo("file"))
    name = volume_name("imported")
    with pytest.raises(ConflictError, match="is not empty"):
        import_tar(*library, io.BytesIO(archive.getvalue()), name, driver_options=bind_options(device))
    assert held_by(device) == {"file": "old"}
    assert not library.engine.has_volume(name)


def test_keep_driver_contradicts_another_driver(library: Library, bound: str) -> None:
    with pytest.raises(UsageError, match="--keep-driver goes without --driver"):
        restore(*library, bound, RestoreOptions(keep_driver=True, driver="local"))


def test_a_copy_does_not_join_its_originals_project(
    library: Library, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    labels = {
        "com.docker.compose.project": "shop",
        "volback.keep-last": "2",
        "com.docker.volume.anonymous": "",
        "a": "b",
    }
    name, copy = volume_factory(labels=labels), volume_name("copy")
    made = backup(*library, volume_source(library.engine, name), BackupOptions()).manifest.name
    restore(*library, made, RestoreOptions(name=copy, without_labels=("volback.test",)))
    found = library.engine.volume(copy).labels
    assert {key for key in found if key != "volback.restore"} == {"a"}


def test_a_volume_under_its_own_name_stays_in_its_project(
    engine: EngineSession, library: Library, volume_factory: Callable[..., str]
) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.volume.anonymous": "", "traefik.enable": "true"}
    name = volume_factory(labels=labels)
    backup(*library, volume_source(library.engine, name), BackupOptions())
    engine.client.volumes.get(name).remove()
    restore(*library, name, RestoreOptions(without_labels=("traefik.*",)))
    found = library.engine.volume(name).labels
    assert found["com.docker.compose.project"] == "shop"
    assert not {"com.docker.volume.anonymous", "traefik.enable"} & found.keys()


def test_the_program_says_that_the_storage_is_another(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str], device: Path
) -> None:
    name, copy = volume_factory(driver_opts=bind_options(device)), volume_name("copy")
    run_volback("backup", name)
    said = run_volback("restore", name, "--as", copy, "--no-label", "volback.*")
    assert f"warning: volume '{copy}' is a plain local volume now" in said.stderr
    assert held_by(device) == {"file": "old"}


@pytest.fixture
def in_memory(volume_factory: Callable[..., str]) -> str:
    return volume_factory("ram", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=8m"})


def test_a_tmpfs_volume_is_only_backed_up_while_it_is_mounted(
    engine: EngineSession,
    library: Library,
    in_memory: str,
    container_factory: Callable[..., Any],
    volume_name: Callable[..., str],
) -> None:
    source = volume_source(library.engine, in_memory)
    with pytest.raises(ConflictError, match=r"in memory \(tmpfs\), and empty"):
        backup(*library, source, BackupOptions())
    assert in_memory not in {
        found.name for found in resolve_sources(*library[:2], [], label=f"volback.test={engine.id}")
    }
    container_factory("echo state > /data/file; exec sleep 600", volumes={in_memory: "/data"})
    copy = volume_name("copy")
    made = backup(*library, source, BackupOptions()).manifest.name
    result = restore(*library, made, RestoreOptions(name=copy, prove=True))
    assert (result.files, library.engine.volume(copy).options) == (2, {})


def test_a_tmpfs_volume_is_not_stopped(library: Library, in_memory: str, container_factory: Callable[..., Any]) -> None:
    container = container_factory(volumes={in_memory: "/data"})
    result = backup_set(*library, [volume_source(library.engine, in_memory)], SetOptions(quiesce="stop"))
    assert "its content is lost when its containers stop" in result.errors[0].message
    container.reload()
    assert container.status == "running"
    paused = backup_set(*library, [volume_source(library.engine, in_memory)], SetOptions(quiesce="pause"))
    assert [made.manifest.consistency for made in paused.backups] == ["paused"]


def test_nothing_is_restored_into_a_tmpfs_that_nobody_mounts(
    engine: EngineSession, library: Library, in_memory: str, container_factory: Callable[..., Any]
) -> None:
    container = container_factory("echo state > /data/file; exec sleep 600", volumes={in_memory: "/data"})
    backup(*library, volume_source(library.engine, in_memory), BackupOptions())
    with pytest.raises(ConflictError, match="is in use by"):
        restore(*library, in_memory, RestoreOptions(replace=True))
    container.pause()
    assert restore(*library, in_memory, RestoreOptions(replace=True, prove=True)).proven
    container.remove(force=True)
    with pytest.raises(ConflictError, match=r"in memory \(tmpfs\)"):
        restore(*library, in_memory, RestoreOptions(replace=True))
    engine.client.volumes.get(in_memory).remove()
    with pytest.raises(ConflictError, match=r"would be in memory \(tmpfs\)"):
        restore(*library, in_memory, RestoreOptions())
    assert not library.engine.has_volume(in_memory)
    assert restore(*library, in_memory, RestoreOptions(driver="local", prove=True)).proven


def test_a_new_volume_on_a_storage_that_others_use_is_refused(
    library: Library,
    bound: str,
    tmp_path: Path,
    volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
    volume_name: Callable[..., str],
) -> None:
    """An empty directory is somebody's too, while a container has it mounted."""
    other, copy = tmp_path / "other", volume_name("copy")
    other.mkdir()
    container = container_factory(volumes={volume_factory("second", driver_opts=bind_options(other)): "/data"})
    with pytest.raises(ConflictError, match=f"is in use by container '{container.name}'"):
        restore(*library, bound, RestoreOptions(name=copy, driver_options=bind_options(other)))
    assert held_by(other) == {}
    assert not library.engine.has_volume(copy)
