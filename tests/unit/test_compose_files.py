"""Compose files: which are found by the labels of containers, how they are stored, and how they come back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from tests.support.library import open_from
from tests.support.repository import make_backup, manifest_of, new_repository
from tests.support.stored import FIRST, store_backup
from volback.catalog.model import Manifest, SetOf
from volback.context.repository import Repository
from volback.errors import ConflictError, IntegrityError, StoreError
from volback.operations.compose_files import (
    FILE_MAX_BYTES,
    ComposeFiles,
    find_compose_files,
    is_environment,
    open_files,
)
from volback.operations.compose_files_back import FilesBack, read_files
from volback.operations.stored_sets import find_compose_files_backup, find_set
from volback.operations.volumes import scan
from volback.policy.projects import PROJECT
from volback.settings import Settings
from volback.state.runs import Run
from volback.store.memory import MemoryStore

ENV = "com.docker.compose.project.environment_file"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The directory of a project."""
    root = tmp_path / "shop"
    (root / "conf").mkdir(parents=True)
    for name in ("compose.yaml", ".env", "conf/app.conf", "conf/more.yml"):
        (root / name).write_text(name)
    (root / ".env").chmod(0o644)
    return root


def labels(root: Path, *files: str, env: str = "") -> dict[str, str]:
    prefix = "com.docker.compose.project"
    found = {f"{prefix}.working_dir": str(root), f"{prefix}.config_files": ",".join(files)}
    return found | ({ENV: env} if env else {})


def found_in(root: Path, *files: str, env: str = "", more: tuple[str, ...] = ()) -> ComposeFiles:
    found, left_out = find_compose_files("shop", [{}, labels(root, *files, env=env)], more=more)
    assert left_out == []
    assert found is not None
    return found


def test_the_files_that_the_labels_name_are_found_with_env(shop: Path) -> None:
    found = found_in(shop, str(shop / "compose.yaml"), str(shop / "conf/more.yml"))
    assert found.config_files == ("compose.yaml", "conf/more.yml")
    assert set(found.paths) == {"compose.yaml", "conf/more.yml", ".env"}
    assert found.source.name == f"{shop}/shop.compose"
    assert found_in(shop, "compose.yaml").config_files == ("compose.yaml",), "compose v1 names them as they were given"


