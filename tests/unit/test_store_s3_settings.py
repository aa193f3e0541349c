"""S3 settings from a URL and the environment, what is refused, and what the server's refusals become."""

from __future__ import annotations

import pytest

from volback.errors import NotFoundError, ObjectLocked, StoreDenied, StoreError, StoreUnreachable, UsageError
from volback.store.s3.errors import Failure, Refused, explain
from volback.store.s3.settings import S3_VARIABLES, S3Settings, read_s3_url

MIB = 1024 * 1024


def test_a_bare_url_has_the_defaults() -> None:
    location = read_s3_url("s3://bucket/a/b/", {})
    assert (location.bucket, location.prefix, location.url) == ("bucket", "a/b/", "s3://bucket/a/b")
    assert location.settings == S3Settings()
    assert read_s3_url("s3://bucket", {}).prefix == ""


def test_every_setting_comes_from_the_url_and_from_its_variable() -> None:
    values = {
        "endpoint": "http://127.0.0.1:9000", "region": "eu-central-1", "profile": "backup", "addressing": "path",
        "storage-class": "STANDARD_IA", "sse": "aws:kms", "sse-key-id": "key", "ca-bundle": "/etc/ca.pem",
        "proxy": "http://proxy:3128", "checksums": "when_supported", "parallel": "2", "part-size": "16",
        "max-parts": "1000", "equal-parts": "yes", "bandwidth": "0.5", "timeout": "3", "give-up": "9",
    }  # fmt: skip
    assert set(values) == set(S3_VARIABLES)
    wanted = S3Settings(
        endpoint="http://127.0.0.1:9000", region="eu-central-1", profile="backup", addressing="path",
        storage_class="STANDARD_IA", sse="aws:kms", sse_key_id="key", ca_bundle="/etc/ca.pem",
        proxy="http://proxy:3128", checksums="when_supported", parallel=2, part_size_bytes=16 * MIB, max_parts=1000,
        equal_parts=True, bandwidth_bytes_s=0.5 * MIB, timeout_s=3.0, give_up_s=9.0,
    )  # fmt: skip
    url = "s3://bucket/p?" + "&".join(f"{name}={value}" for name, value in values.items())
    assert read_s3_url(url, {}).settings == wanted
    assert (
        read_s3_url("s3://bucket/p", {S3_VARIABLES[name]: value for name, value in values.items()}).settings == wanted
    )
    assert read_s3_url(read_s3_url(url, {}).url, {}) == read_s3_url(url, {})


def test_the_url_wins_over_the_environment() -> None:
    environment = {"VOLBACK_S3_REGION": "one", "VOLBACK_S3_PARALLEL": "3"}
    settings = read_s3_url("s3://bucket?region=two", environment).settings
    assert (settings.region, settings.parallel) == ("two", 3)


@pytest.mark.parametrize(
    "url",
    [
        "s3://", "s3:///prefix", "s3://b", "s3://bucket/../x", "s3://bucket/a b", "s3://bucket/x#y", "s3://bucket?colour=1",
        "s3://bucket?region=a&region=b", "s3://bucket?region=", "s3://bucket?addressing=foo", "s3://bucket?parallel=0",
        "s3://bucket?parallel=x", "s3://bucket?part-size=4", "s3://bucket?max-parts=10001", "s3://bucket?sse=ROT13",
        "s3://bucket?sse-key-id=k", "s3://bucket?endpoint=ftp://x", "s3://bucket?equal-parts=maybe",
        "s3://bucket?bandwidth=0", "s3://bucket?bandwidth=nan", "s3://bucket?timeout=-1", "s3://[x/",
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_s3_url(url, {})
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://AK:hunter2@bucket/p", "s3://bucket?secret_key=hunter2", "s3://bucket?hunter2=1", "s3://bucket?x=1&hunter2Q=2",
        "s3://bucket?endpoint=http://me:hunter2@host", "s3://bucket?proxy=http://me:hunter2@host",
    ],
)  # fmt: skip
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_s3_url(url, {})
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


