"""A repository in a bucket does what one in a directory does: the commands as users run them, against radosgw."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.store.test_s3_servers import error_reply, proxied
from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.proxy import Planned
from tests.support.remote import wait_for
from tests.support.repository import new_repository
from tests.support.s3 import S3Server, open_uploads
from tests.support.tree import make_odd_tree
from volback.archive.age_keys import Identity

pytestmark = pytest.mark.xdist_group("s3")
"""Those who need a server share it: radosgw takes 16 s to start."""

MakeVolume = Callable[..., str]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Far:
    """A bucket of a running server, with a repository in it."""

    server: S3Server
    bucket: str

    def env(self, prefix: str = "hosts", **more: str) -> dict[str, str]:
        """The environment of a host whose repository lies under `prefix`."""
        return self.server.environment() | {"VOLBACK_REPO": f"s3://{self.bucket}/{prefix}"} | more

    def objects(self) -> set[str]:
        found = self.server.client().list_objects_v2(Bucket=self.bucket)
        return {entry["Key"] for entry in found.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return bytes(self.server.client().get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def uploads(self) -> list[tuple[str, str]]:
        return open_uploads(self.server.client(), self.bucket)


@pytest.fixture
def far(radosgw: S3Server, run_volback: Volback) -> Iterator[Far]:
    with radosgw.bucket() as name:
        made = Far(radosgw, name)
        run_volback("init", env=made.env())
        yield made


def test_a_volume_goes_to_a_bucket_and_comes_back(
    far: Far, run_volback: Volback, volume_factory: MakeVolume, volume_name: MakeVolume,
    volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    name = volume_factory(fill=partial(make_odd_tree, deep=False))
    made = run_volback("backup", name, "--json", env=far.env()).json["result"]["backups"][0]
    assert all(key.startswith("hosts/") for key in far.objects())
    listed = run_volback("list", "--json", env=far.env()).json["result"]["backups"]
    assert [entry["id"] for entry in listed] == [made["id"]]
    assert made["id"] in run_volback("show", name, env=far.env()).stdout
    assert run_volback("verify", "--data", "--json", env=far.env()).json["result"]["damaged"] == []
    proof = run_volback("prove", name, "--json", env=far.env()).json["result"]
    assert (proof["different"], proof["missing"], proof["extra"]) == ([], [], [])
    restored = volume_name("restored")
    result = run_volback("restore", name, "--as", restored, "--prove", "--json", env=far.env()).json["result"]
    assert result["proven"]
    assert differences(fingerprint(volume_path(name)), fingerprint(volume_path(restored))) == []
    run_volback("remove", f"{name}@{made['id']}", "--grace", "0s", env=far.env())
    assert far.objects() == {"hosts/volback.json", "hosts/volback.time"}
    assert far.uploads() == []
    assert [path.name for path in run_volback.repository.iterdir()] == ["volback.json"]


def test_one_file_and_a_part_come_out_of_a_bucket(
    far: Far, run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    def fill(root: Path) -> None:
        (root / "etc").mkdir()
        (root / "etc" / "one").write_bytes(b"one\n")
        (root / "two").write_bytes(b"2" * 3 * MIB)

    name = volume_factory(fill=fill)
    run_volback("backup", name, env=far.env())
    assert run_volback("cat", name, "etc/one", env=far.env()).stdout == "one\n"
    assert "etc/one" in run_volback("ls", name, "etc", env=far.env()).stdout
    target = tmp_path / "part"
    target.mkdir()
    run_volback("restore", name, "--path", "etc/one", "--to", target, env=far.env())
    assert (target / "etc" / "one").read_bytes() == b"one\n"
    assert not (target / "two").exists()


def test_siblings_are_apart_and_hosts_in_one_repository_see_each_other(
    far: Far, run_volback: Volback, volume_factory: MakeVolume, volume_name: MakeVolume
) -> None:
    name = volume_factory(fill=lambda root: (root / "file").write_bytes(b"data"))

    def at(prefix: str, host: str) -> dict[str, str]:
        return far.env(prefix, VOLBACK_HOSTNAME=host)

    for prefix in ("a", "a-other"):
        run_volback("init", env=far.env(prefix))
    run_volback("backup", name, env=at("a", "north"))
    run_volback("backup", name, env=at("a-other", "south"))
    assert len(run_volback("list", "--all-hosts", "--json", env=at("a", "north")).json["result"]["backups"]) == 1
    run_volback("backup", name, env=at("a", "south"))
    found = run_volback("list", "--all-hosts", "--json", env=at("a", "north")).json["result"]["backups"]
    assert sorted(entry["host"] for entry in found) == ["north", "south"]
    (theirs,) = (entry["id"] for entry in found if entry["host"] == "south")
    restored = volume_name("moved")
    run_volback("restore", f"south/{name}@{theirs}", "--as", restored, "--prove", env=at("a", "north"))
    (other,) = run_volback("list", "--all-hosts", "--json", env=at("a-other", "x")).json["result"]["backups"]
    assert other["id"] != theirs


def test_a_backup_is_copied_from_a_bucket_to_a_directory_and_back(
    far: Far, run_volback: Volback, volume_factory: MakeVolume, tmp_path: Path
) -> None:
    name = volume_factory(fill=partial(make_odd_tree, deep=False))
    run_volback("backup", name, env=far.env())
    near = tmp_path / "near"
    new_repository(near)
    run_volback("copy", name, "--to", near, env=far.env())
    stored = {str(path.relative_to(near)) for path in near.rglob("*") if path.is_file()}
    assert {f"hosts/{key}" for key in stored} == far.objects()
    again = f"s3://{far.bucket}/again"
    run_volback("init", "--repo", again, env=far.env())
    run_volback("copy", name, "--to", again, env=far.env(VOLBACK_REPO=str(near)))
    checked = run_volback("verify", "--data", "--json", env=far.env("again")).json["result"]
    assert (checked["checked"], checked["damaged"]) == (1, [])
    for key in (key for key in stored if not key.endswith("volback.json")):
        assert far.read(f"again/{key}") == (near / key).read_bytes(), key


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM, signal.SIGKILL],
    ids=lambda sent: sent.name,
)
def test_an_upload_that_is_cut_off_is_aborted_at_once_or_by_doctor(
    far: Far, run_volback: Volback, volume_factory: MakeVolume, number: signal.Signals
) -> None:
    name = volume_factory(fill=_fill_with_noise)
    process = run_volback.start("backup", name, env=far.env(VOLBACK_S3_BANDWIDTH="10"))
    wait_for(lambda: far.uploads() != [], "an open upload")
    process.send_signal(number)
    said = process.communicate(timeout=120)[1].decode()
    run_volback.note_client_id()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    assert far.server.secret_key not in said
    if number == signal.SIGKILL:
        assert len(far.uploads()) == 1
        young = _checks(run_volback("doctor", "--json", env=far.env()).json)["unfinished"]
        assert (young["status"], young["facts"]) == ("ok", {"unfinished": 1, "stale": 0})
        stale = _checks(run_volback("doctor", "--older-than", "0s", "--json", env=far.env()).json)["unfinished"]
        assert stale["status"] == "warning"
        assert len(far.uploads()) == 1
        run_volback("doctor", "--fix", "--older-than", "0s", env=far.env())
    assert far.uploads() == []
    assert far.objects() <= {"hosts/volback.json"}
    assert run_volback("list", "--json", env=far.env()).json["result"]["backups"] == []


def test_two_runs_make_two_backups_and_a_dead_servers_error_is_one_line(
    far: Far, run_volback: Volback, volume_factory: MakeVolume
) -> None:
    names = [volume_factory(fill=lambda root: (root / "file").write_bytes(b"data")) for _ in range(2)]
    runs = [run_volback.start("backup", name, env=far.env()) for name in names]
    for process in runs:
        said = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0, said
    assert len(run_volback("list", "--json", env=far.env()).json["result"]["backups"]) == 2
    assert "(VOLBACK_S3_PARALLEL + 1) parts" in run_volback("backup", "--help").stdout
    nowhere = far.env(VOLBACK_S3_ENDPOINT="http://127.0.0.1:9", VOLBACK_S3_GIVE_UP="1")
    failed = run_volback("backup", names[0], env=nowhere, check_exit=9)
    assert "127.0.0.1:9" in failed.stderr
    assert "hint:" in failed.stderr
    assert far.server.secret_key not in failed.stdout + failed.stderr
    assert run_volback("--debug", "list", env=nowhere, check_exit=9).stderr.count(far.server.secret_key) == 0


def _fill_with_noise(root: Path) -> None:
    with open("/dev/urandom", "rb") as noise:
        (root / "noise").write_bytes(noise.read(100 * MIB))


def _checks(document: dict[str, Any]) -> dict[str, Any]:
    return {check["name"]: check for check in document["result"]["checks"]}


def test_an_error_of_an_upload_is_not_replaced_by_those_of_cleaning_up(
    moto: S3Server, run_volback: Volback, volume_factory: MakeVolume
) -> None:
    """A session token expires while parts are sent: from then on the server refuses everything, the abort too."""
    volume = volume_factory(fill=lambda root: (root / "noise").write_bytes(random.Random(1).randbytes(20 * MIB)))
    reply = error_reply(400, "ExpiredToken", "The provided token has expired.")
    with moto.bucket() as bucket:
        run_volback("init", env=moto.environment() | {"VOLBACK_REPO": f"s3://{bucket}"})
        plan = [Planned("reply", ("PUT", "partNumber=2"), reply=reply)]
        plan += [Planned("reply", (verb, bucket), nth=None, reply=reply) for verb in ("DELETE", "list-type=2")]
        with proxied(moto, *plan) as (server, _):
            env = server.environment() | {"VOLBACK_REPO": f"s3://{bucket}?part-size=5"}
            done = run_volback("backup", volume, env=env, check_exit=1)
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot write" in error
    assert "/data'" in error or "data.tar" in error
    assert "the session token has expired" in error
    assert "hint: log in again" in done.stderr


def test_an_encrypted_bucket_gives_one_small_file_for_a_few_requests(
    radosgw: S3Server, run_volback: Volback, tmp_path: Path
) -> None:
    """Backups without a key; one small file out of 20 MB is the index, and its frame for its header and its bytes."""
    source, target, person = tmp_path / "source", tmp_path / "target", tmp_path / "person.txt"
    for directory in (source, target):
        directory.mkdir()
    identity = Identity.new()
    person.write_text(f"{identity}\n")
    person.chmod(0o600)
    for number in range(10):
        (source / f"large-{number}").write_bytes(random.Random(number).randbytes(2_000_000))
        (source / f"small-{number}").write_text(f"small {number}")
    with radosgw.bucket() as bucket, proxied(radosgw) as (server, proxy):
        env = server.environment() | {"VOLBACK_REPO": f"s3://{bucket}/hosts"}
        with_key = env | {"VOLBACK_IDENTITY_FILE": str(person)}
        run_volback("init", "--encrypt", "--recipient", str(identity.recipient), env=env)
        run_volback("backup", source, env=env)
        proxy.heads.clear()
        assert run_volback("cat", source, "small-5", env=with_key).stdout == "small 5"
        reads = [head for head in proxy.heads if head.startswith("GET ") and ".zst.age" in head.partition("\r\n")[0]]
        asked = [head.partition("?")[0].partition(" HTTP")[0].rpartition("/")[2] for head in reads]
        assert asked.count("index.jsonl.zst.age") == 1
        assert asked.count("data.tar.zst.age") <= 3, "its header once, then one range or two"
        assert all("\r\nRange: bytes=" in head for head in reads)
        (source / "small-5").write_text("changed")
        made = run_volback("backup", source, "--json", env=env).json["result"]["backups"][0]
        assert (made["kind"], made["stored_bytes"] < 100_000) == ("incremental", True)
        run_volback("restore", source, "--to", target, "--prove", env=with_key)
        assert differences(fingerprint(source), fingerprint(target)) == []
        assert run_volback("verify", "--data", "--json", env=with_key).json["result"]["damaged"] == []
