"""Single files that containers mount move with their project: each by itself, and nothing beside it is touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.halt import halted, struck
from tests.support.remote import SecondEngine

PROJECT = "com.docker.compose.project"
MTIME_NS = 1_600_000_000_123_456_789


@dataclass
class Shop:
    """A project with a volume, of which two containers mount one file, with odd attributes."""

    project: str
    conf: Path
    there: Path
    """The directory on the other side that takes the place of the file's."""
    url: str

    @property
    def moved(self) -> Path:
        return self.there / self.conf.name

    def command(self, *options: str) -> tuple[str, ...]:
        maps = ("--map", f"{self.conf.parent}={self.there}")
        return ("migrate", "--project", self.project, "--to", self.url, "--with-binds", *maps, *options)


@pytest.fixture
def shop(
    engine: EngineSession, second: SecondEngine, create_container: Callable[..., Any],
    volume_factory: Callable[..., str], tmp_path: Path,
) -> Shop:  # fmt: skip
    conf = tmp_path / "shop" / "[a] *b\\.conf"
    conf.parent.mkdir()
    with conf.open("wb") as file:
        file.write(os.urandom(300_000))
        file.truncate(9_000_000)
    os.setxattr(conf, "user.note", b"kept")
    os.chown(conf, 1234, 2345)
    conf.chmod(0o4640)
    os.utime(conf, ns=(MTIME_NS, MTIME_NS))
    (conf.parent / "beside").write_text("stays")
    project = engine.new_name("shop")
    volume = volume_factory()
    for service in ("web", "worker"):
        create_container(
            volumes={str(conf): "/etc/site.conf", volume: "/data"},
            labels={PROJECT: project, "com.docker.compose.service": service},
        )
    return Shop(project, conf, tmp_path / "there" / "deep", second.url)


def _facts(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_size, attributes, path.read_bytes()


def _file(result: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in result["moved"] if one["kind"] == "file"]
    assert len(found) == 1
    return found[0]


def test_a_file_moves_once_as_it_is_and_a_second_run_finds_it_there(shop: Shop, run_volback: Volback) -> None:
    before = _facts(shop.conf)
    said = run_volback(*shop.command("--json")).json
    assert (said["ok"], said["warnings"], said["result"]["left_out"]) == (True, [], [])
    moved = _file(said["result"])
    assert (moved["source"], moved["volume"], moved["files"]) == (str(shop.conf), str(shop.moved), 1)
    assert (moved["proven"], moved["was_there"]) == (True, False)
    assert _facts(shop.moved) == before == _facts(shop.conf)
    assert shop.moved.stat().st_blocks * 512 < 1_000_000, "holes stay holes"
    assert sorted(path.name for path in shop.there.iterdir()) == [shop.conf.name]

    again = _file(run_volback(*shop.command("--json")).json["result"])
    assert (again["was_there"], again["proven"], again["sent_bytes"]) == (True, True, 0)
    assert list((run_volback.state / "runs").iterdir()) == []


def test_what_is_there_is_refused_unless_it_is_a_file_to_be_replaced(shop: Shop, run_volback: Volback) -> None:
    shop.there.mkdir(parents=True)
    other = shop.there / "other"
    other.write_text("theirs")
    shop.moved.symlink_to("other")
    command = shop.command("--replace", "--no-safety-backup", "--json")
    for what in ("symbolic link", "directory"):
        said = run_volback(*command, check_exit=5).json
        assert f"exists already, and is a {what}" in said["error"]["message"]
        assert (other.read_text(), sorted(path.name for path in shop.there.iterdir())) == (
            "theirs", sorted([shop.moved.name, "other"]),
        )  # fmt: skip
        if what == "symbolic link":
            shop.moved.unlink()
            shop.moved.mkdir()
    shop.moved.rmdir()

    shop.moved.write_text("former")
    refused = run_volback(*shop.command("--json"), check_exit=5).json
    assert "exists already, and is another one" in refused["error"]["message"]
    assert refused["error"]["hint"] == "give --replace, or remove it there first"
    assert shop.moved.read_text() == "former"

    run_volback("init")
    moved = _file(run_volback(*shop.command("--replace", "--json")).json["result"])
    assert _facts(shop.moved) == _facts(shop.conf)
    run_volback("restore", moved["safety_backup"], "--to", shop.there / "back")
    assert (shop.there / "back" / shop.moved.name).read_text() == "former"
    assert [path.name for path in (shop.there / "back").iterdir()] == [shop.moved.name]
    assert other.read_text() == "theirs"


def test_a_file_is_read_once_its_writer_is_stopped(
    shop: Shop, run_volback: Volback, create_container: Callable[..., Any]
) -> None:
    script = "trap 'echo last >/etc/site.conf; exit 0' TERM; while :; do date >/etc/site.conf; sleep 0.05; done"
    labels = {PROJECT: shop.project, "com.docker.compose.service": "writer"}
    writer = create_container(script, volumes={str(shop.conf): "/etc/site.conf"}, labels=labels, stop_signal="SIGTERM")
    writer.start()
    assert "in use by container" in run_volback(*shop.command("--json"), check_exit=5).json["error"]["message"]

    first = run_volback(*shop.command("--live", "--restart-source", "--json")).json["result"]
    assert (first["running_again"], _file(first)["proven"]) == ([writer.name], True)
    assert shop.moved.read_text() == "last\n"
    run_volback(*shop.command("--live", "--json"))  # its source went on, and nobody has touched it there
    assert _facts(shop.moved) == _facts(shop.conf)
    writer.reload()
    assert writer.status == "exited"


@pytest.mark.parametrize("step", [pytest.param("buffer 0 of write#2", marks=pytest.mark.long), "after write#2"])
def test_a_kill_leaves_at_most_a_part_and_the_next_run_removes_it(step: str, shop: Shop, run_volback: Volback) -> None:
    shop.there.mkdir(parents=True)
    shop.moved.write_text("former")
    command = shop.command("--replace", "--no-safety-backup", "--jobs", "1")
    assert struck(run_volback, signal.SIGKILL, step, *command) == -signal.SIGKILL
    assert shop.moved.read_text() == "former"
    assert len(list(shop.there.iterdir())) == (2 if step.startswith("after") else 1)
    run_volback("--host", shop.url, "doctor", "--fix", check_exit=None)
    assert [path.name for path in shop.there.iterdir()] == [shop.moved.name]
    assert run_volback(*command, "--json").json["ok"]
    assert _facts(shop.moved) == _facts(shop.conf)
    assert [path.name for path in shop.there.iterdir()] == [shop.moved.name]
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_link_that_comes_to_its_place_meanwhile_is_not_followed(shop: Shop, run_volback: Volback) -> None:
    other = shop.there / "other"
    with halted(run_volback, "after write#3", *shop.command("--jobs", "1", "--json")) as run:
        other.write_text("theirs")
        shop.moved.symlink_to("other")
    assert (run.ended.exit_code, run.ended.json["result"]["not_moved"]) == (1, [str(shop.conf)])
    assert "it is a symbolic link there by now" in run.ended.json["error"]["message"]
    assert (other.read_text(), sorted(path.name for path in shop.there.iterdir())) == (
        "theirs", sorted([shop.moved.name, "other"]),
    )  # fmt: skip
