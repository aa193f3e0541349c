"""What helpers run for a single file, by this machine's own programs: one name is found, written and renamed."""

from __future__ import annotations

import os
import posixpath
import subprocess
from pathlib import Path

import pytest

from volback.archive import tar
from volback.archive.plan import make_plan
from volback.operations.single_files import (
    WORD,
    file_backup_source,
    is_file_backup,
    part_arguments,
    part_of,
    read_source,
    rename_script,
    single_file,
)

ODD = ["plain.conf", "[a]*?\\b.conf", "-rf", "a 'b' \"c\"", "two\nlines", "$(id)", "ü" * 100]


def _found(directory: Path, name: str) -> list[bytes]:
    said = subprocess.run(tar.find_file(name), cwd=directory, stdout=subprocess.PIPE, check=True).stdout
    plan = make_plan([said + tar.SCAN_END.encode()])
    return [plan.entry(number).path for number in range(len(plan.records))]


@pytest.mark.parametrize("name", ODD)
def test_one_name_is_found_and_nothing_that_looks_like_it(tmp_path: Path, name: str) -> None:
    for other in [*ODD, "b.conf", "aXb.conf"]:
        (tmp_path / other).write_text("x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / name).write_text("x")
    assert _found(tmp_path, name) == [b"", os.fsencode(name)]
    (tmp_path / name).unlink()
    assert _found(tmp_path, name) == [b""]


def test_a_part_lies_beside_its_file_under_a_name_that_every_filesystem_takes() -> None:
    parts = {part_of(f"/srv/shop/{name}") for name in [*ODD, "n" * 255]}
    assert {posixpath.dirname(part) for part in parts} == {"/srv/shop"}
    assert len(parts) == len(ODD) + 1
    assert max(map(len, map(posixpath.basename, parts))) < 40


def test_a_file_gives_one_stream_whatever_its_name_is_and_comes_as_its_part(tmp_path: Path) -> None:
    streams = set()
    for name in ODD:
        path = tmp_path / name
        path.write_text("content")
        os.utime(path, ns=(0, 1_600_000_000_123_456_789))
        create = [*tar.CREATE, *tar.AS_FILE, "--files-from=-", "--file=-"]
        given = b"./%b\0" % os.fsencode(name)
        streams.add(subprocess.run(create, cwd=tmp_path, input=given, stdout=subprocess.PIPE, check=True).stdout)
        path.unlink()
    (stream,) = streams
    extract = [*tar.EXTRACT, "--no-same-owner", "--file=-", *part_arguments("/srv/two\nlines")]
    subprocess.run(extract, cwd=tmp_path, input=stream, check=True)
    assert [path.name for path in tmp_path.iterdir()] == [posixpath.basename(part_of("/srv/two\nlines"))]


class Renaming:
    def __init__(self, directory: Path, name: str) -> None:
        self.part = directory / posixpath.basename(part_of(name))
        self.file = directory / name
        self.part.write_text("new")

    def __call__(self, *, replace: bool, word: str = WORD, may_be_done: bool = False) -> tuple[int, str]:
        script = rename_script(str(self.file), replace=replace, may_be_done=may_be_done)
        done = subprocess.run(
            ["sh", "-c", script], cwd=self.file.parent, input=f"{word}\n", capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("name", ODD)
def test_a_part_takes_the_place_of_its_file(tmp_path: Path, name: str) -> None:
    rename = Renaming(tmp_path, name)
    assert rename(replace=False) == (0, "")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "new")]


def test_a_file_that_is_there_is_replaced_only_on_request(tmp_path: Path) -> None:
    rename = Renaming(tmp_path, "site.conf")
    rename.file.write_text("old")
    status, why = rename(replace=False)
    assert (status, rename.file.read_text(), rename.part.exists()) == (1, "old", True), why
    assert rename(replace=True) == (0, "")
    assert (rename.file.read_text(), rename.part.exists()) == ("new", False)


def test_a_link_and_a_directory_are_not_followed_and_not_replaced(tmp_path: Path) -> None:
    rename = Renaming(tmp_path, "site.conf")
    rename.file.symlink_to("other")
    assert rename(replace=True) == (1, "it is a symbolic link there by now")
    rename.file.unlink()
    rename.file.mkdir()
    assert rename(replace=True) == (1, "it is not a file there by now")
    assert (list(rename.file.iterdir()), rename.part.read_text()) == ([], "new")


def test_nothing_is_renamed_without_the_word_or_the_part(tmp_path: Path) -> None:
    rename = Renaming(tmp_path, "site.conf")
    for word in ("", "no", "now now"):
        assert rename(replace=True, word=word) == (1, "")
    assert (rename.file.exists(), rename.part.exists()) == (False, True)
    rename.part.unlink()
    assert rename(replace=True) == (1, "what was written is gone")
    assert rename(replace=True, may_be_done=True) == (0, "")


def test_a_backup_of_one_file_looks_like_one_of_a_directory() -> None:
    source = file_backup_source("/srv/site.conf")
    assert (source.kind, source.name, is_file_backup(source)) == ("directory", "/srv/site.conf", True)
    assert read_source(source) == single_file("/srv/site.conf")
    plain = single_file("/srv/site.conf")
    assert (is_file_backup(plain), read_source(plain)) == (False, plain)
