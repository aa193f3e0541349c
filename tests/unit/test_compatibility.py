"""What docs/explanation/compatibility.md promises of versions that do not know what a later one has added."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.forged import reseal_file
from tests.support.repository import use_here
from tests.unit.test_golden import FORMAT_1, FULL
from volback.cli.main import run

pytestmark = pytest.mark.unit

MANIFEST = f"golden-host/golden/{FULL}/manifest.json"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_here(monkeypatch, tmp_path, "repository")
    monkeypatch.setenv("VOLBACK_HOSTNAME", "golden-host")
    return Path(shutil.copytree(FORMAT_1, tmp_path / "repository"))


def called(*arguments: str) -> int:
    return run(list(arguments))


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("document", ["volback.json", MANIFEST])
def test_a_field_of_a_later_version_is_ignored(place: Path, document: str) -> None:
    reseal_file(place / document, lambda fields: fields.update(later={"of": ["any", 1, None]}))
    assert called("verify", "--data") == 0
    assert called("list", "--all-hosts") == 0


@pytest.mark.parametrize("name", ["keys/later.bin", "later/x.json", f"golden-host/golden/{FULL}/later.json"])
def test_an_object_of_a_later_version_is_ignored_and_stays(place: Path, name: str) -> None:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"later")
    assert called("verify") == 0
    assert called("prune", "golden", "--keep-last", "9") == 0
    assert path.read_bytes() == b"later"


@pytest.mark.parametrize(
    ("document", "change", "said"),
    [
        ("volback.json", lambda fields: fields.update(requires=["quantum"]), "one must know 'quantum'"),
        ("volback.json", lambda fields: fields.update(format=2), "is of format 2; this volback reads formats 1 to 1"),
        (MANIFEST, lambda fields: fields.update(format=2), "is of format 2; this volback reads formats 1 to 1"),
    ],
)
def test_what_a_reader_must_know_is_refused_by_name_and_nothing_is_written(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    document: str,
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    reseal_file(place / document, change)
    before = contents(place)
    assert called("show", f"golden-host/golden@{FULL}") == 7 or document == "volback.json"
    assert called("verify") == 7
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert contents(place) == before
