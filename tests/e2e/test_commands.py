"""Each command and each exit code, through the real program against the real engine."""

from __future__ import annotations

import gzip
import io
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import volback
from tests.support.engine import EngineSession, Result, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import halted
from tests.support.tree import make_odd_tree
from volback.catalog.keys import parse_manifest_key
from volback.state.locks import lock

MakeVolume = Callable[..., str]
VolumePath = Callable[[str], Path]

HIDDEN = "red\x1b[31m"
"""A name that would colour the terminal."""


def fill_small(root: Path) -> None:
    """A few files of every kind that a listing tells apart."""
    (root / "etc").mkdir(mode=0o750)
    (root / "etc" / "app.conf").write_text("port = 80\n")
    os.chown(root / "etc" / "app.conf", 1000, 2000)  # takes the setuid bit away
    (root / "etc" / "app.conf").chmod(0o4640)
    os.utime(root / "etc" / "app.conf", (0, 1_700_000_000))
    os.link(root / "etc" / "app.conf", root / "second-name")
    (root / "link").symlink_to("etc/app.conf")
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(os.urandom(3_000_000))
    (root / HIDDEN).write_text("x")
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"latin")
    with (root / "sparse").open("wb") as file:
        os.pwrite(file.fileno(), b"in the middle", 5_000_000)
        file.truncate(9_000_000)


@pytest.fixture
def small(volume_factory: MakeVolume) -> str:
    return volume_factory("small", fill=fill_small)


