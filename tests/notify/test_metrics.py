"""The Prometheus textfile, read by Prometheus' own parser."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import volback
from tests.support.report import ENDED, failed, report, volume
from volback.notify import metrics
from volback.notify.metrics import HELP, write_metrics
from volback.notify.report import RepositoryReport

LATER = ENDED + timedelta(days=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "volback.prom"


def read(file: Path) -> dict[tuple[str, ...], float]:
    """Value by the metric's name and the labels' values: job, host and, where there is one, volume."""
    values: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(file.read_bytes().decode()):
        assert family.type == "gauge"
        assert family.documentation == HELP[family.name]
        for sample in family.samples:
            if sample.name == "volback_build_info":
                assert sample.labels == {"host": sample.labels["host"], "version": volback.__version__}
                continue
            names = ["repository", "host"] if "repository" in sample.labels else ["volback_job", "host", "volume"]
            key = (sample.name, *(sample.labels[name] for name in names[: len(sample.labels)]))
            assert key not in values
            values[key] = sample.value
    return values


def test_a_run_is_labelled_by_job_host_and_volume(file: Path) -> None:
    assert write_metrics(file, report(volumes=(volume(backups=7), volume("web")))) is None
    values = read(file)
    ended = ENDED.timestamp()
    assert {key[0].removeprefix("volback_"): value for key, value in values.items() if key[3:] == ("db",)} == {
        "last_run_timestamp_seconds": ended,
        "last_success_timestamp_seconds": ended,
        "last_run_success": 1,
        "duration_seconds": 4.25,
        "downtime_seconds": 1.5,
        "raw_bytes": 7_654_604,
        "stored_bytes": 5_033_165,
        "files": 1222,
        "backups": 7,
    }
    assert {key[0]: value for key, value in values.items() if key[1:] == ("nightly", "web1")} == {
        "volback_job_last_run_timestamp_seconds": ended,
        "volback_job_last_success_timestamp_seconds": ended,
        "volback_job_last_run_status": 0,
        "volback_job_last_run_duration_seconds": 80,
    }
    assert values["volback_files", "nightly", "web1", "web"] == 1222


def test_what_else_is_known_is_written(file: Path) -> None:
    first = report(
        volumes=(volume(verified_at=ENDED, proven_at=LATER),), next_at=LATER, missed_runs=2,
        repositories=(RepositoryReport("main", 10**12, 5), RepositoryReport("s3", 7, None)),
    )  # fmt: skip
    write_metrics(file, first)
    values = read(file)
    assert values["volback_job_next_run_timestamp_seconds", "nightly", "web1"] == LATER.timestamp()
    assert values["volback_job_missed_runs", "nightly", "web1"] == 2
    assert values["volback_last_verify_timestamp_seconds", "nightly", "web1", "db"] == ENDED.timestamp()
    assert values["volback_last_proof_timestamp_seconds", "nightly", "web1", "db"] == LATER.timestamp()
    assert {key[1:]: value for key, value in values.items() if "repository" in key[0]} == {
        ("main", "web1"): 5, ("s3", "web1"): 7,
    }  # fmt: skip
    assert values["volback_repository_size_bytes", "main", "web1"] == 10**12
    write_metrics(file, report())
    assert [key for key in read(file) if key[0].startswith(("volback_job_next", "volback_job_missed"))] == []


def test_a_file_of_a_version_before_is_read_and_has_one_build_info(file: Path) -> None:
    """Its label was `job`, which is that of the scrape."""
    file.write_text(
        'volback_build_info{host="web1",version="0.0.1"} 1.0\n'
        'volback_job_last_success_timestamp_seconds{job="nightly",host="web1"} 1790000000.5\n'
        'volback_files{job="hourly",host="web1",volume="a\\"b"} 7\n'
    )
    write_metrics(file, failed())
    values = read(file)
    assert values["volback_job_last_success_timestamp_seconds", "nightly", "web1"] == 1790000000.5
    assert values["volback_files", "hourly", "web1", 'a"b'] == 7
    assert file.read_text().count("volback_build_info{") == 1
    assert '{job="' not in file.read_text()


def test_a_failed_run_keeps_the_last_success(file: Path) -> None:
    write_metrics(file, report())
    write_metrics(file, failed(ended_at=LATER))
    values = read(file)
    of = ("nightly", "web1", "db")
    assert values["volback_last_run_timestamp_seconds", *of] == LATER.timestamp()
    assert values["volback_last_success_timestamp_seconds", *of] == ENDED.timestamp()
    assert values["volback_last_run_success", *of] == 0
    assert values["volback_raw_bytes", *of] == 7_654_604
    assert values["volback_job_last_run_status", *of[:2]] == 2
    assert values["volback_job_last_success_timestamp_seconds", *of[:2]] == ENDED.timestamp()


def test_a_run_that_failed_before_it_knew_its_volumes_keeps_theirs(file: Path) -> None:
    write_metrics(file, report())
    before = read(file)
    write_metrics(file, failed(volumes=(), errors=("volume 'db' is locked by process 7",), ended_at=LATER))
    after = read(file)
    assert {key: after[key] for key in before if key[3:]} == {key: before[key] for key in before if key[3:]}
    assert after["volback_job_last_run_timestamp_seconds", "nightly", "web1"] == LATER.timestamp()


def test_warnings_are_a_success_with_a_status_of_its_own(file: Path) -> None:
    write_metrics(file, report("warning"))
    values = read(file)
    assert values["volback_job_last_run_status", "nightly", "web1"] == 1
    assert values["volback_job_last_success_timestamp_seconds", "nightly", "web1"] == ENDED.timestamp()


def test_other_jobs_and_hosts_stay(file: Path) -> None:
    write_metrics(file, report())
    write_metrics(file, replace(report(volumes=(volume("web"),)), job="hourly"))
    write_metrics(file, replace(report(volumes=(volume("web"),)), host="web2"))
    reported = {key[1:] for key in read(file) if key[0] == "volback_last_success_timestamp_seconds"}
    assert reported == {("nightly", "web1", "db"), ("hourly", "web1", "web"), ("nightly", "web2", "web")}


def test_a_volume_that_the_job_no_longer_has_goes(file: Path) -> None:
    write_metrics(file, report(volumes=(volume("db"), volume("old"))))
    write_metrics(file, failed(volumes=()))
    assert "old" in {key[-1] for key in read(file)}
    write_metrics(file, report())
    assert {key[3] for key in read(file) if key[3:]} == {"db"}


NAMES = ['a"b', "a\\b", "a\\nb", "a\nb", "a{b}", 'a",volume="c', "a b", "ä€😀", "\\", '"', "\r"]


@pytest.mark.parametrize("name", NAMES)
def test_names_come_back_as_they_are(file: Path, name: str) -> None:
    for _ in range(2):  # the second time its own file has been read back
        assert write_metrics(file, replace(report(volumes=(volume(name),)), job=name)) is None
    assert {key[1:] for key in read(file)} == {(name, "web1"), (name, "web1", name)}


def test_a_name_that_is_not_utf8_is_one_series(file: Path) -> None:
    for ended in (ENDED, LATER):
        assert write_metrics(file, report(volumes=(volume("caf\udce9"),), ended_at=ended)) is None
    assert read(file)["volback_last_success_timestamp_seconds", "nightly", "web1", "caf?"] == LATER.timestamp()


def test_everybody_may_read_it_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o077)
    try:
        write_metrics(file, report())
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_it_is_put_in_place_by_rename(file: Path) -> None:
    write_metrics(file, report())
    with file.open() as opened:
        write_metrics(file, failed())
        assert opened.fileno() != -1
        assert os.fstat(opened.fileno()).st_ino != file.stat().st_ino
        assert "last_run_status" in opened.read()
    assert os.listdir(file.parent) == [file.name]


def test_what_a_killed_run_left_is_not_read_as_metrics_and_is_removed(file: Path) -> None:
    draft = file.with_name(f".{file.name}~")
    draft.write_text("volback_job_last")
    assert draft.suffix != ".prom"
    write_metrics(file, report())
    assert os.listdir(file.parent) == [file.name]


def test_a_damaged_file_is_made_anew(file: Path) -> None:
    file.write_bytes(b'\xff\xfe{"}\nvolback_files{job="x" 5\nvolback_files{job="x"} nonsense\nother{a="b"} 1\n')
    assert write_metrics(file, report()) is None
    assert {key[1] for key in read(file)} == {"nightly"}


def test_jobs_that_end_at_once_are_all_in_it(file: Path) -> None:
    script = """if True:
        import sys
        from dataclasses import replace
        from pathlib import Path
        from tests.support.report import report
        from volback.notify.metrics import write_metrics
        for number in range(10):
            reason = write_metrics(Path(sys.argv[1]), replace(report(), job=f"{sys.argv[2]}-{number}"))
            assert reason is None, reason
    """
    writers = [subprocess.Popen([sys.executable, "-c", script, file, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert {key[1] for key in read(file)} == {f"{name}-{number}" for name in "abc" for number in range(10)}


def test_a_file_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    assert write_metrics(tmp_path / "no/such/volback.prom", report()) == "No such file or directory"
    (tmp_path / "directory.prom").mkdir()
    assert write_metrics(tmp_path / "directory.prom", report()) == "Is a directory"
    assert os.listdir(tmp_path) == ["directory.prom"]


def test_one_who_holds_it_is_not_waited_for_without_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WAIT_S", 0.1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with metrics._alone(file.parent):
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    try:
        started = time.monotonic()
        assert write_metrics(file, report()) == "another run holds it for more than 0.1 s"
        assert time.monotonic() - started < 30
    finally:
        done.set()
        holder.join()
