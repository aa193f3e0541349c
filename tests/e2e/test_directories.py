"""Directories of the engine's host with long paths, in or above its data root, and with other filesystems in them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.repository import new_repository


@pytest.fixture
def at_the_root() -> Iterator[Path]:
    """A directory right below `/`, which holds the engine's data root; it is not there yet."""
    path = Path(f"/volback-test-{secrets.token_hex(4)}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    "name", [pytest.param("ж" * 45, marks=pytest.mark.long), "long/" * 60, 'a,b:c"d\ne'], ids=["letters", "deep", "odd"]
)
def test_a_directory_of_any_name_is_backed_up_and_found_again(
    run_volback: Volback, tmp_path: Path, volume_name: Callable[..., str], name: str
) -> None:
    directory = tmp_path / "srv" / name
    directory.mkdir(parents=True)
    (directory / "file").write_text("content")
    run_volback("backup", directory)
    (made,) = run_volback("list", directory, "--json").json["result"]["backups"]
    assert run_volback("show", directory, "--json").json["result"]["source"]["name"] == str(directory)
    assert made["id"]
    assert run_volback("cat", directory, "file").stdout == "content"
    run_volback("prove", directory)
    run_volback("restore", directory, "--as", volume_name("copy"), "--prove")
    new_repository(tmp_path / "other")
    run_volback("copy", directory, "--to", tmp_path / "other")
    run_volback("backup", directory, "--full")
    pruned = run_volback("prune", directory, "--keep-last", "1", "--json").json["result"]
    assert len(pruned["removed"]) == 1
    assert run_volback("verify", "--data", "--json").json["result"] == {
        "checked": 1,
        "damaged": [],
        "subset": None,
        "signed": None,
    }


def test_a_long_name_is_not_taken_for_another(run_volback: Volback, tmp_path: Path) -> None:
    directories = [tmp_path / ("long/" * 60) / name for name in ("one", "two")]
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / "file").write_text(directory.name)
        run_volback("backup", directory)
    assert [run_volback("cat", directory, "file").stdout for directory in directories] == ["one", "two"]


def test_a_directory_below_the_root_is_restored_to_and_backed_up(
    run_volback: Volback, volume_factory: Callable[..., str], at_the_root: Path
) -> None:
    name = volume_factory(fill=lambda path: (path / "file").write_text("content"))
    run_volback("backup", name)
    run_volback("restore", name, "--to", at_the_root, "--prove")
    assert (at_the_root / "file").read_text() == "content"
    run_volback("backup", at_the_root)


def test_a_directory_in_the_data_root_is_backed_up(
    run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    path = volume_path(volume_factory(fill=lambda path: (path / "file").write_text("content")))
    run_volback("backup", path)
    assert run_volback("cat", path, "file").stdout == "content"


def test_one_file_system_leaves_out_what_is_mounted_below(run_volback: Volback, tmp_path: Path) -> None:
    source = tmp_path / "srv"
    (source / "mounted").mkdir(parents=True)
    (source / "file").write_text("content")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "mounted"], check=True)
    try:
        (source / "mounted" / "other").write_text("other")
        run_volback("backup", source, "--one-file-system")
        one = run_volback("ls", source, "--json").json["result"]["entries"]
        run_volback("backup", source)
        both = run_volback("ls", source, "--json").json["result"]["entries"]
    finally:
        subprocess.run(["umount", source / "mounted"], check=True)
    assert {entry["path"] for entry in both} - {entry["path"] for entry in one} == {"mounted/other"}
    assert "mounted" in {entry["path"] for entry in one}


@pytest.mark.parametrize("transport", ["pipe", "attach"])
def test_what_is_not_a_directory_is_refused_in_one_line(run_volback: Volback, tmp_path: Path, transport: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "in"):
        said = run_volback("backup", path, env={"VOLBACK_TRANSPORT": transport}, check_exit=2).stderr
        assert said == (
            f"error: {path} is not a directory on the engine's host\nhint: name the directory that it is in\n"
        )


def test_a_driver_that_the_engine_does_not_have_is_named(run_volback: Volback, tmp_path: Path) -> None:
    run_volback("backup", tmp_path)
    said = run_volback("restore", tmp_path, "--as", "volback-test-none", "--driver", "nope", check_exit=4).stderr
    assert said.startswith("error: volume 'volback-test-none': the engine has no volume driver 'nope'\n")
