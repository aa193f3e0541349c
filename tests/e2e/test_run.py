"""`volback run`, as cron calls it: a real engine, real repositories, and every failure is reported."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_json_contract import MADE, result_of, shape
from tests.support.engine import EngineSession, Result, Volback
from tests.support.listener import listening
from tests.support.remote import wait_for
from tests.support.repository import new_repository
from tests.support.s3 import S3Server
from volback.archive.age_keys import Identity
from volback.catalog.repository import Catalog
from volback.state.history import JobRun, note_run, read_history
from volback.state.locks import lock
from volback.store.local import LocalStore


class Desk:
    """Writes the configuration, runs volback with it, and reads what was reported through a metrics file."""

    def __init__(self, run_volback: Volback) -> None:
        self.volback = run_volback
        self.file = run_volback.directory / "volback.toml"
        self.second = run_volback.directory / "second"
        self.reports = run_volback.directory / "reports"

    def write(self, text: str) -> None:
        """Write the configuration; MAIN, SECOND and TELL in it are filled in."""
        self.reports.mkdir(exist_ok=True)
        if not self.second.exists():
            new_repository(self.second)
        head = f"""
[repositories.main]
url = "{self.volback.repository}"
[repositories.second]
url = "{self.second}"
[metrics]
textfile = "{self.reports}/volback.prom"
"""
        self.file.write_text(head + text)

    def run(self, *arguments: str | Path, check_exit: int = 0, env: dict[str, str] | None = None) -> Result:
        return self.volback("--config", self.file, *arguments, check_exit=check_exit, env=env)

    def last_status(self, job: str) -> str:
        """What the metrics say of the job: so it was reported."""
        lines = (self.reports / "volback.prom").read_text().splitlines()
        of_job = [line for line in lines if f'volback_job="{job}"' in line]
        [line] = [line for line in of_job if line.startswith("volback_job_last_run_status{")]
        return ("success", "warning", "failure")[int(float(line.split()[-1]))]

    def history(self, job: str) -> list[JobRun]:
        return read_history(self.volback.state, job)


@pytest.fixture
def desk(run_volback: Volback) -> Desk:
    return Desk(run_volback)


@pytest.fixture
def volume(volume_factory: Callable[..., str]) -> str:
    return volume_factory("job", fill=lambda path: (path / "file").write_text("text"))


def test_a_job_of_a_project_keeps_copies_and_prunes_its_compose_files(
    desk: Desk, volume: str, container_factory: Callable[..., Any], engine: EngineSession, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").touch()
    prefix = "com.docker.compose.project"
    project = f"{volume}-project"
    labels = {prefix: project, f"{prefix}.working_dir": str(tmp_path), f"{prefix}.config_files": "compose.yaml"}
    container_factory(volumes={volume: "/data"}, labels=engine.labels | labels)
    desk.write(
        f'[jobs.nightly]\nproject = "{project}"\nrepository = ["main", "second"]\nkeep = {{ last = 1 }}\n'
        'quiesce = "pause"\n'
    )
    for _ in range(2):
        desk.run("run", "nightly")
    files = f"{tmp_path}/{project}.compose"
    for repository in (desk.volback.repository, desk.second):
        assert [key.volume for key in Catalog(LocalStore(repository)).backups()] == sorted([files, volume])


def test_a_job_says_one_line_and_copies(desk: Desk, volume: str) -> None:
    desk.write(
        f'[jobs.nightly]\nvolumes = "{volume}"\nrepository = ["main", "second"]\ntags = "nightly"\n'
        "keep = { last = 2 }\n"
    )
    said = desk.run("run", "nightly")
    assert said.stderr == ""
    assert said.stdout.startswith("nightly: 1 volume, ")
    assert said.stdout.count("\n") == 1
    assert desk.run("run", "nightly", "--quiet").stdout == ""
    [planned] = desk.run("run", "nightly", "--dry-run", "--json").json["result"]["jobs"]
    assert desk.run("prune", "--job", "nightly", "--dry-run").stdout.count("2 of 2 backups kept") == 2
    result = desk.run("run", "nightly", "--json").json["result"]["jobs"][0]
    assert planned["to_remove"] == result["removed"], "as the backup counts that the run makes before"
    assert planned["to_free_bytes"] > 0
    assert [name.rpartition(" in ")[2] for name in result["removed"]] == [
        str(desk.volback.repository),
        str(desk.second),
    ]
    for repository in (desk.volback.repository, desk.second):
        listed = desk.volback("--repo", repository, "list", "--json").json["result"]["backups"]
        assert [(backup["kind"], backup["tags"]) for backup in sorted(listed, key=lambda backup: backup["id"])] == [
            ("incremental", ["nightly"]), ("incremental", ["nightly"])
        ]  # fmt: skip
        checked = desk.volback("--repo", repository, "verify", "--data").stdout
        assert checked.endswith(", 2 intact\n"), "what they use of the first one stays without that"
    desk.write(f'[jobs.nightly]\nvolumes = "{volume}"\nrepository = ["main", "second"]\nkeep = {{ last = 1 }}\n')
    pruned = desk.run("prune", "--job", "nightly", "--repo", "second", "--json").json["result"]
    assert ([done["repository"] for done in pruned["repositories"]], len(pruned["removed"])) == ([str(desk.second)], 1)
    left = [len(Catalog(LocalStore(repository)).backups()) for repository in (desk.volback.repository, desk.second)]
    assert left == [2, 1]
    assert [run.status for run in desk.history("nightly")] == ["success"] * 3
    assert desk.last_status("nightly") == "success"


def test_a_job_warns_of_who_could_write_meanwhile_unless_that_is_wanted(
    desk: Desk, volume: str, container_factory: Callable[..., Any]
) -> None:
    writer = container_factory(volumes={volume: "/data"})
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main"]\n')
    said = desk.run("run", "n", "--dry-run")
    assert said.stderr == ""
    warning = f"volume {volume!r} may be written to while it is read: container {writer.name!r} is running"
    for options in ([], ["--quiet"]):
        assert desk.run("run", "n", *options, check_exit=3).stderr == f"warning: {warning}\n"
    assert desk.last_status("n") == "warning"
    for wanted in ('consistency = "live"', 'quiesce = "none"'):
        desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main"]\n{wanted}\n')
        assert desk.run("run", "n", "--quiet").stderr == ""
        assert desk.last_status("n") == "success"


def test_a_job_copies_between_repositories_of_different_keys_where_that_is_requested(desk: Desk, volume: str) -> None:
    """From the host's repository, which the file of its identity opens, into one of somebody else's."""
    mine, theirs = Identity.new(), Identity.new()
    paths = {}
    for name, person in {"near": mine, "far": theirs}.items():
        paths[name] = desk.volback.directory / name
        desk.volback("init", "--encrypt", "--recipient", str(person.recipient), "--repo", paths[name])
    mine_file, theirs_file = desk.volback.directory / "mine.txt", desk.volback.directory / "theirs.txt"
    mine_file.write_text(f"{mine}\n")
    theirs_file.write_text(f"{theirs}\n")

    def configure(job: str, repository: str = "") -> None:
        desk.write(
            f'[repositories.near]\nurl = "{paths["near"]}"\n{repository}\n[repositories.far]\nurl = "{paths["far"]}"\n'
            f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["near", "far"]\n{job}\n'
        )

    configure("")
    refused = desk.run("run", "n", check_exit=2)
    assert "in a job reencrypt = true" in refused.stdout + refused.stderr
    configure("reencrypt = true")
    closed = desk.run("run", "n", check_exit=2)
    assert "an identity is needed" in closed.stdout + closed.stderr
    assert list(paths["far"].glob("*/*/*/manifest.json")) == []
    mine_file.chmod(0o600)
    configure("reencrypt = true", f'identity_file = "{mine_file}"')
    result = desk.run("run", "n", "--json").json["result"]["jobs"][0]
    assert len(result["copied"]) == 2, "with the backup that it uses: nothing can be found in what is closed"
    theirs_file.chmod(0o600)
    there = desk.volback("cat", volume, "file", "--repo", paths["far"], "--identity", theirs_file)
    assert there.stdout == "text"
    assert desk.run("run", "n", "--json").json["result"]["jobs"][0]["copied"] != []


def test_what_a_further_repository_missed_is_brought_there_later(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main", "second"]\n')
    desk.run("run", "n")
    kept = desk.second.with_name("away")
    desk.second.rename(kept)
    desk.second.write_text("no directory")
    said = desk.run("run", "n", check_exit=9)
    assert said.stdout.startswith("n: FAILED: 1 volume, ")
    assert str(desk.second) in said.stderr
    desk.second.unlink()
    kept.rename(desk.second)
    result = desk.run("run", "n", "--json").json["result"]["jobs"][0]
    assert len(result["copied"]) == 2


def test_a_job_copies_no_safety_copy(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main", "second"]\n')
    desk.run("run", "n")
    safety = desk.run("restore", volume, "--replace", "--json").json["result"]["safety_backup"]
    desk.run("run", "n")
    copied = desk.volback("--repo", desk.second, "list", "--json").json["result"]["backups"]
    assert len(copied) == 2
    assert safety.partition("@")[2] not in {backup["id"] for backup in copied}


def test_a_job_keeps_what_is_older_than_a_suspiciously_small_backup_until_that_is_accepted(
    desk: Desk, volume: str, volume_path: Callable[[str], Path]
) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main"]\nshrink_ratio = 0.9\nkeep = {{ last = 1 }}\n')
    (volume_path(volume) / "file").write_bytes(bytes(1_500_000))
    desk.run("run", "n")
    (volume_path(volume) / "file").write_bytes(bytes(1_200_000))
    result = desk.run("run", "n", "--json", check_exit=3).json["result"]["jobs"][0]
    assert result["removed"] == []
    desk.volback("backup", volume, "--shrink-ratio", "0", "--full")
    summary, *removed = desk.run("run", "n").stdout.splitlines()
    assert summary.endswith("; 3 backups removed")
    assert len(removed) == 3
    assert len(desk.volback("list", "--json").json["result"]["backups"]) == 1
    desk.volback("verify", "--data")  # what the latest uses of another one stays without that
    for line in removed:
        assert line.startswith("n: removed ")
        assert f"/{volume}@" in line
        assert line.endswith(f" in {desk.volback.repository}")


def test_a_job_verifies_what_is_stored_and_fails_where_that_is_damaged(
    desk: Desk, volume: str, volume_path: Callable[[str], Path]
) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main", "second"]\nverify_subset = "1/1"\n')
    (volume_path(volume) / "file").write_bytes(os.urandom(5000))
    desk.run("run", "n")
    data = next(desk.second.rglob("data.tar.zst"))
    stored = bytearray(data.read_bytes())
    stored[len(stored) // 2] ^= 1
    data.write_bytes(stored)
    said = desk.run("run", "n", check_exit=7)
    assert said.stdout.startswith("n: FAILED: 1 volume, ")
    assert f"{data.parent.name}/data.tar.zst is damaged; lost: ., file" in said.stderr


def test_a_volume_that_fails_does_not_stop_the_next_nor_a_job_the_next(desk: Desk, volume: str) -> None:
    desk.write(
        f"""
