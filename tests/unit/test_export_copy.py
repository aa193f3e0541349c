"""`export` goes by the ending of the file, and `copy` takes all, a project or a tag; no engine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import IDS, make_backup, new_repository, use_here
from volback.archive.gzipped import gzipped
from volback.cli.main import run
from volback.errors import UsageError
from volback.operations.export import form_of
from volback.policy.projects import PROJECT
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("db.tar", "tar"), ("db", "tar"), ("db.backup", "tar"), ("DB.TAR.ZST", "zstd"), ("db.tzst", "zstd"),
        ("db.tar.gz", "gzip"), ("db.tgz", "gzip"), ("a.gz/db.tar", "tar"),
    ],
)  # fmt: skip
def test_the_ending_says_what_is_written(name: str, form: str) -> None:
    assert form_of(Path(name)) == form


@pytest.mark.parametrize("name", ["db.tar.xz", "db.tar.bz2", "db.zip", "db.gz", "db.7z", "db.tar.age"])
def test_what_is_not_written_is_refused(name: str) -> None:
    for zstd in (False, True):
        with pytest.raises(UsageError, match=r"\.tar, \.tar\.zst or \.tar\.gz"):
            form_of(Path(name), zstd=zstd)


@pytest.mark.parametrize("name", ["db.tar", "db.tar.gz", "db.tgz"])
def test_zstd_is_not_written_under_another_ending(name: str) -> None:
    assert form_of(Path("db.tar.zst"), zstd=True) == form_of(Path("db"), zstd=True) == "zstd"
    with pytest.raises(UsageError, match="would not be what its ending says"):
        form_of(Path(name), zstd=True)


def test_gzip_gives_the_stream_back_and_the_same_bytes_each_time() -> None:
    parts: list[bytes | memoryview] = [b"tar" * 1000, memoryview(b"more"), b""]
    packed = b"".join(gzipped(parts))
    assert gzip.decompress(packed) == b"".join(parts)
    assert b"".join(gzipped(parts)) == packed


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Copies into another repository; returns the ids of what was copied, or with another code what was said."""
    use_here(monkeypatch, tmp_path, "repository")
    store = LocalStore(tmp_path / "repository")
    for id_ in IDS[:2]:
        make_backup(store, id_, data_bytes=100)
    make_backup(store, IDS[2], volume="web", labels={PROJECT: "shop"}, data_bytes=100)
    make_backup(store, IDS[3], volume="mail", host="web2", data_bytes=100)
    new_repository(tmp_path / "other")

    def copy(*arguments: str, code: int = 0) -> Any:
        command = ["copy", *arguments, "--to", str(tmp_path / "other"), *(["--json"] if code == 0 else [])]
        assert run(command) == code, capsys.readouterr()
        said = capsys.readouterr()
        if code:
            return said.err
        return [name.rpartition("@")[2] for name in json.loads(said.out)["result"]["copied"]]

    return copy


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--all"], IDS[:3]),
        (["--all", "--all-hosts"], IDS[:4]),
        (["-a", "--latest"], IDS[1:3]),
        (["--project", "shop"], IDS[2:3]),
        (["db*@latest"], IDS[1:2]),
    ],
)
def test_what_is_copied(copied: Callable[..., Any], arguments: list[str], ids: list[str]) -> None:
    assert sorted(copied(*arguments)) == ids
    assert copied(*arguments) == [], "they are there already"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no backup is named"),
        (["db", "--all"], 2, "do not name any"),
        (["db", "--latest"], 2, "are for --all"),
        (["--tag", "none"], 4, "no such backup"),
    ],
)
def test_what_is_not_copied(copied: Callable[..., Any], arguments: list[str], code: int, said: str) -> None:
    assert said in copied(*arguments, code=code)
