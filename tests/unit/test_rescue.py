"""docs/rescue.py, which rebuilds a backup without volback, reads what volback reads, and refuses what is damaged."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.archive import plan_of, read
from tests.support.encrypted import encrypted_copy, own_file
from tests.support.engine import PROJECT
from tests.support.stored import FIRST, SECOND, store_backup, store_increment
from tests.unit.test_golden import ALL, FORMAT_1, FULL, INCREMENT, SECOND_INCREMENT
from tests.unit.test_increments import make_tree
from volback.archive.age_keys import Identity
from volback.catalog.keys import BackupKey, encode_part
from volback.catalog.repository import Catalog
from volback.operations.open_backup import OpenBackup
from volback.store.local import LocalStore

RESCUE = PROJECT / "docs/rescue.py"
LINES_MAX = 200
VOLUME = "golden-host/golden"


def _rescue(repository: Path, name: str, *identity: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(RESCUE), str(repository), name, *map(str, identity)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rescue", RESCUE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stream(backup_id: str) -> bytes:
    """The stream of a backup of the golden repository, as volback reads it."""
    store = LocalStore(FORMAT_1)
    manifest, _ = Catalog(store).load(BackupKey("golden-host", "golden", backup_id))
    return b"".join(OpenBackup(store, manifest).stream())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the golden repository, to be damaged."""
    return Path(shutil.copytree(FORMAT_1, tmp_path / "repository"))


@pytest.mark.programs
@pytest.mark.parametrize("backup_id", ALL)
def test_each_backup_comes_out_as_volback_reads_it(backup_id: str) -> None:
    done = _rescue(FORMAT_1, f"{VOLUME}@{backup_id}")
    assert (done.returncode, done.stdout == _stream(backup_id)) == (0, True), done.stderr


