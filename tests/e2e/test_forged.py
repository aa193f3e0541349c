"""What a repository says is data: a forged backup restores into a plain volume of the name that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession
from tests.support.forged import reseal_manifest
from tests.support.library import Library
from volback.catalog.model import Manifest, SetOf
from volback.errors import ConflictError, FormatError
from volback.operations.backup import BackupOptions, backup
from volback.operations.prove import prove
from volback.operations.restore import RestoreOptions, restore
from volback.operations.restore_set import SetRestoreOptions, restore_project
from volback.operations.sources import volume_source
from volback.settings import Settings


@pytest.fixture
def make_backup(
    engine: EngineSession, library: Library, volume_factory: Callable[..., str]
) -> Callable[..., tuple[str, Manifest]]:
    """A volume with one file and labels, backed up and removed."""

    def make(**options: Any) -> tuple[str, Manifest]:
        name = volume_factory(fill=lambda root: (root / "passwd").write_text("pwned"), **options)
        made = backup(*library, volume_source(library.engine, name), BackupOptions()).manifest
        engine.client.volumes.get(name).remove()
        return name, made

    return make


def _update_source(fields: dict[str, Any], *, new: dict[str, Any]) -> None:
    fields["source"].update(new)


STORAGES: list[dict[str, Any]] = [
    {"options": {"type": "none", "o": "bind", "device": "{victim}"}},
    {"options": {"type": "tmpfs", "o": "bind,rw", "device": "{victim}"}},
    {"options": {"o": "rbind", "device": "{victim}", "size": "1g"}},
    {"options": {"type": "nfs", "o": "addr=192.0.2.1,rw", "device": ":/srv"}},
    {"options": {"type": "cifs", "o": "username=u,password=p", "device": "//192.0.2.1/share"}},
    {"options": {"type": "ext4", "device": "/dev/loop0"}},
    {"driver": "a-plugin", "options": {"url": "http://192.0.2.1"}},
    {"driver": "vieux/sshfs:latest", "options": {"sshcmd": "root@192.0.2.1:/"}},
]


def test_no_storage_of_a_manifest_is_reached_unasked(
    engine: EngineSession, library: Library, make_backup: Callable[..., tuple[str, Manifest]], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "passwd").write_text("original")
    name, made = make_backup()
    for storage in STORAGES:
        options = {key: value.format(victim=victim) for key, value in storage["options"].items()}
        new = {"driver": "local", **storage, "options": options}
        reseal_manifest(library.repository.store, made, partial(_update_source, new=new))
        done = restore(*library, name, RestoreOptions())
        found = library.engine.volume(name)
        assert (found.driver, found.options) == ("local", {}), storage
        assert f"volume {name!r} is a plain local volume now" in done.warnings[0]
        assert (victim / "passwd").read_text() == "original"
        engine.client.volumes.get(name).remove()


def test_a_backup_of_one_volume_never_replaces_another(
    engine: EngineSession, library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    one, other = volume_factory(), volume_factory(fill=lambda root: (root / "file").write_text("precious"))
    made = backup(*library, volume_source(library.engine, one), BackupOptions()).manifest
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda fields: fields["source"].update(name=other),
        lambda fields: fields.update(volume=other, source={**fields["source"], "name": other}),
        lambda fields: fields["source"].update(kind="directory", name=str(volume_path(other))),
    ]
    for change in changes:
        reseal_manifest(library.repository.store, made, change)
        with pytest.raises(FormatError):
            restore(*library, one, RestoreOptions(replace=True))
        with pytest.raises(FormatError):
            prove(*library, one)
        library.repository.store.delete(made.key.manifest)
        library.repository.catalog.commit(made)
    assert (volume_path(other) / "file").read_text() == "precious"


ACTING = {
    "volback.exclude": "*",
    "volback.keep-last": "1",
    "com.docker.compose.project": "blog",
    "com.docker.compose.volume": "db",
    "com.docker.compose.config-hash": "0123",
    "com.docker.volume.anonymous": "",
    "com.example.part": "one",
}


def acting(library: Library, name: str) -> dict[str, str]:
    labels = library.engine.volume(name).labels
    return {key: value for key, value in labels.items() if key in ACTING}


def test_labels_that_only_a_backup_knows_do_not_act(
    engine: EngineSession, library: Library, make_backup: Callable[..., tuple[str, Manifest]]
) -> None:
    name, made = make_backup(labels={"volback.keep-last": "7", "com.docker.compose.project": "shop"})
    reseal_manifest(library.repository.store, made, lambda fields: fields["source"]["labels"].update(ACTING))
    done = restore(*library, name, RestoreOptions())
    assert acting(library, name) == {"com.example.part": "one"}
    assert "--keep-labels" in done.warnings[0]
    assert all(label in done.warnings[0] for label in ("volback.exclude", "com.docker.compose.project"))
    engine.client.volumes.get(name).remove()
    assert restore(*library, name, RestoreOptions(keep_labels=True)).warnings == ()
    assert acting(library, name) == {k: v for k, v in ACTING.items() if k != "com.docker.volume.anonymous"}


def test_labels_that_this_machine_has_seen_come_back(
    engine: EngineSession, library: Library, make_backup: Callable[..., tuple[str, Manifest]], tmp_path: Path
) -> None:
    labels = {"volback.keep-last": "7", "com.docker.compose.project": "shop", "com.docker.compose.config-hash": "0"}
    name, _ = make_backup(labels=labels)
    assert restore(*library, name, RestoreOptions()).warnings == ()
    assert labels.items() <= library.engine.volume(name).labels.items()
    engine.client.volumes.get(name).remove()
    fresh = library._replace(ctx=type(library.ctx)(Settings(repository="", state=tmp_path / "fresh")))
    done = restore(*fresh, name, RestoreOptions())
    assert not labels.keys() & library.engine.volume(name).labels.keys()
    assert "com.docker.compose.config-hash, com.docker.compose.project, volback.keep-last" in done.warnings[0]


def test_a_forged_set_replaces_no_volume_of_another_project(
    engine: EngineSession, library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    other = volume_factory(fill=lambda root: (root / "file").write_text("precious"))
    made = backup(*library, volume_source(library.engine, other), BackupOptions()).manifest
    (volume_path(other) / "file").write_text("newer")
    forged = {"id": made.id, "project": "shop", "volumes": [other]}
    reseal_manifest(library.repository.store, made, lambda fields: fields.update(set=forged))
    with pytest.raises(ConflictError, match=f"not of project 'shop' on this engine, so none was restored: {other}"):
        restore_project(*library, "shop", SetRestoreOptions(replace=True))
    assert (volume_path(other) / "file").read_text() == "newer"
    assert SetOf(id=made.id, project="shop", volumes=[other]) == library.repository.catalog.read(made.key).set
