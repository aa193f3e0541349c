"""What S3 servers and the ways to them want: locked and versioned buckets, regions, TLS, proxies, credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.network import http_proxy, tls_end
from tests.support.proxy import Planned, Proxy
from tests.support.s3 import MIB, S3Server, open_uploads
from volback.context import Access, Context, open_repository
from volback.context.repository import Repository
from volback.errors import ConflictError, NoRepository, NotFoundError, StoreDenied, StoreError, UsageError
from volback.operations.init import init
from volback.settings import Settings
from volback.store.s3.store import S3Store

pytestmark = pytest.mark.xdist_group("s3")

LARGE = b"".join(bytes([number]) * MIB for number in range(6))
PARTS: dict[str, Any] = {"part_size": 5, "timeout": 20, "give_up": 20}

Use = Callable[[S3Server], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Sets this process's credentials to those of a server."""

    def set_environment(server: S3Server) -> None:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)

    return set_environment


@contextmanager
def proxied(server: S3Server, *plan: Planned) -> Iterator[tuple[S3Server, Proxy]]:
    """The server behind a proxy of ours; in the end every fault of the plan was hit."""
    address = urlsplit(server.endpoint)
    with Proxy((str(address.hostname), int(address.port or 0)), plan).running() as proxy:
        yield replace(server, endpoint=proxy.endpoint), proxy
        assert all(proxy.hits), proxy.hits


def content(store: S3Store, key: str) -> bytes:
    return b"".join(store.open(key))


