"""The requests of one multipart upload, and of those that others left open; store.s3.upload decides when they are made.

A reply can be lost on its way, so that a try was carried out and nobody knows it. Each request handles that itself.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Iterator
from typing import Any

from volback.errors import ConflictError
from volback.store.s3.client import Client
from volback.store.s3.errors import Refused
from volback.store.s3.upload import Body, Copied

_log = logging.getLogger(__name__)

_ABORT_GIVE_UP_S = 20.0
TOKEN = "volback-put"
"""Metadata by which a put recognizes its own object."""


_CANNOT = (400, 405, 501)
"""How servers answer to what they do not know."""


class Multipart:
    """One upload: `begin`, `send` each part, `finish`; or `abort`."""

    def __init__(self, client: Client, key: str, written: dict[str, Any], *, copied: str = "") -> None:
        """`copied` is the key of the object of which parts are copied."""
        self._client = client
        self._key = key
        self._copied = copied
        self._written = {name: value for name, value in written.items() if name != "IfNoneMatch"}
        self._condition: dict[str, Any] = {"IfNoneMatch": "*"} if "IfNoneMatch" in written else {}
        self._token = secrets.token_hex(8)

    def begin(self, stop: threading.Event) -> str:
        """Begin an upload and return its id. One that a try with a lost answer may have begun is aborted."""
        tries, upload_id = 1, ""
        try:
            reply, tries = self._client.call_counted(
                "create_multipart_upload", stop, Key=self._key, Metadata={TOKEN: self._token}, **self._written
            )
            upload_id = str(reply["UploadId"])
        except Refused as refused:
            tries += refused.tries
            raise
        finally:
            if tries > 1:
                self._abort_strays(upload_id)
        return upload_id

    def send(self, upload_id: str, number: int, body: Body | Copied, stop: threading.Event) -> str:
        """Send one part, or let it be copied, and return its ETag. A second try replaces the part."""
        where: dict[str, Any] = {"Key": self._key, "UploadId": upload_id, "PartNumber": number}
        if isinstance(body, Copied):
            return self._copy(body, where, stop)
        reply, _ = self._client.call_counted("upload_part", stop, **where, Body=body)
        return str(reply["ETag"])

    def can_copy(self, part: Copied) -> bool:
        """Whether the server copies parts: this one is, in an upload that is aborted.

        rclone 1.75 stores an empty part in its place, which cannot be replaced.
        """
        stop = threading.Event()
        upload_id = self.begin(stop)
        try:
            return bool(self._copy(part, {"Key": self._key, "UploadId": upload_id, "PartNumber": 1}, stop))
        except Refused as refused:
            if refused.failure.status not in _CANNOT:
                raise
            return False
        finally:
            self.abort(upload_id)

    def _copy(self, part: Copied, where: dict[str, Any], stop: threading.Event) -> str:
        wanted = f"bytes={part.start}-{part.start + part.nbytes - 1}"
        source = self._client.source(self._copied)
        reply, _ = self._client.call_counted(
            "upload_part_copy", stop, **where, CopySource=source, CopySourceRange=wanted
        )
        return str(reply.get("CopyPartResult", {}).get("ETag", ""))

    def finish(self, upload_id: str, etags: list[str], size_bytes: int, stop: threading.Event) -> None:
        """Make the object. Some servers ignore the condition, so it is a small object's put that commits a backup.

        A 409 says that another client wrote the same key meanwhile. Only a new upload could succeed, and the stream has
        been read by then (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html).
        """
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self._client.call_counted(
                "complete_multipart_upload",
                stop,
                Key=self._key,
                UploadId=upload_id,
                once=("ConditionalRequestConflict",),
                MultipartUpload={"Parts": parts},
                **self._condition,
            )
        except Refused as refused:
            lost = refused.tries > 1 and refused.failure.code in ("NoSuchUpload", "PreconditionFailed")
            if not (lost and is_ours(self._client, self._key, self._token, _joined_etag(etags))):
                if refused.failure.status == 412:
                    raise ConflictError(f"object {self._key!r} is there already") from refused
                raise

    def abort(self, upload_id: str) -> None:
        """Abort the upload. A failure is only logged: the error that led here is being raised."""
        try:
            abort(self._client, self._key, upload_id)
        except Refused as refused:
            _log.warning("an unfinished upload of %s stays (%s): volback doctor lists it", self._key, refused)

    def _abort_strays(self, ours: str) -> None:
        try:
            for entry in open_uploads(self._client, self._key):
                if entry["Key"] == self._key and entry["UploadId"] != ours:
                    abort(self._client, self._key, entry["UploadId"])
        except Refused as refused:
            _log.info("cannot look for lost uploads of %s: %s", self._key, refused)


def open_uploads(client: Client, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the uploads below `prefix` that were begun and have not ended, as the server describes them."""
    where = {"Prefix": prefix}
    while True:
        try:
            page = client.call("list_multipart_uploads", **where)
        except Refused as refused:
            if refused.failure.code == "NoSuchUpload":  # rclone reports "no such upload" like this
                return
            raise
        yield from (entry for entry in page.get("Uploads", []) if entry["Key"].startswith(prefix))
        if not page.get("IsTruncated"):
            return
        where |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}


