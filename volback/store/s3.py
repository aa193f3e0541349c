"""A store in an S3 bucket, of AWS or any compatible server; the only place that imports the AWS SDK.

Used through store.locate. Uploads stream: no temp file, memory of (parallel parts + 1) x part size. Of the SDK only
botocore is used: boto3's own upload (s3transfer) cannot say If-None-Match.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import botocore.config
import botocore.session
from botocore import exceptions as sdk
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError

from volback.errors import ConflictError, StoreError, UsageError
from volback.store.base import (
    Buffer,
    Names,
    ObjectInfo,
    Unfinished,
    UnfinishedList,
    check_key,
    check_prefix,
    check_range,
    is_part,
)
from volback.store.parts import cut_parts, plan_parts
from volback.store.retry import Patience
from volback.store.s3_errors import Failure, Refused, explain
from volback.store.s3_settings import S3Location
from volback.store.s3_upload import Body, Upload

_log = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024
_OFFSET_MAX = 2**53
"""Beyond any object; larger numbers are not understood by every server."""
_ABORT_PATIENCE_S = 20.0
_SAFE_AGE_S = 86_400.0
"""Nothing tells a dead writer's upload from a living one's but its age."""
_TOKEN = "volback-put"


class S3Store:
    """Objects below a prefix of a bucket; safe to use from several threads. The first call connects."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._settings = location.settings
        self._client = _Client(location)
        self._sizes = plan_parts(
            self._settings.part_size_bytes, max_parts=self._settings.max_parts, equal=self._settings.equal_parts
        )

    @property
    def url(self) -> str:
        """s3://BUCKET/PREFIX, with the settings that its user wrote there."""
        return self._location.url

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        """Store all chunks as one object: in one request if smaller than the first part, else in parts."""
        check_key(key)
        parts = cut_parts(chunks, self._sizes)
        first = next(parts)
        with self._explained("write", key):
            if if_absent:
                self._check_absent(key)
            if first.nbytes < self._sizes.size(1):
                self._put_whole(key, first, if_absent=if_absent)
                return first.nbytes
            calls = _Multipart(self._client, self._location.prefix + key, self._written(if_absent=if_absent))
            upload = Upload(calls, parallel=self._settings.parallel, max_parts=self._settings.max_parts)
            return upload.run(self._checked_at_the_end(key, chain([first], parts), if_absent=if_absent))

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Yield the object's bytes in buffers of <= 1 MiB; a body that is cut off is resumed where it ended."""
        check_range(start, length)
        return self._read(check_key(key), start, length)

    def stat(self, key: str) -> ObjectInfo:
        """Size of one object, and its time in whole seconds."""
        check_key(key)
        with self._explained("read", key):
            reply = self._head(key)
        return ObjectInfo(key, reply["ContentLength"], _whole_seconds(reply["LastModified"]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below `prefix` in key order, a page of up to 1,000 at a time."""
        return self._list(check_prefix(prefix))

    def delete(self, key: str) -> None:
        """Remove one object; in a versioned bucket its versions stay."""
        check_key(key)
        with self._explained("delete", key):
            try:
                self._client.call("delete_object", Key=self._location.prefix + key)
            except Refused as refused:
                if not refused.failure.is_missing:
                    raise

    def free_bytes(self) -> int | None:
        """None: a bucket has no end."""
        return None

    def unfinished(self, prefix: str = "") -> UnfinishedList:
        """Open multipart uploads below `prefix`, those of living writers too."""
        return [left for left, _ in self._uploads(check_prefix(prefix))]

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        """Abort multipart uploads below `prefix` that began that long ago (None: a day)."""
        check_prefix(prefix)
        youngest = datetime.now(UTC) - timedelta(seconds=_SAFE_AGE_S if older_than_s is None else older_than_s)
        swept = [(left.key, upload_id) for left, upload_id in self._uploads(prefix) if left.started_at <= youngest]
        for key, upload_id in swept:
            with self._explained("abort", key):
                _abort(self._client, self._location.prefix + key, upload_id)
        return [key for key, _ in swept]

    # put

    def _written(self, *, if_absent: bool) -> dict[str, Any]:
        settings = self._settings
        wanted = {
            "StorageClass": settings.storage_class,
            "ServerSideEncryption": settings.sse,
            "SSEKMSKeyId": settings.sse_key_id,
            "IfNoneMatch": "*" if if_absent else None,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def _put_whole(self, key: str, data: memoryview, *, if_absent: bool) -> None:
        token = secrets.token_hex(8)
        body = Body(data, threading.Event())
        try:
            self._client.call(
                "put_object",
                Key=self._location.prefix + key,
                Body=body,
                Metadata={_TOKEN: token},
                **self._written(if_absent=if_absent),
            )
        except Refused as refused:
            if refused.failure.status != 412:
                raise
            # 412 to a second try may be about our own first one, whose answer was lost.
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if refused.tries < 2 or not _is_ours(self._client, self._location.prefix + key, token, digest):
                raise self._exists(key) from refused

    def _check_absent(self, key: str) -> None:
        """Some servers ignore If-None-Match. A key that may only write cannot ask, and has that header alone."""
        try:
            self._client.call("head_object", Key=self._location.prefix + key)
        except Refused as refused:
            if not (refused.failure.is_missing or refused.failure.is_denied):
                raise
        else:
            raise self._exists(key)

    def _checked_at_the_end(
        self, key: str, parts: Iterator[memoryview], *, if_absent: bool
    ) -> Generator[memoryview, None, None]:
        yield from parts
        if if_absent:
            self._check_absent(key)

    def _exists(self, key: str) -> ConflictError:
        return ConflictError(f"object {key!r} is in {self.url} already")

    # open, stat, list

    def _read(self, key: str, start: int, length: int | None) -> Generator[bytes, None, None]:
        if length == 0 or start >= _OFFSET_MAX:
            self.stat(key)  # raises NotFoundError
            return
        end = None if length is None or start + length >= _OFFSET_MAX else start + length
        patience = Patience(self._settings.give_up_s)
        etag: str | None = None
        while end is None or start < end:
            with self._explained("read", key):
                reply = self._get(key, start, end, etag)
            if reply is None:
                return
            etag, end = reply["ETag"], _end_of(reply, start, end)
            body = reply["Body"]
            try:
                while start < end and (buffer := body.read(min(_READ_BYTES, end - start))):
                    patience.progress()
                    start += len(buffer)
                    yield buffer
                lost = Failure("CutOff", "the server's answer ends early", answered=False, transient=True)
            except (sdk.BotoCoreError, OSError) as exc:
                lost = _failure(exc)
            finally:
                body.close()
            if start < end and not patience.wait():
                raise self._explain(Refused(lost, patience.tries), "read", key)

    def _get(self, key: str, start: int, end: int | None, etag: str | None) -> dict[str, Any] | None:
        """One ranged GET; None where the range lies past the end of the object."""
        where: dict[str, str] = {"IfMatch": etag} if etag else {}
        if start or end is not None:
            where["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        try:
            return self._client.call("get_object", Key=self._location.prefix + key, **where)
        except Refused as refused:
            if refused.failure.status == 416:
                return None
            if refused.failure.status == 412 or (etag and refused.failure.is_missing):
                raise StoreError(
                    f"object {key!r} in {self.url} was replaced while it was read", "run the command again"
                ) from refused
            raise

    def _head(self, key: str) -> dict[str, Any]:
        """A HEAD's refusal has no words, so a GET of one byte asks why."""
        try:
            return self._client.call("head_object", Key=self._location.prefix + key)
        except Refused as refused:
            if refused.failure.answered and not refused.failure.is_transient:
                self._client.call("get_object", Key=self._location.prefix + key, Range="bytes=0-0")["Body"].close()
            raise

    def _list(self, prefix: str) -> Generator[ObjectInfo, None, None]:
        where = {"Prefix": self._location.prefix + prefix}
        last = ""
        while True:
            with self._explained("list", prefix or "."):
                page = self._client.call("list_objects_v2", **where)
            entries = [(str(entry["Key"])[len(self._location.prefix) :], entry) for entry in page.get("Contents", [])]
            for key, entry in sorted(entries, key=lambda pair: pair[0]):
                if key <= last:
                    raise StoreError(f"{self.url}: the server does not list in the order of keys, at {key!r}")
                last = key
                if all(is_part(part) for part in key.split("/")):
                    yield ObjectInfo(key, entry["Size"], _whole_seconds(entry["LastModified"]))
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def _uploads(self, prefix: str) -> Iterator[tuple[Unfinished, str]]:
        with self._explained("list the unfinished uploads of", prefix or "."):
            found = sorted(_open_uploads(self._client, self._location.prefix + prefix), key=lambda entry: entry["Key"])
        for entry in found:
            key = str(entry["Key"])[len(self._location.prefix) :]
            yield Unfinished(key, entry["Initiated"].astimezone(UTC)), entry["UploadId"]

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            raise self._explain(refused, action, key) from refused

    def _explain(self, refused: Refused, action: str, key: str) -> Exception:
        endpoint = self._settings.endpoint or "AWS"
        return explain(refused, action=action, key=key, bucket=self._location.bucket, endpoint=endpoint)


class _Multipart:
    """The requests of one multipart upload."""

    def __init__(self, client: _Client, key: str, written: dict[str, Any]) -> None:
        self._client = client
        self._key = key
        self._written = {name: value for name, value in written.items() if name != "IfNoneMatch"}
        self._condition: dict[str, Any] = {"IfNoneMatch": "*"} if "IfNoneMatch" in written else {}
        self._token = secrets.token_hex(8)

    def begin(self, stop: threading.Event) -> str:
        """A try whose answer was lost may have made an upload of which nobody knows the id: it is aborted."""
        tries, upload_id = 1, ""
        try:
            reply, tries = self._client.call_counted(
                "create_multipart_upload", stop, Key=self._key, Metadata={_TOKEN: self._token}, **self._written
            )
            upload_id = str(reply["UploadId"])
        except Refused as refused:
            tries += refused.tries
            raise
        finally:
            if tries > 1:
                self._abort_strays(upload_id)
        return upload_id

    def send(self, upload_id: str, number: int, body: Body, stop: threading.Event) -> str:
        reply, _ = self._client.call_counted(
            "upload_part", stop, Key=self._key, UploadId=upload_id, PartNumber=number, Body=body
        )
        return str(reply["ETag"])

    def finish(self, upload_id: str, etags: list[str], size_bytes: int, stop: threading.Event) -> None:
        """Make the object. Some servers ignore the condition, so it is a small object's put that commits a backup."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self._client.call_counted(
                "complete_multipart_upload",
                stop,
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **self._condition,
            )
        except Refused as refused:
            lost = refused.tries > 1 and refused.failure.code in ("NoSuchUpload", "PreconditionFailed")
            if not (lost and _is_ours(self._client, self._key, self._token, _joined_etag(etags))):
                if refused.failure.status == 412:
                    raise ConflictError(f"object {self._key!r} is there already") from refused
                raise

    def abort(self, upload_id: str) -> None:
        """What led here is being raised: a failure now is only logged."""
        try:
            _abort(self._client, self._key, upload_id)
        except Refused as refused:
            _log.warning("an unfinished upload of %s stays (%s): volback doctor lists it", self._key, refused)

    def _abort_strays(self, ours: str) -> None:
        try:
            for entry in _open_uploads(self._client, self._key):
                if entry["Key"] == self._key and entry["UploadId"] != ours:
                    _abort(self._client, self._key, entry["UploadId"])
        except Refused as refused:
            _log.info("cannot look for lost uploads of %s: %s", self._key, refused)


def _open_uploads(client: _Client, prefix: str) -> Iterator[dict[str, Any]]:
    where = {"Prefix": prefix}
    while True:
        try:
            page = client.call("list_multipart_uploads", **where)
        except Refused as refused:
            if refused.failure.code == "NoSuchUpload":  # so rclone says that there is none
                return
            raise
        yield from (entry for entry in page.get("Uploads", []) if entry["Key"].startswith(prefix))
        if not page.get("IsTruncated"):
            return
        where |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}


def _abort(client: _Client, key: str, upload_id: str) -> None:
    """Until the server does not know it any more: a part that was under way may outlive the first abort."""
    for _ in range(3):
        try:
            client.call_counted(
                "abort_multipart_upload", None, patience_s=_ABORT_PATIENCE_S, Key=key, UploadId=upload_id
            )
        except Refused as refused:
            if refused.failure.status == 404:
                return
            raise


def _is_ours(client: _Client, key: str, token: str, etag: str) -> bool:
    """Whether the object is what this very put wrote; a server that keeps no metadata tells by the ETag."""
    try:
        reply = client.call("head_object", Key=key)
    except Refused:
        return False
    return bool(reply.get("Metadata", {}).get(_TOKEN) == token or reply["ETag"].strip('"') == etag)


def _joined_etag(etags: list[str]) -> str:
    """The ETag that S3 gives an object of parts, or nothing if the parts' own are no MD5s."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


class _Client:
    """The SDK's client, made at the first call; each call is tried again as long as that has sense."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._made: Any = None

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Raises Refused."""
        return self.call_counted(operation, None, **parameters)[0]

    def call_counted(
        self, operation: str, stop: threading.Event | None, *, patience_s: float | None = None, **parameters: Any
    ) -> tuple[dict[str, Any], int]:
        """The reply, and how many tries it took. Raises Refused, or Stopped once `stop` is set."""
        limit_s = self._location.settings.give_up_s
        patience = Patience(limit_s if patience_s is None else min(limit_s, patience_s), stop=stop)
        client = self._connected()
        while True:
            try:
                if "Body" in parameters:
                    parameters["Body"].seek(0)
                reply = getattr(client, operation)(Bucket=self._location.bucket, **parameters)
            except (sdk.ClientError, sdk.BotoCoreError, ResponseParserError, OSError) as exc:
                failure = _failure(exc)
                tries = patience.tries + 1
                if not failure.is_transient or not patience.wait():
                    raise Refused(failure, tries) from exc
                _log.info("S3 %s failed (%s), trying again", operation, failure.reason or failure.code)
            else:
                return reply, patience.tries + 1

    def _connected(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        settings, own = self._location.settings, self._location.credentials
        keys = (
            {}
            if own is None
            else {
                "aws_access_key_id": own.access_key_id,
                "aws_secret_access_key": own.secret_access_key,
                "aws_session_token": own.session_token,
            }
        )
        try:
            session = botocore.session.Session(profile=settings.profile)
            client = session.create_client(
                "s3",
                region_name=settings.region or session.get_config_variable("region") or "us-east-1",
                endpoint_url=settings.endpoint,
                verify=settings.ca_bundle,
                config=self._config(),
                **keys,
            )
        except (sdk.BotoCoreError, ValueError, OSError) as exc:
            raise UsageError(f"S3 bucket {self._location.bucket!r}: {exc}", "mind the S3 settings") from exc
        # It costs a round trip a part, and a second where the server does not know it.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def _config(self) -> botocore.config.Config:
        settings = self._location.settings
        return botocore.config.Config(
            connect_timeout=min(settings.timeout_s, 20.0),
            read_timeout=settings.timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=2 * settings.parallel + 8,
            proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else None,
            request_checksum_calculation=settings.checksums,
            response_checksum_validation=settings.checksums,
            tcp_keepalive=True,
            s3={"addressing_style": settings.addressing},
        )


def _failure(exc: Exception) -> Failure:
    """Read one of the SDK's exceptions. Its text may hold a URL, so only the kind of a lost connection is kept."""
    if isinstance(exc, sdk.ClientError):
        error, meta = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
        region = error.get("Region") or meta.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        status = int(meta.get("HTTPStatusCode", 0))
        return Failure(str(error.get("Code", status)), str(error.get("Message", "")), status, region)
    if isinstance(exc, sdk.NoCredentialsError | sdk.PartialCredentialsError | sdk.CredentialRetrievalError):
        return Failure("NoCredentials")
    if isinstance(exc, sdk.SSLError):
        return Failure("Certificate" if "certificate" in str(exc).lower() else "TLS", "the TLS connection failed")
    for kind, reason in _LOST.items():
        if isinstance(exc, kind):
            return Failure(type(exc).__name__, reason, answered=False, transient=True)
    return Failure(type(exc).__name__, str(exc).splitlines()[0] if str(exc) else "")


_LOST: dict[type[Exception], str] = {
    sdk.ConnectTimeoutError: "no connection in time",
    sdk.ReadTimeoutError: "no answer in time",
    sdk.ProxyConnectionError: "no connection to the proxy",
    sdk.EndpointConnectionError: "no connection",
    sdk.ConnectionClosedError: "the connection was closed",
    sdk.IncompleteReadError: "the server's answer ends early",
    sdk.ResponseStreamingError: "the server's answer broke off",
    sdk.HTTPClientError: "the connection broke",
    ResponseParserError: "the server's answer makes no sense",
    OSError: "the connection broke",
}


def _end_of(reply: dict[str, Any], start: int, end: int | None) -> int:
    """Where the answer to a ranged GET ends. Raises StoreError if it is not from where it was asked for."""
    whole = str(reply.get("ContentRange", ""))
    first, _, size = whole.removeprefix("bytes ").replace("-", "/").replace("/", " ", 1).rpartition("/")
    if whole and not first.startswith(f"{start} "):
        raise StoreError(f"the S3 server answers with another range than asked for: {whole}")
    if not whole and start:
        raise StoreError("the S3 server ignores ranges", "choose a server that knows Range")
    size_bytes = int(size) if whole else int(reply["ContentLength"])
    return size_bytes if end is None else min(end, size_bytes)


def _whole_seconds(time: datetime) -> datetime:
    """A listing has milliseconds, a HEAD's reply has not."""
    return time.astimezone(UTC).replace(microsecond=0)