def errors(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def reference(run: Volback, name: str, *options: str) -> str:
    """Back up and return the backup's full name."""
    made = run("backup", name, "--json", *options).json["result"]["backups"][0]
    return f"{made['host']}/{made['volume']}@{made['id']}"


def data_path(run: Volback, name: str) -> Path:
    return run.repository / name.replace("@", "/") / "data.tar.zst"


def test_a_volume_goes_and_comes_back(
    run_volback: Volback, small: str, volume_name: Callable[..., str], volume_path: VolumePath, engine: EngineSession
) -> None:
    before = fingerprint(volume_path(small))
    said = run_volback("backup", small, "--tag", "nightly")
    assert re.fullmatch(rf"{small}@\d{{8}}T\d{{6}}Z-[0-9a-f]{{4}}  10 files, .* in [0-9.]+ s\n", said.stdout)
    assert said.stderr == ""
    engine.client.volumes.get(small).remove()

    restored = run_volback("restore", small, "--prove")

    assert "proven bit for bit" in restored.stdout
    assert differences(before, fingerprint(volume_path(small))) == []
    assert engine.client.volumes.get(small).attrs["Labels"]["volback.test"] == engine.id
    assert run_volback("prove", small).stdout == "identical, bit for bit\n"
    assert run_volback("verify", "--data").stdout == "1 backup checked (every byte), 1 intact\n"


def test_quiet_says_nothing_where_all_went_well(
    run_volback: Volback, small: str, container_factory: Callable[..., Any], volume_name: Callable[..., str]
) -> None:
    container_factory(volumes={small: "/data"})
    noticed = run_volback("backup", small, check_exit=3)
    assert "may be written to while it is read" in noticed.stderr
    assert "may be written to while it is read" in run_volback("--quiet", "backup", small, check_exit=3).stderr
    for command in (["backup", small, "--live"], ["restore", small, "--as", volume_name("copy")], ["verify"], ["list"]):
        done = run_volback("--quiet", *command)
        assert (done.stdout, done.stderr) == ("", ""), command
    failed = run_volback("--quiet", "backup", "no-such-volume", check_exit=4)
    assert errors(failed) == ["error: volume 'no-such-volume' does not exist"]


def test_one_failure_does_not_stop_the_next_volume(
    run_volback: Volback, volume_factory: MakeVolume, engine: EngineSession
) -> None:
    first, last, missing = volume_factory("first"), volume_factory("last"), engine.new_name("missing")
    done = run_volback("backup", first, missing, last, "--json", check_exit=4)
    assert [made["volume"] for made in done.json["result"]["backups"]] == [first, last]
    assert done.json["ok"] is False
    assert done.json["error"]["kind"] == "not_found"
    said = run_volback("backup", first, missing, last, check_exit=4)
    assert len(said.stdout.splitlines()) == 2
    assert errors(said) == [f"error: volume {missing!r} does not exist"]
    assert missing not in {volume.name for volume in engine.volumes()}, "backing up must not create a volume"


def test_backup_chooses_by_label_and_leaves_out_what_is_excluded(
    run_volback: Volback, volume_factory: MakeVolume, engine: EngineSession, volume_path: VolumePath
) -> None:
    label = f"volback-test-group={engine.id}"
    wanted = volume_factory("wanted", fill=fill_small, labels=dict([label.split("=")]))
    volume_factory("other")
    made = run_volback("backup", "--label", label, "--exclude", "large", "--exclude", "etc", "--json").json["result"]
    assert [item["volume"] for item in made["backups"]] == [wanted]
    listed = run_volback("ls", wanted, "--json").json["result"]["entries"]
    assert {"large", "etc/app.conf"}.isdisjoint(entry["path"] for entry in listed)
    assert "sparse" in {entry["path"] for entry in listed}
    nothing = run_volback("backup", "--label", "nobody-has=this", check_exit=4)
    assert errors(nothing) == ["error: no volume has the label nobody-has=this"]


def test_a_pattern_that_excludes_everything_is_a_warning(run_volback: Volback, small: str) -> None:
    made = run_volback("backup", small, "--exclude", "*", check_exit=3)
    assert "warning: the patterns exclude everything: 9 files left out" in made.stderr
    assert ", 9 excluded" in made.stdout
    assert "*: 9 left out" in run_volback("show", small).stdout


def test_a_suspiciously_small_backup_is_a_warning_and_keeps_the_older_ones(
    run_volback: Volback, small: str, volume_path: VolumePath
) -> None:
    usual = reference(run_volback, small)
    (volume_path(small) / "large").write_bytes(b"")
    (volume_path(small) / "sparse").unlink()
    for options in (["--full"], []):
        shrunk = run_volback("backup", small, *options, check_exit=3)
        assert f"where {usual.partition('@')[2]} has" in shrunk.stderr
        assert "accept it: back up with --shrink-ratio 0" in shrunk.stderr
    pruned = run_volback("prune", small, "--keep-last", "1", "--json").json["result"]
    assert usual.partition("@")[2] in {backup["id"] for backup in pruned["kept"]}
    accepted = reference(run_volback, small, "--shrink-ratio", "0").partition("@")[2]
    pruned = run_volback("prune", small, "--keep-last", "1", "--json").json["result"]
    kept = {backup["id"]: backup["reasons"] for backup in pruned["kept"]}
    assert kept == {accepted: ["last 1 of 1"]}, "what it uses of the full one that was small too stays without that"
    run_volback("backup", small)


def test_dry_run_stores_nothing(run_volback: Volback, small: str) -> None:
    said = run_volback("backup", small, "--dry-run", "--exclude", "large")
    assert said.stdout.startswith(f"{small}  would read 9 files, ")
    assert said.stdout.endswith(", 1 excluded\n")
    assert [path.name for path in run_volback.repository.iterdir()] == ["volback.json"]


def test_a_host_directory_is_a_source_and_a_target(run_volback: Volback, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    fill_small(source)
    name = reference(run_volback, os.path.relpath(source, run_volback.directory))
    assert str(source) in name
    run_volback("restore", name, "--to", target, "--prove")
    assert differences(fingerprint(source), fingerprint(target)) == []
    refused = run_volback("restore", name, "--to", target, check_exit=5)
    assert errors(refused) == [f"error: directory {target} is not empty"]
    assert errors(run_volback("backup", tmp_path / "missing", check_exit=None)) != []


def test_a_directory_that_a_restore_made_goes_if_it_fails(run_volback: Volback, small: str, tmp_path: Path) -> None:
    name = reference(run_volback, small)
    orphan = tmp_path / "missing" / "target"
    said = run_volback("restore", name, "--to", orphan, check_exit=4)
    assert errors(said) == [f"error: directory {orphan.parent} does not exist on the engine's host"]
    run_volback("restore", name, "--path", "large", "--to", tmp_path / "part")
    assert (tmp_path / "part" / "large").stat().st_size > 0
    data = data_path(run_volback, name)
    data.write_bytes(data.read_bytes()[:-1000] + bytes(1000))
    run_volback("restore", name, "--to", tmp_path / "new", check_exit=7)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    run_volback("restore", name, "--to", tmp_path / "empty", check_exit=7)
    assert list((tmp_path / "empty").iterdir()) == []


def test_restore_takes_a_part_another_name_and_other_labels(
    run_volback: Volback,
    small: str,
    volume_name: Callable[..., str],
    volume_path: VolumePath,
    engine: EngineSession,
) -> None:
    run_volback("backup", small)
    name = volume_name("part")
    done = run_volback("restore", small, "--as", name, "--path", "etc", "--path", "pipe", "--label", "a=b=c", "--json")
    assert done.json["result"]["volume"] == name
    assert sorted(path.name for path in volume_path(name).rglob("*")) == ["app.conf", "etc", "pipe"]
    assert engine.client.volumes.get(name).attrs["Labels"]["a"] == "b=c"
    assert "volback.test" not in engine.client.volumes.get(name).attrs["Labels"], "no label by which volback acts"
    misnamed = run_volback("restore", small, "--as", "of/nobody", check_exit=2)
    assert misnamed.stderr.startswith("error: 'of/nobody' is not a valid volume name\nhint: ")
    lacking = run_volback("restore", small, "--as", volume_name("none"), "--path", "nothing/there", check_exit=4)
    assert "'nothing/there'" in lacking.stderr


def test_restore_never_touches_a_volume_without_replace(
    run_volback: Volback, small: str, volume_path: VolumePath, container_factory: Callable[..., Any]
) -> None:
    run_volback("backup", small)
    (volume_path(small) / "new").write_text("kept in the safety backup")
    refused = run_volback("restore", small, check_exit=5)
    assert "--replace" in refused.stderr
    container = container_factory(volumes={small: "/data"})
    in_use = run_volback("restore", small, "--replace", check_exit=5)
    assert container.name in in_use.stderr
    container.remove(force=True)
    done = run_volback("restore", small, "--replace", "--prove", "--json").json["result"]
    assert not (volume_path(small) / "new").exists()
    assert run_volback("cat", done["safety_backup"], "new").stdout == "kept in the safety backup"


def test_replacing_twice_restores_the_same_backup_twice(
    run_volback: Volback, small: str, volume_path: VolumePath
) -> None:
    made = reference(run_volback, small)
    conf = volume_path(small) / "etc" / "app.conf"
    conf.write_text("damaged")
    safeties = {run_volback("restore", small, "--replace", "--json").json["result"]["safety_backup"] for _ in range(2)}
    assert conf.read_text() == "port = 80\n"
    assert len(safeties) == 2
    run_volback("prove", small)
    assert run_volback("show", small).stdout.splitlines()[0].endswith(made.partition("@")[2])
    [volume] = [item for item in run_volback("volumes", "--json").json["result"]["volumes"] if item["name"] == small]
    assert volume["last_backup"]["id"] == made.partition("@")[2]
    assert run_volback("cat", min(safeties), "etc/app.conf").stdout == "damaged"


def test_a_backup_from_the_future_is_said_and_is_not_the_latest(
    run_volback: Volback, small: str, volume_path: VolumePath
) -> None:
    from msgspec.structs import replace

    from volback.catalog.repository import Catalog
    from volback.catalog.sealed import seal_document
    from volback.store.local import LocalStore

    made = reference(run_volback, small)
    volume, _, id_ = made.partition("@")
    future = f"{volume}@{int(id_[:4]) + 1}{id_[4:]}"
    path, copied = (run_volback.repository / name.replace("@", "/") for name in (made, future))
    shutil.copytree(path, copied)
    key = parse_manifest_key(made.replace("@", "/") + "/manifest.json")
    assert key is not None
    manifest = Catalog(LocalStore(run_volback.repository)).read(key)
    (copied / "manifest.json").write_bytes(seal_document(replace(manifest, id=copied.name)))
    (volume_path(small) / "etc" / "app.conf").write_text("newer")
    newer = reference(run_volback, small)
    shown = run_volback("cat", small, "etc/app.conf")
    assert shown.stdout == "newer"
    assert f"warning: backup {future} is from the future" in shown.stderr
    listed = run_volback("volumes", "--json").json
    [volume] = [item for item in listed["result"]["volumes"] if item["name"] == small]
    assert volume["last_backup"]["id"] == newer.partition("@")[2]
    assert [warning for warning in listed["warnings"] if future in warning]
    assert run_volback("show", future).stderr == ""


def test_prove_names_each_difference(run_volback: Volback, small: str, volume_path: VolumePath) -> None:
    run_volback("backup", small)
    (volume_path(small) / "etc" / "app.conf").write_text("port = 81\n")
    (volume_path(small) / "large").unlink()
    (volume_path(small) / "new\nline").write_text("")
    found = run_volback("prove", small, "--json", check_exit=7).json
    assert found["ok"] is False
    assert found["error"]["kind"] == "integrity"
    assert found["result"]["identical"] is False
    assert "etc/app.conf" in found["result"]["different"]
    assert found["result"]["missing"] == ["large"]
    assert found["result"]["extra"] == ["new\nline"]
    said = run_volback("prove", small, check_exit=7)
    assert "missing  large\n" in said.stdout
    assert "extra    new\\x0aline\n" in said.stdout


def test_verify_names_the_files_that_are_lost(run_volback: Volback, small: str) -> None:
    whole, broken = reference(run_volback, small), reference(run_volback, small, "--full")
    path = data_path(run_volback, broken)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    sizes = run_volback("verify", "--json").json["result"]
    assert sizes == {"checked": 2, "damaged": [], "subset": None, "signed": None}, "sizes are right"
    found = run_volback("verify", "--data", "--json", check_exit=7).json["result"]
    assert found["checked"] == 2
    assert [(item["backup"], item["paths"]) for item in found["damaged"]] == [(broken, ["large"])]
    assert run_volback("verify", whole, "--data").stdout == "1 backup checked (every byte), 1 intact\n"
    assert "  lost   large\n" in run_volback("verify", broken, "--data", check_exit=7).stdout


def test_list_shows_ages_sizes_tags_and_what_is_damaged(run_volback: Volback, small: str) -> None:
    first, second = reference(run_volback, small, "--tag", "a", "--tag", "b"), reference(run_volback, small)
    (data_path(run_volback, second).parent / "manifest.json").write_text("{}")
    listed = run_volback("list", small, check_exit=7)
    heading, whole, damaged = listed.stdout.splitlines()
    assert heading.split() == ["BACKUP", "AGE", "FILES", "SIZE", "STORED", "TAGS"]
    assert whole.startswith(f"{first.partition('/')[2]}  ")
    assert whole.endswith("a,b")
    assert re.search(r" (now|\d+ s ago) ", whole)
    assert damaged.startswith(second.partition("/")[2])
    assert damaged.endswith("damaged")
    assert f"warning: backup {second} is damaged" in listed.stderr
    assert errors(listed) == ["error: 1 backup cannot be read"]
    document = run_volback("list", "--json", check_exit=7).json
    assert document["error"]["kind"] == "integrity"
    assert [item["id"] for item in document["result"]["backups"]] == [first.partition("@")[2]]
    assert [item["id"] for item in document["result"]["damaged"]] == [second.partition("@")[2]]


def test_list_knows_hosts(run_volback: Volback, small: str) -> None:
    run_volback("backup", small, env={"VOLBACK_HOSTNAME": "elsewhere"})
    said = run_volback("list").stdout
    assert said.endswith("there are 1 of elsewhere: volback list --all-hosts shows them\n")
    assert f"elsewhere/{small}@" in run_volback("list", "--all-hosts").stdout
    assert small in run_volback("list", f"elsewhere/{small}").stdout
    assert f"volback list elsewhere/{small}" in run_volback("list", small, check_exit=4).stderr


def test_show_tells_what_the_volume_was(
    run_volback: Volback, volume_factory: MakeVolume, container_factory: Callable[..., Any]
) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=8m,uid=0"}
    name = volume_factory("options", driver_opts=options, labels={"com.example.part": "one"})
    container_factory(volumes={name: "/data"})
    run_volback("backup", name, "--live")
    said = run_volback("show", name)
    assert "o=size=8m,uid=0" in said.stdout
    assert "com.example.part=one" in said.stdout
    facts = run_volback("show", name, "--json").json["result"]
    assert facts["source"]["options"] == options
    assert re.search(r"^digest: +[0-9a-f]{64}$", said.stdout, re.MULTILINE)


def test_ls_shows_files_in_long_form(run_volback: Volback, small: str) -> None:
    run_volback("backup", small)
    lines = run_volback("ls", small, env={"TZ": "UTC"}).raw.splitlines()
    assert b"-rwSr-----   1000:2000           10 2023-11-14 22:13 etc/app.conf" in lines
    assert any(line.startswith(b"drwxr-x---") and line.endswith(b" etc") for line in lines)
    assert any(line.startswith(b"l") and line.endswith(b" link -> etc/app.conf") for line in lines)
    assert any(line.startswith(b"p") and line.endswith(b" pipe") for line in lines)
    assert any(line.endswith(b"second-name is the same file as etc/app.conf") for line in lines)
    assert any(line.endswith(b" caf\xe9") for line in lines), "off a terminal, names are the bytes that they are"
    part = run_volback("ls", small, "etc/").stdout.splitlines()
    assert [line.split()[-1] for line in part] == ["etc", "etc/app.conf"]
    assert errors(run_volback("ls", small, "nowhere", check_exit=4)) != []


def test_ls_escapes_names_on_a_terminal(run_volback: Volback, small: str) -> None:
    run_volback("backup", small)
    said = on_terminal(run_volback, "ls", small)
    assert b"red\\x1b[31m" in said
    assert b"caf\\xe9" in said
    assert b"\x1b" not in said


def test_ls_and_cat_read_no_data_that_they_do_not_need(run_volback: Volback, small: str) -> None:
    """The data object is gone but for the file that is asked for."""
    name = reference(run_volback, small)
    path = data_path(run_volback, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run_volback("cat", name, "etc/app.conf").stdout == "port = 80\n"
    torn = run_volback("cat", name, "large", check_exit=7)
    assert "is damaged" in torn.stderr
    path.write_bytes(b"")
    assert "etc/app.conf" in run_volback("ls", name).stdout


@pytest.mark.parametrize(
    "path", ["etc/app.conf", "./etc//app.conf", "/etc/app.conf", "second-name", "large", "sparse", HIDDEN, b"caf\xe9"]
)
def test_cat_gives_the_files_bytes(
    run_volback: Volback, small: str, volume_path: VolumePath, path: str | bytes
) -> None:
    run_volback("backup", small)
    expected = Path(os.fsdecode(os.fsencode(volume_path(small)) + b"/" + os.fsencode(path))).read_bytes()
    assert run_volback("cat", small, path).raw == expected


def test_cat_gives_every_file_of_an_odd_tree(
    run_volback: Volback, volume_factory: MakeVolume, volume_path: VolumePath
) -> None:
    """By the library, so that each file is not a process of its own."""
    from tests.support.library import open_from
    from volback.operations.contents import open_backup, read_file
    from volback.settings import Settings

    name = volume_factory("odd", fill=lambda path: make_odd_tree(path, deep=False))
    made = reference(run_volback, name)
    backup = open_backup(open_from(Settings(str(run_volback.repository), run_volback.state)).repository, made)
    root = os.fsencode(volume_path(name))
    paths = [
        (member.type, member.path)
        for member in backup.members()
        if stat.S_ISREG(os.lstat(root + b"/" + member.path).st_mode) and member.size_bytes < 100_000_000
    ]
    assert len(paths) > 50
    assert {member_type for member_type, _ in paths} == {"f", "h"}
    for _, path in paths:
        with open(root + b"/" + path, "rb") as file:
            assert b"".join(read_file(backup, path)) == file.read(), path


@pytest.mark.parametrize(
    ("path", "code", "word"),
    [
        ("etc", 2, "a directory"),
        ("link", 2, "a symbolic link"),
        ("pipe", 2, "a FIFO"),
        ("no", 4, "'no'"),
        ("../x", 2, ".."),
    ],
)
def test_cat_says_what_is_no_file(run_volback: Volback, small: str, path: str, code: int, word: str) -> None:
    run_volback("backup", small)
    said = run_volback("cat", small, path, check_exit=code)
    assert said.stdout == ""
    assert word in errors(said)[0]


def test_export_is_the_tar_and_the_stored_frames(
    run_volback: Volback, small: str, volume_path: VolumePath, tmp_path: Path
) -> None:
    name = reference(run_volback, small)
    plain = run_volback("export", name).raw
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert len(archive.getnames()) == 10
    target = tmp_path / "out.tar.zst"
    run_volback("export", name, target)
    assert target.read_bytes() == data_path(run_volback, name).read_bytes()
    assert target.stat().st_mode & 0o077 == 0, "a volume can hold secrets"
    assert subprocess.run(["zstd", "-dc", target], capture_output=True, check=True).stdout == plain
    run_volback("export", name, tmp_path / "out.tar.gz")
    assert gzip.decompress((tmp_path / "out.tar.gz").read_bytes()) == plain
    refused = run_volback("export", name, target, check_exit=5)
    assert errors(refused) == [f"error: file {target} exists already"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_export_leaves_nothing_of_a_damaged_backup(run_volback: Volback, small: str, tmp_path: Path) -> None:
    name = reference(run_volback, small)
    path = data_path(run_volback, name)
    path.write_bytes(path.read_bytes()[:-20])
    for options in ([], ["--zstd"]):
        run_volback("export", name, tmp_path / "out", *options, check_exit=7)
        assert [found.name for found in tmp_path.iterdir()] == ["volback"]
    assert "is damaged" in run_volback("restore", name, "--replace", check_exit=7).stderr


def test_export_does_not_write_to_a_terminal(run_volback: Volback, small: str) -> None:
    name = reference(run_volback, small)
    assert b"error: a tar cannot be written to a terminal" in on_terminal(run_volback, "export", name, check_exit=2)


def test_remove_takes_one_backup_by_its_id(run_volback: Volback, small: str) -> None:
    first, second = reference(run_volback, small), reference(run_volback, small, "--full")
    broad = run_volback("remove", small, check_exit=2)
    assert errors(broad) == [f"error: {small!r} names all backups of a volume"]
    run_volback("remove", first, f"{small}@19990101", check_exit=4)
    assert len(run_volback("list", "--json").json["result"]["backups"]) == 2, "nothing goes before all are found"
    removed, freed = run_volback("remove", first).stdout.splitlines()
    assert (removed, freed.endswith(" freed")) == (f"removed {first}", True)
    assert not data_path(run_volback, first).parent.exists()
    (data_path(run_volback, second).parent / "manifest.json").write_text("garbage")
    run_volback("remove", second)
    assert run_volback("list").stdout.startswith("no backups")


def test_remove_asks_on_a_terminal(run_volback: Volback, small: str) -> None:
    name = reference(run_volback, small)
    assert b"nothing removed" in on_terminal(run_volback, "remove", name, typed=b"n\n", check_exit=2)
    assert f"removed {name}".encode() in on_terminal(run_volback, "remove", name, typed=b"y\n")


def test_remove_leaves_what_others_use(run_volback: Volback, small: str) -> None:
    first, second = reference(run_volback, small), reference(run_volback, small)
    run_volback("remove", first)
    left = {path.name for path in data_path(run_volback, first).parent.iterdir()}
    assert left == {"data.tar.zst", "index.jsonl.zst"}
    run_volback("verify", "--data", second)
    run_volback("remove", second)
    assert run_volback("list").stdout.startswith("no backups")
    assert not data_path(run_volback, first).parent.parent.exists()


def test_volumes_tell_users_sizes_and_last_backups(
    run_volback: Volback, volume_factory: MakeVolume, container_factory: Callable[..., Any]
) -> None:
    used = volume_factory("used", fill=fill_small, labels={"com.docker.compose.project": "shop"})
    unused = volume_factory("unused")
    container = container_factory(volumes={used: "/data"})
    run_volback("backup", used, "--live")
    found = {item["name"]: item for item in run_volback("volumes", "--json").json["result"]["volumes"]}
    assert found[used]["containers"] == [{"name": container.name, "state": "running", "writable": True}]
    assert found[used]["size_bytes"] > 3_000_000
    assert found[used]["project"] == "shop"
    assert found[used]["last_backup"]["age_s"] < 3600
    assert found[unused]["last_backup"] is None
    assert found[unused]["containers"] == []
    said = {line.split()[0]: line for line in run_volback("volumes", "--no-sizes").stdout.splitlines()}
    assert f"{container.name} (rw)" in said[used]
    assert " never " in said[unused]


def test_doctor_checks_all_that_a_backup_needs(run_volback: Volback, small: str) -> None:
    checks = {check["name"]: check for check in run_volback("doctor", "--json").json["result"]["checks"]}
    assert checks["engine"]["status"] == "ok"
    assert checks["transport"]["facts"]["bytes_per_s"] > 0
    run_volback("backup", small)
    said = run_volback("doctor")
    assert re.search(r"^ok +repository +.*format 1, 1 backup", said.stdout, re.MULTILINE)


def test_doctor_goes_on_without_an_engine(run_volback: Volback, tmp_path: Path) -> None:
    said = run_volback("--host", f"unix://{tmp_path}/nobody.sock", "doctor", check_exit=8)
    assert re.search(r"^failed +engine ", said.stdout, re.MULTILINE)
    assert re.search(r"^ok +repository ", said.stdout, re.MULTILINE)
    assert len(errors(said)) == 1


def test_version_is_the_packages(run_volback: Volback) -> None:
    assert run_volback("version").stdout.startswith(f"volback {volback.__version__} (format 1, ")
    assert run_volback("--version").stdout == f"volback {volback.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "no command 'nonsense'"),
        (["lits"], "no command 'lits'"),
        (["backup"], "no volume is named"),
        (["backup", "db", "--level", "40"], "--level"),
        (["restore"], "no backup is named"),
        (["list", "a@b"], "is not the beginning of a backup id"),
        (["list", "--repo", "gopher://x"], "gopher"),
        (["restore", "db", "--label", "novalue"], "KEY=VALUE"),
        (["--host", "carrier-pigeon", "volumes"], "is neither an address nor a docker context"),
        (["cat", "db", "file", "--json"], "--json"),
        (["export", "db", "--json"], "--json"),
        ([], "no command given"),
        (["config"], "Missing command"),
        (["schedule"], "Missing command"),
        (["prune", "--keep-last", "some"], "--keep-last 'some' is not a number"),
    ],
)
def test_a_wrong_call_is_exit_2_and_one_line(run_volback: Volback, arguments: list[str], word: str) -> None:
    said = run_volback(*arguments, check_exit=2)
    assert said.stdout == "" or "--json" in arguments
    assert word in (errors(said) or [said.stdout])[0]
    assert "Traceback" not in said.stderr


def test_what_is_not_there_is_exit_4(run_volback: Volback, small: str) -> None:
    for command in (["restore", small], ["show", small], ["ls", small], ["prove", small], ["verify", small]):
        assert len(errors(run_volback(*command, check_exit=4))) == 1, command


def test_a_volume_that_another_run_has_is_exit_6(run_volback: Volback, small: str, engine: EngineSession) -> None:
    info = engine.client.info()
    with lock(run_volback.state, f"{info['ID']}-{small}", "volume"):
        refused = run_volback("backup", small, check_exit=6)
    assert str(os.getpid()) in errors(refused)[0]
    first, second = reference(run_volback, small), reference(run_volback, small)
    (data_path(run_volback, second).parent / "manifest.json").write_text("garbage")
    with lock(run_volback.state, f"{info['ID']}-{small}", "volume"):
        for name in (first, second):
            assert str(os.getpid()) in errors(run_volback("remove", name, check_exit=6))[0]
    assert len(list(run_volback.repository.rglob("manifest.json"))) == 2
    nobody = ["--host", f"unix://{run_volback.directory}/nobody.sock"]
    run_volback(*nobody, "remove", first, second)
    assert run_volback("list").stdout.startswith("no backups")


def test_no_engine_is_exit_8(run_volback: Volback, tmp_path: Path) -> None:
    for command in (["volumes"], ["backup", "db"], ["backup", "--all"]):
        said = run_volback("--host", f"unix://{tmp_path}/nobody.sock", *command, check_exit=8)
        assert len(errors(said)) == 1
        assert "hint: " in said.stderr


def test_the_repository_is_readable_without_an_engine(run_volback: Volback, small: str, tmp_path: Path) -> None:
    run_volback("backup", small)
    nobody = ["--host", f"unix://{tmp_path}/nobody.sock"]
    assert small in run_volback(*nobody, "list").stdout
    assert run_volback(*nobody, "cat", small, "etc/app.conf").stdout == "port = 80\n"
    run_volback(*nobody, "verify", "--data")


def test_a_reader_that_goes_away_ends_it_quietly(run_volback: Volback, small: str) -> None:
    name = reference(run_volback, small)
    for command in (["cat", name, "large"], ["export", name], ["ls", name]):
        process = run_volback.start(*command)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(30) == 141, command


@pytest.mark.parametrize("command", [["export"], ["show", "--json"]])
def test_a_full_standard_output_is_an_error(run_volback: Volback, small: str, command: list[str]) -> None:
    name = reference(run_volback, small)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            run_volback.command(*command, name),
            stdout=full,
            stderr=subprocess.PIPE,
            env=run_volback.environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("command", [["version"], ["version", "--json"], ["list"], ["--help"]])
def test_nothing_is_printed_to_a_closed_standard_output(run_volback: Volback, command: list[str]) -> None:
    line = shlex.join(str(part) for part in run_volback.command(*command)) + " >&-"
    done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, env=run_volback.environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_progress_is_drawn_on_a_terminal_only(run_volback: Volback, volume_factory: MakeVolume) -> None:
    name = volume_factory("large", fill=lambda path: (path / "large").write_bytes(os.urandom(40_000_000)) and None)
    drawn = on_terminal(run_volback, "backup", name, stdout_too=False)
    assert b"MiB" in drawn
    assert b"/s" in drawn
    for option in ("--quiet", "--json"):
        assert b"\x1b" not in on_terminal(run_volback, option, "backup", name, stdout_too=False)
    assert run_volback("backup", name).stderr == ""


def on_terminal(
    run: Volback, *arguments: str, typed: bytes = b"", check_exit: int = 0, stdout_too: bool = True
) -> bytes:
    """Run on a terminal of its own and return what that showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        run.command(*arguments),
        stdin=theirs,
        stdout=theirs if stdout_too else subprocess.DEVNULL,
        stderr=theirs,
        env=run.environment({"TERM": "xterm", "COLUMNS": "80"}),
        cwd=run.directory,
    )
    os.close(theirs)
    os.write(ours, typed)
    shown = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            shown += os.read(ours, 65536)
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == check_exit, shown
    run.note_client_id()
    return shown


def test_a_signal_ends_doctor_and_is_not_a_failed_check(run_volback: Volback, tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "hangs.sock"))
    server.listen()
    process = run_volback.start("--host", f"unix://{tmp_path}/hangs.sock", "doctor")
    connection, _ = server.accept()  # it waits for an answer now
    process.send_signal(signal.SIGTERM)
    said, failed = process.communicate(timeout=30)
    connection.close()
    server.close()
    assert process.returncode == 143
    assert said == b""
    assert failed.decode().startswith("error: interrupted by signal 15\n")


def test_a_backup_is_not_pruned_while_it_is_restored(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str]
) -> None:
    name = volume_factory("pruned", fill=lambda path: (path / "data").write_bytes(os.urandom(3 << 20)) and None)
    old, new = (reference(run_volback, name, "--full").partition("@")[2] for _ in range(2))
    with halted(run_volback, "buffer 0 of write", "restore", f"{name}@{old}", "--as", volume_name("copy")) as run:
        kept = run_volback("prune", name, "--keep-last", "1", "--json").json["result"]["kept"]
        assert [(backup["id"], backup["reasons"]) for backup in kept] == [
            (new, ["last 1 of 1"]), (old, ["being restored"])
        ]  # fmt: skip
    assert run.ended.exit_code == 0, run.ended
    removed = run_volback("prune", name, "--keep-last", "1", "--json").json["result"]["removed"]
    assert [backup["id"] for backup in removed] == [old]
