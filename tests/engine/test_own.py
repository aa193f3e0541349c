"""Which container volback runs in is determined from the kernel and the engine together, and never guessed.

What the kernel says inside a container is read there, with `cat`, and judged out here with the same engine.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Opener
from tests.support.engine import EngineSession, said_in
from volback.engine.own import Own, OwnContainer, find_own

Look = Callable[..., OwnContainer | None]
Find = Callable[..., Own]


@pytest.fixture
def find(engine: EngineSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Finds the own container with the eyes of a process in `container`; `blind` to its cgroup, to its overlay.

    Both are what a process sees with cgroup v2 and the containerd image store, which are the defaults of engine 29.
    """

    def see(container: Any, *, blind: str = "") -> Own:
        hostname = said_in(container, "cat", "/proc/sys/kernel/hostname")[1].decode().strip()
        monkeypatch.setattr(socket, "gethostname", lambda: hostname)
        proc = tmp_path / secrets.token_hex(4)
        proc.mkdir()
        for name in ("cgroup", "mountinfo"):
            text = said_in(container, "cat", f"/proc/self/{name}")[1].decode()
            text = re.sub(r"[0-9a-f]{64}", "", text) if name == "cgroup" and "cgroup" in blind else text
            text = re.sub(r",upperdir=[^,]*", "", text) if "overlay" in blind else text
            (proc / name).write_text(text)
        return find_own(engine.client.api, proc)

    return see


@pytest.fixture
def look(find: Find) -> Look:
    """What `find` finds, as far as it is certain."""
    return lambda *arguments, **options: find(*arguments, **options).container


def test_a_process_of_the_host_is_in_none(open_engine: Opener) -> None:
    ours = open_engine()
    assert ours.own_container is None
    assert ours.own_container_ids == frozenset()


@pytest.mark.parametrize("blind", ["", "cgroup", "overlay", "cgroup overlay"])
def test_it_is_found_by_each_sign(container_factory: Callable[..., Any], look: Look, blind: str) -> None:
    container = container_factory()
    found = look(container, blind=blind)
    assert found is not None
    assert (found.id, found.name) == (container.id, container.name)


def test_another_engines_container_is_none_of_ours(
    container_factory: Callable[..., Any], look: Look, tmp_path: Path, engine: EngineSession
) -> None:
    found = look(container_factory())
    assert found is not None
    (tmp_path / "cgroup").write_text(f"0::/docker/{secrets.token_hex(32)}\n")
    assert find_own(engine.client.api, tmp_path) == Own()


@pytest.mark.parametrize("blind", ["", "cgroup"])
def test_whose_network_it_shares_is_not_mistaken_for_it(
    container_factory: Callable[..., Any], find: Find, blind: str
) -> None:
    """/etc/hostname and its like are the other container's there."""
    first = container_factory(network_mode="bridge")
    second = container_factory(network_mode=f"container:{first.id}")
    for container in (first, second):
        found = find(container, blind=blind)
        if found.container is None:  # cgroup v2 and the containerd image store: it sees neither of the two signs
            assert found.possible == {first.id, second.id}
        else:
            assert found.container.id == container.id
            assert found.possible == {container.id}


def test_where_two_fit_neither_is_taken_and_both_are_spared(
    volume_factory: Callable[..., str], container_factory: Callable[..., Any], find: Find,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first = container_factory(network_mode="bridge", volumes={volume_factory(): "/of-first"})
    second = container_factory(network_mode=f"container:{first.id}")
    found = find(second, blind="cgroup overlay").container
    assert found is not None
    assert found.id == second.id, "the first's volume is not mounted here"
    third = container_factory(network_mode=f"container:{first.id}")
    with caplog.at_level(logging.WARNING):
        unsure = find(third, blind="cgroup overlay")
    if unsure.container is not None:  # Podman: each has a host name's file of its own
        assert unsure.possible == {unsure.container.id} == {third.id}
        return
    assert unsure == Own(None, frozenset({second.id, third.id}))
    assert second.name in caplog.text
    assert third.name in caplog.text


def test_two_that_mount_at_the_same_place_differ_in_what_they_mount(
    volume_factory: Callable[..., str], container_factory: Callable[..., Any], look: Look, tmp_path: Path
) -> None:
    directories = [tmp_path / name / "state" for name in ("first", "second")]
    for directory in directories:
        directory.mkdir(parents=True)
    mounts = [{volume_factory(): "/state", str(directory): "/bound of it"} for directory in directories]
    first = container_factory(network_mode="bridge", volumes=mounts[0])
    second = container_factory(network_mode=f"container:{first.id}", volumes=mounts[1])
    less = container_factory(network_mode=f"container:{first.id}", volumes=dict([next(iter(mounts[1].items()))]))
    for container in (first, second, less):
        found = look(container, blind="cgroup overlay")
        assert found is not None
        assert found.id == container.id


def test_a_name_that_looks_like_an_id_is_none(
    container_factory: Callable[..., Any], engine: EngineSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = secrets.token_hex(6)
    container = container_factory(name=name, hostname=name)
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert find_own(engine.client.api, tmp_path) == Own()
    monkeypatch.setattr(socket, "gethostname", lambda: container.id[:12])
    found = find_own(engine.client.api, tmp_path).container
    assert found is not None
    assert found.id == container.id


def test_a_place_in_it_is_named_as_on_the_host(
    container_factory: Callable[..., Any], volume_factory: Callable[..., str], look: Look,
    volume_path: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    volume, directory = volume_factory(), tmp_path / "with a space"
    (directory / "below").mkdir(parents=True)
    container = container_factory(
        volumes={volume: "/of volback/state", str(directory): "/of volback/bound"},
        tmpfs={"/of volback/bound/below": ""},
    )
    found = look(container)
    assert found is not None
    assert found.on_host(Path("/of volback/state/runs/x")) == f"{volume_path(volume)}/runs/x"
    assert found.on_host(Path("/of volback/state")) == str(volume_path(volume))
    assert found.on_host(Path("/of volback/bound/x")) == f"{directory}/x"
    assert found.on_host(Path("/of volback/bound/below/x")) is None, "another filesystem lies there"
    assert found.on_host(Path("/of volback/x")) is None
    mount = found.mount_of(Path("/of volback/state/runs"))
    assert mount is not None
    assert mount.volume == volume
