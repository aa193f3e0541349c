"""Between engines of two kinds: the one that the tests run on, and one of this machine's own version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Volback, engine_socket
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import SecondEngine, second_engine
from tests.support.tree import make_odd_tree


@pytest.fixture(scope="module")
def running() -> Iterator[SecondEngine]:
    """An engine of this machine's own version, for the fixture `second`."""
    with second_engine(is_machines=True) as engine:
        yield engine


def _odd(path: Path) -> None:
    make_odd_tree(path, deep=False)


def test_a_volume_moves_there_and_back(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume, back = volume_factory("odd", fill=_odd), volume_name("back")
    before = fingerprint(volume_path(volume))

    there = run_volback("migrate", volume, "--to", second.url, "--json").json
    assert (there["result"]["proven"], there["warnings"]) == (True, [])
    assert differences(before, fingerprint(second.volume_path(volume))) == []

    options = ("--as", back, "--to", f"unix://{engine_socket()}", "--json")
    again = run_volback("--host", second.url, "migrate", volume, *options).json
    assert (again["result"]["proven"], again["warnings"]) == (True, [])
    assert differences(before, fingerprint(volume_path(back))) == []


def test_what_one_has_backed_up_the_other_restores_and_goes_on_from(
    second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume, back = volume_factory("odd", fill=_odd), volume_name("back")
    before = fingerprint(volume_path(volume))
    first = run_volback("backup", volume, "--json").json["result"]["backups"][0]["id"]

    there = run_volback("--host", second.url, "restore", first, "--as", volume, "--prove", "--json").json
    assert there["result"]["proven"] is True
    assert differences(before, fingerprint(second.volume_path(volume))) == []

    (second.volume_path(volume) / "new").write_text("written there")
    after = fingerprint(second.volume_path(volume))
    latest = run_volback("--host", second.url, "backup", volume, "--json").json["result"]["backups"][0]["id"]
    again = run_volback("restore", latest, "--as", back, "--prove", "--json").json
    assert again["result"]["proven"] is True
    assert differences(after, fingerprint(volume_path(back))) == []