def test_a_proxys_password_is_never_shown() -> None:
    settings = read_s3_url("s3://bucket", {"VOLBACK_S3_PROXY": "http://me:hunter2@proxy:1"}).settings
    assert settings.proxy == "http://me:hunter2@proxy:1"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        (Failure("NoSuchKey", status=404), NotFoundError, "'k'"),
        (Failure("NoSuchBucket", status=404), StoreError, "no such bucket"),
        (Failure("AccessDenied", status=403), StoreDenied, "access is denied"),
        (
            Failure("PermanentRedirect", status=301, region="eu-west-1"),
            StoreError,
            "another region: it is in eu-west-1",
        ),
        (Failure("RequestTimeTooSkewed", status=403), StoreError, "clock"),
        (Failure("SignatureDoesNotMatch", status=403), StoreError, "signature"),
        (Failure("InvalidAccessKeyId", status=403), StoreError, "access key is unknown"),
        (Failure("NoCredentials"), StoreError, "no credentials"),
        (Failure("SlowDown", status=503), StoreUnreachable, "SlowDown"),
        (Failure("EndpointConnectionError", "no connection", answered=False), StoreUnreachable, "no connection"),
    ],
)
def test_a_refusal_says_what_where_why_and_what_next(failure: Failure, kind: type[StoreError], says: str) -> None:
    error = explain(Refused(failure, 1), action="read", key="k", bucket="bucket", endpoint="http://host")
    assert type(error) is kind
    assert says in error.message
    assert "'bucket' at http://host" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("endpoint", "message", "hint"),
    [
        ("https://bucket.s3.eu-central-1.amazonaws.com", "holds a bucket: bucket",
         "write s3://bucket/PREFIX?region=eu-central-1 and no endpoint"),
        ("https://other.s3.amazonaws.com/", "holds a bucket: other", "write s3://other/PREFIX and no endpoint"),
        ("http://nas:9000/bucket", "ends in the bucket's name", "write http://nas:9000 alone"),
        ("http://nas:9000/bucket/", "ends in the bucket's name", "write http://nas:9000 alone"),
        ("https://nas/s3/bucket", "ends in the bucket's name", "write https://nas alone"),
    ],
)  # fmt: skip
def test_an_endpoint_with_the_bucket_in_it_is_refused(endpoint: str, message: str, hint: str) -> None:
    for url, environment in (
        (f"s3://bucket/prefix?endpoint={endpoint}", {}),
        ("s3://bucket/prefix", {"VOLBACK_S3_ENDPOINT": endpoint}),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            read_s3_url(url, environment)
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    "endpoint",
    ["https://s3.eu-central-1.amazonaws.com", "https://nas/storage/v1/s3", "https://bucket.example.org",
     "https://nas/mybucket", "https://s3.dualstack.eu-central-1.amazonaws.com"],
)  # fmt: skip
def test_an_endpoint_that_may_be_right_is_taken(endpoint: str) -> None:
    assert read_s3_url(f"s3://bucket?endpoint={endpoint}", {}).settings.endpoint == endpoint


@pytest.mark.parametrize(
    ("endpoint", "failure", "hint"),
    [
        ("https://bucket.example.org", Failure("NoSuchBucket", status=404), "write https://example.org if"),
        ("http://nas/other", Failure("NoSuchBucket", status=404), "most servers are reached at http://nas,"),
        ("https://nas:9000", Failure("TLS"), "does not speak TLS at that port, write http://nas:9000"),
        ("http://nas:9000", Failure("400", "Bad Request", 400), "speaks TLS at that port, write https://nas:9000"),
        ("http://nas:9000", Failure("ConnectionClosedError", "the connection was closed", answered=False),
         "speaks TLS at that port, write https://nas:9000"),
    ],
)  # fmt: skip
def test_an_endpoint_that_does_not_work_is_hinted_at(endpoint: str, failure: Failure, hint: str) -> None:
    error = explain(Refused(failure, 1), action="list", key=".", bucket="bucket", endpoint=endpoint)
    assert hint in str(error.hint)


@pytest.mark.parametrize("endpoint", [None, "https://nas:9000"])
@pytest.mark.parametrize("code", ["NoSuchBucket", "AccessDenied", "ExpiredToken"])
def test_a_refusal_with_a_code_says_nothing_of_the_endpoint(endpoint: str | None, code: str) -> None:
    error = explain(Refused(Failure(code, status=400), 1), action="list", key=".", bucket="b", endpoint=endpoint)
    assert "://" not in str(error.hint).replace("aws s3 mb s3://b", "")


@pytest.mark.parametrize("endpoint", [None, "https://nas/storage/v1/s3", "https://bucket.nas"])
def test_without_credentials_no_server_was_asked_and_nothing_is_said_of_it(endpoint: str | None) -> None:
    refused = Refused(Failure("NoCredentials"), 1)
    error = explain(refused, action="list", key=".", bucket="bucket", endpoint=endpoint)
    assert f"at {endpoint or 'AWS'}: " in error.message
    assert error.hint == "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or VOLBACK_S3_PROFILE"


@pytest.mark.parametrize("code", ["TLS", "ConnectionClosedError", "400"])
def test_a_connection_to_aws_that_breaks_gets_no_advice_on_its_scheme(code: str) -> None:
    error = explain(Refused(Failure(code), 1), action="list", key=".", bucket="bucket", endpoint=None)
    assert "://" not in str(error.hint)


@pytest.mark.parametrize(
    ("code", "reason", "is_locked"),
    [
        ("AccessDenied", "Access Denied because object protected by object lock.", True), ("ObjectLocked", "", True),
        ("ObjectLockedByBucketPolicy", "The object is locked", True), ("AccessDenied", "Access Denied", False),
        ("RetentionPolicyNotMet", "subject to retention policy", True), ("NoSuchBucket", "", False),
        ("AccessDenied", "Object is WORM protected and cannot be overwritten", True),
    ],
)  # fmt: skip
def test_a_lock_is_not_a_lack_of_rights(code: str, reason: str, is_locked: bool) -> None:
    refused = Refused(Failure(code, reason, status=403), 1)
    error = explain(refused, action="delete", key="k", bucket="bucket", endpoint=None)
    assert isinstance(error, ObjectLocked) == is_locked
    reading = explain(refused, action="read", key="k", bucket="bucket", endpoint=None)
    assert not isinstance(reading, ObjectLocked)