def error_reply(status: int, code: str, words: str, *headers: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
    head = [f"HTTP/1.1 {status} Refused", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body]
    return "\r\n".join(head).encode()


def test_a_versioned_bucket_works(radosgw: S3Server, use: Use) -> None:
    use(radosgw)
    with radosgw.bucket() as bucket:
        radosgw.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        store = radosgw.store(bucket, "p", **PARTS)
        for data in (b"old", LARGE):
            store.put("d/o", [data])
        with pytest.raises(ConflictError):
            store.put("d/o", [b"newer"], if_absent=True)
        assert content(store, "d/o") == LARGE
        store.delete("d/o")
        assert list(store.list()) == []
        with pytest.raises(NotFoundError):
            store.stat("d/o")
        store.put("d/o", [b"again"], if_absent=True)
        assert content(store, "d/o") == b"again"
        assert len(radosgw.client().list_object_versions(Bucket=bucket)["Versions"]) == 3


def test_a_bucket_with_an_object_lock_works_and_keeps_its_versions(radosgw: S3Server, use: Use) -> None:
    use(radosgw)
    with radosgw.bucket(ObjectLockEnabledForBucket=True) as bucket:
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
        radosgw.client().put_object_lock_configuration(
            Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        store = radosgw.store(bucket, "p", **PARTS)
        for key, data in (("d/small", b"small"), ("d/large", LARGE)):
            store.put(key, [data], if_absent=True)
            assert content(store, key) == data
            store.delete(key)
        assert list(store.list()) == []
        (version, _) = radosgw.client().list_object_versions(Bucket=bucket)["Versions"]
        with pytest.raises(radosgw.client().exceptions.ClientError, match="AccessDenied"):
            radosgw.client().delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


def test_a_server_that_wants_an_md5_for_locked_objects_gets_it(moto: S3Server, use: Use) -> None:
    """The words are AWS's: https://github.com/supabase/storage/issues/423."""
    words = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
    use(moto)
    for word, data in (("d/o", b"small"), ("partNumber=1", LARGE)):
        demand = Planned("reply", ("PUT", word), reply=error_reply(400, "InvalidRequest", words))
        with moto.bucket() as bucket, proxied(moto, demand) as (server, proxy):
            store = server.store(bucket, **PARTS)
            store.put("d/o", [data])
            assert content(store, "d/o") == data
            sent = [head.lower() for head in proxy.heads if head.startswith("PUT ") and word in head]
            assert ["content-md5: " in head for head in sent] == [False, True], (
                "other parts may be on their way meanwhile"
            )


def test_a_bucket_of_another_region_is_found_there_or_named(moto: S3Server, use: Use) -> None:
    """AWS answers a request that is signed for another region with 301 and the right one."""
    use(moto)
    right = "x-amz-bucket-region: eu-west-3"
    moved = error_reply(301, "PermanentRedirect", "The bucket is elsewhere", right)
    with moto.bucket() as bucket:
        sent_on = Planned("reply", (bucket,), nth=None, header="/us-east-1/s3/", reply=moved)
        with proxied(moto, sent_on) as (server, proxy):
            store = server.store(bucket, **PARTS)
            store.put("d/o", [LARGE])
            assert content(store, "d/o") == LARGE
            assert any("/eu-west-3/s3/" in head for head in proxy.heads)
        nowhere = error_reply(301, "PermanentRedirect", "The bucket is elsewhere")
        with proxied(moto, Planned("reply", (bucket,), nth=None, reply=nowhere)) as (server, _):
            with pytest.raises(StoreError, match="the bucket is in another region") as caught:
                server.store(bucket, **PARTS).put("d/o", [b"data"])
            assert "VOLBACK_S3_REGION" in str(caught.value.hint)


def test_a_conflict_at_the_end_of_an_upload_is_reported_at_once_and_leaves_nothing(moto: S3Server, use: Use) -> None:
    use(moto)
    conflict = error_reply(409, "ConditionalRequestConflict", "Somebody else writes it")
    with moto.bucket() as bucket, proxied(moto, Planned("reply", ("POST", "uploadId="), reply=conflict)) as (server, _):
        store = server.store(bucket, **PARTS)
        with pytest.raises(ConflictError, match="another client is writing it") as caught:
            store.put("d/o", [LARGE], if_absent=True)
        assert caught.value.hint == "run the command again"
        assert list(store.list()) == []
        assert open_uploads(moto.client(), bucket) == []


def test_a_conflict_of_a_small_object_is_tried_again(moto: S3Server, use: Use) -> None:
    use(moto)
    conflict = error_reply(409, "ConditionalRequestConflict", "Somebody else writes it")
    with moto.bucket() as bucket, proxied(moto, Planned("reply", ("PUT", "/d/o"), reply=conflict)) as (server, _):
        server.store(bucket, **PARTS).put("d/o", [b"data"], if_absent=True)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_encryption_and_storage_class_are_asked_for(moto: S3Server, use: Use, data: bytes) -> None:
    use(moto)
    key_id = "1234abcd-12ab-34cd-56ef-1234567890ab"
    with moto.bucket() as bucket:
        moto.store(bucket, sse="AES256", storage_class="STANDARD_IA", **PARTS).put("aes", [data])
        moto.store(bucket, sse="aws:kms", sse_key_id=key_id, **PARTS).put("kms", [data])
        aes, kms = (moto.client().head_object(Bucket=bucket, Key=key) for key in ("aes", "kms"))
        assert (aes["ServerSideEncryption"], aes["StorageClass"]) == ("AES256", "STANDARD_IA")
        assert (kms["ServerSideEncryption"], kms["SSEKMSKeyId"]) == ("aws:kms", key_id)
        assert content(moto.store(bucket), "kms") == data


def test_a_ca_of_ones_own_is_trusted_where_it_is_named(radosgw: S3Server, use: Use, tmp_path: Path) -> None:
    use(radosgw)
    with radosgw.bucket() as bucket, tls_end(radosgw.endpoint, tmp_path) as (url, ca):
        server = replace(radosgw, endpoint=url)
        store = server.store(bucket, ca_bundle=ca, **PARTS)
        store.put("d/o", [LARGE])
        assert content(store, "d/o") == LARGE
        with pytest.raises(StoreError, match="its certificate is not trusted") as caught:
            server.store(bucket, **PARTS).put("d/o", [b"data"])
        assert "VOLBACK_S3_CA_BUNDLE" in str(caught.value.hint)
        with pytest.raises(UsageError, match="CA bundle"):
            server.store(bucket, ca_bundle=tmp_path / "none.pem", **PARTS).stat("d/o")


def test_an_http_proxy_is_used_for_plain_and_for_tls(radosgw: S3Server, use: Use, tmp_path: Path) -> None:
    use(radosgw)
    with radosgw.bucket() as bucket, http_proxy() as (proxy, lines):
        store = radosgw.store(bucket, proxy=proxy, **PARTS)
        store.put("d/o", [LARGE])
        assert content(store, "d/o") == LARGE
        assert f"PUT {radosgw.endpoint}/{bucket}/d/o?" in "\n".join(lines)
        with tls_end(radosgw.endpoint, tmp_path) as (url, ca):
            store = replace(radosgw, endpoint=url).store(bucket, proxy=proxy, ca_bundle=ca, **PARTS)
            assert content(store, "d/o") == LARGE
            assert f"CONNECT {url.removeprefix('https://')}" in lines


def test_a_profile_of_the_shared_files_is_used(
    radosgw: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = radosgw.new_user()
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {other.access_key}\naws_secret_access_key = {other.secret_key}\n"
        f"[nightly]\naws_access_key_id = {radosgw.access_key}\naws_secret_access_key = {radosgw.secret_key}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with radosgw.bucket() as bucket:
        radosgw.store(bucket, profile="nightly").put("d/o", [b"data"])
        with pytest.raises(StoreDenied, match="access is denied"):
            radosgw.store(bucket).put("d/o", [b"data"])


def test_a_web_identity_is_used(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in Kubernetes: a token in a file, which the SDK changes for credentials that end after an hour."""
    (tmp_path / "token").write_text("a.web.token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    with moto.bucket() as bucket, proxied(moto) as (server, proxy):
        server.store(bucket, **PARTS).put("d/o", [b"data"])
        assert all("Credential=ASIA" in head and "x-amz-security-token: " in head.lower() for head in proxy.heads)


def test_a_key_that_may_not_read_asks_the_listing_what_is_there(moto: S3Server, use: Use) -> None:
    use(moto)
    denied = error_reply(403, "AccessDenied", "Access Denied")
    reads = [Planned("reply", (verb, "/d/"), nth=None, reply=denied) for verb in ("HEAD", "GET")]
    with moto.bucket() as bucket:
        moto.store(bucket, **PARTS).put("d/o", [b"data"])
        with proxied(moto, *reads) as (server, _):
            store = server.store(bucket, **PARTS)
            assert store.stat("d/o").size_bytes == 4
            with pytest.raises(NotFoundError):
                store.stat("d/none")
            with pytest.raises(StoreDenied):
                content(store, "d/o")
        reads.append(Planned("reply", ("GET", "list-type=2"), nth=None, reply=denied))
        with proxied(moto, *reads) as (server, _), pytest.raises(StoreDenied, match="'d/o'"):
            server.store(bucket, **PARTS).stat("d/o")


def test_a_delete_of_what_is_gone_is_none_and_a_denied_one_is_named(moto: S3Server, use: Use) -> None:
    """AWS says 204 for what is gone; other servers say 404."""
    use(moto)
    gone, denied = error_reply(404, "NoSuchKey", "Gone"), error_reply(403, "AccessDenied", "Access Denied")
    with moto.bucket() as bucket:
        with proxied(moto, Planned("reply", ("DELETE", "/d/o"), reply=gone)) as (server, _):
            server.store(bucket, **PARTS).delete("d/o")
        plan = Planned("reply", ("DELETE", "/d/o"), reply=denied)
        with proxied(moto, plan) as (server, _), pytest.raises(StoreDenied, match="'d/o'"):
            server.store(bucket, **PARTS).delete("d/o")


def test_a_prefix_is_made_a_repository_once_and_known_again(moto: S3Server, use: Use, tmp_path: Path) -> None:
    use(moto)
    access = Access(moto.environment())

    def at(prefix: str, *, accept: bool = False) -> tuple[Context, Repository]:
        settings = Settings(repository=f"s3://{bucket}/{prefix}", state=tmp_path / "state", host="web1")
        context = Context(settings, accept_repository=accept)
        return context, open_repository(context, access=access)

    with moto.bucket() as bucket:
        with pytest.raises(NoRepository, match=f"no repository in s3://{bucket}/a: it is empty or does not exist"):
            _ = at("a")[1].catalog
        first = init(*at("a"))
        assert (first.made, init(*at("a/")).id, init(*at("a")).made) == (True, first.id, False)
        assert at("a")[1].catalog.backups() == []
        with pytest.raises(NoRepository):
            _ = at("a-other")[1].catalog
        moto.client().put_object(Bucket=bucket, Key="photos/1.jpg", Body=b"mine")
        with pytest.raises(ConflictError, match=r"it holds '1\.jpg'"):
            init(*at("photos"))
        moto.client().delete_object(Bucket=bucket, Key="a/volback.json")
        for attempt in (lambda: init(*at("a")), lambda: at("a")[1].catalog):
            with pytest.raises(NoRepository, match=first.id):
                attempt()
        second = init(*at("a", accept=True))
        assert (second.made, second.id != first.id) == (True, True)


def test_http_to_a_port_of_https_and_the_other_way_is_named(moto: S3Server, use: Use, tmp_path: Path) -> None:
    use(moto)
    with moto.bucket() as bucket, tls_end(moto.endpoint, tmp_path) as (url, _):
        plain_to_tls = replace(moto, endpoint=url.replace("https://", "http://"))
        tls_to_plain = replace(moto, endpoint=moto.endpoint.replace("http://", "https://"))
        for server, right in ((plain_to_tls, url), (tls_to_plain, moto.endpoint)):
            store = server.store(bucket, give_up=0)
            calls: list[Callable[[], object]] = [
                partial(store.put, "d/o", [b"data"]), partial(store.stat, "d/o"), partial(list, store.list())
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(StoreError) as caught:
                    call()
                assert f"write {right}" in str(caught.value.hint)


def test_a_put_if_absent_that_is_refused_at_its_first_step_says_why(moto: S3Server, use: Use) -> None:
    """That step is a HEAD, whose refusal has no message: AWS answers 400 to one whose token has expired."""
    use(moto)
    silent = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    expired = error_reply(400, "ExpiredToken", "The provided token has expired.")
    # Each: the SDK asks once more, as a HEAD's 400 may mean another region.
    plan = [Planned("reply", (verb, "/d/o"), nth=None, reply=reply) for verb, reply in
            (("HEAD", silent), ("GET", expired))]  # fmt: skip
    with (
        moto.bucket() as bucket,
        proxied(moto, *plan) as (server, _),
        pytest.raises(StoreError, match="cannot write 'd/o': the session token has expired"),
    ):
        server.store(bucket, **PARTS).put("d/o", [b"data"], if_absent=True)
