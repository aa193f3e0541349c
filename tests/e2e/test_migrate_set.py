"""Several volumes move together: one stop over all, what is proven stays, what was there is not copied again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose_said import said_of_volumes
from tests.support.engine import EngineSession, Volback, build_image, remove_containers, said_in
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import delayed, struck
from tests.support.remote import SecondEngine, own_filesystem, wait_for

RESULT = {
    "project", "from", "to", "moved", "not_moved", "downtime_s", "left_stopped", "left_scaled_to_0", "running_again",
    "left_out", "compose_files", "start",
}  # fmt: skip
"""Keys of the result as programs rely on them."""
MOVED = {
    "source", "volume", "kind", "files", "raw_bytes", "sockets_skipped", "consistency", "containers", "proven", "proof",
    "duration_s", "sent_bytes", "passes", "each_pass", "retries", "resumed", "was_there", "safety_backup",
    "source_removed",
}  # fmt: skip
SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
PROJECT = "com.docker.compose.project"
WRITER = """
trap 'echo stopped >>/data/log; exit 0' TERM
number=0
while :; do number=$((number+1)); echo $number >>/data/log; sleep 0.02; done
"""


def _fill(path: Path) -> None:
    for number in range(3):
        (path / f"directory-{number}").mkdir()
        (path / f"directory-{number}" / "file").write_bytes(os.urandom(300_000))


@dataclass
class Shop:
    """A project as compose makes it: services that mount volumes, and one that mounts none."""

    project: str
    volumes: list[str]
    containers: dict[str, Any] = field(default_factory=dict)

    def began(self) -> dict[str, str]:
        """When each container was started last."""
        self.states()
        return {service: container.attrs["State"]["StartedAt"] for service, container in self.containers.items()}

    def states(self) -> dict[str, tuple[str, str]]:
        """State and restart policy of each container."""
        for container in self.containers.values():
            container.reload()
        return {
            service: (container.status, container.attrs["HostConfig"]["RestartPolicy"]["Name"])
            for service, container in self.containers.items()
        }


@pytest.fixture
def shop(
    engine: EngineSession, volume_factory: Callable[..., str], create_container: Callable[..., Any]
) -> Iterator[Shop]:
    project = engine.new_name("shop")
    volumes = sorted(
        volume_factory(name, fill=_fill, labels={PROJECT: project, "com.docker.compose.volume": name})
        for name in ("data", "uploads", "cache")
    )
    shop = Shop(project, volumes)
    for service, mounts in {"db": volumes[:1], "web": volumes[1:], "proxy": []}.items():
        script = WRITER if service == "db" else "trap 'exit 0' TERM; while :; do sleep 0.1; done"
        shop.containers[service] = create_container(
            script, volumes={volume: "/data" if at == 0 else f"/data{at}" for at, volume in enumerate(mounts)},
            labels={PROJECT: project, "com.docker.compose.service": service},
            restart_policy={"Name": "always"}, stop_signal="SIGTERM",
        )  # fmt: skip
    yield shop
    for container in shop.containers.values():
        container.reload()


@pytest.fixture
def started(shop: Shop) -> Shop:
    for container in shop.containers.values():
        container.start()
    return shop


def _volumes(second: SecondEngine) -> set[str]:
    with closing(second.client()) as client:
        return {volume.name for volume in client.volumes.list()}


def _by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {moved["source"]: moved for moved in result["moved"]}


VolumePath = Callable[[str], Path]


def _assert_same(shop: Shop, second: SecondEngine, volume_path: VolumePath) -> None:
    for volume in shop.volumes:
        assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(volume))) == []


def test_a_project_moves_and_a_second_run_copies_nothing_again(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", shop.project, "--to", second.url)
    said = run_volback(*command, "--json").json
    assert (said["ok"], said["warnings"], said["result"]["not_moved"]) == (True, [], [])
    assert (set(said["result"]), set(said["result"]["moved"][0])) == (RESULT, MOVED)
    assert {name: one["proven"] for name, one in _by_name(said["result"]).items()} == dict.fromkeys(shop.volumes, True)
    _assert_same(shop, second, volume_path)

    with (volume_path(shop.volumes[1]) / "directory-1" / "file").open("r+b") as file:
        file.write(b"changed")
    again = run_volback(*command, "--json", check_exit=5).json
    moved = _by_name(again["result"])
    assert set(moved) == {shop.volumes[0], shop.volumes[2]}
    assert {(one["was_there"], one["proven"], one["sent_bytes"]) for one in moved.values()} == {(True, True, 0)}
    assert again["result"]["not_moved"] == [shop.volumes[1]], "what changed is not taken for proven"
    assert "exists already, and is not empty" in again["error"]["message"]

    text = run_volback(*command, "--replace", "--no-safety-backup").stdout
    assert text.count("was there, proven") == 2
    assert max(map(len, text.splitlines())) <= 80
    _assert_same(shop, second, volume_path)
    assert list((run_volback.state / "runs").iterdir()) == []


def test_one_stop_over_all_and_all_stay_stopped(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--live", "--jobs", "3")
    said = run_volback(*command, "--json").json
    result = said["result"]
    assert (said["ok"], said["warnings"]) == (True, [])
    assert {one["passes"] for one in result["moved"]} == {2}
    assert {left["name"]: left["restart_policy"] for left in result["left_stopped"]} == {
        container.name: "always" for container in started.containers.values()
    }
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("exited", "no"))
    _assert_same(started, second, volume_path)
    assert (second.volume_path(started.volumes[1]) / "directory-0").exists()
    run_volback("recover")
    assert started.states()["db"] == ("exited", "no")


def test_the_volumes_of_one_container_move_and_the_others_run_on(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    before = started.began()
    command = ("migrate", "--container", started.containers["web"].name, "--to", second.url, "--stop", "--json")
    result = run_volback(*command).json["result"]
    assert sorted(_by_name(result)) == started.volumes[1:]
    assert [left["name"] for left in result["left_stopped"]] == [started.containers["web"].name]
    assert started.states() == {"db": ("running", "always"), "web": ("exited", "no"), "proxy": ("running", "always")}
    assert started.began()["db"] == before["db"]
    for volume in started.volumes[1:]:
        assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(volume))) == []


def test_all_volumes_of_an_engine_move(
    second: SecondEngine, run_volback: Volback, volume_name: Callable[..., str], volume_path: VolumePath
) -> None:
    names = sorted(volume_name(part) for part in ("one", "two", "three"))
    with closing(second.client()) as client:
        for name in names:
            _fill(Path(client.volumes.create(name).attrs["Mountpoint"]))
    said = run_volback("migrate", "--all", "--from", second.url, "--to", SOCKET, "--json").json
    assert sorted(_by_name(said["result"])) == names
    for name in names:
        assert differences(fingerprint(second.volume_path(name)), fingerprint(volume_path(name))) == []


def test_what_somebody_uses_there_is_not_replaced_by_what_went_on_here(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--live")
    first = run_volback(*command, "--restart-source", "--json").json["result"]
    assert (len(first["moved"]), len(first["running_again"]), first["left_stopped"]) == (3, 3, [])
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    used = started.volumes[1]
    (volume_path(used) / "more").write_text("x")
    (second.volume_path(used) / "theirs").write_text("x")
    said = run_volback(*command, "--json", check_exit=5).json
    assert f"volume '{used}' exists already, and is not empty" in said["error"]["message"]
    assert (second.volume_path(used) / "theirs").exists()
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))


def test_what_went_on_here_replaces_what_an_earlier_run_has_moved(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--stop")
    run_volback(*command, "--restart-source")
    for volume in started.volumes:
        (volume_path(volume) / "more").write_text("x")
    said = run_volback(*command, "--json").json
    assert (said["ok"], said["warnings"], {one["was_there"] for one in said["result"]["moved"]}) == (True, [], {False})
    _assert_same(started, second, volume_path)


def test_where_one_fails_its_project_runs_on_and_nothing_was_stopped(
    second: SecondEngine, run_volback: Volback, started: Shop
) -> None:
    before = started.began()
    with closing(second.client()) as client:
        (Path(client.volumes.create(started.volumes[0]).attrs["Mountpoint"]) / "theirs").write_text("x")
    command = ("migrate", "--project", started.project, "--to", second.url, "--live")
    said = run_volback(*command, "--json", check_exit=5).json
    assert sorted(said["result"]["not_moved"]) == started.volumes
    assert started.volumes[0] in said["error"]["message"]
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    assert started.began() == before
    assert _volumes(second) == {started.volumes[0]}


def test_one_that_fails_does_not_undo_the_others(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    with closing(second.client()) as client:
        (Path(client.volumes.create(shop.volumes[0]).attrs["Mountpoint"]) / "theirs").write_text("x")
    command = ("migrate", *shop.volumes, "--to", second.url, "--remove-source")
    for container in shop.containers.values():
        container.remove()
    shop.containers.clear()
    said = run_volback(*command, "--json", check_exit=5).json
    assert said["result"]["not_moved"] == shop.volumes[:1]
    assert {name: one["source_removed"] for name, one in _by_name(said["result"]).items()} == dict.fromkeys(
        shop.volumes[1:], True
    )
    assert _volumes(second) == set(shop.volumes)
    assert [path.name for path in second.volume_path(shop.volumes[0]).iterdir()] == ["theirs"]
    assert len(list(volume_path(shop.volumes[0]).iterdir())) == 3


def test_a_run_that_is_killed_among_several_is_run_again(
    second: SecondEngine, run_volback: Volback, shop: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", shop.project, "--to", second.url, "--jobs", "1")
    assert struck(run_volback, signal.SIGKILL, "buffer 0 of write#2", *command) == -signal.SIGKILL
    assert 1 < len(_volumes(second)) <= 3
    said = run_volback(*command, "--json").json
    moved = _by_name(said["result"])
    assert (said["ok"], set(moved)) == (True, set(shop.volumes))
    assert {True, False} == {one["was_there"] for one in moved.values()}
    _assert_same(shop, second, volume_path)
    assert list((run_volback.state / "runs").iterdir()) == []


def test_a_run_that_is_killed_while_all_are_stopped_is_run_again(
    second: SecondEngine, run_volback: Volback, started: Shop, volume_path: VolumePath
) -> None:
    command = ("migrate", "--project", started.project, "--to", second.url, "--live")
    assert struck(run_volback, signal.SIGKILL, "after Engine.stop_container#3", *command) == -signal.SIGKILL
    run_volback("recover")
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    said = run_volback(*command, "--json").json
    assert (said["ok"], len(said["result"]["moved"])) == (True, 3)
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("exited", "no"))
    _assert_same(started, second, volume_path)


def test_a_signal_ends_all_of_them_and_leaves_no_half_made_volume(
    second: SecondEngine, run_volback: Volback, started: Shop
) -> None:
    """One of them cannot end before the signal has ended all helpers."""
    command = ("migrate", "--project", started.project, "--to", second.url, "--stop", "--jobs", "3")
    with closing(second.client()) as client, delayed(run_volback, "buffer 0 of write#2", *command) as run:
        os.kill(run.pid, signal.SIGTERM)
        wait_for(lambda: not client.containers.list(ignore_removed=True), "the end of the helpers")
    assert run.ended.exit_code == 128 + signal.SIGTERM
    assert started.states() == dict.fromkeys(("db", "web", "proxy"), ("running", "always"))
    assert list((run_volback.state / "runs").iterdir()) == []


@pytest.mark.parametrize("option", [("--as", "other"), ("--label", "a=b"), ("--driver", "local")])
def test_options_of_one_volume_are_refused(run_volback: Volback, option: tuple[str, str]) -> None:
    said = run_volback("migrate", "one", "two", "--to", "unix:///nobody.sock", *option, check_exit=2).stderr
    assert f"does not accept {option[0]}" in said


class Site:
    """A compose project of three services with volumes and a directory, whose directory only this side sees."""

    def __init__(self, engine: EngineSession, directory: Path, image: str) -> None:
        self.project = engine.new_name("site")
        self.volumes = [f"{self.project}_data", f"{self.project}_queue"]
        engine.names.update(self.volumes)
        self.directory = directory
        (directory / "html").mkdir()
        (directory / "html" / "index.html").write_text("welcome")
        (directory / "site.conf").write_text("port 80")
        (directory / ".env").write_text(f"NAME=secret\nIMAGE={image}\n")
        service = {
            "image": "${IMAGE}", "command": ["sleep", "600"], "network_mode": "none", "labels": engine.labels,
            "stop_signal": "SIGKILL", "restart": "always",
        }  # fmt: skip
        mounts = ["./html:/html:ro", "./site.conf:/site.conf:ro", "data:/data:ro"]
        document = {
            "services": {
                "db": {**service, "volumes": ["data:/data"]},
                "queue": {**service, "volumes": ["queue:/queue"]},
                "web": {**service, "volumes": mounts, "depends_on": ["db"]},
            },
            "volumes": {name: {"labels": engine.labels} for name in ("data", "queue")},
        }
        (directory / "docker-compose.yml").write_text(json.dumps(document))  # JSON is YAML

    def compose(self, *arguments: str) -> str:
        options = ["--ansi", "never", "-p", self.project, "--project-directory", str(self.directory)]
        return _run(["docker-compose", *options, "-f", str(self.directory / "docker-compose.yml"), *arguments])


def _run(command: list[str]) -> str:
    """Run compose, also by the command that volback prints, which is that of a plugin; return all that it says."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if command[0] == "docker":
        assert (command[1], command[3]) == ("--host", "compose")
        environment["DOCKER_HOST"] = command[2]
        command = ["docker-compose", *command[4:]]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def _site(engine: EngineSession, second: SecondEngine, directory: Path, image: str) -> Iterator[Site]:
    with closing(second.client()) as client:
        build_image(client, image, {})
        site = Site(engine, directory, image)
        site.compose("up", "-d")
        yield site
        site.compose("down", "--volumes")
        remove_containers(client.containers.list(all=True, ignore_removed=True))


