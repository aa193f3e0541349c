"""Clone: a second volume on the same engine that equals the first, bit for bit, or none at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback, remove_volume
from tests.support.fingerprint import differences, fingerprint
from tests.support.library import Library
from tests.support.tree import make_odd_tree
from volback.errors import ConflictError, NotFoundError, UsageError
from volback.moving.clone import clone
from volback.moving.clone_project import clone_project
from volback.moving.move import MoveOptions
from volback.moving.proof import prove_transfer
from volback.moving.sides import source_side
from volback.moving.transfer import Route, Transferred
from volback.operations.prove import Comparison
from volback.state.runs import Run

IDENTICAL = Comparison([], [], [])
PROJECT = "com.docker.compose.project"


def _fill(path: Path) -> None:
    make_odd_tree(path, deep=False)


def _small(path: Path) -> None:
    (path / "directory").mkdir()
    (path / "directory" / "file").write_text("text")
    (path / "other").write_text("other")


def test_a_clone_of_an_odd_tree_has_no_difference(
    library: Library,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    original, new = volume_factory("odd", fill=_fill), volume_name("new")
    before = fingerprint(volume_path(original))

    done = clone(*library, original, new, MoveOptions())

    assert (done.proof, done.incomplete, done.consistency) == (IDENTICAL, False, "stopped")
    assert (done.files, done.sockets) == (len(before), 3)
    assert differences(before, fingerprint(volume_path(new))) == []
    assert differences(before, fingerprint(volume_path(original))) == [], "the source is only read"
    assert not Path(library.ctx.settings.repository, "host").exists()


def test_a_clone_has_the_labels_that_do_not_act_and_is_a_plain_volume(
    library: Library, engine: EngineSession, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    labels = {"team": "red", "password": "as it is", PROJECT: "shop", "volback.keep": "daily=3"}
    original, new = volume_factory("labelled", fill=_small, labels=labels), volume_name("new")

    clone(*library, original, new, MoveOptions(labels={"env": "test", "team": "blue"}))

    made = engine.client.volumes.get(new).attrs
    kept = {key: value for key, value in made["Labels"].items() if key in {*labels, "env"}}
    assert kept == {"team": "blue", "password": "as it is", "env": "test"}
    assert (made["Driver"], made["Options"]) == ("local", None)


def test_a_driver_and_its_options_are_as_given(
    library: Library,
    engine: EngineSession,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    tmp_path: Path,
) -> None:
    original, new = volume_factory("plain", fill=_small), volume_name("new")
    given = {"type": "none", "o": "bind", "device": str(tmp_path / "there")}
    (tmp_path / "there").mkdir()
    done = clone(*library, original, new, MoveOptions(driver_options=given))
    assert (tmp_path / "there" / "directory" / "file").read_text() == "text"
    assert engine.client.volumes.get(new).attrs["Options"] == given
    assert done.warnings == ()

    plain = volume_name("plain-again")
    (warning,) = clone(*library, new, plain, MoveOptions()).warnings
    assert f"volume {plain!r} is a plain local volume: {new!r} is on other storage" in warning


def test_a_volume_that_holds_something_is_refused_and_stays_as_it_is(
    library: Library,
    volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    original, full = volume_factory("original", fill=_small), volume_factory("full", fill=_small)
    before = fingerprint(volume_path(full))
    with pytest.raises(ConflictError, match="exists already, and is not empty: it holds") as caught:
        clone(*library, original, full, MoveOptions())
    assert caught.value.hint == "choose another name, or remove it first"
    with pytest.raises(ConflictError, match="cannot be cloned into itself"):
        clone(*library, original, original, MoveOptions())
    assert differences(before, fingerprint(volume_path(full))) == []


def test_an_empty_volume_is_filled_and_keeps_its_labels(
    library: Library,
    engine: EngineSession,
    volume_factory: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    original = volume_factory("original", fill=_small, labels={"team": "red"})
    empty = volume_factory("empty", labels={"team": "blue"})
    with pytest.raises(ConflictError, match="keeps its driver and its labels"):
        clone(*library, original, empty, MoveOptions(labels={"team": "green"}))

    assert clone(*library, original, empty, MoveOptions()).proof == IDENTICAL

    assert differences(fingerprint(volume_path(original)), fingerprint(volume_path(empty))) == []
    assert engine.client.volumes.get(empty).attrs["Labels"]["team"] == "blue"
    assert list((library.ctx.settings.state / "runs").iterdir()) == []


def test_an_empty_volume_in_use_is_refused(
    library: Library, volume_factory: Callable[..., str], container_factory: Callable[..., Any]
) -> None:
    original, empty = volume_factory("original", fill=_small), volume_factory("empty")
    container = container_factory(volumes={empty: "/data"})
    with pytest.raises(ConflictError, match=f"is in use by container '{container.name}'"):
        clone(*library, original, empty, MoveOptions())


def test_what_does_not_exist_is_not_cloned_and_not_made(
    library: Library, engine: EngineSession, volume_name: Callable[..., str]
) -> None:
    missing, new = volume_name("missing"), volume_name("new")
    with pytest.raises(NotFoundError, match=f"volume '{missing}' does not exist"):
        clone(*library, missing, new, MoveOptions())
    assert not {missing, new} & {volume.name for volume in engine.client.volumes.list()}


def test_a_volume_that_is_written_to_is_cloned_with_a_warning(
    run_volback: Volback,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    container_factory: Callable[..., Any],
) -> None:
    original = volume_factory("written", fill=_small)
    container = container_factory(volumes={original: "/data"})
    said = run_volback("clone", original, volume_name("new"), "--json").json
    assert (said["result"]["consistency"], said["result"]["containers"]) == ("live", [container.name])
    assert [f"container '{container.name}' is running" in warning for warning in said["warnings"]] == [True]
    assert said["result"]["proven"] is True


def test_an_attribute_that_could_not_be_set_is_named(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    def fill(path: Path) -> None:
        _small(path)
        os.setxattr(path / "other", "security.NTACL", b"only with CAP_SYS_ADMIN")

    said = run_volback("clone", volume_factory("odd", fill=fill), volume_name("new"), "--json", check_exit=3).json
    assert "attribute security.NTACL could not be set on 1 file" in said["warnings"][0]
    assert said["result"]["proof"]["lacking"] == {"security.NTACL": ["other"]}
    assert said["result"]["proven"] is False


def test_a_proof_names_each_file_that_differs(
    library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    source, target = (source_side(library.engine, volume_factory(name, fill=_small)) for name in ("one", "two"))
    root = volume_path(target.volume.name)
    for path in (root, root / "directory", root / "directory" / "file", root / "other"):
        stat = (volume_path(source.volume.name) / path.relative_to(root)).stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    moved = Transferred(4, 0, 0, digest=b"of a stream with the same files and other holes")

    with Run(library.ctx.settings.state, "clone") as run:
        route = Route(library.ctx, run, source, target)
        assert prove_transfer(route, moved) == IDENTICAL
        (root / "directory" / "file").write_text("TEXT")
        found = prove_transfer(route, moved)

    assert found == replace(IDENTICAL, different=["directory/file"])


@pytest.fixture
def project(engine: EngineSession, volume_path: Callable[[str], Path]) -> Iterator[str]:
    """A project with three volumes; those of its clone are removed too."""
    project, parts = engine.new_name("project"), ("cache", "db", "full")
    names = {f"{one}_{part}": part for one in (project, f"{project}2") for part in parts}
    engine.names.update(names)
    for name, part in list(names.items())[: len(parts)]:
        labels = engine.labels | {PROJECT: project, "com.docker.compose.volume": part, "team": "red"}
        engine.client.volumes.create(name, labels=labels)
        (volume_path(name) / "file").write_text(part)
    yield project
    for name in names:
        remove_volume(engine.client, name)


def test_a_project_is_cloned_as_another_one(
    library: Library, engine: EngineSession, volume_factory: Callable[..., str], container_factory: Callable[..., Any],
    *, project: str, volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    new, part = f"{project}2", "com.docker.compose.volume"
    external = volume_factory("external")
    container_factory(volumes={external: "/x"}, labels=engine.labels | {PROJECT: project})
    engine.client.volumes.create(f"{new}_cache", labels=engine.labels | {"made": "by compose"})
    engine.client.volumes.create(f"{new}_full", labels=engine.labels)
    (volume_path(f"{new}_full") / "mine").touch()

    done = clone_project(*library, project, new, MoveOptions())

    assert [(moved.target.name, moved.proof) for moved in done.cloned] == [
        (f"{new}_cache", IDENTICAL), (f"{new}_db", IDENTICAL),
    ]  # fmt: skip
    assert done.not_cloned == (f"{project}_full", external)
    assert [type(error) for error in done.errors] == [ConflictError]
    assert done.errors[0].message.startswith(f"volume '{project}_full' was not cloned: ")
    assert done.warnings == (f"volume {external!r} is not named after its project: both projects use it",)
    labels = library.engine.volume(f"{new}_db").labels
    assert {key: labels.get(key) for key in (PROJECT, part, "team")} == {PROJECT: new, part: "db", "team": "red"}
    assert library.engine.volume(f"{new}_cache").labels.get("made") == "by compose"
    assert (volume_path(f"{new}_db") / "file").read_text() == "db"
    assert os.listdir(volume_path(f"{new}_full")) == ["mine"]


def test_a_project_is_cloned_into_another_one_alone(
    library: Library, engine: EngineSession, volume_factory: Callable[..., str]
) -> None:
    volume_factory("own", labels={PROJECT: "volback-test-shop"})
    for new in ("volback-test-shop", "Not Valid"):
        with pytest.raises(UsageError):
            clone_project(*library, "volback-test-shop", new, MoveOptions())
    with pytest.raises(NotFoundError, match="no volume is named after project 'volback-test-shop'"):
        clone_project(*library, "volback-test-shop", "volback-test-blog", MoveOptions())
