"""A store in an S3 bucket, of AWS or any compatible server.

Used through store.locate. Uploads stream: no temp file, memory of (parallel parts + 1) x part size.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from volback.errors import ConflictError, NotFoundError, ObjectLocked, StoreError
from volback.retry import RetryBudget
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
from volback.store.s3.client import LOST, Client, read_failure
from volback.store.s3.errors import Failure, Refused, explain
from volback.store.s3.multipart import TOKEN, Multipart, abort, finish_upload, is_ours, open_uploads
from volback.store.s3.parts import cut_parts, plan_parts
from volback.store.s3.settings import S3Location
from volback.store.s3.upload import Body, Copied, Upload
from volback.store.traffic import Requests

_READ_BYTES = 1024 * 1024
_PARALLEL_READS = 4
_OFFSET_MAX = 2**53
"""Beyond any object; some servers do not accept larger numbers."""
_SAFE_AGE_S = 2 * 86_400.0
"""Only its age tells an upload whose writer has died from one in progress."""


class S3Store:
    """Objects below a prefix of a bucket; safe to use from several threads. The first call connects."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._settings = location.settings
        self._client = Client(location)
        self._sizes = plan_parts(
            self._settings.part_size_bytes, max_parts=self._settings.max_parts, equal=self._settings.equal_parts
        )

    @property
    def url(self) -> str:
        """s3://BUCKET/PREFIX, with the settings that the user wrote there."""
        return self._location.url

    @property
    def parallel_reads(self) -> int:
        return _PARALLEL_READS

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def requests(self) -> Requests:
        return self._client.traffic.so_far()

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
            calls = Multipart(self._client, self._location.prefix + key, self._written(if_absent=if_absent))
            upload = Upload(calls, parallel=self._settings.parallel, max_parts=self._settings.max_parts)
            return upload.run(self._checked_at_the_end(key, chain([first], parts), if_absent=if_absent))

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Yield the object's bytes in buffers of <= 1 MiB; a body that is cut off is resumed where it ended."""
        check_range(start, length)
        return self._read(check_key(key), start, length)

    def reading(self) -> AbstractContextManager[None]:
        """See Store. Each range is a request."""
        return nullcontext()

    def stat(self, key: str) -> ObjectInfo:
        """Size of one object, and its time in whole seconds."""
        check_key(key)
        with self._explained("read", key):
            try:
                reply = self._head(key)
            except Refused as refused:
                # A key that may only write can still have the right to list, and a listing has size and time too.
                if not refused.failure.is_denied or not (listed := self._listed(key)):
                    raise
                return listed
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
                if refused.failure.is_locked:
                    raise self._locked(key, refused) from refused
                if not refused.failure.is_missing:
                    raise

    def _locked(self, key: str, refused: Refused) -> Exception:
        """With the end of its retention, if the key may know that."""
        error = self._explain(refused, "delete", key)
        if isinstance(error, ObjectLocked):
            with suppress(Refused):
                until = self._client.call("head_object", Key=self._location.prefix + key).get(
                    "ObjectLockRetainUntilDate"
                )
                error.until = until and until.astimezone(UTC)
        return error

    def holds(self) -> str | None:
        """The first key below the prefix."""
        return next((found.key for found in self.list()), None)

    def free_bytes(self) -> int | None:
        """None: a bucket has no size."""
        return None

    def unfinished(self, prefix: str = "") -> UnfinishedList:
        """Multipart uploads below `prefix` that have not ended, also those in progress."""
        return [left for left, _ in self._uploads(check_prefix(prefix))]

    def finish(self, key: str) -> int | None:
        """Of the parts that the server has; zeros take the place of missing ones."""
        try:
            return self.stat(key).size_bytes
        except NotFoundError:
            pass
        with self._explained("finish", key):
            return finish_upload(self._client, self._location.prefix + key)

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        """The server copies what fills parts. The rest, or all where it cannot, is read, and sent with the chunks."""
        at, copied = 0, list[Copied]()
        while at + (size := self._sizes.size(len(copied) + 1)) <= keep_bytes:
            copied.append(Copied(at, size))
            at += size
        with self._explained("write", check_key(key)):
            source = self._location.prefix + left
            calls = Multipart(self._client, self._location.prefix + key, self._written(if_absent=False), copied=source)
            if not copied or not calls.can_copy(copied[0]):
                return self.put(key, chain(self.open(left, length=keep_bytes), chunks))
            rest = chain(self.open(left, start=at, length=keep_bytes - at), chunks)
            upload = Upload(calls, parallel=self._settings.parallel, max_parts=self._settings.max_parts)
            return upload.run(chain(copied, cut_parts(rest, self._sizes, first=len(copied) + 1)))

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        """Abort multipart uploads below `prefix` that are at least that old (None: two days)."""
        check_prefix(prefix)
        youngest = datetime.now(UTC) - timedelta(seconds=_SAFE_AGE_S if older_than_s is None else older_than_s)
        swept = [(left.key, upload_id) for left, upload_id in self._uploads(prefix) if left.started_at <= youngest]
        for key, upload_id in swept:
            with self._explained("abort", key):
                abort(self._client, self._location.prefix + key, upload_id)
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
                Metadata={TOKEN: token},
                **self._written(if_absent=if_absent),
            )
        except Refused as refused:
            if refused.failure.status != 412:
                raise
            # A 412 to a second try may mean our own first one, whose answer was lost.
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if refused.tries < 2 or not is_ours(self._client, self._location.prefix + key, token, digest):
                raise self._exists(key) from refused

    def _check_absent(self, key: str) -> None:
        """Ask for the object, as some servers ignore If-None-Match. A key that may only write relies on that header."""
        try:
            self._client.call("head_object", Key=self._location.prefix + key)
        except Refused as refused:
            if not (refused.failure.is_missing or refused.failure.is_denied):
                self._ask_for_reason(key, refused.failure)
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
        budget = RetryBudget(self._settings.give_up_s)
        etag: str | None = None
        while end is None or start < end:
            with self._explained("read", key):
                reply = self._get(key, start, end, etag)
            if reply is None:
                return
            if etag not in (None, reply["ETag"]):  # this server ignores If-Match
                raise self._replaced(key)
            etag, end = reply["ETag"], _end_of(reply, start, end)
            body = reply["Body"]
            try:
                while start < end and (buffer := body.read(min(_READ_BYTES, end - start))):
                    budget.progress()
                    start += len(buffer)
                    self._client.traffic.received(len(buffer))
                    yield buffer
                lost = Failure("CutOff", "the server's answer ends early", answered=False, transient=True)
            except LOST as exc:
                lost = read_failure(exc)
            finally:
                body.close()
            if start < end and not budget.wait():
                raise self._explain(Refused(lost, budget.tries), "read", key)

    def _get(self, key: str, start: int, end: int | None, etag: str | None) -> dict[str, Any] | None:
        """One ranged GET; None where the range lies past the end of the object."""
        where: dict[str, str] = {"IfMatch": etag} if etag else {}
        if start or end is not None:
            where["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        try:
            return self._client.call("get_object", Key=self._location.prefix + key, **where)
        except Refused as refused:
            if refused.failure.status == 416 and not etag:
                return None
            if refused.failure.status == 412 or (
                etag and (refused.failure.is_missing or refused.failure.status == 416)
            ):
                raise self._replaced(key) from refused
            raise

    def _replaced(self, key: str) -> StoreError:
        return StoreError(f"object {key!r} in {self.url} was replaced while it was read", "run the command again")

    def _head(self, key: str) -> dict[str, Any]:
        """Ask for size and time."""
        try:
            return self._client.call("head_object", Key=self._location.prefix + key)
        except Refused as refused:
            self._ask_for_reason(key, refused.failure)
            raise

    def _ask_for_reason(self, key: str, failure: Failure) -> None:
        """A HEAD's refusal has no message, so a GET of one byte asks for it: raises Refused if that is refused too."""
        if failure.answered and not failure.is_transient:
            self._client.call("get_object", Key=self._location.prefix + key, Range="bytes=0-0")["Body"].close()

    def _listed(self, key: str) -> ObjectInfo | None:
        """The object as a listing shows it, None if it cannot be listed. Raises NotFoundError if it is not there."""
        wanted = self._location.prefix + key
        try:
            page = self._client.call("list_objects_v2", Prefix=wanted, MaxKeys=1)
        except Refused:
            return None
        for entry in page.get("Contents", []):
            if entry["Key"] == wanted:
                return ObjectInfo(key, entry["Size"], _whole_seconds(entry["LastModified"]))
        raise Refused(Failure("NoSuchKey", status=404), 1)

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
                    time = _whole_seconds(entry["LastModified"])
                    yield ObjectInfo(key, entry["Size"], time, str(entry.get("ETag", "")))
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def _uploads(self, prefix: str) -> Iterator[tuple[Unfinished, str]]:
        with self._explained("list the unfinished uploads of", prefix or "."):
            found = sorted(open_uploads(self._client, self._location.prefix + prefix), key=lambda entry: entry["Key"])
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
        bucket, endpoint = self._location.bucket, self._settings.endpoint
        return explain(refused, action=action, key=key, bucket=bucket, endpoint=endpoint)


def _end_of(reply: dict[str, Any], start: int, end: int | None) -> int:
    """Where the answer to a ranged GET ends. Raises StoreError for an answer that begins elsewhere than asked for."""
    whole = str(reply.get("ContentRange", ""))
    first, _, size = whole.removeprefix("bytes ").replace("-", "/").replace("/", " ", 1).rpartition("/")
    if whole and not first.startswith(f"{start} "):
        raise StoreError(f"the S3 server answers with a range that was not asked for: {whole}")
    if not whole and start:
        raise StoreError("the S3 server ignores ranges", "use a server that supports Range")
    size_bytes = int(size) if whole else int(reply["ContentLength"])
    return size_bytes if end is None else min(end, size_bytes)


def _whole_seconds(time: datetime) -> datetime:
    """A listing has milliseconds; a HEAD's reply does not."""
    return time.astimezone(UTC).replace(microsecond=0)