@pytest.fixture
def site(engine: EngineSession, second: SecondEngine, tmp_path: Path, test_image: str) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with _site(engine, second, tmp_path / "site", test_image) as site:
        yield site


@pytest.fixture
def own_site(engine: EngineSession, second: SecondEngine, run_volback: Volback, test_image: str) -> Iterator[Site]:
    """The second engine has nothing at its paths, as on another host."""
    with (
        own_filesystem(run_volback.directory / "site") as directory,
        _site(engine, second, directory, test_image) as site,
    ):
        yield site


def test_a_compose_project_moves_with_its_directories_and_starts_there(
    second: SecondEngine, run_volback: Volback, own_site: Site, volume_path: VolumePath, tmp_path: Path
) -> None:
    site = own_site
    for volume in site.volumes:
        (volume_path(volume) / "file").write_text(volume)
    quiet = site.compose("up", "-d")
    command = ("migrate", "--project", site.project, "--to", second.url, "--live", "--with-binds")
    files = tmp_path / "files"
    said = run_volback(*command, "--compose-dir", files, "--json").json
    result = said["result"]
    assert (said["ok"], said["warnings"], result["not_moved"], result["left_out"]) == (True, [], [], [])
    assert sorted(one["source"] for one in result["moved"]) == sorted(
        [*site.volumes, f"{site.directory}/html", f"{site.directory}/site.conf"]
    )
    assert {one["proven"] for one in result["moved"]} == {True}
    assert len(result["left_stopped"]) == 3
    assert (files / ".env").stat().st_mode & 0o777 == 0o600
    assert result["compose_files"] == {"directory": str(files), "paths": [".env", "docker-compose.yml", "site.conf"]}

    up = shlex.split(result["start"])
    said_there = _run(up)
    assert said_of_volumes(said_there) == [], "the volumes are those of the project"
    assert said_of_volumes(_run(up)) == said_of_volumes(quiet)
    with closing(second.client()) as client:
        (web,) = client.containers.list(filters={"label": "com.docker.compose.service=web"})
        said = said_in(web, "cat", "/html/index.html", "/site.conf", "/data/file")
        assert said == (0, f"welcomeport 80{site.volumes[0]}".encode())
        assert [container.status for container in client.containers.list()] == ["running"] * 3


