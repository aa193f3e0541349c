"""What an S3 server refuses, as users see it: keys with fewer rights (the documented policies), no bucket, clocks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engine import PROJECT, Result, Volback
from tests.support.halt import halted
from tests.support.pages import blocks
from tests.support.s3 import S3Server

pytestmark = pytest.mark.xdist_group("s3")

MIB = 1024 * 1024
READ_ONLY = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::backups"},
    {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::backups/docker/*"},
]}  # fmt: skip


@pytest.fixture
def bucket(radosgw: S3Server) -> Iterator[str]:
    with radosgw.bucket() as name:
        yield name


@pytest.fixture
def owner(radosgw: S3Server, bucket: str, run_volback: Volback) -> dict[str, str]:
    """The environment of a host with all rights, which makes the repository."""
    env = _environment(radosgw, bucket)
    run_volback("init", env=env)
    return env


@pytest.fixture
def name(volume_factory: Callable[..., str]) -> str:
    def fill(root: Any) -> None:
        (root / "file").write_bytes(b"data")

    return volume_factory(fill=fill)


def _environment(server: S3Server, bucket: str) -> dict[str, str]:
    return server.environment() | {"VOLBACK_REPO": f"s3://{bucket}/docker"}


def _with_rights(
    radosgw: S3Server, bucket: str, policy: dict[str, Any], *, owner: dict[str, Any] | None = None
) -> dict[str, str]:
    """The environment of a new host that has the rights of a policy for the bucket `backups`, prefix `docker`; `owner`
    is the policy of the bucket's owner, who has the rights on the bucket and on what it has put itself anyway."""
    user = radosgw.new_user()
    _set_policy(radosgw, bucket, (user.name, policy), *([(_owner_name(radosgw, bucket), owner)] if owner else []))
    return _environment(user, bucket)


def _set_policy(radosgw: S3Server, bucket: str, *policies: tuple[str, dict[str, Any]]) -> None:
    """Give each user the rights of its policy."""
    statements = [
        {**statement, "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]}}
        for user, policy in policies
        for statement in policy["Statement"]
    ]
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}).replace(":::backups", f":::{bucket}")
    radosgw.client().put_bucket_policy(Bucket=bucket, Policy=text)


def _owner_name(radosgw: S3Server, bucket: str) -> str:
    name: str = radosgw.client().get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    return name


def _documented_policies() -> list[dict[str, Any]]:
    policies = blocks((PROJECT / "docs/reference/s3.md").read_text(), "json")
    return [policy for policy in map(json.loads, policies) if "Statement" in policy]


def _ids(radosgw: S3Server, bucket: str) -> set[str]:
    """Of the backups that are there whole."""
    found = radosgw.client().list_objects_v2(Bucket=bucket)["Contents"]
    return {entry["Key"].split("/")[-2] for entry in found if entry["Key"].endswith("/manifest.json")}


def _keys(radosgw: S3Server, bucket: str) -> set[str]:
    return {entry["Key"] for entry in radosgw.client().list_objects_v2(Bucket=bucket)["Contents"]}


def _assert_denied(result: Result, right: str) -> None:
    assert result.exit_code == 1, result.stderr
    *warnings, error, hint = result.stderr.splitlines()
    assert all(line.startswith("warning: ") for line in warnings), result.stderr
    assert error.startswith("error: S3 bucket ")
    assert "access is denied" in error
    assert hint.startswith("hint: ")
    assert right in hint


def test_the_documented_rights_are_enough_for_all(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, volume_name: Callable[..., str]
) -> None:
    env = _with_rights(radosgw, bucket, _documented_policies()[0])
    run_volback("init", env=env)
    made = run_volback("backup", name, "--json", env=env).json["result"]["backups"][0]["id"]
    run_volback("restore", name, "--as", volume_name("restored"), "--prove", env=env)
    checks = run_volback("doctor", "--fix", "--json", env=env).json["result"]["checks"]
    assert {check["status"] for check in checks} == {"ok"}, checks
    run_volback("remove", f"{name}@{made}", env=env)


def test_the_documented_rights_for_hosts_that_only_back_up(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, str]
) -> None:
    """It reads none of what others put; what it puts belongs to it, with this server, so that it could read that."""
    others = run_volback("backup", name, "--json", env=owner).json["result"]["backups"][0]["id"]
    env = _with_rights(radosgw, bucket, _documented_policies()[1])
    made = run_volback("backup", name, "--json", env=env).json["result"]["backups"][0]["id"]
    assert _ids(radosgw, bucket) == {others, made}
    reference = f"{name}@{others}"
    _assert_denied(run_volback("restore", reference, "--as", f"{name}-copy", env=env, check_exit=None), "s3:GetObject")
    _assert_denied(run_volback("cat", reference, "file", env=env, check_exit=None), "s3:GetObject")
    refused = run_volback("remove", f"{name}@{made}", env=env, check_exit=1).stderr
    assert "nothing of its volume is deleted while it is unknown what " in refused
    assert f"/{reference} needs" in refused
    assert "s3:GetObject" in refused
    assert _ids(radosgw, bucket) == {others, made}


