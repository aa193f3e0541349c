"""The network between volback and an S3 server on bad days: right bytes or the right error, and nothing half-made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha256
from urllib.parse import urlsplit

import pytest

from tests.support.proxy import Planned, Proxy
from tests.support.s3 import MIB, S3Server, open_uploads
from volback.errors import StoreUnreachable
from volback.store.s3.store import S3Store

pytestmark = pytest.mark.xdist_group("s3")
"""Those who need a server share it: radosgw takes 16 s to start."""

SMALL = b"a small object" * 1000
LARGE = b"".join(bytes([number]) * MIB for number in range(6))
"""Two parts."""

Opened = tuple[S3Store, Proxy, str]
Open = Callable[..., AbstractContextManager[Opened]]

WRITES = [
    Planned("refuse", ("PUT", "/d/o")),
    Planned("cut-request", ("PUT", "/d/o")),
    Planned("cut-reply", ("PUT", "/d/o")),
    Planned("truncate", ("POST", "uploads")),
    Planned("cut-reply", ("POST", "uploads")),
    Planned("cut-reply", ("POST", "uploadId=")),
    Planned("cut-reply", ("PUT", "partNumber=2")),
    Planned("cut-request", ("PUT", "partNumber=1")),
    Planned("status", ("PUT", "/d/o"), status=500),
    Planned("status", ("PUT", "/d/o"), status=503),
    Planned("status", ("PUT", "partNumber=2"), status=429),
    Planned("status", ("POST", "uploadId="), status=503),
    Planned("delay", ("PUT", "/d/o"), delay_s=2.5),
]
READS = [
    Planned("refuse", ("GET", "/d/o")),
    Planned("truncate", ("GET", "/d/o")),
    Planned("cut-reply", ("GET", "/d/o")),
    Planned("delay", ("GET", "/d/o"), delay_s=2.5),
    Planned("status", ("GET", "/d/o"), status=500),
    Planned("status", ("GET", "/d/o"), status=503),
    Planned("status", ("GET", "/d/o"), status=429),
]
LISTS = [replace(fault, words=("GET", "list-type=2")) for fault in READS]


@pytest.fixture
def through(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Open:
    """`with through(FAULT...) as (store, proxy, bucket)`; after it every fault was hit and no upload is open."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    address = urlsplit(moto.endpoint)

    @contextmanager
    def connect(*plan: Planned, give_up: float = 20) -> Iterator[Opened]:
        proxy = Proxy((str(address.hostname), int(address.port or 0)), plan)
        with moto.bucket() as bucket, proxy.running():
            server = replace(moto, endpoint=proxy.endpoint)
            yield server.store(bucket, part_size=5, timeout=2, give_up=give_up), proxy, bucket
            assert all(proxy.hits), f"never hit: {[f for f, hits in zip(plan, proxy.hits, strict=True) if not hits]}"
            assert open_uploads(moto.client(), bucket) == []

    return connect


def shown(fault: Planned) -> str:
    return f"{fault.harm}-{fault.status if fault.harm == 'status' else ''}-{'-'.join(fault.words)}".replace("/", "")


def put_data(fault: Planned) -> bytes:
    return LARGE if any(word in ("uploads", "uploadId=") or "part" in word for word in fault.words) else SMALL


@pytest.mark.parametrize("if_absent", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("fault", WRITES, ids=shown)
def test_a_put_outlives_one_fault(through: Open, fault: Planned, if_absent: bool) -> None:
    data = put_data(fault)
    with through(fault) as (store, _, _):
        assert store.put("d/o", [data], if_absent=if_absent) == len(data)
        assert sha256(b"".join(store.open("d/o"))).digest() == sha256(data).digest()
        assert [info.key for info in store.list()] == ["d/o"]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("status", [503, *(pytest.param(other, marks=pytest.mark.long) for other in (500, 429))])
def test_a_put_that_never_works_gives_up_and_leaves_nothing(through: Open, data: bytes, status: int) -> None:
    with through(Planned("status", ("PUT", "/d/o"), nth=None, status=status), give_up=1) as (store, _, bucket):
        with pytest.raises(StoreUnreachable, match=bucket) as caught:
            store.put("d/o", [data])
        assert "'d/o'" in caught.value.message
        assert caught.value.exit_code == 9
        assert list(store.list()) == []


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=shown(fault), marks=[pytest.mark.long] * (at % 2)) for at, fault in enumerate(READS)],
)
def test_an_open_outlives_one_fault(through: Open, fault: Planned) -> None:
    with through(fault) as (store, _, _):
        store.put("d/o", [LARGE])
        assert sha256(b"".join(store.open("d/o"))).digest() == sha256(LARGE).digest()


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=shown(fault), marks=[pytest.mark.long] * (at % 2)) for at, fault in enumerate(LISTS)],
)
def test_a_list_outlives_one_fault(through: Open, fault: Planned) -> None:
    with through(fault) as (store, _, _):
        for key in ("a/x", "a-other/x", "b"):
            store.put(key, [b"x"])
        assert [info.key for info in store.list()] == ["a-other/x", "a/x", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("torn"), SystemExit(1)], ids=repr)
def test_an_interrupted_upload_leaves_no_object_and_no_upload(through: Open, error: BaseException) -> None:
    def torn() -> Iterator[bytes]:
        yield LARGE
        raise error

    with through() as (store, _, _):
        with pytest.raises(type(error)) as caught:
            store.put("d/o", torn())
        assert caught.value is error
        assert list(store.list()) == []
        assert store.unfinished() == []


@pytest.mark.parametrize("count", [12, pytest.param(104, marks=pytest.mark.long)])
def test_many_parts_for_real(radosgw: S3Server, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for name, value in radosgw.environment().items():
        monkeypatch.setenv(name, value)
    blocks = [bytes([number]) * (5 * MIB) for number in range(count)]
    with radosgw.bucket() as bucket:
        store = radosgw.store(bucket, part_size=5)
        assert store.put("d/o", iter(blocks)) == count * 5 * MIB
        assert radosgw.client().head_object(Bucket=bucket, Key="d/o")["ETag"].endswith(f'-{count}"')
        digest = sha256()
        for buffer in store.open("d/o"):
            digest.update(buffer)
        assert digest.digest() == sha256(b"".join(blocks)).digest()
        assert open_uploads(radosgw.client(), bucket) == []


def test_a_byte_that_flips_on_the_way_up_is_refused_and_sent_again(
    radosgw: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is signed with the SHA-256 of its body."""
    for name, value in radosgw.environment().items():
        monkeypatch.setenv(name, value)
    address = urlsplit(radosgw.endpoint)
    plan = [Planned("flip-request", ("PUT", "d/small")), Planned("flip-request", ("PUT", "partNumber=2"))]
    proxy = Proxy((str(address.hostname), int(address.port or 0)), plan)
    with radosgw.bucket() as bucket, proxy.running():
        store = replace(radosgw, endpoint=proxy.endpoint).store(bucket, part_size=5)
        for key, data in (("d/small", SMALL), ("d/large", LARGE)):
            assert store.put(key, [data]) == len(data)
            assert sha256(b"".join(store.open(key))).digest() == sha256(data).digest()
        assert proxy.hits == [1, 1]
        assert open_uploads(radosgw.client(), bucket) == []
