"""An encrypted repository: what its machine stores nobody can read without an identity, and everything with one."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.s3 import S3Server

pytestmark = pytest.mark.programs

NEEDED = "is encrypted: an identity is needed"


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """The identity file of a person, as age-keygen makes it."""
    path = tmp_path / "person.txt"
    subprocess.run(["age-keygen", "-o", path], stderr=subprocess.DEVNULL, check=True, timeout=60)
    return path


def recipient_of(path: Path) -> str:
    return subprocess.run(
        ["age-keygen", "-y", path], capture_output=True, check=True, timeout=60, text=True
    ).stdout.strip()


@pytest.fixture
def encrypted(run_volback: Volback, person: Path, tmp_path: Path) -> Volback:
    """Runs volback with an encrypted repository, which that person can open."""
    directory = tmp_path / "encrypted"
    directory.mkdir()
    volback = Volback(directory, run_volback.client_ids)
    made = volback("init", "--encrypt", "--recipient", recipient_of(person), "--json").json["result"]
    assert made["made"] is True
    assert made["recipient"] == json.loads((volback.repository / "volback.json").read_text())["encryption"]["recipient"]
    return volback


def fill(path: Path) -> None:
    dice = random.Random(5)
    (path / "hidden-directory").mkdir()
    for number in range(40):
        (path / f"hidden-directory/hidden-file-{number}").write_text(f"hidden-content {number}\n" * 20)
    (path / "large").write_bytes(dice.randbytes(3_000_000) + b"hidden-content")
    (path / "hidden-symlink").symlink_to("hidden-target")


@pytest.fixture
def backed_up(encrypted: Volback, tmp_path: Path) -> Path:
    """A directory of which there is a backup."""
    source = tmp_path / "source"
    source.mkdir()
    fill(source)
    encrypted("backup", source)
    return source


def objects(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()


def opened_by_age(person: Path, repository: Path, tmp_path: Path) -> Path:
    """What age, zstd and tar make of a full backup, with the person's key alone."""
    own, target = tmp_path / "own.txt", tmp_path / "by-age"
    target.mkdir()
    own.write_bytes(subprocess.check_output(["age", "-d", "-i", person, repository / "keys/first.age"], timeout=60))
    (data,) = repository.glob("*/*/*/data.tar.zst.age")
    script = 'age -d -i "$1" "$2" | zstd -dq | tar -x --xattrs --xattrs-include="*" -C "$3"'
    subprocess.run(["bash", "-o", "pipefail", "-c", script, "-", own, data, target], check=True, timeout=60)
    return target


def test_nothing_that_is_secret_lies_in_the_repository(
    encrypted: Volback, person: Path, tmp_path: Path, volume_factory: Callable[..., str],
    container_factory: Callable[..., Any],
) -> None:  # fmt: skip
    place = tmp_path / "hidden-device"
    place.mkdir()
    fill(place)
    options = {"type": "none", "o": "bind", "device": str(place)}
    volume = volume_factory("vol", labels={"hidden-label": "hidden-value"}, driver="local", driver_opts=options)
    container_factory(volumes={volume: "/data"}, name=f"hidden-container-{secrets.token_hex(4)}")
    encrypted("backup", volume, "--exclude", "hidden-excluded*", "--live")
    (place / "hidden-directory/hidden-file-3").write_text("hidden-content, and more")
    encrypted("backup", volume, "--identity", person, "--live")
    shown = encrypted("show", volume, "--identity", person).stdout
    for word in ("hidden-device", "hidden-label", "hidden-value", "hidden-container"):
        assert word in shown, "else nothing is hidden"
        assert word not in encrypted("show", volume).stdout
    digest = encrypted("list", "--json", "--identity", person).json["result"]["backups"][-1]["digest"]
    assert len(digest) == 64
    for name, data in objects(encrypted.repository):
        assert "hidden" not in name
        for secret in (b"hidden", digest.encode(), b"content"):
            assert secret not in data, name
        is_data = name.endswith((".zst.age", "keys/first.age"))
        assert is_data == data.startswith(b"age-encryption.org/v1\n"), name
    assert [name for name, data in objects(encrypted.directory / "cache") if b"hidden" in data] == []


