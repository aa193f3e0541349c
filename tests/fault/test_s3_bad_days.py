"""Bad days of a repository in a bucket: signals at steps of a run, and a server that ends in mid-run and comes back."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import CLIENT_LABEL, EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted, struck
from tests.support.s3 import S3Server, open_uploads, rclone_server

pytestmark = pytest.mark.xdist_group("s3")

MIB = 1024 * 1024
INT, TERM, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
EXIT = {INT: 130, TERM: 143, KILL: -9}
STEPS = ["buffer 1 of read", "buffer 2 of put data.tar.zst", "before Catalog.commit", "after Catalog.commit"]
RESTORE_STEPS = ["buffer 1 of write", "after write"]
long = pytest.mark.long


@pytest.fixture
def source(volume_factory: Callable[..., str]) -> str:
    """More than one part, and it does not compress."""

    def fill(path: Path) -> None:
        (path / "noise").write_bytes(os.urandom(12 * MIB))

    return volume_factory(fill=fill)


def _environment(server: S3Server, bucket: str) -> dict[str, str]:
    return server.environment() | {"VOLBACK_REPO": f"s3://{bucket}/p?part-size=5"}


def _keys(server: S3Server, bucket: str) -> set[str]:
    found = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"].rpartition("/")[2] for entry in found}


def _backups(run_volback: Volback, env: dict[str, str]) -> int:
    return len(run_volback("list", "--json", env=env).json["result"]["backups"])


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((INT, TERM, TERM, INT), marks=long),
        (KILL, INT, TERM, KILL),
        pytest.param((TERM, INT, INT, TERM), marks=long),
    ],
    ids=["INT TERM", "KILL INT", "TERM INT"],
)
def test_a_backup_that_is_struck_leaves_no_half_backup_and_no_upload(
    radosgw: S3Server, run_volback: Volback, engine: EngineSession, source: str, numbers: tuple[signal.Signals, ...]
) -> None:
    with radosgw.bucket() as bucket:
        env = _environment(radosgw, bucket)
        run_volback("init", env=env)
        made = 0
        for step, number in zip(STEPS, numbers, strict=True):
            assert struck(run_volback, number, step, "backup", source, "--full", env=env) == EXIT[number], step
            made += step == "after Catalog.commit"
            if number == KILL:
                run_volback("backup", source, env=env)
                made += 1
            found = radosgw.client().list_objects_v2(Bucket=bucket).get("Contents", [])
            assert len(found) == 1 + 3 * made, step
            assert open_uploads(radosgw.client(), bucket) == [], step
            label = f"{CLIENT_LABEL}={(run_volback.state / 'client-id').read_text()}"
            assert engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}) == [], step
        assert _backups(run_volback, env) == made
        assert run_volback("verify", "--data", "--json", env=env).json["result"]["damaged"] == []


@pytest.mark.parametrize("numbers", [(INT, KILL), pytest.param((TERM, INT, KILL, TERM), marks=long)])
def test_a_restore_that_is_struck_leaves_no_half_volume(
    radosgw: S3Server, run_volback: Volback, engine: EngineSession, source: str, volume_name: Callable[..., str],
    *, volume_path: Callable[[str], Path], numbers: tuple[signal.Signals, ...],
) -> None:  # fmt: skip
    target = volume_name("target")
    with radosgw.bucket() as bucket:
        env = _environment(radosgw, bucket)
        run_volback("init", env=env)
        run_volback("backup", source, env=env)
        for number, step in zip(numbers, itertools.cycle(RESTORE_STEPS), strict=False):
            exit_code = struck(run_volback, number, step, "restore", source, "--as", target, env=env)
            assert exit_code == EXIT[number], step
            if number == KILL:
                run_volback("doctor", "--fix", env=env)
            assert engine.client.volumes.list(filters={"name": target}) == [], step
        run_volback("restore", source, "--as", target, "--prove", env=env)
        assert differences(fingerprint(volume_path(source)), fingerprint(volume_path(target))) == []


def test_a_server_that_ends_in_mid_run_and_comes_back(
    run_volback: Volback, source: str, tmp_path: Path, volume_name: Callable[..., str]
) -> None:
    with rclone_server(tmp_path / "rclone") as (server, control):
        server.client().create_bucket(Bucket="backups")
        env = _environment(server, "backups") | {"VOLBACK_S3_GIVE_UP": "1"}
        run_volback("init", env=env)
        with halted(run_volback, "buffer 1 of read", "backup", source, env=env) as run:
            control.stop()
        assert run.ended.exit_code == 9, run.ended.stderr
        # What cannot be cleaned up for the same reason is a warning of its own, and does not hide what failed.
        left, *failed = run.ended.stderr.splitlines()
        assert left.startswith("warning: ")
        assert "stays until a later run removes it" in left
        assert [line.partition(": ")[0] for line in failed] == ["error", "hint"]
        assert server.endpoint in failed[0]
        control.start()
        assert _backups(run_volback, env) == 0
        run_volback("backup", source, env=env)
        assert _keys(server, "backups") == {"volback.json", "data.tar.zst", "index.jsonl.zst", "manifest.json"}
        target = volume_name("target")
        with halted(run_volback, "buffer 1 of write", "restore", source, "--as", target, env=env) as run:
            control.stop()
        # All of 12 MiB may have been read by then: whole or not at all.
        assert run.ended.exit_code in (0, 9), run.ended.stderr
        control.start()
        if run.ended.exit_code:
            run_volback("restore", source, "--as", target, env=env)
        run_volback("prove", source, target, env=env)


def test_what_a_killed_first_backup_uploaded_is_used_by_the_next_one(
    radosgw: S3Server, run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str]
) -> None:
    """Also if that one is killed. Parts are sent one by one, so that it is known which there are."""

    def fill(path: Path) -> None:
        for number in range(20):
            (path / f"file-{number}").write_bytes(os.urandom(2 * MIB))

    source = volume_factory("far", fill=fill)
    with radosgw.bucket() as bucket:
        env = _environment(radosgw, bucket) | {"VOLBACK_S3_PARALLEL": "1"}
        run_volback("init", env=env)
        for step in ("end of put data.tar.zst", "end of extend", "after S3Store.extend"):
            assert struck(run_volback, signal.SIGKILL, step, "backup", source, env=env) == -9
            assert run_volback("list", "--json", env=env).json["result"]["backups"] == []
        (made,) = run_volback("backup", source, "--json", env=env).json["result"]["backups"]
        assert made["resumed_bytes"] >= 16 * MIB
        assert made["stored_bytes"] < 43 * MIB
        assert run_volback("verify", "--data", "--json", env=env).json["result"]["damaged"] == []
        run_volback("prove", source, env=env)
        run_volback("backup", source, env=env)
        assert open_uploads(radosgw.client(), bucket) == []
        assert list((run_volback.state / "runs").iterdir()) == []
        assert radosgw.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 1 + 2 * 3 + 1, (
            "and the notes of the first"
        )
