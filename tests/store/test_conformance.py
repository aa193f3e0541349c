"""The conformance suite over every store; a new store is one more entry of STORES, a new server one of SERVERS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.store.conformance import MIB, Abandon, StoreConformance
from tests.support.encrypted import encrypted
from tests.support.s3 import S3Server, empty
from volback.store.base import Store
from volback.store.faults import FaultStore
from volback.store.limit import LimitStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore
from volback.store.s3.store import S3Store

pytestmark = pytest.mark.xdist_group("s3")
"""Those who need a server share it: radosgw takes 16 s to start."""

STORES: dict[str, Callable[[Path], Store]] = {
    "local": lambda directory: LocalStore(directory / "repository"),
    "memory": lambda directory: MemoryStore(directory.name),
    "faults-local": lambda directory: FaultStore(LocalStore(directory / "repository")),
    "limit-local": lambda directory: LimitStore(LocalStore(directory / "repository"), 1e12),
    "encrypted-local": lambda directory: encrypted(LocalStore(directory / "repository")),
    "encrypted-memory": lambda directory: encrypted(MemoryStore(directory.name)),
    "faults-memory": lambda directory: FaultStore(MemoryStore(directory.name)),
}
SERVERS: dict[str, tuple[Any, ...]] = {
    "s3-radosgw": ("radosgw",),
    "s3-moto": ("moto",),
    "s3-rclone": ("rclone",),
    "s3-seaweedfs": ("seaweedfs",),
    "faults-s3": ("moto", pytest.mark.long),
}
"""Each with its server; and what runs with `scripts/test long` alone."""


@pytest.fixture(scope="module")
def s3_store(request: pytest.FixtureRequest) -> Iterator[Callable[[str], tuple[S3Server, str, S3Store]]]:
    """A server, a bucket and a store of each, made once: connecting takes 0.3 s."""
    made: dict[str, tuple[S3Server, str, S3Store]] = {}
    with ExitStack() as stack:

        def give(name: str) -> tuple[S3Server, str, S3Store]:
            if name not in made:
                server: S3Server = request.getfixturevalue(name)
                bucket = stack.enter_context(server.bucket())
                gives_up = not (server.flat and server.frees_prefixes)  # as tests ask it for what it cannot do
                server.client().put_object(Bucket=bucket, Key="first", Body=b"")  # SeaweedFS makes volumes for it
                server.client().delete_object(Bucket=bucket, Key="first")
                made[name] = (server, bucket, server.store(bucket, give_up=3 if gives_up else 20))
            return made[name]

        yield give


class TestConformance(StoreConformance):
    @pytest.fixture
    def atomic_if_absent(self, request: pytest.FixtureRequest, store: Store) -> bool:
        return _is_known_to(request, "atomic_if_absent")

    @pytest.fixture
    def flat(self, request: pytest.FixtureRequest, store: Store) -> bool:
        return _is_known_to(request, "flat")

    @pytest.fixture
    def frees_prefixes(self, request: pytest.FixtureRequest, store: Store) -> bool:
        return _is_known_to(request, "frees_prefixes")

    @pytest.fixture
    def abandon(
        self,
        request: pytest.FixtureRequest,
        store: Store,
        tmp_path: Path,
        s3_store: Callable[[str], tuple[S3Server, str, S3Store]],
    ) -> Abandon:
        name = request.node.callspec.params["store"]
        if "local" in name and "encrypted" not in name:
            return lambda key, data: _die_in_a_put(tmp_path / "repository", key, data)
        if name in STORES:
            return lambda key, data: store.put(key, [data])
        server, bucket, _ = s3_store(SERVERS[name][0])
        return lambda key, data: _leave_parts(server, bucket, key, data)

    @pytest.fixture(
        params=[
            *STORES,
            *(
                pytest.param(name, marks=[getattr(pytest.mark, "ceph" if server == "radosgw" else server), *marks])
                for name, (server, *marks) in SERVERS.items()
            ),
        ]
    )
    def store(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        s3_store: Callable[[str], tuple[S3Server, str, S3Store]],
    ) -> Iterator[Store]:
        if request.param in STORES:
            yield STORES[request.param](tmp_path)
            return
        server, bucket, store = s3_store(SERVERS[request.param][0])
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield FaultStore(store) if request.param == "faults-s3" else store
        empty(server.client(), bucket, prefixes_too=not server.frees_prefixes)


def _die_in_a_put(root: Path, key: str, data: bytes) -> None:
    code = f"""
import os, sys
from volback.store.local import LocalStore
def dying():
    yield sys.stdin.buffer.read()
    os._exit(9)
LocalStore({str(root)!r}).put({key!r}, dying())
"""
    assert subprocess.run([sys.executable, "-c", code], input=data, check=False).returncode == 9


def _leave_parts(server: S3Server, bucket: str, key: str, data: bytes) -> None:
    """Parts are sent in parallel: the third one is missing. Another upload of the key has less."""
    client = server.client()
    for numbers in ([1], [1, 2, 4]):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number in numbers:
            part = data[(number - 1) * 8 * MIB : number * 8 * MIB] or b"last"
            client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)


def _is_known_to(request: pytest.FixtureRequest, ability: str) -> bool:
    """Whether the store of this test can do it: all can, but for some S3 servers."""
    server = SERVERS.get(request.node.callspec.params["store"])
    return server is None or bool(getattr(request.getfixturevalue(server[0]), ability))
