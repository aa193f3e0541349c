"""Small machines: no descriptor left, no thread allowed. Each is an error in one line, and never a wait without end."""

from __future__ import annotations

import os
import resource
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.s3 import S3Server

LIMIT_S = 120
USER = 1_000_000_000 + os.getpid()
"""Of whom this process of tests alone has processes: the limit counts all that a user has."""
NO_OTHER_USER = [
    "setpriv",
    f"--reuid={USER}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
]
"""Of root the kernel counts no processes (setrlimit(2), RLIMIT_NPROC)."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("data" * 1_000_000)
    return directory


def said_with_descriptors(
    count: int, volback: Volback, *arguments: str | Path, env: dict[str, str] | None = None
) -> str | None:
    """Run it with that limit; return its standard error, None if it was done."""
    done = subprocess.run(
        volback.command(*arguments),
        env=volback.environment(env),
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (count, count)),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("descriptors", [pytest.param(20, marks=pytest.mark.long), 24])
def test_without_descriptors_reading_and_writing_a_source_end(
    run_volback: Volback, source: Path, tmp_path: Path, descriptors: int
) -> None:
    run_volback("backup", source)
    commands: list[list[str | Path]] = [["backup", source], ["restore", source, "--to", tmp_path / "restored"]]
    for arguments in commands:
        said = said_with_descriptors(descriptors, run_volback, *arguments)
        if said is not None:
            assert said.splitlines()[-2].startswith("error: ")
            assert "too many files are open" in said.splitlines()[-2]
            assert "ulimit -n" in said.splitlines()[-1]
            assert "stays behind" not in said, "its helper was removed"


def test_without_descriptors_objects_are_copied_and_verified_or_that_fails(
    run_volback: Volback, source: Path, tmp_path: Path, rclone: S3Server
) -> None:
    run_volback("backup", source)
    with rclone.bucket() as bucket:
        there = {**rclone.environment(), "VOLBACK_REPO": f"s3://{bucket}/r"}
        run_volback("init", env=there)
        run_volback("copy", str(source), "--to", there["VOLBACK_REPO"], env=rclone.environment())
        for arguments, env in (
            (["copy", str(source), "--to", there["VOLBACK_REPO"]], rclone.environment()),
            (["backup", str(source)], there),
            (["verify", "--data"], there),
        ):
            said = said_with_descriptors(14, run_volback, *arguments, env=env)
            assert said is None or "too many files are open" in said, said


@pytest.mark.parametrize("count", [2, 5])
def test_without_threads_it_ends_with_an_error(run_volback: Volback, source: Path, count: int) -> None:
    run_volback("backup", source)
    for directory in (run_volback.state, run_volback.repository):
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, USER, -1)
    for arguments in (["backup", source], ["verify", "--data"]):
        command = [*NO_OTHER_USER, "prlimit", f"--nproc={count}", *run_volback.command(*arguments)]
        done = subprocess.run(
            command, env=run_volback.environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if done.returncode:
            assert done.returncode == 1
            assert done.stderr.splitlines()[0] == "error: this machine allows no further thread"
