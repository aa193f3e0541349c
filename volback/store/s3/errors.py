"""What an S3 server's refusal means for the user. Pure: store.s3.client reads the SDK's exceptions into a Failure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from volback.errors import (
    ConflictError,
    NotFoundError,
    ObjectLocked,
    StoreDenied,
    StoreError,
    StoreUnreachable,
    VolbackError,
)
from volback.store.s3.endpoint import endpoint_advice, scheme_advice

_TRANSIENT = {
    "RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
    "RequestLimitExceeded", "ServiceUnavailable", "InternalError", "OperationAborted", "ConditionalRequestConflict",
    "ConcurrentModification", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch",
}  # fmt: skip
"""Besides status 429 and 5xx. The last three say that the body was damaged or cut off on its way."""
_LOCK = re.compile(r"object ?lock|retention|\bworm\b|legal hold", re.IGNORECASE)
_MISSING = {"NoSuchKey", "404", "NotFound"}
NO_CREDENTIALS = "NoCredentials"
"""The code of a call that was never made."""
_REASONS = {
    "NoSuchBucket": (
        "there is no such bucket",
        "create it (aws s3 mb s3://{bucket}), or check its name and the endpoint",
    ),
    "AccessDenied": (
        "access is denied",
        "the key's policy must allow {right} here (a missing object looks the same without s3:ListBucket); "
        "an object lock or retention denies deleting too",
    ),
    "ObjectLocked": ("the object is locked", "wait for the end of its retention"),
    "InvalidRequest": ("the request was refused as invalid", None),
    "InvalidAccessKeyId": ("the access key is unknown there", "check AWS_ACCESS_KEY_ID, the profile and the endpoint"),
    "SignatureDoesNotMatch": (
        "the signature does not match",
        "check AWS_SECRET_ACCESS_KEY and the region; a proxy must not change requests",
    ),
    "ExpiredToken": ("the session token has expired", "log in again"),
    "InvalidToken": ("the session token is not valid", "check AWS_SESSION_TOKEN, or log in again"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set the clock (NTP), then run the command again"),
    "KeyTooLongError": ("the object's key is too long", "choose a shorter prefix"),
    "EntityTooLarge": ("the object is larger than the server takes", "raise VOLBACK_S3_PART_SIZE"),
    "NoSuchUpload": ("the multipart upload was aborted by another client", "run the command again"),
    "QuotaExceeded": ("the quota is used up", "`volback remove` old backups, or raise the quota"),
    "InvalidObjectState": (
        "the object is in an archive storage class",
        "restore it to a class that is read at once",
    ),
    NO_CREDENTIALS: (
        "there are no credentials",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or VOLBACK_S3_PROFILE",
    ),
    "Certificate": ("its certificate is not trusted", "set VOLBACK_S3_CA_BUNDLE to the file of its CA"),
    "TLS": ("the TLS connection failed", None),
    "MetadataTooLarge": ("the request was refused", None),
    "NotImplemented": ("the server lacks this function", None),
}
_REGION = {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_RIGHTS = {
    "read": "s3:GetObject", "write": "s3:PutObject", "delete": "s3:DeleteObject", "list": "s3:ListBucket",
    "list the unfinished uploads of": "s3:ListBucketMultipartUploads", "abort": "s3:AbortMultipartUpload",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try: the server's code and message, or (`answered` False) why there was no answer."""

    code: str
    reason: str = ""
    status: int = 0
    region: str | None = None
    answered: bool = True
    transient: bool = False

    @property
    def is_transient(self) -> bool:
        """The same call may succeed later."""
        server_failed = self.status >= 500 and self.code != "NotImplemented"
        return self.transient or self.status == 429 or server_failed or self.code in _TRANSIENT

    @property
    def may_be_wrong_scheme(self) -> bool:
        """TLS to a port without it, or the other way: such servers close the connection, or say 400 without a code."""
        return self.code in ("TLS", "ConnectionClosedError", "HTTPClientError", "400", "ResponseParserError")

    @property
    def is_missing(self) -> bool:
        """There is no such object."""
        return self.code in _MISSING

    @property
    def is_denied(self) -> bool:
        """The key does not have the right. A HEAD's refusal says the same of a wrong signature or clock."""
        return _same(self) == "AccessDenied"

    @property
    def is_locked(self) -> bool:
        """An object lock, a bucket's lock or a retention keeps the object; servers say so in different words."""
        return self.status in (0, 400, 403, 409) and _LOCK.search(f"{self.code} {self.reason}") is not None


class Refused(Exception):
    """A call has failed permanently, after `tries`. All but the last may have been carried out, their answers lost."""

    def __init__(self, failure: Failure, tries: int) -> None:
        super().__init__(failure.code)
        self.failure = failure
        self.tries = tries


def explain(refused: Refused, *, action: str, key: str, bucket: str, endpoint: str | None) -> VolbackError:
    """The error for the user: what failed, on which object, why, and what to do. Without an endpoint it is AWS."""
    error = _explain(refused, action=action, key=key, bucket=bucket, endpoint=endpoint or "AWS")
    advice = _advice(refused.failure, endpoint, bucket)
    if advice and not isinstance(error, ConflictError):
        error.hint = f"{error.hint}; {advice}" if error.hint else advice
    return error


def _advice(failure: Failure, endpoint: str | None, bucket: str) -> str | None:
    """What may be wrong with the endpoint, if one was given and was asked."""
    if endpoint is None or failure.code == NO_CREDENTIALS:
        return None
    return endpoint_advice(endpoint, bucket) or (scheme_advice(endpoint) if failure.may_be_wrong_scheme else None)


def _explain(refused: Refused, *, action: str, key: str, bucket: str, endpoint: str) -> VolbackError:
    failure = refused.failure
    if failure.is_missing and action == "read":
        return NotFoundError(f"object {key!r} is not in S3 bucket {bucket!r} at {endpoint}", "see `volback list`")
    where = f"S3 bucket {bucket!r} at {endpoint}: cannot {action} {key!r}"
    if failure.code == "ConditionalRequestConflict":
        return ConflictError(f"{where}: another client is writing it", "run the command again")
    if not failure.answered or failure.is_transient:
        tried = f" ({refused.tries} tries)" if refused.tries > 1 else ""
        why = failure.reason or failure.code
        return StoreUnreachable(f"{where}: {why}{tried}", "check the network and the endpoint, then run it again")
    if failure.code in _REGION or failure.status == 301:
        right = f" it is in {failure.region}" if failure.region else ""
        return StoreError(f"{where}: the bucket is in another region:{right or ' the server does not say which'}",
                          f"set VOLBACK_S3_REGION={failure.region or 'REGION'}")  # fmt: skip
    if action == "delete" and failure.is_locked:
        return ObjectLocked(f"{where}: an object lock or a retention keeps it", "run the command again when that ends")
    code = _same(failure)
    why, hint = _REASONS.get(code, (f"{failure.code} {failure.reason}".strip(), None))
    hint = hint.format(bucket=bucket, right=_RIGHTS.get(action, "this action")) if hint else None
    return (StoreDenied if code == "AccessDenied" else StoreError)(f"{where}: {why}", hint)


def _same(failure: Failure) -> str:
    """Servers use several codes for one error, and a HEAD's reply has none."""
    if failure.code in ("403", "Forbidden", "AllAccessDisabled", "AccountProblem"):
        return "AccessDenied"
    return "SignatureDoesNotMatch" if failure.code == "InvalidSignature" else failure.code
