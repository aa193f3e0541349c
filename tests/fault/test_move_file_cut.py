"""A single file whose way is cut, or that finds no room: the former one stays until the new one is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cutting import CuttingRelay
from tests.support.engine import EngineSession, Volback
from tests.support.remote import SecondEngine

PROJECT = "com.docker.compose.project"
SIZE = 4 << 20
"""Of a file that does not compress."""


@dataclass
class Shop:
    here: Path
    there: Path
    command: tuple[str, ...]

    def names_there(self) -> list[str]:
        return sorted(path.name for path in self.there.parent.iterdir())


@pytest.fixture
def shop(
    second: SecondEngine, run_volback: Volback, engine: EngineSession, volume_factory: Callable[..., str],
    create_container: Callable[..., Any], tmp_path: Path,
) -> Shop:  # fmt: skip
    """The second engine has a helper image, so that what passes is the file's."""
    run_volback("--host", second.url, "doctor", check_exit=None)
    here, there = tmp_path / "here" / "data.bin", tmp_path / "there" / "other.bin"
    for path in (here, there):
        path.parent.mkdir()
    here.write_bytes(os.urandom(SIZE))
    os.truncate(here, SIZE * 2)
    labels = {PROJECT: engine.new_name("shop"), "com.docker.compose.service": "web"}
    create_container(volumes={str(here): "/data.bin", volume_factory(): "/data"}, labels=labels)
    command = ("migrate", "--project", labels[PROJECT], "--with-binds", "--map", f"{here}={there}")
    return Shop(here, there, (*command, "--replace", "--no-safety-backup", "--stop", "--jobs", "1", "--json"))


def test_a_file_that_was_cut_is_sent_anew_and_the_former_one_stays_until_then(
    second: SecondEngine, run_volback: Volback, far_state: dict[str, str], shop: Shop
) -> None:
    shop.there.write_text("former")
    gone = CuttingRelay(second, [SIZE // 2])
    gone.at_cut = gone.refuse
    with gone:
        lost = run_volback(*shop.command, "--to", gone.url, "--retry-for", "1s", env=far_state, check_exit=8).json
    assert lost["result"]["not_moved"] == [str(shop.here)]
    assert shop.there.read_text() == "former"

    with CuttingRelay(second, [SIZE // 2]) as relay:
        result = run_volback(*shop.command, "--to", relay.url, env=far_state).json["result"]
    assert len(relay.cut_at) == 1
    (file,) = (one for one in result["moved"] if one["kind"] == "file")
    assert (file["proven"], file["retries"]) == (True, 1)
    assert shop.there.read_bytes() == shop.here.read_bytes()
    assert shop.names_there() == ["other.bin"]
    assert list((Path(far_state["VOLBACK_STATE_DIR"]) / "runs").iterdir()) == []


def test_a_file_that_has_no_room_leaves_nothing(second: SecondEngine, run_volback: Volback, shop: Shop) -> None:
    second.inside("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", shop.there.parent)
    said = run_volback(*shop.command, "--to", second.url, check_exit=1).json
    assert "no space left in file" in said["error"]["message"]
    assert "MiB did not fit" in said["error"]["message"]
    second.inside("sh", "-c", f'test -z "$(ls -A {shop.there.parent})"')
