"""Real S3 servers for a session of tests: Ceph radosgw, SeaweedFS, rclone; moto for replies that none of them gives."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.support.engine import PROJECT
from tests.support.ports import free_port, free_ports
from volback.store.locate import open_store
from volback.store.s3.store import S3Store

START_S = 120
MIB = 1024 * 1024


@dataclass(frozen=True)
class S3Server:
    """A running server, and what it is known not to do."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    atomic_if_absent: bool = True
    """Whether of two puts with If-None-Match at the same moment only one succeeds."""
    flat: bool = True
    """Whether keys are names, and not paths of files in directories."""
    frees_prefixes: bool = True
    """Whether a key is free for an upload of parts once all keys below it are deleted."""
    stack: Path | None = None
    """Where scripts/stack keeps a radosgw."""

    def environment(self) -> dict[str, str]:
        """What volback needs to reach it."""
        return {
            "VOLBACK_S3_ENDPOINT": self.endpoint,
            "VOLBACK_S3_ADDRESSING": "path",
            "VOLBACK_S3_GIVE_UP": "20",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    @cache  # noqa: B019 - as long as the session: making one takes 0.3 s
    def client(self) -> Any:
        """The SDK's own client, to look from outside at what volback did."""
        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.Session().client(
            "s3", region_name="us-east-1", endpoint_url=self.endpoint, config=config,
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
        )  # fmt: skip

    @contextmanager
    def bucket(self, **options: Any) -> Iterator[str]:
        """A new bucket, emptied and removed in the end."""
        name = f"volback-test-{secrets.token_hex(6)}"
        client = self.client()
        client.create_bucket(Bucket=name, **options)
        try:
            yield name
        finally:
            empty(client, name, prefixes_too=not self.frees_prefixes)
            if self.flat:  # else it may have kept an empty directory, and call the bucket not empty
                client.delete_bucket(Bucket=name)

    def new_user(self) -> S3Server:
        """The same server (a radosgw) for another user, who owns nothing."""
        name = f"user{secrets.token_hex(4)}"
        access, secret = secrets.token_hex(10).upper(), secrets.token_hex(20)
        command = [
            "radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", f"--access-key={access}",
            f"--secret={secret}",
        ]  # fmt: skip
        env = {**os.environ, "CEPH_CONF": f"{self.stack}/ceph.conf"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
        return replace(self, name=name, access_key=access, secret_key=secret)

    def store(self, bucket: str, prefix: str = "", **settings: Any) -> S3Store:
        """A store there; settings as in an s3:// URL, with `_` for `-`."""
        query = "&".join(f"{name.replace('_', '-')}={value}" for name, value in settings.items())
        store = open_store(f"s3://{bucket}/{prefix}" + (f"?{query}" if query else ""), self.environment())
        assert isinstance(store, S3Store)
        return store


def empty(client: Any, bucket: str, *, prefixes_too: bool = False) -> None:
    """Remove every object with its versions, and every open upload of a bucket.

    `prefixes_too`: and what SeaweedFS keeps in the place of `a` after the last key below `a/`.
    """
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=entry["Key"])
    if prefixes_too:
        for found in client.list_objects_v2(Bucket=bucket, Delimiter="/").get("CommonPrefixes", []):
            client.delete_object(Bucket=bucket, Key=found["Prefix"])
    if client.get_bucket_versioning(Bucket=bucket).get("Status"):
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for entry in page.get("Versions", []) + page.get("DeleteMarkers", []):
                client.delete_object(
                    Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"], BypassGovernanceRetention=True
                )
    for key, upload_id in open_uploads(client, bucket):
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)


def open_uploads(client: Any, bucket: str) -> list[tuple[str, str]]:
    """Keys and ids of a bucket's open multipart uploads."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
    try:
        return [(entry["Key"], entry["UploadId"]) for page in pages for entry in page.get("Uploads", [])]
    except client.exceptions.NoSuchUpload:  # so rclone says that there is none
        return []


@pytest.fixture(scope="session")
def radosgw(session_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's S3 server, as scripts/stack starts it."""
    directory = tmp_path_factory.mktemp("radosgw") / "stack"
    script = str(PROJECT / "scripts/stack")
    try:
        done = subprocess.run([script, "up", str(directory)], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        lines = (directory / "env").read_text().splitlines()
        values = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        yield S3Server(
            "radosgw", values["VOLBACK_S3_ENDPOINT"], values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"],
            stack=directory,
        )  # fmt: skip
    finally:
        subprocess.run([script, "down", str(directory)], check=True, timeout=120)
    assert not directory.exists()


@pytest.fixture(scope="session")
def rclone(session_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3` over a directory: it checks signatures, and ignores If-None-Match.

    It keeps its cache of directories: with --dir-cache-time 0s, a delete beside a list made it wait for itself without
    end (rclone 1.75.2: Dir._readDirFromEntries for a child's lock, which waits for its own).
    """
    with rclone_server(tmp_path_factory.mktemp("rclone")) as (server, _):
        yield server


@contextmanager
def rclone_server(directory: Path) -> Iterator[tuple[S3Server, Program]]:
    """An rclone over `directory`; what ends it and starts it again."""
    directory.mkdir(exist_ok=True)
    port, secret = free_port(), secrets.token_hex(16)
    command = [
        str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(directory), "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"AKVOLBACK,{secret}", "--vfs-cache-mode", "off", "--config", os.devnull,
    ]  # fmt: skip
    with _running(command, port, directory.with_suffix(".log")) as program:
        endpoint = f"http://127.0.0.1:{port}"
        yield (
            S3Server("rclone", endpoint, "AKVOLBACK", secret, atomic_if_absent=False, flat=False),
            program,
        )


@pytest.fixture(scope="session")
def seaweedfs(session_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, all its servers in one process: it checks signatures, and keeps keys as paths in a tree of its own.

    Each bucket takes several volumes as it is written to, so there must be enough of them.
    """
    directory = tmp_path_factory.mktemp("seaweedfs")
    secret = secrets.token_hex(16)
    identity = {
        "name": "volback",
        "credentials": [{"accessKey": "AKVOLBACK", "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    servers = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(servers))
    command = [
        str(Path(sys.executable).parent / "weed"), "-logtostderr", "server", f"-dir={directory}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.iam=false", f"-s3.config={directory}/s3.json", f"-s3.localSocket={directory}/s3.sock",
        "-volume.max=200", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    for number, server in enumerate(servers):
        command += [f"-{server}.port={ports[2 * number]}", f"-{server}.port.grpc={ports[2 * number + 1]}"]
    try:
        with _running(command, ports[-2], directory / "log"):
            yield S3Server("seaweedfs", f"http://127.0.0.1:{ports[-2]}", "AKVOLBACK", secret, frees_prefixes=False)
    finally:
        for port in ports:  # in /tmp, whatever TMPDIR says
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


@pytest.fixture(scope="session")
def moto(session_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto: honours If-None-Match on every request, checks no credentials."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port, tmp_path_factory.mktemp("moto") / "log"):
        yield S3Server("moto", f"http://127.0.0.1:{port}", "any", "any")


@dataclass
class Program:
    """A server's process."""

    command: list[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers on its port."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.process = process
        deadline = time.monotonic() + START_S
        while not _answers(self.port):
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once: SeaweedFS takes 10 s for an orderly end, and nothing of it is used after."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[Program]:
    """The server answers on its port inside, and has ended after."""
    program = Program(command, port, log)
    try:
        program.start()
        yield program
    finally:
        program.stop()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
