"""The newest backup of each volume that a machine has seen in an encrypted repository."""

from __future__ import annotations

from pathlib import Path

from volback.state.newest import newest_seen, note_newest

DB = ("repository-id", "web1", "db")
OLD, NEW = "20261101T000000Z-aaaa", "20261102T000000Z-bbbb"


def test_the_newest_one_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    assert newest_seen(tmp_path, *DB) is None
    note_newest(tmp_path, *DB, OLD)
    note_newest(tmp_path, *DB, NEW)
    assert newest_seen(tmp_path, *DB) == NEW
    for _ in range(2):  # the second time nothing is there
        note_newest(tmp_path, *DB, None)
        assert newest_seen(tmp_path, *DB) is None


def test_another_repository_host_or_volume_has_one_of_its_own(tmp_path: Path) -> None:
    note_newest(tmp_path, *DB, NEW)
    for other in (("another", "web1", "db"), ("repository-id", "web2", "db"), ("repository-id", "web1", "db\udcff")):
        assert newest_seen(tmp_path, *other) is None
        note_newest(tmp_path, *other, OLD)
        assert newest_seen(tmp_path, *other) == OLD
    assert newest_seen(tmp_path, *DB) == NEW


def test_where_the_state_cannot_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file is in the place of the directory")
    note_newest(state, *DB, NEW)
    assert newest_seen(state, *DB) is None


def test_a_file_that_was_emptied_is_as_none(tmp_path: Path) -> None:
    note_newest(tmp_path, *DB, NEW)
    [path] = (tmp_path / "newest").iterdir()
    path.write_bytes(b"")
    assert newest_seen(tmp_path, *DB) is None