def test_a_backup_comes_back_with_an_identity_alone_and_without_volback(
    encrypted: Volback, person: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    fill(source)
    encrypted("backup", source)
    assert encrypted("list", "--json").json["result"]["backups"][0]["files"] == 44
    assert encrypted("verify", "--json").json["result"]["damaged"] == []
    for command in (
        ["restore", source, "--to", target],
        ["ls", source],
        ["cat", source, "large"],
        ["verify", "--data"],
    ):
        failed = encrypted(*command, check_exit=2)
        assert NEEDED in failed.stderr
        assert "--identity" in failed.stderr
    assert list(target.iterdir()) == []
    encrypted("restore", source, "--to", target, "--prove", "--identity", person)
    assert differences(fingerprint(source), fingerprint(target)) == []
    assert encrypted("cat", source, "hidden-directory/hidden-file-3", "--identity", person).stdout.startswith("hidden")
    checked = encrypted("verify", "--data", "--json", env={"VOLBACK_IDENTITY_FILE": str(person)}).json["result"]
    assert (checked["checked"], checked["damaged"]) == (1, [])
    by_age = opened_by_age(person, encrypted.repository, tmp_path)
    assert differences(fingerprint(source), fingerprint(by_age)) == []
    own = tmp_path / "own.txt"
    own.chmod(0o600)
    assert "hidden-directory" in encrypted("ls", source, "--identity", own).stdout


def test_another_identity_is_refused_and_nothing_is_written(encrypted: Volback, tmp_path: Path) -> None:
    source, target, stranger = tmp_path / "source", tmp_path / "target", tmp_path / "stranger.txt"
    source.mkdir()
    target.mkdir()
    fill(source)
    encrypted("backup", source)
    subprocess.run(["age-keygen", "-o", stranger], stderr=subprocess.DEVNULL, check=True, timeout=60)
    failed = encrypted("restore", source, "--to", target, "--identity", stranger, check_exit=2)
    assert "no given identity is its own, or opens one of its keys" in failed.stderr
    assert list(target.iterdir()) == []


def test_damage_anywhere_is_exit_code_7_and_nothing_is_written(
    encrypted: Volback, person: Path, backed_up: Path, tmp_path: Path
) -> None:
    (data,) = encrypted.repository.glob("*/*/*/data.tar.zst.age")
    (index,) = encrypted.repository.glob("*/*/*/index.jsonl.zst.age")
    for path, position in ((index, 60), (index, 400), (data, 60), (data, 400)):
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        target = tmp_path / f"target-{path.name}-{position}"
        target.mkdir()
        failed = encrypted("restore", backed_up, "--to", target, "--identity", person, check_exit=7)
        assert path.stem in failed.stderr
        assert [found for found in target.iterdir() if found.is_file()] == []
        path.write_bytes(whole)


def test_a_host_without_a_key_makes_increments(encrypted: Volback, person: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    fill(source)

    def made(*options: object, check_exit: int = 0) -> tuple[str, bool, list[str]]:
        (source / "hidden-changed").write_text(secrets.token_hex(20_000))
        said = encrypted("backup", source, *map(str, options), "--json", check_exit=check_exit).json
        (backup,) = said["result"]["backups"]
        return backup["kind"], backup["stored_bytes"] < 100_000, said["warnings"]

    assert made() == ("full", False, [])
    for _ in range(3):
        assert made() == ("incremental", True, [])
    kept = list((encrypted.state / "parents").glob("*/*"))
    assert {path.suffix for path in kept} == {".json", ".index"}
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    shutil.rmtree(encrypted.state / "parents")
    kind, is_small, (warning,) = made(check_exit=3)
    assert (kind, is_small) == ("full", False)
    assert "is encrypted, and this machine does not have its index" in warning
    assert made() == ("incremental", True, [])
    shutil.rmtree(encrypted.state / "parents")
    assert made("--identity", person) == ("incremental", True, [])
    assert made() == ("incremental", True, []), "with an identity it is remembered again"
    assert encrypted("verify", "--data", "--json", "--identity", person).json["result"]["damaged"] == []
    encrypted("restore", source, "--to", target, "--prove", "--identity", person)


def test_a_passphrase_alone_brings_back_what_the_next_increment_needs(run_volback: Volback, tmp_path: Path) -> None:
    """As does an identity; a wrong one, and a removed newest backup, cost a full backup, said."""
    source, directory = tmp_path / "source", tmp_path / "encrypted"
    source.mkdir()
    directory.mkdir()
    fill(source)
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(f"{name} horse\n")
        (tmp_path / name).chmod(0o600)
    volback = Volback(directory, run_volback.client_ids)
    volback("init", "--encrypt", env={"VOLBACK_PASSPHRASE_FILE": str(tmp_path / "right")})

    def made(passphrase: str | None = None, check_exit: int = 0) -> tuple[str, str]:
        env = {} if passphrase is None else {"VOLBACK_PASSPHRASE_FILE": str(tmp_path / passphrase)}
        said = volback("backup", source, "--json", env=env, check_exit=check_exit).json
        return said["result"]["backups"][0]["kind"], " ".join(said["warnings"])

    assert made() == ("full", "")
    shutil.rmtree(volback.state / "parents")
    assert made("right") == ("incremental", "")
    assert made() == ("incremental", ""), "it is kept again"
    shutil.rmtree(volback.state / "parents")
    kind, warnings = made("wrong", 3)
    assert kind == "full"
    assert "the passphrase is wrong" in warnings
    assert "this machine does not have its index" in warnings
    newest = volback("list", "--json").json["result"]["backups"][-1]["id"]
    volback("remove", f"{source}@{newest}", "--yes")
    kind, warnings = made(check_exit=3)
    assert kind == "full"
    assert "this machine does not have its index" in warnings
    assert made() == ("incremental", "")
    assert volback("verify", "--json").json["result"]["damaged"] == []


def test_the_index_of_another_machines_backup_is_not_used(encrypted: Volback, tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.mkdir()
    fill(source)
    encrypted("backup", source)
    encrypted("backup", source, env={"VOLBACK_STATE_DIR": str(other)}, check_exit=3)
    (backup,) = encrypted("backup", source, "--json").json["result"]["backups"]
    first, second, _ = (row["id"] for row in encrypted("list", "--json").json["result"]["backups"])
    assert backup["kind"] == "incremental"
    assert encrypted("show", source, "--json").json["result"]["parent"] == first, f"not {second}"


@pytest.mark.xdist_group("s3")
def test_a_bucket_holds_the_same(moto: S3Server, encrypted: Volback, person: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    fill(source)
    with moto.bucket() as bucket:
        env = moto.environment() | {"VOLBACK_REPO": f"s3://{bucket}/hosts"}
        encrypted("init", "--encrypt", "--recipient", recipient_of(person), env=env)
        encrypted("backup", source, env=env)
        with_key = env | {"VOLBACK_IDENTITY_FILE": str(person)}
        assert encrypted("ls", source, env=with_key).stdout.count("\n") == 44
        encrypted("restore", source, "--to", target, "--prove", env=with_key)
        assert encrypted("verify", "--json", env=env).json["result"]["damaged"] == []
        client = moto.client()
        for entry in client.list_objects_v2(Bucket=bucket)["Contents"]:
            assert b"hidden" not in client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
    assert differences(fingerprint(source), fingerprint(target)) == []
    assert [name for name, data in objects(encrypted.directory / "cache") if b"hidden" in data] == []


def test_whether_it_is_encrypted_is_decided_when_it_is_made(
    run_volback: Volback, encrypted: Volback, person: Path
) -> None:
    recipient = recipient_of(person)
    failed = run_volback("init", "--encrypt", "--recipient", recipient, check_exit=5)
    assert "it is not encrypted: that is decided when it is made" in failed.stderr
    failed = encrypted("init", "--encrypt", "--recipient", recipient, check_exit=5)
    assert "volback key add" in failed.stderr
    assert "is a repository already" in encrypted("init").stdout
    failed = run_volback("init", "--encrypt", "--repo", run_volback.directory / "new", check_exit=2)
    assert "--recipient" in failed.stderr
    assert not (run_volback.directory / "new").exists()


def test_a_lost_document_leaves_backups_readable_and_is_made_anew_with_an_identity(
    encrypted: Volback, person: Path, backed_up: Path
) -> None:
    (encrypted.repository / "volback.json").unlink()
    assert "hidden-directory" in encrypted("ls", backed_up, "--identity", person).stdout
    assert NEEDED in encrypted("ls", backed_up, check_exit=2).stderr
    assert NEEDED in encrypted("init", "--accept-repository", check_exit=2).stderr
    encrypted("init", "--accept-repository", "--identity", person)
    encrypted("backup", backed_up, "--identity", person)
    encrypted("verify", "--data", "--identity", person)
