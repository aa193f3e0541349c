"""Who made a backup of an encrypted repository: a restore says it, and believes a certified host alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.forged import reseal_file, sealed
from volback.archive.age_keys import Identity
from volback.catalog.keys import REPOSITORY_KEY

ACTING = "com.docker.compose.project"


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """The identity file of a person with a key."""
    path = tmp_path / "person.txt"
    path.write_text(f"{Identity.new()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def machine(run_volback: Volback, person: Path, tmp_path: Path) -> Callable[[str], Volback]:
    """Makes machines: each has a state directory of its own, and all have one encrypted repository."""
    repository = tmp_path / "encrypted"

    def make(name: str) -> Volback:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "repository").symlink_to(repository)
        return Volback(directory, run_volback.client_ids)

    recipient = str(Identity.parse(person.read_text().strip()).recipient)
    run_volback("init", "--encrypt", "--recipient", recipient, "--repo", repository)
    return make


def test_a_restore_believes_a_certified_host_alone(
    machine: Callable[[str], Volback], person: Path, engine: EngineSession, volume_factory: Callable[..., str]
) -> None:
    host, new, thief = machine("host"), machine("new"), machine("thief")
    volume = volume_factory(labels={ACTING: "shop"}, fill=lambda root: (root / "file").write_text("mine"))

    def backed_up(by: Volback) -> str:
        made: str = by("backup", volume, "--full", "--json").json["result"]["backups"][0]["id"]
        return made

    def restored(id: str) -> tuple[dict[str, Any], list[str], dict[str, str]]:
        engine.client.volumes.get(volume).remove()
        done = new("restore", f"{volume}@{id}", "--identity", person, "--json").json
        return done["result"], done["warnings"], engine.client.volumes.get(volume).attrs["Labels"]

    good = backed_up(host)
    facts, warnings, labels = restored(good)
    assert (facts["certified"], ACTING in labels) == (False, False)
    assert "no host is certified for the repository" in warnings[0]

    key = host("key", "host", "--json").json["result"]["key"]
    name = host("list", "--json").json["result"]["backups"][0]["host"]
    assert "was not confirmed" in new("key", "trust", name, "--identity", person, check_exit=2).stderr
    new("key", "trust", name, "--key", key[:16], "--identity", person, "--json")
    facts, warnings, labels = restored(good)
    assert (facts["certified"], facts["signed_by"], warnings) == (True, key, [])
    assert labels[ACTING] == "shop"

    engine.client.volumes.get(volume).remove()
    engine.client.volumes.create(volume, labels=engine.labels | {ACTING: "theirs"})
    theirs = backed_up(thief)
    facts, warnings, labels = restored(theirs)
    assert (facts["certified"], ACTING in labels) == (False, False)
    assert f"is signed by a key that is not certified for host {name}" in warnings[0]


def test_a_manifest_that_was_changed_or_moved_is_no_longer_that_of_its_host(
    machine: Callable[[str], Volback], person: Path, tmp_path: Path
) -> None:
    host = machine("host")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("mine")
    host("backup", source, "--full")
    name = host("list", "--json").json["result"]["backups"][0]["host"]
    key = host("key", "host", "--json").json["result"]["key"]
    host("key", "trust", name, "--key", key, "--identity", person)
    (manifest,) = host.repository.glob("*/*/*/manifest.json")
    was = manifest.read_bytes()

    def restored(target: str, code: int = 0) -> Any:
        return host("restore", source, "--to", tmp_path / target, "--identity", person, "--json", check_exit=code).json

    assert restored("1")["result"]["certified"] is True
    reseal_file(manifest, lambda fields: fields.update(tags=["safety"]))
    assert "is not what its signer has signed" in restored("2", 7)["error"]["message"]
    assert not (tmp_path / "2").exists()
    fields = json.loads(was)
    manifest.write_bytes(sealed({key: fields[key] for key in list(fields)[:-3]}))
    done = restored("3")
    assert done["result"]["certified"] is False
    assert "is not signed: whoever can write to the repository can have made it" in done["warnings"][0]


def _change(fields: dict[str, object], changes: dict[str, object], *, is_signed: bool) -> None:
    fields.update(changes)
    if not is_signed:
        del fields["signed_by"], fields["signature"]


def test_a_host_writes_nothing_for_a_recipient_that_was_swapped(
    machine: Callable[[str], Volback], tmp_path: Path
) -> None:
    host = machine("host")
    source = tmp_path / "source"
    source.mkdir()
    host("backup", source, "--full")
    document = host.repository / REPOSITORY_KEY
    was = document.read_bytes()
    before = sorted(host.repository.rglob("*"))
    stranger = {"recipient": str(Identity.new().recipient), "past": []}
    changes: list[dict[str, object]] = [{"encryption": stranger}, {"encryption": None, "requires": []}]
    for change, is_signed in product(changes, (True, False)):
        reseal_file(document, partial(_change, changes=change, is_signed=is_signed))
        failed = host("backup", source, check_exit=7)
        assert ("is not what its signer has signed" if is_signed else "encrypted for") in failed.stderr
        assert sorted(host.repository.rglob("*")) == before
        document.write_bytes(was)
    host("backup", source, "--full")


def test_an_old_state_that_was_put_back_is_noticed_by_a_machine_that_saw_a_newer_one(
    machine: Callable[[str], Volback], person: Path, tmp_path: Path
) -> None:
    host, fresh = machine("host"), machine("fresh")
    source = tmp_path / "source"
    source.mkdir()

    def backed_up() -> str:
        made: str = host("backup", source, "--json").json["result"]["backups"][0]["id"]
        return made

    def cat(by: Volback) -> str:
        return by("ls", source, "--identity", person).stderr

    (source / "file").write_text("mine")
    backed_up()
    old = tmp_path / "old"
    shutil.copytree(host.repository, old)
    newer = backed_up()
    assert cat(host) == ""
    shutil.rmtree(host.repository.resolve())
    shutil.copytree(old, host.repository.resolve())
    gone = f"@{newer}, which this machine has seen, is gone"
    assert gone in cat(host)
    assert cat(fresh) == "", "who has seen nothing cannot know"
    made = host("backup", source, check_exit=None)
    assert gone in made.stderr
    assert "is gone" not in cat(host), "a backup that was made since is the newest"
    last = backed_up()
    host("remove", f"{source}@{last}")
    assert cat(host) == "", "it was removed on this machine"