[jobs.first]
volumes = ["no-such-volume", "{volume}"]
repository = "main"
[jobs.wrong]
repository = "main"
levle = 3
[jobs.last]
volumes = "{volume}"
repository = "main"
"""
    )
    said = desk.run("run", "--all", check_exit=2)
    assert [line.partition(", ")[0] for line in said.stdout.splitlines()] == [
        "first: FAILED: 1 of 2 volumes",
        "last: 1 volume",
        "wrong: FAILED: no volume backed up in 0.0 s",
    ]
    assert "error: volume 'no-such-volume' does not exist\n" in said.stderr
    assert f"error: configuration: {desk.file}:14: jobs.wrong.levle: is unknown; did you mean level?\n" in said.stderr
    assert [desk.last_status(job) for job in ("first", "wrong", "last")] == ["failure", "failure", "success"]
    assert [run.status for job in ("first", "wrong", "last") for run in desk.history(job)] == [
        "failure", "failure", "success"
    ]  # fmt: skip
    assert desk.history("first")[0].error == "volume 'no-such-volume' does not exist"


def test_a_volume_that_another_run_is_at(desk: Desk, volume: str) -> None:
    job = f'volumes = "{volume}"\nrepository = "main"\n'
    desk.write(f"[jobs.n]\n{job}[jobs.z]\n{job}")
    desk.run("run", "n")
    engine_id = json.loads(next(desk.volback.repository.rglob("manifest.json")).read_bytes())["engine_id"]
    with lock(desk.volback.state, f"{engine_id}-{volume}", "x"):
        said = desk.run("run", "n", check_exit=6)
        assert f"error: volume '{volume}' is locked by process" in said.stderr
        assert desk.last_status("n") == "failure"
        desk.run("run", "n", "--wait", "1s", check_exit=6)
        desk.volback("backup", volume, "--wait", "1s", check_exit=6)
        with desk.volback.start("--config", desk.file, "run", "--all", "--wait", "5m") as waiting:
            wait_for(lambda: len(desk.history("n")) == 4, "its begin", limit_s=90)
            waiting.send_signal(signal.SIGTERM)
            out, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 143
        assert out.startswith(b"n: FAILED: ")
        assert out.endswith(b"\nz: skipped: not begun: interrupted by signal 15\n")
        assert (desk.history("z")[0].status, desk.last_status("z")) == ("skipped", "failure")
        assert desk.last_status("n") == "failure"
        waiting = desk.volback.start("--config", desk.file, "run", "n", "--wait", "5m")
        wait_for(lambda: len(desk.history("n")) == 5, "its begin", limit_s=90)
    with waiting:
        out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, out
    assert [run.exit_code for run in desk.history("n")] == [0, 6, 6, 143, 0]


def test_a_job_that_runs_already_is_skipped(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = "main"\n')
    with lock(desk.volback.state, "job-n", "x"):
        said = desk.run("run", "n", check_exit=6)
    assert said.stdout.startswith("n: skipped: job 'n' is locked by process ")
    assert [run.status for run in desk.history("n")] == ["skipped"]
    assert desk.last_status("n") == "failure"


def test_what_ends_a_job_before_it_begins_is_reported(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = "main"\n')
    desk.run("--host", "unix:///nobody.sock", "run", "n", check_exit=8)
    assert desk.last_status("n") == "failure"
    shutil.rmtree(desk.volback.repository)
    desk.volback.repository.write_text("no directory")
    desk.run("run", "n", check_exit=9)
    assert desk.last_status("n") == "failure"
    desk.run("run", "typo", check_exit=4)
    assert desk.last_status("typo") == "failure"
    (desk.file.parent / "broken.toml").write_text("[jobs.other\n")
    both = {"VOLBACK_CONFIG": f"{desk.file}:{desk.file.parent / 'broken.toml'}"}
    said = desk.volback("run", "other", env=both, check_exit=2)
    assert "broken.toml:1: is not TOML" in said.stderr
    assert desk.last_status("other") == "failure"
    assert [run.exit_code for run in desk.history("n")] == [8, 9]


def test_a_run_that_was_killed_is_reported_by_the_next(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = "main"\n')
    desk.run("run", "n")
    path = desk.volback.state / "jobs" / "n.json"
    noted: Any = json.loads(path.read_bytes())
    noted["runs"][0] |= {"status": "running", "ended_at": None}
    path.write_text(json.dumps(noted))
    with lock(desk.volback.state, "job-n", "x"):
        assert "running" in desk.run("jobs").stdout
    said = desk.run("run", "n", check_exit=3)
    assert "never ended: it was killed, or the machine went down" in said.stderr
    assert [run.status for run in desk.history("n")] == ["died", "warning"]


def test_volumes_join_a_job_by_labels(
    desk: Desk, volume_factory: Callable[..., str], container_factory: Callable[..., Any], engine: Any
) -> None:
    job = f"j{engine.id}"
    labelled = volume_factory("labelled", labels={"volback.job": job})
    disabled = volume_factory("disabled", labels={"volback.job": job, "volback.enable": "false"})
    mounted, other = volume_factory("mounted"), volume_factory("other", labels={"shop": job})
    container_factory(volumes={mounted: "/data"}, labels=engine.labels | {"volback.job": job}).stop()
    desk.write(f'[jobs.{job}]\nrepository = "main"\nlabel = "shop={job}"\nexclude = "*.log"\n')
    planned = desk.run("run", job, "--dry-run", "--json").json["result"]["jobs"][0]["planned"]
    assert sorted(plan["volume"] for plan in planned) == sorted([labelled, mounted, other])
    assert disabled not in str(planned)
    assert desk.history(job) == [], "a dry run is not a run"


def test_log_lines_of_json(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = ["{volume}", "no-such-volume"]\nrepository = "main"\n')
    said = desk.run("run", "n", "--log-format", "json", check_exit=4)
    assert said.stdout == ""
    lines = [json.loads(line) for line in said.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    summary = next(line for line in lines if line["message"].startswith("n: FAILED: 1 of 2 volumes"))
    assert (summary["job"], summary["exit_code"], summary["volumes"], summary["backups"]) == ("n", 4, 2, 1)
    assert lines[-1]["level"] == "ERROR"
    assert lines[-1]["exit_code"] == 4


def test_credentials_count_for_their_repository_alone(desk: Desk, volume: str, radosgw: S3Server) -> None:
    secret_file = desk.file.with_name("secret")
    secret_file.write_text(f"{radosgw.secret_key}\n")
    common = f'environment = {{ VOLBACK_S3_ENDPOINT = "{radosgw.endpoint}", VOLBACK_S3_ADDRESSING = "path" }}'
    with radosgw.bucket() as bucket:
        desk.write(
            f"""
