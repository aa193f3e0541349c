"""Between engines of two kinds: the one that the tests run on, and one of this machine's own version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.engine import Volback, engine_socket
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import SecondEngine, second_engine
from tests.support.tree import make_odd_tree


@pytest.fixture(scope="module")
def running() -> Iterator[SecondEngine]:
    """An engine of this machine's own version."""
    with second_engine(is_machines=True) as engine:
        yield engine


@pytest.fixture
def other(running: SecondEngine) -> Iterator[SecondEngine]:
    """It, without volumes; after the test it has no helpers."""
    yield running
    with closing(running.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []
        for left in client.volumes.list():
            left.remove()


def _odd(path: Path) -> None:
    make_odd_tree(path, deep=False)


def test_a_volume_moves_there_and_back(
    other: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume, back = volume_factory("odd", fill=_odd), volume_name("back")
    before = fingerprint(volume_path(volume))

    there = run_volback("migrate", volume, "--to", other.url, "--json").json
    assert (there["result"]["proven"], there["warnings"]) == (True, [])
    assert differences(before, fingerprint(other.volume_path(volume))) == []

    options = ("--as", back, "--to", f"unix://{engine_socket()}", "--json")
    again = run_volback("--host", other.url, "migrate", volume, *options).json
    assert (again["result"]["proven"], again["warnings"]) == (True, [])
    assert differences(before, fingerprint(volume_path(back))) == []


def test_what_one_has_backed_up_the_other_restores_and_goes_on_from(
    other: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    volume, back = volume_factory("odd", fill=_odd), volume_name("back")
    before = fingerprint(volume_path(volume))
    first = run_volback("backup", volume, "--json").json["result"]["backups"][0]["id"]

    there = run_volback("--host", other.url, "restore", first, "--as", volume, "--prove", "--json").json
    assert there["result"]["proven"] is True
    assert differences(before, fingerprint(other.volume_path(volume))) == []

    (other.volume_path(volume) / "new").write_text("written there")
    after = fingerprint(other.volume_path(volume))
    second = run_volback("--host", other.url, "backup", volume, "--json").json["result"]["backups"][0]["id"]
    again = run_volback("restore", second, "--as", back, "--prove", "--json").json
    assert again["result"]["proven"] is True
    assert differences(after, fingerprint(volume_path(back))) == []