def test_a_directory_that_holds_something_is_replaced_only_on_request_and_goes_to_another_place(
    second: SecondEngine, run_volback: Volback, site: Site, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    (there / "html").mkdir(parents=True)
    (there / "html" / "theirs").write_text("x")
    command = ("migrate", "--project", site.project, "--to", second.url, "--stop", "--with-binds")
    mapped = (*command, "--map", f"{site.directory}={there}")
    refused = run_volback(*mapped, "--json", check_exit=5).json
    assert f"{there}/html" in refused["error"]["message"]
    assert [path.name for path in (there / "html").iterdir()] == ["theirs"]
    assert len(refused["result"]["running_again"]) == 0, "nothing was stopped"

    said = run_volback(*mapped, "--replace", "--no-safety-backup", "--json").json
    assert (said["ok"], said["result"]["left_out"]) == (True, [])
    assert differences(fingerprint(site.directory / "html"), fingerprint(there / "html")) == []
    up = shlex.split(said["result"]["start"])
    assert up[up.index("--project-directory") + 1] == str(there)
    assert said_of_volumes(_run(up)) == [], "the volumes are those of the project"
    with closing(second.client()) as client:
        (web,) = client.containers.list(filters={"label": "com.docker.compose.service=web"})
        assert said_in(web, "cat", "/html/index.html") == (0, b"welcome")


def test_what_is_left_out_is_named_and_the_text_fits(second: SecondEngine, run_volback: Volback, site: Site) -> None:
    said = run_volback("migrate", "--project", site.project, "--to", second.url, "--stop")
    lines = said.stdout.splitlines()
    assert f"left out: {site.directory}/html is a bind mount, which is moved with --with-binds" in lines
    start = lines.index("to start it there:")
    assert lines[start + 1].startswith(f"  docker --host {second.url} compose --project-name {site.project}")
    table = lines[: lines.index(next(line for line in lines if line.startswith("containers were down")))]
    assert max(map(len, table)) <= 80, table


def test_two_engines_of_one_host_share_their_directories(
    second: SecondEngine, run_volback: Volback, create_container: Callable[..., Any], engine: EngineSession,
    volume_factory: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """There the source would be replaced by itself."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("mine")
    (tmp_path / "single").write_text("mine")
    project = engine.new_name("shop")
    create_container(
        volumes={str(tmp_path / "shared"): "/data", str(tmp_path / "single"): "/single", volume_factory(): "/volume"},
        labels={PROJECT: project, "com.docker.compose.service": "web"},
    )
    command = ("migrate", "--project", project, "--to", second.url, "--with-binds", "--replace", "--no-safety-backup")
    said = run_volback(*command, "--json", check_exit=5).json
    assert "holds the same files on both engines" in said["error"]["message"]
    assert said["result"]["not_moved"] == [str(tmp_path / name) for name in ("shared", "single")]
    assert [(tmp_path / name).read_text() for name in ("shared/file", "single")] == ["mine"] * 2


def test_what_is_no_regular_file_or_is_the_machines_is_named_and_stays(
    second: SecondEngine, run_volback: Volback, create_container: Callable[..., Any], engine: EngineSession,
    volume_factory: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """A file of the project's directory moves, also where it is copied with the compose files: those are for here."""
    site, there = tmp_path / "site", tmp_path / "there"
    site.mkdir()
    for name in ("site.conf", "compose.yaml"):
        (site / name).write_text("{}")
    (site / "link").symlink_to("site.conf")
    os.mkfifo(site / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(site / "s"))
        project = engine.new_name("shop")
        labels = {PROJECT: project, "com.docker.compose.project.working_dir": str(site)}
        labels["com.docker.compose.project.config_files"] = str(site / "compose.yaml")
        mounted = [*(str(site / name) for name in ("site.conf", "link", "fifo", "s")), "/etc/hosts", "/dev/null"]
        volumes = {path: f"/mnt/{number}" for number, path in enumerate(mounted)}
        create_container(volumes={**volumes, volume_factory(): "/volume"}, labels=labels)
        command = ("migrate", "--project", project, "--to", second.url, "--with-binds", "--map", f"{site}={there}")
        result = run_volback(*command, "--compose-dir", tmp_path / "files", "--json").json["result"]
    assert {one["path"]: one["why"] for one in result["left_out"]} == {
        str(site / "link"): "is a symbolic link, which is not moved",
        str(site / "fifo"): "is a FIFO, which is not moved",
        str(site / "s"): "is a socket, which is not moved",
        "/etc/hosts": "belongs to the machine",
        "/dev/null": "belongs to the machine",
    }
    assert [path.name for path in there.iterdir()] == ["site.conf"]
    assert "site.conf" in result["compose_files"]["paths"]
    assert f"--project-directory {there}" in result["start"]


@pytest.mark.parametrize(
    "how",
    [*(pytest.param(how, marks=pytest.mark.long) for how in [(), ("--live",)]), ("--replace", "--no-safety-backup")],
)
def test_one_that_was_whole_when_its_run_was_killed_is_not_removed_as_half_made(
    how: tuple[str, ...], second: SecondEngine, run_volback: Volback, volume_factory: Callable[..., str],
    volume_path: VolumePath,
) -> None:  # fmt: skip
    """All had been copied, and was being proven."""
    volumes = [volume_factory(name, fill=_fill) for name in ("one", "two")]
    command = ("migrate", *volumes, "--to", second.url, "--jobs", "1", *how)
    if "--replace" in how:
        with closing(second.client()) as client:
            (Path(client.volumes.create(volumes[0]).attrs["Mountpoint"]) / "former").touch()
    assert struck(run_volback, signal.SIGKILL, "buffer 0 of read#2", *command) == -signal.SIGKILL
    said = run_volback(*command, "--json").json
    assert {one["proven"] for one in said["result"]["moved"]} == {True}
    run_volback("--host", second.url, "doctor", "--fix", check_exit=None)
    assert _volumes(second) == set(volumes)
    for volume in volumes:
        assert differences(fingerprint(volume_path(volume)), fingerprint(second.volume_path(volume))) == []
    assert list((run_volback.state / "runs").iterdir()) == []
