"""Files that grow, shrink, change or vanish while they are read: a warning that names them, and all else intact.

No race is left to luck. Progress is reported between the steps of a backup, so a change made there comes surely after
the scan and before tar reads; and at the first frame tar cannot be further than the pipe and the frames in flight
(some 20 MiB) into the first file, which is larger.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import Entry, fingerprint
from tests.support.library import Library, open_library
from volback.errors import EngineError
from volback.operations.backup import BackupOptions, BackupResult, backup
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import volume_source
from volback.operations.verify import verify

MIB = 1024 * 1024
BIG_BYTES = 64 * MIB
FIRST = "a-big"
"""Read first: paths are read in the order of their parts."""

Change = Callable[[Path], None]


class Meddler:
    """A progress that changes the volume: `before` once the scan is done, `during` once the first frame is stored."""

    def __init__(self, path: Path, *, before: Change | None = None, during: Change | None = None) -> None:
        self._path = path
        self._before = before
        self._during = during

    def start(self, stage: str, *, total_bytes: int | None, total_files: int | None) -> None:
        """The stage whose totals are known is the reading."""
        if total_files is not None and self._before:
            self._before(self._path)
            self._before = None

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        """Some of it has been read."""
        if raw_bytes and self._during:
            self._during(self._path)
            self._during = None

    @property
    def is_done(self) -> bool:
        return self._before is None and self._during is None


class Live:
    """A volume that is changed while it is backed up, and the copy that its backup gives."""

    def __init__(
        self, library: Library, volume_factory: Callable[..., str], copy: str, volume_path: Callable[[str], Path]
    ) -> None:
        self.library = library
        self._make = volume_factory
        self._copy = copy
        self._path = volume_path
        self._name = ""

    def fill(self, fill: Change) -> dict[bytes, Entry]:
        self._name = self._make("live", fill=fill)
        return self.now()

    def now(self) -> dict[bytes, Entry]:
        return fingerprint(self._path(self._name))

    def back_up(self, *, before: Change | None = None, during: Change | None = None) -> BackupResult:
        meddler = Meddler(self._path(self._name), before=before, during=during)
        library = self.library._replace(ctx=dataclasses.replace(self.library.ctx, progress=meddler))
        result = backup(*library, volume_source(library.engine, self._name), BackupOptions())
        assert meddler.is_done
        return result

    def restored(self, result: BackupResult) -> dict[bytes, Entry]:
        """Restore it, proven, and verify every byte."""
        options = RestoreOptions(name=self._copy, prove=True)
        assert restore(*self.library, result.manifest.name, options).proven
        assert verify(self.library.ctx, self.library.repository, [], data=True).damaged == []
        return fingerprint(self._path(self._copy))


@pytest.fixture
def live(
    engine: EngineSession, tmp_path: Path, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> Live:  # fmt: skip
    return Live(open_library(engine, tmp_path), volume_factory, volume_name("copy"), volume_path)


def _fill(path: Path) -> None:
    dice = random.Random(1)
    with (path / FIRST).open("wb") as file:
        for _ in range(BIG_BYTES // MIB):
            file.write(dice.randbytes(MIB))
    _fill_little(path)


def _fill_little(path: Path) -> None:
    dice = random.Random(2)
    (path / "b").mkdir()
    (path / "d" / "below").mkdir(parents=True)
    for directory in ("b", "d", "d/below"):
        for number in range(12):
            (path / directory / f"file-{number:02}").write_bytes(dice.randbytes(5000))
    (path / "c-unit").write_bytes(dice.randbytes(2 * MIB))
    (path / "b" / "name-1").write_bytes(b"two names")
    (path / "e-name-2").hardlink_to(path / "b" / "name-1")
    (path / "f-link").symlink_to("c-unit")


def _grow(path: Path) -> None:
    with (path / FIRST).open("ab") as file:
        file.write(b"more" * MIB)


def _shrink(path: Path) -> None:
    os.truncate(path / FIRST, BIG_BYTES - 3 * MIB - 100)


def _empty(path: Path) -> None:
    os.truncate(path / FIRST, 0)


def _change(path: Path) -> None:
    with (path / FIRST).open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"changed")


def _unlink(path: Path) -> None:
    (path / FIRST).unlink()


def _replace(path: Path) -> None:
    (path / "new").write_bytes(b"takes the name, as an editor saves")
    (path / "new").rename(path / FIRST)


@pytest.mark.parametrize(
    "change",
    [_grow, _change, _unlink, *(pytest.param(other, marks=pytest.mark.long) for other in (_shrink, _empty, _replace))],
)
def test_a_file_changed_while_it_is_read_is_named_and_nothing_else_suffers(change: Change, live: Live) -> None:
    before = live.fill(_fill)
    result = live.back_up(during=change)

    assert result.incomplete
    assert result.manifest.warnings
    assert all(FIRST in warning or ": file changed as we read it" in warning for warning in result.manifest.warnings)
    assert any(FIRST in warning for warning in result.manifest.warnings)
    after = live.restored(result)
    odd = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert odd <= {FIRST.encode(), b""}, "only the file, and the directory that its names changed in"
    assert after[FIRST.encode()].size == BIG_BYTES, "it is as long as tar had said that it would be"


def _vanish(path: Path) -> None:
    (path / "b" / "file-03").unlink()
    (path / "b" / "name-1").unlink()
    (path / "c-unit").unlink()
    shutil.rmtree(path / "d" / "below")


def test_what_vanishes_after_the_scan_is_named_and_all_else_is_kept(live: Live) -> None:
    live.fill(_fill_little)
    result = live.back_up(before=_vanish)

    assert result.incomplete
    named = "\n".join(result.manifest.warnings)
    gone = ["b/file-03", "b/name-1", "c-unit", "d/below", *(f"d/below/file-{number:02}" for number in range(12))]
    assert [path for path in gone if path not in named] == []
    assert len(result.manifest.warnings) == len(gone)
    assert live.restored(result) == live.now(), "what is left, the other name too"


def _become_other(path: Path) -> None:
    (path / "b" / "file-00").write_bytes(b"grown" * 9000)
    os.truncate(path / "b" / "file-01", 7)
    os.truncate(path / "c-unit", 5 * MIB)
    (path / "b" / "file-02").unlink()
    (path / "b" / "file-02").mkdir()
    (path / "b" / "file-04").unlink()
    (path / "b" / "file-04").symlink_to("file-05")
    (path / "f-link").unlink()
    (path / "f-link").write_bytes(b"no link any more" * 1000)
    shutil.rmtree(path / "d" / "below")
    (path / "d" / "below").write_bytes(b"a file where a directory was")
    (path / "new-since-the-scan").write_bytes(b"not of this backup")


def test_what_becomes_another_thing_after_the_scan_is_kept_as_it_was_read(live: Live) -> None:
    live.fill(_fill_little)
    result = live.back_up(before=_become_other)

    assert result.incomplete, "what was below the directory is lost"
    assert all("d/below" in warning for warning in result.manifest.warnings)
    restored, expected = live.restored(result), live.now()
    assert expected.pop(b"new-since-the-scan")
    assert restored == expected


def _become_link(path: Path, target: str) -> None:
    shutil.rmtree(path / "d" / "below")
    (path / "d" / "below").symlink_to(target)


def test_a_directory_that_becomes_a_link_to_another_fails_the_backup(live: Live) -> None:
    """tar reads what was below it through the link, and a restore would write that into files elsewhere."""
    live.fill(_fill_little)
    with pytest.raises(EngineError, match="'d/below' became a symbolic link"):
        live.back_up(before=lambda path: _become_link(path, "../b"))
    assert live.library.repository.catalog.backups() == []


def test_a_directory_that_becomes_a_link_to_nothing_is_kept_as_that(live: Live) -> None:
    live.fill(_fill_little)
    result = live.back_up(before=lambda path: _become_link(path, "/nowhere"))
    assert result.incomplete
    assert all("d/below/file-" in warning for warning in result.manifest.warnings)
    assert live.restored(result) == live.now()


def test_a_log_that_is_written_all_the_time_gives_exit_3_and_a_backup_that_proves(
    run_volback: Volback,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
    container_factory: Callable[..., object],
) -> None:
    original, copy = volume_factory("live", fill=_fill), volume_name("copy")
    script = f"while :; do echo line >>/data/{FIRST}; sleep 0.005; done"
    container_factory(script, volumes={original: "/data"})
    done = run_volback("backup", original, check_exit=3)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any(FIRST in line and "changed as we read it" in line for line in warnings), done.stderr
    assert "error" not in done.stderr

    run_volback("restore", original, "--as", copy, "--prove")
    found, restored = fingerprint(volume_path(original)), fingerprint(volume_path(copy))
    assert {path for path in found if found[path] != restored.get(path)} == {FIRST.encode()}