def finish_upload(client: Client, key: str) -> int | None:
    """Make the object of the parts that an upload has, and return its size; None where none has a first part.

    Parts are sent in parallel, so some may be missing. Zeros take their place: Ceph and rclone refuse to make an object
    of a few of the parts that they have.
    """
    uploads = [entry["UploadId"] for entry in open_uploads(client, key) if entry["Key"] == key]
    found = [(_parts(client, key, upload_id), upload_id) for upload_id in uploads]
    parts, upload_id = max(found, key=lambda pair: _size_bytes(pair[0]), default=({}, ""))
    if 1 not in parts:
        return None
    zeros = memoryview(bytes(parts[1]["Size"]))
    for number in range(1, max(parts)):
        if number not in parts:
            body = Body(zeros, threading.Event())
            reply = client.call("upload_part", Key=key, UploadId=upload_id, PartNumber=number, Body=body)
            parts[number] = {"ETag": reply["ETag"], "Size": len(zeros)}
    made = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in sorted(parts.items())]
    client.call("complete_multipart_upload", Key=key, UploadId=upload_id, MultipartUpload={"Parts": made})
    return _size_bytes(parts)


def _parts(client: Client, key: str, upload_id: str) -> dict[int, dict[str, Any]]:
    """The parts of an upload, by number, as the server describes them."""
    parts: dict[int, dict[str, Any]] = {}
    where: dict[str, Any] = {"Key": key, "UploadId": upload_id}
    while True:
        page = client.call("list_parts", **where)
        parts |= {int(part["PartNumber"]): part for part in page.get("Parts", [])}
        if not page.get("IsTruncated"):
            return parts
        where["PartNumberMarker"] = page["NextPartNumberMarker"]


def _size_bytes(parts: dict[int, dict[str, Any]]) -> int:
    return sum(int(part["Size"]) for part in parts.values())


def abort(client: Client, key: str, upload_id: str) -> None:
    """Abort an upload, until the server does not know it any more: a part may arrive after the first abort."""
    for _ in range(3):
        try:
            client.call_counted("abort_multipart_upload", None, give_up_s=_ABORT_GIVE_UP_S, Key=key, UploadId=upload_id)
        except Refused as refused:
            if refused.failure.status == 404:
                return
            raise


def is_ours(client: Client, key: str, token: str, etag: str) -> bool:
    """Whether this put wrote the object: its metadata says so, or the ETag where a server keeps no metadata."""
    try:
        reply = client.call("head_object", Key=key)
    except Refused:
        return False
    return bool(reply.get("Metadata", {}).get(TOKEN) == token or reply["ETag"].strip('"') == etag)


def _joined_etag(etags: list[str]) -> str:
    """The ETag that S3 gives an object of parts, or nothing if the parts' own ETags are not MD5s."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"