[repositories.far]
url = "s3://{bucket}/far"
access_key_id = "{radosgw.access_key}"
secret_access_key_file = "{secret_file}"
{common}
[repositories.wrong]
url = "s3://{bucket}/wrong?give-up=1"
access_key_id = "{radosgw.access_key}"
secret_access_key_command = "printf wrong"
{common}
[jobs.n]
volumes = "{volume}"
repository = ["main", "wrong", "far"]
create = true
limits = {{ bandwidth = "500MiB", cpus = 1, memory = "512MiB", io_class = "idle" }}
"""
        )
        said = desk.run("run", "n", "--log-format", "json", check_exit=1)
        assert "the signature does not match" in said.stderr
        listed = desk.run("--repo", "far", "list", "--json").json["result"]["backups"]
        assert [backup["volume"] for backup in listed] == [volume]
        assert {
            entry["Key"].partition("/")[0] for entry in radosgw.client().list_objects_v2(Bucket=bucket)["Contents"]
        } == {"far"}
        shown = desk.run("config", "show").stdout
    state = "".join(path.read_text(errors="replace") for path in desk.volback.state.rglob("*") if path.is_file())
    assert radosgw.secret_key not in said.stderr + shown + state


def test_the_json_contract(desk: Desk, volume: str) -> None:
    desk.write(f'[jobs.n]\nvolumes = "{volume}"\nrepository = ["main", "second"]\nschedule = "@daily"\n')
    result = result_of(desk.run("run", "n", "--json"), "run")
    ended = {"started_at": "str", "ended_at": "str"}
    assert shape(result) == {
        "jobs": [
            {
                "job": "str", "status": "str", "exit_code": "int", **ended, "duration_s": "float", "set": "str",
                "backups": [MADE], "planned": [], "to_remove": [], "to_free_bytes": "int", "failed": [],
                "copied": ["str"], "removed": [], "errors": [],
                "warnings": [], "notices": [],
            }
        ]
    }  # fmt: skip
    noted = {"id": "str", **ended, "status": "str", "exit_code": "int", "error": "null", "volumes": "int",
             "raw_bytes": "int", "stored_bytes": "int"}  # fmt: skip
    listed = {
        "job": "str",
        "schedule": "str",
        "problem": "null",
        "next_at": "str",
        "missed": [],
        "run_by": "null",
        "runs": [noted],
    }
    assert shape(result_of(desk.run("jobs", "--json"), "jobs")) == {"jobs": [listed]}


def test_jobs_lists_runs_and_those_that_were_missed(desk: Desk) -> None:
    desk.write(
        '[jobs.a]\nrepository = "main"\nschedule = "@hourly"\n[jobs.b]\nlevel = 99\n[jobs.c]\nrepository = "main"\n'
    )
    hours_ago = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    note_run(desk.volback.state, "a", JobRun(id="1", started_at=hours_ago, status="failure", error="it failed"))
    lines = desk.run("jobs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", "a", "b", "c", "a:", "b:", "nothing"]
    assert lines[1].split()[1:5] == ["5", "h", "ago", "failure"]
    assert lines[1].split()[-1] in ("3", "4"), "missed since then, but for the one that may be late"
    assert "cannot run" in lines[2]
    assert "never ran" in lines[3]
    assert lines[4] == "a: it failed"


def test_a_job_keeps_containers_still_and_runs_its_hooks(
    desk: Desk, volume: str, container_factory: Callable[..., Any]
) -> None:
    container = container_factory(volumes={volume: "/data"})
    desk.write(
        f"""
