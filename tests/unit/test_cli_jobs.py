"""`run` and `jobs`, as far as they need no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from volback.cli.main import run

CONFIG = """
[repositories.local]
url = "{root}/repository"
[jobs.nightly]
repository = "local"
volumes = ["db"]
[jobs.broken]
level = 99
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VOLBACK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    path = tmp_path / "volback.toml"
    path.write_text(CONFIG.format(root=tmp_path))
    return str(path)


def test_jobs_by_name(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", config, "jobs", "nightly"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["JOB", "nightly"]
    assert "broken" not in capsys.readouterr().out
    assert run(["--config", config, "jobs", "nigthly"]) == 4
    assert "there are: broken, nightly" in capsys.readouterr().err


def test_a_job_that_does_not_exist_is_an_error_alone(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", config, "run", "nigthly"]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "error: there is no job 'nigthly' in the configuration", "hint: there are: broken, nightly"
    ]  # fmt: skip


@pytest.mark.parametrize(("job", "code"), [("nightly", 8), ("broken", 2)])
def test_a_job_that_failed_says_so(config: str, capsys: pytest.CaptureFixture[str], job: str, code: int) -> None:
    assert run(["--config", config, "run", job]) == code
    assert capsys.readouterr().out.startswith(f"{job}: FAILED: no volume backed up in ")