def test_a_file_outside_of_the_projects_directory_is_kept_beside_it(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_text("A=1")
    (tmp_path / "base.yaml").touch()
    found = found_in(shop, str(tmp_path / "base.yaml"), "compose.yaml", env=str(tmp_path / "prod.env"))
    assert found.config_files == (f"outside{tmp_path}/base.yaml", "compose.yaml")
    assert found.environment_files == (f"outside{tmp_path}/prod.env",)


def test_files_of_the_projects_directory_can_be_kept_too(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    more = (str(shop / "conf/app.conf"), str(tmp_path / "secret"), str(shop / "gone"))
    assert set(found_in(shop, "compose.yaml", more=more).paths) == {"compose.yaml", ".env", "conf/app.conf"}


def test_what_cannot_be_kept_is_named(shop: Path) -> None:
    (shop / "big.yaml").write_bytes(bytes(FILE_MAX_BYTES + 1))
    (shop / "dir.yaml").mkdir()
    (shop / "id_rsa").touch()
    named = ["compose.yaml", "big.yaml", "dir.yaml", "gone.yaml", "id_rsa"]
    found, left_out = find_compose_files("shop", [labels(shop, *named)])
    assert found is not None
    assert found.config_files == ("compose.yaml",)
    assert left_out == [
        (f"{shop}/big.yaml", "is larger than 1 MiB"),
        (f"{shop}/dir.yaml", "is not a file"),
        (f"{shop}/gone.yaml", "cannot be read here: No such file or directory"),
        (f"{shop}/id_rsa", "is not named as such a file is"),
    ]


def test_without_a_compose_file_nothing_is_kept(shop: Path) -> None:
    assert find_compose_files("shop", [{}]) == (None, [])
    found, left_out = find_compose_files("shop", [labels(shop, "gone.yaml")])
    assert found is None
    assert [path for path, _ in left_out] == [f"{shop}/gone.yaml"]


@pytest.mark.parametrize("name", [".env", "conf/.env.local", "prod.env"])
def test_files_with_values_are_known_by_their_names(name: str) -> None:
    assert is_environment(name)
    assert not is_environment(f"{name}/readme")


def stored(store: MemoryStore, files: ComposeFiles, directory: Path) -> Manifest:
    """Store them as a backup does; the manifest is not committed."""
    with Run(directory / "state", "backup") as run, open_files(run, files) as reader:
        plan = scan(reader, [])
        manifest = store_backup(store, FIRST, plan, map(bytes, reader.read(plan.names())))
        assert reader.messages() == b""
    assert list((directory / "state").rglob("compose-files*")) == [], "copies of secrets do not stay"
    return msgspec.structs.replace(manifest, source=files.source)


@pytest.fixture
def back(shop: Path, tmp_path: Path) -> FilesBack:
    """The files of a project, stored and read again."""
    store = MemoryStore("files")
    new_repository(store)
    files = found_in(shop, "compose.yaml", str(shop / "conf/more.yml"))
    return read_files(Repository(store, lambda: "host"), stored(store, files, tmp_path), tmp_path / "new place")


def test_they_come_back_into_a_directory(back: FilesBack) -> None:
    assert back.contents == {name: name.encode() for name in ("compose.yaml", ".env", "conf/more.yml")}
    assert back.obstacle() is None
    back.write()
    back.write()
    written = {
        str(path.relative_to(back.directory)): stat.S_IMODE(path.stat().st_mode)
        for path in back.directory.rglob("*")
        if path.is_file()
    }
    umask = os.umask(0o22)
    os.umask(umask)
    assert written == {"compose.yaml": 0o644 & ~umask, ".env": 0o600, "conf/more.yml": 0o644 & ~umask}
    assert (back.directory / "conf/more.yml").read_text() == "conf/more.yml"
    assert back.secret == [".env"]


def test_the_command_to_start_is_whole(back: FilesBack) -> None:
    assert back.start_command("blog") == (
        f"docker compose --project-name blog --project-directory '{back.directory}'"
        f" --file '{back.directory}/compose.yaml' --file '{back.directory}/conf/more.yml' up --detach"
    )


def test_a_file_that_is_there_is_not_overwritten(back: FilesBack) -> None:
    back.directory.mkdir()
    (back.directory / "compose.yaml").write_text("mine")
    obstacle = back.obstacle()
    assert obstacle is not None
    assert obstacle.message == f"{back.directory}/compose.yaml exists already, so nothing was restored"
    with pytest.raises(ConflictError):
        back.write()
    assert (back.directory / "compose.yaml").read_text() == "mine"
    (back.directory / "compose.yaml").unlink()
    (back.directory / "compose.yaml").symlink_to("elsewhere")
    with pytest.raises(ConflictError):
        back.write()
    assert not (back.directory / "elsewhere").exists()


def test_a_directory_that_cannot_be_made_is_named(back: FilesBack) -> None:
    back.directory.write_text("a file")
    with pytest.raises(StoreError, match="cannot be made: File exists"):
        back.write()


def test_what_is_too_large_for_a_compose_file_is_refused(shop: Path, tmp_path: Path) -> None:
    store = MemoryStore("files")
    new_repository(store)
    (shop / "conf/app.conf").write_bytes(bytes(FILE_MAX_BYTES))
    made = stored(store, found_in(shop, "compose.yaml", more=(str(shop / "conf/app.conf"),)), tmp_path)
    repository = Repository(store, lambda: "host")
    assert len(read_files(repository, made, tmp_path).contents["conf/app.conf"]) == FILE_MAX_BYTES
    (shop / "conf/app.conf").write_bytes(bytes(FILE_MAX_BYTES + 1))
    files = ComposeFiles("shop", str(shop), {"app": shop / "conf/app.conf"}, ("app",), ())
    other = MemoryStore("other")
    new_repository(other)
    with pytest.raises(IntegrityError, match="holds more than compose files"):
        read_files(Repository(other, lambda: "host"), stored(other, files, tmp_path), tmp_path)


def test_a_set_is_whole_without_its_compose_files(tmp_path: Path) -> None:
    library = open_from(Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1"))
    store = library.repository.store
    made = SetOf(id="20261101T000000Z-5e70", project="shop", volumes=["shop_db"])
    make_backup(store, "20261101T000001Z-aaaa", volume="shop_db", data_bytes=10, set=made)
    found, warnings = find_set(library.repository, "shop")
    assert (list(found.backups), warnings) == (["shop_db"], [])
    assert find_compose_files_backup(library.repository, "web1", "shop", made.id) is None
    kept = [
        make_backup(
            store, f"2026110{day}T000000Z-0000", volume=(name := "/srv/shop/shop.compose"), data_bytes=10,
            set=SetOf(id=f"2026110{day}T000000Z-5e70", project="shop", volumes=[name]),
            labels={**labels(Path("/srv/shop"), "a.yml"), PROJECT: "shop"},
        )
        for day in (1, 2)
    ]  # fmt: skip
    make_backup(store, "20261103T000000Z-0000", volume=name, data_bytes=10)
    found, warnings = find_set(library.repository, "shop")
    assert (list(found.backups), warnings) == (["shop_db"], [])
    back_up_all = SetOf(id="20261104T000000Z-5e70", volumes=["shop_db"])
    make_backup(store, "20261104T000001Z-aaaa", volume="shop_db", data_bytes=10, set=back_up_all)
    found, warnings = find_set(library.repository, "shop", is_known=lambda host, volume: True)
    assert (found.made, warnings) == (back_up_all, [])
    for set_id, which in ((made.id, 0), ("20261102T000000Z-5e70", 1), ("20261103T000000Z-5e70", 1)):
        found_files = find_compose_files_backup(library.repository, "web1", "shop", set_id)
        assert found_files == manifest_of(store, kept[which]), set_id
    assert find_compose_files_backup(library.repository, "web1", "blog", made.id) is None