[jobs.n]
containers = "{container.name}"
repository = "main"
quiesce = "pause"
exec_pre = [{{ container = "{container.name}", command = "echo dumping; echo dump >/data/dump" }}]
"""
    )
    said = desk.run("run", "n", "--json", "--verbose")
    [backup] = said.json["result"]["jobs"][0]["backups"]
    assert backup["consistency"] == "paused"
    assert desk.run("cat", volume, "dump").stdout == "dump\n"
    assert "dumping" in said.stderr
    container.reload()
    assert container.status == "running"


def test_a_monitoring_service_hears_of_each_run(desk: Desk, volume: str) -> None:
    job = f'volumes = "{volume}"\nrepository = "main"\nnotify = "ops"\n'
    with listening() as service:
        tell = f'[notifications.ops]\nping = "{service.url}/ping"\nurls = "json://{service.address}/message"\n'
        desk.write(f"{tell}[jobs.n]\n{job}")
        desk.run("run", "n")
        assert [heard.path.partition("?")[0] for heard in service.heard] == ["/ping/start", "/ping"]
        desk.write(f"{tell}[jobs.n]\n{job}levle = 3\n")
        desk.run("run", "n", check_exit=2)
    requests = service.heard[2:]
    assert sorted(heard.path.partition("?")[0] for heard in requests) == ["/message", "/ping/fail"]
    assert all(b"jobs.n.levle: is unknown; did you mean level?" in heard.body for heard in requests)
    desk.write(f"{tell}[jobs.n]\n{job}")
    said = desk.run("run", "n")
    assert "warning: ping 'ops' (start) failed" in said.stderr, "nobody listens any more, and the job has not failed"


def test_a_password_among_a_volumes_options_reaches_nobody(desk: Desk, volume_factory: Callable[..., str]) -> None:
    """Engines repeat the options of a mount that fails: on the terminal, in JSON, history, messages and pings."""
    secret = "hun ter;2"
    options = {"type": "nfs", "device": ":/x", "o": f"addr=127.0.0.1,username=me,password={secret}"}
    volume = volume_factory("nas", driver_opts=options)
    with listening() as server:
        desk.write(
            f'[jobs.nightly]\nvolumes = "{volume}"\nrepository = "main"\nnotify = "ops"\n'
            f'[notifications.ops]\nurls = "json://{server.address}/hook"\nping = "http://{server.address}/ping"\n'
        )
        said = desk.run("run", "nightly", "--debug", check_exit=1)
        said_json = desk.run("run", "nightly", "--json", check_exit=1)
    sent = b"".join(heard.body for heard in server.heard).decode()
    kept = "".join(path.read_text() for path in desk.volback.state.rglob("*.json"))
    for shown in (said.stderr, said_json.stdout, sent, kept):
        assert "username=me,password=***" in shown
        assert secret not in shown
        assert "ter;2" not in shown


@pytest.mark.parametrize("where", ["log read by nobody", "streams closed", "full disk"])
def test_a_job_is_done_and_reported_whoever_reads(desk: Desk, volume: str, where: str) -> None:
    desk.write(f'[jobs.nightly]\nvolumes = "{volume}"\nrepository = ["main", "second"]\n')
    run = shlex.join(map(str, desk.volback.command("--config", desk.file, "run", "nightly")))
    line, code = {
        "log read by nobody": (f"set -o pipefail; {run} --log-format json 2>&1 >/dev/null | true", 0),
        "streams closed": (f"{run} --verbose >&- 2>&-", 0),
        "full disk": (f"{run} --verbose >/dev/full 2>/dev/full", 3),
    }[where]
    done = subprocess.run(["bash", "-c", line], env=desk.volback.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    assert desk.last_status("nightly") == "success"
    assert [run.status for run in desk.history("nightly")] == ["success"]
    assert volume in desk.volback("--repo", desk.second, "list", "--all-hosts").stdout


def test_a_job_makes_no_repository_where_a_disk_is_not_mounted(desk: Desk, volume: str) -> None:
    disk, unmounted = desk.volback.directory / "disk", desk.volback.directory / "unmounted"
    text = f'[repositories.disk]\nurl = "{disk}"\n[jobs.n]\nvolumes = "{volume}"\nrepository = "disk"\n'
    desk.write(text)
    said = desk.run("run", "n", check_exit=9)
    assert said.stderr.endswith("to make one: volback init --repo disk\n")
    assert not disk.exists()
    desk.write(f"{text}create = true\n")
    desk.run("run", "n")
    before = Catalog(LocalStore(disk)).info().id
    disk.rename(unmounted)
    disk.mkdir()
    for _ in range(2):
        said = desk.run("run", "n", check_exit=9)
        assert f"no repository in {disk}: it is empty or does not exist; its id was {before}" in said.stderr
    assert list(disk.iterdir()) == []
    assert desk.last_status("n") == "failure"
    disk.rmdir()
    unmounted.rename(disk)
    desk.run("run", "n")
