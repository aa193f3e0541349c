"""Manifests in a bucket, as `list` reads them: at once the first time, and none the second time. Against rclone, behind
a proxy that holds each request for 30 ms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.proxy import Planned, Proxy
from tests.support.repository import IDS, make_backup
from tests.support.s3 import S3Server
from volback.context import Access, Context, open_repository
from volback.context.repository import Repository
from volback.operations.list import list_backups
from volback.settings import Settings
from volback.store.memory import MemoryStore
from volback.store.s3.client import _parse_time

pytestmark = pytest.mark.xdist_group("s3")

COUNT = 56
LATENCY = Planned("delay", ("HTTP/1.1",), nth=None, delay_s=0.03)


@pytest.fixture
def bucket(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in rclone.environment().items():
        monkeypatch.setenv(name, value)
    near = MemoryStore("near")
    for volume in ("db", "www"):
        for id_ in IDS:
            make_backup(near, id_, volume=volume, data_bytes=10)
    documents = {stored.key for stored in near.list() if stored.key.endswith(".json")}
    with rclone.bucket() as made:
        for key in documents:  # list reads no more
            rclone.client().put_object(Bucket=made, Key=f"r/{key}", Body=b"".join(near.open(key)))
        yield made


def opened(server: S3Server, bucket: str, proxy: Proxy, tmp_path: Path) -> tuple[Context, Repository]:
    """As a new process opens it: nothing is connected yet."""
    environment = server.environment() | {"VOLBACK_S3_ENDPOINT": proxy.endpoint}
    settings = Settings(f"s3://{bucket}/r", tmp_path / "state", host="web1", cache=tmp_path / "cache")
    ctx = Context(settings)
    credentials = {"access_key_id": server.access_key, "secret_access_key": server.secret_key}
    return ctx, open_repository(ctx, access=Access(environment, credentials))


def manifests_in(proxy: Proxy) -> int:
    return sum("/manifest.json" in head.partition("\r\n")[0] for head in proxy.heads)


def test_list_reads_manifests_at_once_and_the_second_time_none(rclone: S3Server, bucket: str, tmp_path: Path) -> None:
    address = urlsplit(rclone.endpoint)
    server = (str(address.hostname), address.port or 0)
    with Proxy(server, [LATENCY]).running() as proxy:
        ctx, repository = opened(rclone, bucket, proxy, tmp_path)
        first = list_backups(ctx, repository)
        assert [row.error for row in first] == [None] * COUNT
        assert manifests_in(proxy) == COUNT
        assert len(proxy.heads) == COUNT + 2, "volback.json, and one page of the listing"
        assert proxy.at_once >= 8
        counted = repository.store.requests
        assert counted is not None
        assert counted.by_verb == {"get": COUNT + 1, "head": 0, "list": 1, "put": 0, "delete": 0}
        assert counted.received_bytes > 300 * COUNT
        proxy.heads.clear()
        second = list_backups(*opened(rclone, bucket, proxy, tmp_path))
        assert (manifests_in(proxy), len(proxy.heads)) == (0, 2)
    assert [row.manifest for row in second] == [row.manifest for row in first]


@pytest.mark.parametrize(
    "text", ["2026-11-26T03:04:05.678Z", "2026-11-26T03:04:05Z", "Thu, 26 Nov 2026 03:04:05 GMT", 1795662245]
)
def test_times_of_a_server_are_read(text: str) -> None:
    assert _parse_time(text).astimezone(UTC).replace(microsecond=0) == datetime(2026, 11, 26, 3, 4, 5, tzinfo=UTC)
