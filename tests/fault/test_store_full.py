"""A repository that is full, read-only, denied, or no directory at all: one clear line, nothing half-made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import CLIENT_LABEL, EngineSession, Result, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.repository import new_repository

MIB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")

MountSmall = Callable[[int], Path]


def _fill(path: Path) -> None:
    for number in range(5):
        (path / f"big-{number}").write_bytes(os.urandom(2 * MIB - 40_000))
    for number in range(20):
        (path / f"small-{number:02}").write_bytes(os.urandom(10_000))


def _fill_little(path: Path) -> None:
    for number in range(40):
        (path / f"small-{number:02}").write_bytes(os.urandom(9_000))


@pytest.fixture
def small_repository(mount_small: MountSmall) -> MountSmall:
    """Gives a new repository on a disk of that many bytes."""

    def make(size_bytes: int) -> Path:
        repository = mount_small(size_bytes)
        new_repository(repository)
        return repository

    return make


def _files(repository: Path) -> list[str]:
    return sorted(str(path.relative_to(repository)) for path in repository.rglob("*"))


def _says_one_thing(done: Result, *words: str) -> None:
    """One error line that holds `words`, and at most a hint."""
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in lines] in (["error", "hint"], ["error"]), done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def source(volume_factory: Callable[..., str], volume_path: Callable[[str], Path]) -> tuple[str, Path]:
    """A volume of some 10 MiB that do not compress, and where it lies."""
    name = volume_factory("random", fill=_fill)
    return name, volume_path(name)


def _nothing_is_left(engine: EngineSession, run_volback: Volback, repository: Path) -> None:
    assert _files(repository) in (["volback.json"], []), "neither objects, temp files nor directories"
    client = (run_volback.state / "client-id").read_text()
    assert (
        engine.client.containers.list(all=True, ignore_removed=True, filters={"label": f"{CLIENT_LABEL}={client}"})
        == []
    )
    assert list((run_volback.state / "runs").iterdir()) == []
    listed = run_volback("--json", "--repo", str(repository), "list", "--all-hosts").json["result"]
    assert listed == {"backups": [], "damaged": []}


@pytest.mark.parametrize("size_bytes", [PAGE, 64 * 1024, MIB, 2 * MIB, 4 * MIB, 7 * MIB, 10 * MIB])
def test_full_repository_leaves_nothing_half_made(
    size_bytes: int, small_repository: MountSmall, engine: EngineSession, run_volback: Volback, source: tuple[str, Path]
) -> None:
    repository = small_repository(size_bytes)
    name, path = source
    before = fingerprint(path)
    done = run_volback("--repo", str(repository), "backup", name, check_exit=1)
    _says_one_thing(done, str(repository), "is full", "cannot write")
    assert "free space" in done.stderr
    _nothing_is_left(engine, run_volback, repository)
    assert differences(before, fingerprint(path)) == []


@pytest.mark.parametrize(
    "last", [pytest.param("volback.json", marks=pytest.mark.long), "data.tar.zst", "index.jsonl.zst"]
)
def test_space_that_ends_with_one_object_ends_the_backup_at_the_next(
    last: str,
    small_repository: MountSmall,
    engine: EngineSession,
    run_volback: Volback,
    volume_factory: Callable[..., str],
) -> None:
    order = ["volback.json", "data.tar.zst", "index.jsonl.zst", "manifest.json"]
    name = volume_factory("random", fill=_fill_little)
    roomy = run_volback.directory / "roomy"
    new_repository(roomy)
    run_volback("--repo", str(roomy), "backup", name)
    pages = {path.name: -(-path.stat().st_size // PAGE) for path in roomy.rglob("*") if path.is_file()}
    assert sorted(pages) == sorted(order)
    room = sum(pages[part] for part in order[: order.index(last) + 1])

    repository = small_repository(room * PAGE)
    done = run_volback("--repo", str(repository), "backup", name, check_exit=1)
    _says_one_thing(done, "is full", order[order.index(last) + 1])
    _nothing_is_left(engine, run_volback, repository)

    enough = small_repository(sum(pages.values()) * PAGE)
    run_volback("--repo", str(enough), "backup", name)
    run_volback("--repo", str(enough), "verify", "--data")


def test_full_repository_keeps_the_backups_that_it_has(
    small_repository: MountSmall, run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    little, much = volume_factory("little", fill=_fill_little), volume_factory("much", fill=_fill)
    repository = small_repository(2 * MIB)
    run_volback("--repo", str(repository), "backup", little)
    before = _files(repository)
    run_volback("--repo", str(repository), "backup", much, check_exit=1)
    assert _files(repository) == before
    assert run_volback("--repo", str(repository), "verify", "--data").stdout.startswith("1 backup checked")


def test_read_only_repository_is_read_and_not_written(
    small_repository: MountSmall, run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    name, repository = volume_factory("little", fill=_fill_little), small_repository(4 * MIB)
    run_volback("--repo", str(repository), "backup", name)
    before = _files(repository)
    subprocess.run(["mount", "-o", "remount,ro", repository], check=True)
    done = run_volback("--repo", str(repository), "backup", name, check_exit=1)
    _says_one_thing(done, str(repository), "is read-only")
    assert _files(repository) == before
    run_volback("--repo", str(repository), "verify", "--data")
    assert name in run_volback("--repo", str(repository), "list").stdout


@pytest.mark.parametrize("command", [["backup", "/etc"], ["list"], ["verify"], ["restore", "it"]])
def test_a_file_is_not_a_repository(command: list[str], run_volback: Volback, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a directory")
    done = run_volback("--repo", str(path), *command, check_exit=9)
    _says_one_thing(done, str(path), "is not a directory")
    assert path.read_text() == "not a directory"


@pytest.mark.parametrize("command", [["backup", "/etc"], ["list"], ["verify"], ["restore", "it"]])
def test_a_denied_repository_is_named(command: list[str], run_volback: Volback, tmp_path: Path) -> None:
    """No mode stops root, so the process goes without the capabilities that let it pass."""
    path = tmp_path / "denied"
    path.mkdir(mode=0o000)
    setpriv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*setpriv, *run_volback.command("--repo", str(path), *command)],
        capture_output=True, text=True, env=run_volback.environment(), check=False,
    )  # fmt: skip
    run_volback.note_client_id()
    assert done.returncode == 1, done.stderr
    _says_one_thing(Result(done.returncode, done.stdout, done.stderr), str(path), "denies access")
