"""`config check`, `config show` and `config init`, as processes: text, JSON contract, exit codes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_json_contract import ERROR, result_of, shape
from tests.support.engine import Volback

GOOD = '[repositories.main]\nurl = "/srv/backups"\n[jobs.nightly]\nrepository = "main"\n'


@pytest.fixture
def config(run_volback: Volback) -> Path:
    return run_volback.directory / "volback.toml"


def test_check_says_that_all_is_well(run_volback: Volback, config: Path) -> None:
    config.write_text(GOOD)
    assert run_volback("config", "check", "--config", config).stdout == f"{config}: 1 job, 1 repository, no problem\n"
    result = result_of(run_volback("config", "check", "--json", env={"VOLBACK_CONFIG": str(config)}), "config check")
    assert result == {"files": [str(config)], "problems": []}


def test_check_names_each_problem(run_volback: Volback, config: Path) -> None:
    config.write_text(GOOD + "level = 'high'\nretain = 3\n")
    said = run_volback("config", "check", "--config", config, check_exit=2)
    assert said.stdout.splitlines()[0] == (
        f'{config}:5: jobs.nightly.level: expected a whole number from 1 to 19, not "high"'
    )
    assert said.stderr == "error: 2 problems in the configuration\nhint: fix the problems listed above\n"
    document = run_volback("config", "check", "--config", config, "--json", check_exit=2).json
    assert list(document) == ["schema", "command", "ok", "result", "warnings", "error"]
    problem = {"file": "str", "line": "int", "key": "str", "message": "str"}
    assert shape(document["result"]) == {"files": ["str"], "problems": [problem]}
    assert shape(document["error"]) == ERROR


def test_show_is_toml_or_json_without_secrets(run_volback: Volback, config: Path) -> None:
    config.write_text(GOOD + '[notifications.ops]\nurls = "mailto://me:hush@example.org"\n')
    config.chmod(0o644)
    said = run_volback("config", "show", "--config", config)
    assert tomllib.loads(said.stdout)["notifications"]["ops"]["urls"] == ["mailto://***"]
    assert said.stderr == (
        f"warning: {config} holds secrets, and every user of this machine can read it: chmod 600 {config}\n"
    )
    document = run_volback("--config", config, "config", "show", "--json")
    assert "hush" not in document.raw.decode() + said.stdout
    assert result_of(document, "config show")["config"] == tomllib.loads(said.stdout)


def test_a_configuration_that_is_not_there(run_volback: Volback, config: Path) -> None:
    said = run_volback("config", "check", "--config", config, check_exit=4)
    assert said.stderr == f"error: configuration {config} does not exist\nhint: check --config and VOLBACK_CONFIG\n"


def test_a_repository_is_known_by_its_name_and_a_slip_makes_no_directory(
    run_volback: Volback, config: Path, volume_factory: Callable[..., str]
) -> None:
    volume = volume_factory("named")
    main, second = run_volback.directory / "main", run_volback.directory / "second"
    config.write_text(f'[repositories.main]\nurl = "{main}"\n[repositories.second]\nurl = "{second}"\n')
    here = ["--config", str(config)]
    for name in ("main", "second"):
        run_volback("init", "--repo", name, *here)
    run_volback("backup", volume, "--repo", "main", *here)
    assert volume in run_volback("list", "--repo", "main", *here).stdout
    assert str(second) in run_volback("copy", volume, "--repo", "main", "--to", "second", *here).stdout
    refused = ["error: no [repositories.mian] is defined", "hint: there are main, second; a directory here is ./mian"]
    for wrong in (["backup", volume, "--repo", "mian"], ["copy", volume, "--repo", "main", "--to", "mian"]):
        assert run_volback(*wrong, *here, check_exit=2).stderr.splitlines() == refused


def test_init_writes_what_runs_and_check_finds_it_good(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    project = f"{volume_factory('name')}-project"
    volume = volume_factory("init", labels={"com.docker.compose.project": project})
    loose = volume_factory("loose")
    file = tmp_path / "volback.toml"
    found = run_volback("config", "init", str(file), "--json").json["result"]
    assert [job["volumes"] for job in found["jobs"] if job["project"] == project] == [[volume]]
    assert [loose in job["volumes"] for job in found["jobs"] if job["project"] is None].count(True) == 1
    assert run_volback("config", "check", "--config", str(file)).stdout.endswith("no problem\n")
    assert run_volback("config", "init", str(file), check_exit=5).stdout == ""
