"""What a machine remembers of its volumes: the labels that they had, and the projects that they were of."""

from __future__ import annotations

from pathlib import Path

from volback.state.seen_volumes import note_volume, seen_volume

LABELS = {"volback.keep-last": "2", "com.docker.compose.project": "shop"}


def test_the_labels_of_the_last_backup_are_known(tmp_path: Path) -> None:
    note_volume(tmp_path, "web1", "db", labels={"volback.job": "nightly"}, project=None)
    note_volume(tmp_path, "web1", "db", labels=LABELS, project=None)
    is_known = seen_volume(tmp_path, "web1", "db").had_label
    assert all(is_known(key, value) for key, value in LABELS.items())
    assert not is_known("volback.keep-last", "1")
    assert not is_known("volback.job", "nightly")


def test_another_volume_and_another_host_have_labels_of_their_own(tmp_path: Path) -> None:
    note_volume(tmp_path, "web1", "db", labels=LABELS, project=None)
    for host, volume in (("web1", "db2"), ("web2", "db")):
        assert not any(seen_volume(tmp_path, host, volume).had_label(key, value) for key, value in LABELS.items())


def test_labels_that_are_gone_are_not_known_any_more(tmp_path: Path) -> None:
    note_volume(tmp_path, "web1", "db", labels=LABELS, project=None)
    note_volume(tmp_path, "web1", "db", labels={}, project=None)
    assert not seen_volume(tmp_path, "web1", "db").had_label("volback.keep-last", "2")


def test_values_are_not_written_down(tmp_path: Path) -> None:
    note_volume(tmp_path, "web1", "db", labels={"volback.exec-pre": "PGPASSWORD=geheim pg_dump"}, project=None)
    (written,) = (tmp_path / "volumes").iterdir()
    assert b"geheim" not in written.read_bytes()
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_knows_nothing(tmp_path: Path) -> None:
    note_volume(tmp_path, "web1", "db", labels=LABELS, project=None)
    next((tmp_path / "volumes").iterdir()).write_bytes(b"[")
    assert not seen_volume(tmp_path, "web1", "db").had_label("volback.keep-last", "2")
    note_volume(tmp_path, "web1", "db", labels=LABELS, project=None)
    assert seen_volume(tmp_path, "web1", "db").had_label("volback.keep-last", "2")


def test_the_projects_of_a_volume_are_known_from_then_on(tmp_path: Path) -> None:
    for project in ("shop", "blog", None):
        note_volume(tmp_path, "web1", "db", labels=LABELS, project=project)
    seen = seen_volume(tmp_path, "web1", "db")
    assert [seen.was_of_project(project) for project in ("shop", "blog", "other")] == [True, True, False]
    for number in range(30):
        note_volume(tmp_path, "web1", "db", labels=LABELS, project=f"p{number}")
    assert not seen_volume(tmp_path, "web1", "db").was_of_project("shop")