def _leave_what_a_host_that_only_backs_up_began(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, Any] | None = None
) -> dict[str, str]:
    """Let it lose its rights before it commits, and back up again when it has them; return its environment."""
    env = _with_rights(radosgw, bucket, _documented_policies()[1])
    with halted(run_volback, "before Catalog.commit", "backup", name, env=env) as run:
        radosgw.client().delete_bucket_policy(Bucket=bucket)
    _assert_denied(run.ended, "s3:")
    env = _with_rights(radosgw, bucket, _documented_policies()[1], owner=owner)
    again = run_volback("backup", name, env=env)
    assert "what a failed run left in" in again.stderr
    return env


def test_what_a_host_that_only_backs_up_leaves_does_not_keep_it_from_its_next_backup(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, str]
) -> None:
    """Of this server, the owner of a bucket reads what others put there if the bucket's policy says so."""
    run_volback("backup", name, env=owner)
    env = _leave_what_a_host_that_only_backs_up_began(
        radosgw, bucket, run_volback, name, owner=_documented_policies()[0]
    )
    assert len(_ids(radosgw, bucket)) == 2
    assert "removed 1 half-made backup" in run_volback("doctor", "--fix", env=owner).stdout
    assert run_volback("backup", name, env=env).stderr == ""


def test_where_the_owner_may_not_read_a_manifest_nothing_of_the_volume_is_removed_and_it_is_said(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, str]
) -> None:
    """What that backup uses is unknown; the host that made it goes on."""
    made = [run_volback("backup", name, "--json", env=owner).json["result"]["backups"][0] for _ in range(2)]
    env = _leave_what_a_host_that_only_backs_up_began(radosgw, bucket, run_volback, name)
    (unread,) = _ids(radosgw, bucket) - {backup["id"] for backup in made}
    unreadable = f"{made[0]['host']}/{name}@{unread}"
    before = _keys(radosgw, bucket)
    fixed = run_volback("doctor", "--fix", env=owner, check_exit=3)
    assert f"nothing of its volume is deleted while it is unknown what {unreadable} needs: " in fixed.stdout
    pruned = run_volback("prune", "--keep-last", "1", "--older-than", "1s", env=owner, check_exit=3)
    assert f"the manifest of backup {unreadable} cannot be read" in pruned.stderr
    assert "access is denied" in pruned.stderr
    assert _keys(radosgw, bucket) - {"docker/volback.time"} == before
    run_volback("backup", name, env=env)
    assert len(_ids(radosgw, bucket)) == 4


def test_a_key_that_may_only_read_lists_and_restores_and_says_why_it_cannot_back_up(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, str],
    volume_name: Callable[..., str],
) -> None:  # fmt: skip
    made = run_volback("backup", name, "--json", env=owner).json["result"]["backups"][0]["id"]
    env = _with_rights(radosgw, bucket, READ_ONLY)
    assert made in run_volback("list", env=env).stdout
    run_volback("restore", name, "--as", volume_name("restored"), "--prove", env=env)
    _assert_denied(run_volback("backup", name, env=env, check_exit=None), "s3:PutObject")
    _assert_denied(run_volback("remove", f"{name}@{made}", env=env, check_exit=None), "s3:PutObject")
    assert made in run_volback("list", env=env).stdout


def test_no_bucket_and_a_foreign_key_are_one_line_each(
    radosgw: S3Server, bucket: str, run_volback: Volback, name: str, owner: dict[str, str]
) -> None:
    failed = run_volback("backup", name, env=owner | {"VOLBACK_REPO": f"s3://{bucket}-none"}, check_exit=1)
    assert f"error: S3 bucket '{bucket}-none' at " in failed.stderr
    assert "there is no such bucket" in failed.stderr
    assert f"hint: create it (aws s3 mb s3://{bucket}-none)" in failed.stderr
    for wrong, why in (("AWS_SECRET_ACCESS_KEY", "the signature does not match"),
                       ("AWS_ACCESS_KEY_ID", "the access key is unknown there")):  # fmt: skip
        failed = run_volback("list", env=owner | {wrong: "0123456789abcdef"}, check_exit=1)
        assert why in failed.stderr
        assert "0123456789abcdef" not in failed.stderr
        assert len(failed.stderr.splitlines()) == 2, failed.stderr
    foreign = _environment(radosgw.new_user(), bucket)
    _assert_denied(run_volback("backup", name, env=foreign, check_exit=None), "s3:GetObject")


@pytest.mark.parametrize("shift", ["+2h", "-2h"])
def test_a_wrong_clock_is_said_to_be_wrong(run_volback: Volback, owner: dict[str, str], shift: str) -> None:
    printed = subprocess.run(["faketime", "-f", shift, "env"], capture_output=True, text=True, check=True).stdout
    faked = dict(line.split("=", 1) for line in printed.splitlines() if line.startswith(("LD_PRELOAD=", "FAKETIME=")))
    failed = run_volback("list", env=owner | faked | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}, check_exit=1)
    assert "this machine's clock is wrong" in failed.stderr
    assert "hint: set the clock (NTP)" in failed.stderr
    assert len(failed.stderr.splitlines()) == 2, failed.stderr
