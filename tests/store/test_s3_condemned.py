"""Two-phase removal in a bucket of a server: two machines, the times of the server, an unfinished upload."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.store.test_s3_servers import error_reply, proxied
from tests.support.machines import Clock, Machine, assert_whole
from tests.support.proxy import Planned
from tests.support.repository import IDS, make_backup
from tests.support.s3 import S3Server, open_uploads
from volback.catalog.condemned import GRACE_S
from volback.catalog.keys import BackupKey, parse_condemned_key
from volback.catalog.repository import Catalog
from volback.errors import ObjectLocked
from volback.policy.keep import KeepRules
from volback.store.s3.store import S3Store

pytestmark = pytest.mark.xdist_group("s3")

KEEP_ALL = KeepRules(last=100)


@pytest.fixture
def bucket(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    with moto.bucket() as name:
        yield moto.store(name, "docker")


@pytest.fixture
def machines(bucket: S3Store, tmp_path: Path) -> tuple[Machine, Machine]:
    """The clock of the second one is an hour ahead."""
    clock = Clock(datetime.now(UTC))
    there = Machine(tmp_path / "there", bucket, clock, timedelta(hours=1))
    return Machine(tmp_path / "here", bucket, clock), there


def keys(bucket: S3Store) -> set[str]:
    return {stored.key for stored in bucket.list("web1/") if parse_condemned_key(stored.key) is None}


def test_two_machines_remove_and_prune(bucket: S3Store, machines: tuple[Machine, Machine]) -> None:
    here, there = machines
    first = make_backup(bucket, IDS[0], data_bytes=5000)
    second, third = (make_backup(bucket, id_, data_bytes=5000, depends_on=[first.id]) for id_ in IDS[1:3])
    pruned = here.prune()
    (waiting,) = pruned.condemned
    time = bucket.stat("volback.time").modified_at
    assert timedelta() <= waiting.until - time - timedelta(seconds=GRACE_S) < timedelta(minutes=1)
    assert waiting.objects == 3
    assert there.prune().condemned == pruned.condemned
    assert {first.data, first.index, second.increment, second.index} <= keys(bucket)
    freed = there.prune(grace_s=0)
    assert freed.condemned == ()
    assert freed.freed_bytes == waiting.stored_bytes
    assert keys(bucket) == {first.data, third.manifest, third.increment, third.index}
    assert Catalog(bucket).condemned("web1", "db") == {}
    assert_whole(bucket)


def test_an_upload_that_another_machine_may_be_making_is_condemned_and_then_aborted(
    moto: S3Server, bucket: S3Store, machines: tuple[Machine, Machine]
) -> None:
    _, there = machines
    make_backup(bucket, IDS[0], data_bytes=5000)
    key = BackupKey("web1", "db", IDS[1])
    name = bucket.url.removeprefix("s3://").partition("/")[0]
    moto.client().create_multipart_upload(Bucket=name, Key="docker/" + key.data)
    (begun,) = there.prune(KEEP_ALL).half_made  # moto says of each upload that it began in 2010
    assert (begun.key, begun.uploads, begun.is_condemned) == (key, 1, True)
    assert there.prune(KEEP_ALL).half_made == ()
    assert list(Catalog(bucket).condemned("web1", "db")) == [key.data]
    assert len(open_uploads(moto.client(), name)) == 1
    assert there.prune(KEEP_ALL, grace_s=0).condemned == ()
    assert open_uploads(moto.client(), name) == []


LOCKED = "Access Denied because object protected by object lock."


@pytest.mark.parametrize("is_known", [True, False])
def test_an_object_that_is_locked_says_until_when(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Where a key may not know that, the answer has no such header."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    until = datetime(2099, 12, 24, tzinfo=UTC)
    retention = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until} if is_known else {}
    name = f"locked-{is_known}".lower()
    moto.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)  # it ends with moto
    moto.client().put_object(Bucket=name, Key="docker/a/b", Body=b"data", ChecksumAlgorithm="SHA256", **retention)
    refusal = Planned("reply", ("DELETE",), nth=None, reply=error_reply(403, "AccessDenied", LOCKED))
    kept = "cannot delete 'a/b': an object lock or a retention keeps it"
    with proxied(moto, refusal) as (server, _), pytest.raises(ObjectLocked, match=kept) as caught:
        server.store(name, "docker").delete("a/b")
    assert caught.value.until == (until if is_known else None)