@pytest.mark.programs
def test_without_an_id_it_takes_the_latest() -> None:
    done = _rescue(FORMAT_1, VOLUME)
    assert (done.returncode, done.stdout == _stream(SECOND_INCREMENT)) == (0, True)
    assert SECOND_INCREMENT.encode() in done.stderr


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The golden backups in an encrypted repository, and the file of its identity."""
    directory = tmp_path_factory.mktemp("encrypted")
    encrypted_copy(FORMAT_1, LocalStore(directory / "repository"))
    return directory / "repository", own_file(directory)


@pytest.mark.programs
@pytest.mark.parametrize("backup_id", ALL)
def test_an_encrypted_backup_comes_out_with_the_program_age(encrypted: tuple[Path, Path], backup_id: str) -> None:
    repository, identity = encrypted
    done = _rescue(repository, f"{VOLUME}@{backup_id}", identity)
    assert (done.returncode, done.stdout == _stream(backup_id)) == (0, True), done.stderr


@pytest.mark.programs
def test_an_encrypted_backup_takes_the_right_identity_and_whole_objects(
    encrypted: tuple[Path, Path], tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(encrypted[0], tmp_path / "repository"))
    other = own_file(tmp_path, Identity.new())
    done = _rescue(repository, VOLUME)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"name the file of its identity" in done.stderr
    done = _rescue(repository, VOLUME, other)
    assert (done.returncode, done.stdout) == (1, b"")
    path = repository / VOLUME / FULL / "data.tar.zst.age"
    path.write_bytes(_flip(3000)(path.read_bytes()))
    done = _rescue(repository, f"{VOLUME}@{FULL}", encrypted[1])
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"data.tar.zst.age is damaged" in done.stderr


@pytest.mark.programs
@pytest.mark.parametrize("frames", [1, 32])
def test_frames_of_several_backups_are_read_in_groups(tmp_path: Path, frames: int) -> None:
    root, store = make_tree(tmp_path), LocalStore(tmp_path / "repository")
    first = store_backup(store, FIRST, plan_of(root), [read(root, plan_of(root))])
    with (root / "database").open("r+b") as file:
        file.write(b"changed")
    (root / "b/deep/file-03").write_bytes(b"changed")
    second = store_increment(store, SECOND, plan_of(root), lambda plan, wanted: [read(root, plan, wanted)], first)
    rescue: Any = _module()
    rescue.BATCH_FRAMES = frames
    for manifest in (first, second):
        Catalog(store).commit(manifest)
        directory, stream = tmp_path / "repository/host/volume", io.BytesIO()
        fields = rescue.read_sealed(directory / manifest.id / "manifest.json")
        with tempfile.TemporaryFile() as index:
            rescue.copy_lines(directory, fields, index)
            rescue.write_stream(directory, fields, index, stream)
        assert stream.getvalue() == b"".join(OpenBackup(store, manifest).stream())


Harm = Callable[[bytes], bytes]


def _flip(at: int) -> Harm:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.programs
@pytest.mark.parametrize(
    ("harmed", "harm", "says"),
    [
        (f"{INCREMENT}/data.zst", _flip(300), "data.zst is damaged"),
        (f"{FULL}/data.tar.zst", _flip(3000), "data.tar.zst is damaged"),
        (f"{FULL}/data.tar.zst", lambda data: data[:-1], "data.tar.zst is cut short"),
        (f"{FULL}/data.tar.zst", lambda data: data[:10] + bytes(50) + data[60:], "data.tar.zst is damaged"),
        (f"{FULL}/index.jsonl.zst", _flip(2000), f"{FULL}/index.jsonl.zst is damaged"),
        (f"{INCREMENT}/index.jsonl.zst", _flip(100), f"{INCREMENT}/index.jsonl.zst is damaged"),
        (f"{INCREMENT}/index.jsonl.zst", _flip(1500), f"{INCREMENT}/index.jsonl.zst is damaged"),
        (f"{INCREMENT}/manifest.json", _flip(100), "manifest.json is damaged"),
        (f"{INCREMENT}/manifest.json", lambda data: data[:-1], "manifest.json is damaged"),
        (f"{INCREMENT}/manifest.json", lambda _: b"", "manifest.json is damaged"),
        ("../../volback.json", _flip(20), "volback.json is damaged"),
    ],
)  # fmt: skip
def test_what_is_damaged_ends_it(repository: Path, harmed: str, harm: Harm, says: str) -> None:
    path = repository / VOLUME / harmed
    path.write_bytes(harm(path.read_bytes()))
    _assert_refused(repository, says)


@pytest.mark.programs
@pytest.mark.parametrize("missing", ["data.tar.zst", "index.jsonl.zst"])
def test_an_object_that_is_missing_ends_it(repository: Path, missing: str) -> None:
    (repository / VOLUME / FULL / missing).unlink()
    _assert_refused(repository, missing)


@pytest.mark.programs
def test_the_manifest_of_another_backup_ends_it(repository: Path) -> None:
    shutil.copy(repository / VOLUME / FULL / "manifest.json", repository / VOLUME / INCREMENT)
    _assert_refused(repository, "is of another backup")


def _assert_refused(repository: Path, says: str) -> None:
    whole = _stream(INCREMENT)
    done = _rescue(repository, f"{VOLUME}@{INCREMENT}")
    assert done.returncode == 1
    assert says in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert len(done.stdout) < len(whole)
    assert whole.startswith(done.stdout), "nothing that is wrong has been written"


@pytest.mark.parametrize("name", [f"{VOLUME}@20260105T030405Z-0004", "golden-host/other", "golden-host", "", "a/b@c"])
def test_a_backup_that_is_not_there_ends_it(name: str) -> None:
    done = _rescue(FORMAT_1, name)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"there is no backup" in done.stderr
    assert b"Traceback" not in done.stderr


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(".")
@example("..")
@example("/srv/data")
@example("é" * 50)
@example("…" * 100)
@example("a" * 256)
def test_names_are_encoded_as_in_keys(name: str) -> None:
    assert _ENCODED(name) == encode_part(name)


_ENCODED = _module().encoded


def test_it_is_short_and_needs_nothing() -> None:
    text = RESCUE.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names
