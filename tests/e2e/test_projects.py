"""Compose projects: which volumes are theirs, and all of them back together; compose itself finds nothing odd."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose_said import MARKED, said_of_volumes
from tests.support.engine import EngineSession, Result, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.library import Library, open_from
from volback.catalog.keys import new_id
from volback.catalog.model import Manifest, SetOf, Source
from volback.cli.backup import find_sources
from volback.config.model import Job, Sources
from volback.errors import NotFoundError
from volback.jobs.select import select_sources
from volback.operations.backup import BackupOptions, make_backup
from volback.operations.sources import resolve_sources, sources_of_container, sources_of_project, volume_source
from volback.policy.inherited import RESTORE_LABEL
from volback.settings import Settings
from volback.state.client import client_id

VolumePath = Callable[[str], Path]
COMPOSE_V2 = {"version": "2.29.1", "config-hash": "0b6ee0f8"}
"""Labels that compose v2 puts on its volumes, beside project and volume: it warns of a volume without its project."""


class Compose:
    """docker-compose, 1.29 or 2, over a project of two services and three volumes, one of them external."""

    def __init__(self, engine: EngineSession, directory: Path, image: str) -> None:
        self.project = engine.new_name("project")
        self.volumes = [f"{self.project}_db", f"{self.project}_uploads"]
        self.external = engine.new_name("external")
        engine.names.update(self.volumes)
        engine.client.volumes.create(self.external, labels=engine.labels)
        self._path = directory / "docker-compose.yml"
        self._environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        service = {
            "image": image, "command": ["sleep", "600"], "network_mode": "none", "labels": engine.labels,
            "stop_signal": "SIGKILL",
        }  # fmt: skip
        self._document: dict[str, Any] = {
            "services": {
                "db": {**service, "volumes": ["db:/data", "/cache"]},
                "web": {**service, "volumes": ["db:/data:ro", "uploads:/uploads", "shared:/shared"]},
            },
            "volumes": {
                "db": {"labels": engine.labels},
                "uploads": {"labels": {**engine.labels, "com.example.note": "kept"}},
                "shared": {"external": True, "name": self.external},
            },
        }
        self._path.write_text(json.dumps(self._document))  # JSON is YAML

    def move_to(self, directory: Path) -> None:
        """Be a project of that directory, whose services mount something of it."""
        outside = directory.parent / "outside.conf"
        mounted = ["./html:/html:ro", "./app.conf:/app.conf:ro", "/proc/version:/version:ro", f"{outside}:/more.conf"]
        volumes = self._document["services"]["db"]["volumes"]
        volumes += [mount for mount in mounted if mount not in volumes]
        directory.mkdir(exist_ok=True)
        self._path = directory / self._path.name
        if not self._path.exists():
            self._path.write_text(json.dumps(self._document))

    def __call__(self, *arguments: str, project: str | None = None) -> str:
        """Run it, for the project or for another one; return all that it said."""
        options = ["--ansi", "never", "-p", project or self.project, "-f", str(self._path)]
        command = ["docker-compose", *options, *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._environment, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def compose(engine: EngineSession, tmp_path: Path, test_image: str) -> Iterator[Compose]:
    compose = Compose(engine, tmp_path, test_image)
    yield compose
    compose("down", "--volumes")
    engine.client.volumes.get(compose.external).remove()


@pytest.fixture
def library(run_volback: Volback, engine: EngineSession) -> Library:
    """The same repository and state as `run_volback` has."""
    library = open_from(Settings(repository=str(run_volback.repository), state=run_volback.state))
    _ = library.engine.info
    client_id(run_volback.state)
    run_volback.note_client_id()
    return library


def back_up_set(
    library: Library, project: str | None, sources: list[Source], *, of: list[str] | None = None
) -> list[Manifest]:
    """Back up each source as a part of one set; the set's volumes are `of`, where it is not the sources'."""
    volumes = of or [source.name for source in sources]
    made = SetOf(id=new_id(library.ctx.now(), library.ctx.random_hex(2)), project=project, volumes=volumes)
    return [make_backup(*library, source, BackupOptions(set=made)).manifest for source in sources]


def errors(said: Result) -> list[str]:
    return [line for line in said.stderr.splitlines() if line.startswith("error: ")]


def labels_of(engine: EngineSession, volume: str) -> dict[str, str]:
    labels = dict(engine.client.volumes.get(volume).attrs["Labels"] or {})
    labels.pop(RESTORE_LABEL, None)
    return labels


def test_a_project_goes_and_comes_back_and_compose_says_nothing(
    run_volback: Volback, library: Library, compose: Compose, engine: EngineSession, volume_path: VolumePath
) -> None:
    assert re.search("Creating volume|Volume .*Creat", compose("up", "-d"))
    quiet = compose("up", "-d")
    everything = sorted([*compose.volumes, compose.external])
    for number, volume in enumerate(everything):
        (volume_path(volume) / f"file-{number}").write_text(volume)
    before = {volume: (fingerprint(volume_path(volume)), labels_of(engine, volume)) for volume in everything}
    assert set(before[compose.volumes[0]][1]) >= {
        f"com.docker.compose.{key}" for key in ("project", "version", "volume")
    }

    sources = sources_of_project(library.engine, compose.project)
    assert [source.name for source in sources] == everything, "anonymous volumes are not among them"
    backed_up = run_volback("backup", "--project", compose.project, "--stop", "--json").json["result"]
    assert len(backed_up["downtime_s"]) == 2, "both services, once"
    assert {made["consistency"] for made in backed_up["backups"]} == {"stopped"}
    made = run_volback("list", "--json").json["result"]["backups"][0]["set"]
    compose("down", "--volumes")
    engine.client.volumes.get(compose.external).remove()
    said = run_volback("restore", "--project", compose.project, "--prove")

    assert said.stdout.splitlines()[0] == f"set {made['id']} of project {compose.project}"
    assert said.stdout.count("proven bit for bit") == 3
    assert said.stderr == ""
    for volume in everything:
        assert differences(before[volume][0], fingerprint(volume_path(volume))) == []
        assert labels_of(engine, volume) == before[volume][1]
    again = compose("up", "-d")
    assert said_of_volumes(again) == []
    third = [line for line in compose("up", "-d").splitlines() if MARKED not in line]
    assert sorted(third) == sorted(quiet.splitlines())


def test_volumes_are_found_by_composes_labels_and_by_what_containers_mount(
    library: Library, volume_factory: Callable[..., str], container_factory: Callable[..., Any], engine: EngineSession
) -> None:
    project = engine.new_name("project")
    label = {"com.docker.compose.project": project}
    v2 = {f"com.docker.compose.{key}": value for key, value in COMPOSE_V2.items()}
    own = volume_factory("own", labels=label | v2 | {"com.docker.compose.volume": "own"})
    external, other = volume_factory("external"), volume_factory("other")
    container = container_factory(
        volumes={external: "/data", own: "/own"}, labels=engine.labels | label | {"com.docker.compose.service": "web"}
    )
    container_factory(volumes={own: "/own", other: "/other"})
    assert [source.name for source in sources_of_project(library.engine, project)] == sorted([own, external])
    assert [source.name for source in sources_of_container(library.engine, container.name)] == sorted([own, external])
    for name, option in ((project, "--project"), (container.name, "--container")):
        _, errors = find_sources(library.ctx, library.engine, [name], [])
        assert [str(error.hint).partition("give ")[2] for error in errors] == [f"{option} {name}"]
    found, errors = find_sources(library.ctx, library.engine, [own[:-1] + "?", external], [])
    assert ([source.name for source in found], errors) == ([own, external], [])
    _, errors = find_sources(library.ctx, library.engine, [f"{own}-x*"], [])
    assert [error.message for error in errors] == [f"no volume matches '{own}-x*'"]
    with pytest.raises(NotFoundError, match="no compose project 'no-such-project' has volumes") as caught:
        sources_of_project(library.engine, "no-such-project")
    assert project in str(caught.value.hint)


def test_a_containers_anonymous_volumes_are_among_its_volumes(
    library: Library, engine: EngineSession, test_image: str
) -> None:
    create = engine.client.api.create_container
    facts = create(test_image, ["true"], volumes=["/anonymous"], labels=engine.labels)
    plain = create(test_image, ["true"], labels=engine.labels)
    try:
        found = sources_of_container(library.engine, facts["Id"])
        assert [len(source.name) for source in found] == [64]
        by_digits, errors = find_sources(library.ctx, library.engine, [found[0].name[:12]], [])
        assert ([source.name for source in by_digits], errors) == ([found[0].name], [])
        with pytest.raises(NotFoundError, match="mounts no volume"):
            sources_of_container(library.engine, plain["Id"])
        with pytest.raises(NotFoundError, match="container 'no-such-container' does not exist"):
            sources_of_container(library.engine, "no-such-container")
    finally:
        for container in (facts, plain):
            engine.client.api.remove_container(container["Id"], v=True)


def test_anonymous_volumes_that_no_container_uses_can_be_left_out(
    library: Library, engine: EngineSession, test_image: str, caplog: pytest.LogCaptureFixture
) -> None:
    used, unused, named = secrets.token_hex(32), secrets.token_hex(32), engine.new_name("named")
    mark = f"com.example.mark={used[:8]}"

    def found(*, anonymous: bool) -> set[str]:
        sources = resolve_sources(library.ctx, library.engine, [], label=mark, anonymous=anonymous)
        return {source.name for source in sources}

    client, labels = engine.client, {**engine.labels, "com.example.mark": used[:8]}
    made = [client.volumes.create(name, labels=labels) for name in (used, unused, named)]
    host = client.api.create_host_config(binds=[f"{used}:/data"])
    facts = client.api.create_container(test_image, ["true"], host_config=host, labels=engine.labels)
    try:
        assert found(anonymous=True) == {used, unused, named}
        assert found(anonymous=False) == {used, named}
        assert "1 anonymous volume that no container uses: left out" in caplog.text
        for anonymous, taken in ((False, {used}), (True, {used, unused})):
            job = Job("nightly", ("main",), sources=Sources(all=True, anonymous=anonymous))
            selected = select_sources(library.ctx, library.engine, job)
            assert {source.name for source in selected.sources} & {used, unused} == taken
            assert anonymous or "`anonymous = true` takes them too" in selected.notices[0]
    finally:
        client.api.remove_container(facts["Id"])
        for volume in made:
            volume.remove()


@pytest.fixture
def two(volume_factory: Callable[..., str]) -> list[str]:
    """Two volumes, by name."""
    return sorted([volume_factory("a"), volume_factory("b")])


def test_a_project_is_refused_as_a_whole(
    library: Library,
    two: list[str],
    container_factory: Callable[..., Any],
    engine: EngineSession,
    volume_path: VolumePath,
) -> None:
    run_volback = Volback(Path(library.ctx.settings.repository).parent, engine.client_ids)
    first, second = two
    project = engine.new_name("project")
    for volume in two:
        (volume_path(volume) / "file").write_text("as backed up")
    made = back_up_set(library, project, [volume_source(library.engine, volume) for volume in two])[0].set
    assert made is not None
    assert f"set:          {made.id} of project {project}: {first}, {second}\n" in run_volback("show", first).stdout
    listed = run_volback("list", first, "--json").json["result"]["backups"][0]
    assert listed["set"] == {"id": made.id, "project": project, "volumes": two}
    engine.client.volumes.get(first).remove()
    (volume_path(second) / "file").write_text("changed")

    said = run_volback("restore", "--project", project, check_exit=5)
    assert errors(said) == [f"error: volumes of project {project!r} exist already, so none was restored: {second}"]
    container = container_factory(volumes={second: "/data"})
    said = run_volback("restore", "--project", project, "--replace", check_exit=5)
    in_use = f"are in use, so none was restored: {second} by container {container.name!r}"
    assert errors(said) == [f"error: volumes of project {project!r} {in_use}"]
    assert [volume.name for volume in engine.client.volumes.list(filters={"name": first})] == []
    assert (volume_path(second) / "file").read_text() == "changed"

    container.remove(force=True)
    done = run_volback("restore", "--project", project, "--replace", "--prove", "--json").json["result"]
    assert list(done) == [
        "project",
        "set",
        "whole",
        "as_project",
        "compose_files",
        "restored",
        "not_restored",
        "requests",
    ]
    assert [each["volume"] for each in done["restored"]] == two
    assert [each["safety_backup"] is None for each in done["restored"]] == [True, False]
    assert all((volume_path(volume) / "file").read_text() == "as backed up" for volume in two)


def test_one_volume_that_fails_does_not_stop_the_next_and_is_named(
    run_volback: Volback, library: Library, volume_factory: Callable[..., str], engine: EngineSession
) -> None:
    project = engine.new_name("project")
    names = sorted([volume_factory("a"), volume_factory("b"), volume_factory("c")])
    missing = engine.new_name("missing")
    made = back_up_set(
        library, project, [volume_source(library.engine, name) for name in names], of=[*names, missing]
    )  # fmt: skip
    for name in names:
        engine.client.volumes.get(name).remove()
    damaged = next((run_volback.repository / made[1].host / names[1]).rglob("data.tar.zst"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)

    said = run_volback("restore", "--project", project, check_exit=4)
    assert errors(said) == [f"error: no set of project {project!r} is complete"]
    assert made[0].set is not None
    said = run_volback("restore", "--project", project, "--set", made[0].set.id[:13], check_exit=7)
    assert f"warning: set {made[0].set.id} is not complete: it lacks {missing}\n" in said.stderr
    assert [line for line in said.stdout.splitlines() if " -> volume " in line or line.startswith("not ")] == [
        f"{made[0].host}/{names[0]}@{made[0].id} -> volume {names[0]}",
        f"{made[2].host}/{names[2]}@{made[2].id} -> volume {names[2]}",
        f"not restored: {names[1]}",
    ]
    (error,) = errors(said)
    assert error.startswith(f"error: volume {names[1]!r} of project {project!r} was not restored: ")
    assert {volume.name for volume in engine.volumes()} & set(names) == {names[0], names[2]}


def test_a_project_comes_back_from_a_set_of_more_as_another_project(
    run_volback: Volback, library: Library, compose: Compose, engine: EngineSession, volume_path: VolumePath
) -> None:
    compose("up", "--no-start")
    everything = sorted([*compose.volumes, compose.external])
    for volume in everything:
        (volume_path(volume) / "file").write_text(volume)
    made = back_up_set(library, None, [volume_source(library.engine, volume) for volume in everything])[0].set
    assert made is not None
    new = f"{compose.project}2"
    names = [f"{new}_db", f"{new}_uploads"]
    engine.names.update(names)
    call = ["restore", "--project", compose.project, "--as-project", new]

    planned = run_volback(*call, "--dry-run", check_exit=3)
    heading, *lines = planned.stdout.splitlines()
    assert heading == f"set {made.id} of project {compose.project}, as project {new}"
    assert [line.partition(" -> ")[2] for line in lines[::2]] == [f"volume {name}" for name in names]
    assert lines[1::2] == ["  would restore 2 files, 10.0 KiB"] * 2
    assert not set(names) & {volume.name for volume in engine.volumes()}
    said = run_volback(*call, "--prove", "--json", check_exit=3).json
    assert [each["volume"] for each in said["result"]["restored"]] == names
    assert said["warnings"] == [
        f"volume {compose.external!r} exists, and both projects use that name: it stays as it is"
    ]
    for old, name in zip(compose.volumes, names, strict=True):
        assert (volume_path(name) / "file").read_text() == old
        assert labels_of(engine, name).items() >= {"com.docker.compose.project": new}.items()
    up = compose("up", "--no-start", project=new)
    compose("down", "--volumes", project=new)
    # The label of the tests is one of volback's, which a copy does not get; compose v1 says that it is not there.
    assert [line for line in said_of_volumes(up) if 'label "volback.test" has changed' not in line] == []


def test_a_project_comes_back_whole_with_its_directories_and_compose_files(
    run_volback: Volback, compose: Compose, engine: EngineSession, tmp_path: Path
) -> None:
    shop, new = tmp_path / "shop", tmp_path / "new"
    compose.move_to(shop)
    (shop / "html").mkdir(parents=True)
    for name, text in {"html/index": "hello", "app.conf": "on", ".env": "SECRET=1", "note": "not used"}.items():
        (shop / name).write_text(text)
    outside = tmp_path / "outside.conf"
    outside.write_text("outside")
    outside.chmod(0o640)
    os.chown(outside, 1234, 2345)
    compose("up", "--no-start")
    plain = run_volback("backup", "--project", compose.project, "--dry-run")
    assert f"left out: {shop}/html is a bind mount, which is backed up with --with-binds" in plain.stdout
    said = run_volback("backup", "--project", compose.project, "--with-binds", "--json").json["result"]
    volumes = sorted([*compose.volumes, compose.external])
    assert [made["volume"] for made in said["backups"]] == [*volumes, f"{shop}/html", str(outside)]
    assert said["compose_files"]["paths"] == [".env", "app.conf", "docker-compose.yml"]
    assert [left["path"] for left in said["left_out"]] == ["/proc/version"]

    compose("down", "--volumes")
    engine.client.volumes.get(compose.external).remove()
    shutil.rmtree(shop)
    call = ["restore", "--project", compose.project, "--with-binds", "--compose-dir", str(new)]
    planned = run_volback(*call, "--dry-run").stdout
    assert not new.exists()
    stranger = run_volback(*call, "--dry-run", env={"VOLBACK_STATE_DIR": str(tmp_path / "state")}, check_exit=None)
    assert f"warning: file {outside} is left out, as this machine has not backed it up" in stranger.stderr
    assert f"file {outside}\n" in planned
    assert f"file {outside}\n" not in stranger.stdout
    outside.write_text("theirs")
    refused = run_volback(*call, check_exit=5)
    assert f"file '{outside}' exists already, and is another one" in refused.stderr
    assert outside.read_text() == "theirs"
    outside.unlink()
    for volume in volumes:
        engine.client.volumes.get(volume).remove()
    shutil.rmtree(new)
    restored = run_volback(*call, "--prove").stdout
    found = outside.stat()
    assert (outside.read_text(), found.st_mode & 0o777, found.st_uid, found.st_gid) == ("outside", 0o640, 1234, 2345)
    run_volback("prove", str(outside))
    (tmp_path / "beside").touch()
    run_volback("prove", str(outside), str(outside))
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    assert restored.splitlines()[-1] == planned.splitlines()[-1]
    files = {path.name: path.read_text() for path in new.rglob("*") if path.is_file()}
    del files["docker-compose.yml"]
    assert files == {"index": "hello", "app.conf": "on", ".env": "SECRET=1"}
    docker, word, *arguments = shlex.split(restored.splitlines()[-1].removeprefix("start: "))
    assert (docker, word, arguments.pop()) == ("docker", "compose", "--detach")
    compose.move_to(new)
    up = subprocess.run(
        ["docker-compose", "--ansi", "never", *arguments, "--no-start"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert (up.returncode, said_of_volumes(up.stdout)) == (0, [])


def test_several_volumes_come_back_together_and_what_is_there_stays(
    run_volback: Volback, library: Library, two: list[str], engine: EngineSession, volume_path: VolumePath
) -> None:
    first, second = two
    made = back_up_set(library, None, [volume_source(library.engine, volume) for volume in two])[0].set
    assert made is not None
    engine.client.volumes.get(first).remove()
    (volume_path(second) / "newer").touch()

    for call in (["restore", second, first], ["restore", second, first, "--dry-run"]):
        said = run_volback(*call, check_exit=5)
        assert errors(said) == [f"error: volumes exist already, so none was restored: {second}"]
    assert said.stdout.splitlines()[0] == f"set {made.id}"
    assert said.stdout.splitlines()[2::2] == [
        "  would restore 1 file, 10.0 KiB, in place", "  would restore 1 file, 10.0 KiB",
    ]  # fmt: skip
    assert first not in {volume.name for volume in engine.volumes()}
    said = run_volback("restore", "--all", check_exit=3)
    assert said.stdout.splitlines()[-1] == f"not restored: {second}"
    assert said.stderr == f"warning: volume {second!r} exists already: it stays as it is\n"
    assert (volume_path(second) / "newer").exists()
    assert first in {volume.name for volume in engine.volumes()}


WRONG_CALLS = {
    "--project does not accept --as": ["--project", "shop", "--as", "x"],
    "--project does not accept --path and --to": ["--project", "shop", "--path", "x", "--to", "/x"],
    "--project restores all volumes of a project; do not name a BACKUP with it": ["--project", "shop", "db"],
    "--project does not accept --driver": ["--project", "shop", "--driver", "local", "--dry-run"],
    "a restore of several volumes does not accept --as": ["db", "uploads", "--as", "x"],
    "--all does not accept --to": ["--all", "--to", "/srv"],
    "--all restores every volume": ["--all", "db"],
    "--as-project requires --project NAME": ["db", "--as-project", "blog"],
    "--with-binds requires --project NAME": ["db", "--with-binds"],
    "--compose-dir requires --project NAME": ["--all", "--compose-dir", "/srv"],
    "no volume is named": ["clone", "db"],
    "--project and --as-project go together": ["clone", "--project", "shop"],
    "--project clones all volumes of a project; do not name a VOLUME with it": [
        "clone",
        "db",
        "--project",
        "shop",
        "--as-project",
        "blog",
    ],
    "no backup is named": ["--set", "2026"],
}


def test_calls_that_are_not_valid() -> None:
    script = (
        "import json, sys; from volback.cli.main import run\nprint([run(call) for call in json.loads(sys.argv[1])])"
    )
    calls = json.dumps([call if call[:1] == ["clone"] else ["restore", *call] for call in WRONG_CALLS.values()])
    done = subprocess.run([sys.executable, "-c", script, calls], capture_output=True, text=True, check=False)
    assert done.stdout == f"{[2] * len(WRONG_CALLS)}\n"
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {message}" for message in WRONG_CALLS
    ]
