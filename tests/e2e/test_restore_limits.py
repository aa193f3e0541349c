"""What a target does not take is said: attributes, more bytes than fit, a sync that fails."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Volback

NTACL = "security.NTACL"


@pytest.fixture
def samba(volume_factory: Callable[..., str]) -> str:
    def fill(root: Path) -> None:
        (root / "share").mkdir()
        (root / "share" / "file").write_text("text")
        (root / "plain").write_text("plain")
        for name in ("share", "share/file"):
            os.setxattr(root / name, NTACL, b"\4\0")
        os.setxattr(root / "plain", "user.kept", b"yes")

    return volume_factory("samba", fill=fill)


@pytest.fixture
def small_directory(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 3 MB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "volback-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_attributes_that_need_a_capability_are_named_and_all_else_is_restored(
    run_volback: Volback, samba: str, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    made = run_volback("backup", samba, check_exit=3)
    assert f"attribute {NTACL} of 2 files" in made.stderr
    assert "--privileged-xattrs" in made.stderr
    copy = volume_name("copy")
    done = run_volback("restore", samba, "--as", copy, "--prove", check_exit=3)
    assert f"attribute {NTACL} could not be set on 2 files" in done.stderr
    assert f"volume '{copy}' equals the backup but for these attributes" in done.stderr
    assert "share/file" in done.stderr
    assert (volume_path(copy) / "share" / "file").read_text() == "text"
    assert os.getxattr(volume_path(copy) / "plain", "user.kept") == b"yes"
    assert NTACL not in os.listxattr(volume_path(copy) / "share" / "file")
    proof = run_volback("prove", samba, copy, "--json", check_exit=3).json
    assert (proof["result"]["identical"], proof["result"]["lacking"]) == (False, {NTACL: ["share", "share/file"]})
    assert f"attribute {NTACL} is missing on 2 files" in proof["warnings"][0]
    (volume_path(copy) / "plain").write_text("damaged")
    proof = run_volback("prove", samba, copy, "--json", check_exit=7).json
    assert proof["result"]["different"] == ["plain"]


def test_privileged_xattrs_sets_them(
    run_volback: Volback, samba: str, volume_name: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    run_volback("backup", samba, check_exit=3)
    copy = volume_name("copy")
    run_volback("restore", samba, "--as", copy, "--privileged-xattrs", "--prove")
    assert os.getxattr(volume_path(copy) / "share" / "file", NTACL) == b"\4\0"


def test_replacing_a_volume_with_such_attributes_and_its_safety_copy_work(
    run_volback: Volback, samba: str, volume_path: Callable[[str], Path]
) -> None:
    run_volback("backup", samba, check_exit=3)
    file = volume_path(samba) / "share" / "file"
    file.write_text("newer")
    done = run_volback("restore", samba, "--replace", "--json", check_exit=3)
    assert file.read_text() == "text"
    run_volback("restore", done.json["result"]["safety_backup"], "--replace", check_exit=3)
    assert file.read_text() == "newer"


def test_a_full_target_says_how_much_does_not_fit(
    run_volback: Volback, volume_factory: Callable[..., str], small_directory: Path
) -> None:
    large = volume_factory("large", fill=lambda root: (root / "implausibly old").write_bytes(os.urandom(5_000_000)))
    run_volback("backup", large)
    failed = run_volback("restore", large, "--to", small_directory, check_exit=1)
    assert f"error: no space left in directory '{small_directory}': 1.8 MiB of 4.8 MiB did not fit" in failed.stderr
    assert list(small_directory.iterdir()) == []


def test_an_import_that_does_not_fit_fails_whatever_its_files_are_called(
    run_volback: Volback, volume_name: Callable[..., str], small_directory: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        entry = tarfile.TarInfo("implausibly old")
        entry.size = 5_000_000
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    device = [f"--driver-opt={option}" for option in ("type=none", "o=bind", f"device={small_directory}")]
    failed = run_volback("import", tmp_path / "x.tar", "--as", volume_name("small"), *device, check_exit=1)
    assert "error: no space left in volume" in failed.stderr


def test_a_target_that_cannot_be_synced_is_a_failure(
    run_volback: Volback, samba: str, volume_name: Callable[..., str], image_that_cannot_sync: str, tmp_path: Path
) -> None:
    run_volback("backup", samba, check_exit=3)
    env = {"VOLBACK_HELPER_IMAGE": image_that_cannot_sync}
    failed = run_volback("restore", samba, "--as", volume_name("none"), env=env, check_exit=1)
    assert "sync: error syncing '.': Input/output error" in failed.stderr
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    failed = run_volback("import", tmp_path / "x.tar", "--as", volume_name("none"), env=env, check_exit=1)
    assert "sync: error syncing" in failed.stderr
    failed = run_volback("restore", samba, "--replace", "--no-safety-backup", env=env, check_exit=1)
    assert "sync: error syncing" in failed.stderr


@pytest.mark.parametrize("transport", ["pipe", pytest.param("attach", marks=pytest.mark.long)])
def test_a_sync_that_fails_while_more_is_written_is_a_failure(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    *, image_whose_first_sync_fails: str, transport: str,
) -> None:  # fmt: skip
    """The last one does not see that error any more."""
    large, new = volume_factory(fill=lambda path: (path / "file").write_bytes(bytes(144 << 20))), volume_name("new")
    run_volback("backup", large)
    env = {"VOLBACK_HELPER_IMAGE": image_whose_first_sync_fails, "VOLBACK_TRANSPORT": transport}
    failed = run_volback("restore", large, "--as", new, env=env, check_exit=1)
    assert f"error: volume '{new}' could not be written: sync: error syncing '.'" in failed.stderr
