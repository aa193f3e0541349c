"""boto3's client: how it is created, when a call is tried again, what its exceptions mean. The only import of the SDK.

Credentials, profiles and regions come as boto3 finds them. Not used are its retries (see volback.retry) and its own
upload: s3transfer takes no If-None-Match (1.44: S3Transfer.ALLOWED_UPLOAD_ARGS), and chooses the parts itself.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from botocore import exceptions as sdk
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from volback.errors import UsageError
from volback.retry import RetryBudget
from volback.store.s3.errors import NO_CREDENTIALS, Failure, Refused
from volback.store.s3.settings import S3Location
from volback.store.s3.upload import Body
from volback.store.traffic import Traffic, verb_of

_log = logging.getLogger(__name__)

CALLS_AT_ONCE = 40
"""How many small requests the client has connections for, beside the parts that it sends: the catalog reads 32
documents at once."""
LOST = (sdk.BotoCoreError, OSError)
"""What reading a reply's body raises where the connection breaks."""
_FAILED = (sdk.ClientError, ResponseParserError, *LOST)


class Client:
    """The SDK's client, made at the first call. A call that may succeed later is tried again, within its limit."""

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._made: Any = None
        self._sends_md5 = False
        self.traffic = Traffic()
        """What was sent and received so far."""

    def source(self, key: str) -> dict[str, str]:
        """An object of the same bucket as the source of a copy."""
        return {"Bucket": self._location.bucket, "Key": key}

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Raises Refused."""
        return self.call_counted(operation, None, **parameters)[0]

    def call_counted(
        self,
        operation: str,
        stop: threading.Event | None,
        *,
        give_up_s: float | None = None,
        once: tuple[str, ...] = (),
        **parameters: Any,
    ) -> tuple[dict[str, Any], int]:
        """Return the reply, and how many tries it took.

        Tries end `give_up_s` after the first, or when the setting of that name says so if that is earlier.
        Raises Refused (for a code of `once` after the first try), and Stopped once `stop` is set.
        """
        limit_s = self._location.settings.give_up_s
        budget = RetryBudget(limit_s if give_up_s is None else min(limit_s, give_up_s), stop=stop)
        client = self._connected()
        while True:
            try:
                if "Body" in parameters:
                    parameters |= self._rewound(parameters["Body"])
                self.traffic.note(verb_of(operation), sent_bytes=len(parameters.get("Body", b"")))
                reply = getattr(client, operation)(Bucket=self._location.bucket, **parameters)
            except _FAILED as exc:
                failure = read_failure(exc)
                tries = budget.tries + 1
                if self._asks_for_md5(failure, parameters):
                    self._sends_md5 = True
                    continue
                if not failure.is_transient or failure.code in once or not budget.wait():
                    raise Refused(failure, tries) from exc
                _log.info("S3 %s failed (%s), trying again", operation, failure.reason or failure.code)
            else:
                return reply, budget.tries + 1

    def _rewound(self, body: Body) -> dict[str, str]:
        """Seek the body to its start, and return the headers that it needs."""
        body.seek(0)
        return {"ContentMD5": body.md5()} if self._sends_md5 else {}

    def _asks_for_md5(self, failure: Failure, parameters: dict[str, Any]) -> bool:
        """Buckets with an object lock require it on each upload, unless the upload has one of the newer checksums.

        Those are not sent from the start, as some servers refuse them.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-managing.html
        """
        return (
            failure.status == 400
            and "content-md5" in failure.reason.lower()
            and ("Body" in parameters and "ContentMD5" not in parameters)
        )

    def _connected(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        settings, own = self._location.settings, self._location.credentials
        keys: dict[str, str | None] = {}
        if own is not None:
            keys = {
                "aws_access_key_id": own.access_key_id,
                "aws_secret_access_key": own.secret_access_key,
                "aws_session_token": own.session_token,
            }
        if settings.ca_bundle and not os.path.isfile(settings.ca_bundle):
            raise UsageError(f"CA bundle {settings.ca_bundle} is not a file", "check VOLBACK_S3_CA_BUNDLE")
        try:
            inner = botocore.session.Session()
            inner.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
            session = boto3.Session(botocore_session=inner, profile_name=settings.profile)
            client = session.client(
                "s3",
                region_name=settings.region or session.region_name or "us-east-1",
                endpoint_url=settings.endpoint,
                verify=settings.ca_bundle,
                config=self._config(),
                **keys,
            )
        except (sdk.BotoCoreError, ValueError, OSError) as exc:
            raise UsageError(f"S3 bucket {self._location.bucket!r}: {exc}", "check the S3 settings") from exc
        # It costs a round trip a part, and a second where the server does not know it.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3.HeadBucket", _ask_once)
        return client

    def _config(self) -> Config:
        settings = self._location.settings
        return Config(
            connect_timeout=min(settings.timeout_s, 20.0),
            read_timeout=settings.timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=2 * settings.parallel + CALLS_AT_ONCE,
            proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else None,
            request_checksum_calculation=settings.checksums,
            response_checksum_validation=settings.checksums,
            tcp_keepalive=True,
            s3={"addressing_style": settings.addressing},
        )


def _parse_time(value: Any) -> datetime:
    """As the SDK does, but common forms without its general parser, which takes 0.1 ms of CPU for each reply.
    Raises ValueError."""
    if isinstance(value, str) and value.endswith(("Z", " GMT")):
        try:
            return datetime.fromisoformat(value) if value.endswith("Z") else parsedate_to_datetime(value)
        except ValueError:
            pass  # some form that the SDK may know
    parsed: datetime = parse_timestamp(value)
    return parsed


def _ask_once(context: dict[str, Any], **_: Any) -> None:
    """Follow no redirect of HeadBucket. The SDK makes that call after a redirect that names no region, and would answer
    its redirect with another one, without an end (S3RegionRedirectorv2.get_bucket_region)."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def read_failure(exc: Exception) -> Failure:
    """Read one of the SDK's exceptions. Its text may hold a URL, so only the kind of a lost connection is kept."""
    if isinstance(exc, sdk.ClientError):
        error, meta = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {})
        region = error.get("Region") or meta.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        status = int(meta.get("HTTPStatusCode", 0))
        return Failure(str(error.get("Code", status)), str(error.get("Message", "")), status, region)
    if isinstance(exc, sdk.NoCredentialsError | sdk.PartialCredentialsError | sdk.CredentialRetrievalError):
        return Failure(NO_CREDENTIALS)
    if isinstance(exc, sdk.SSLError):
        return Failure("Certificate" if "certificate" in str(exc).lower() else "TLS")
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
    ResponseParserError: "the server's answer cannot be read",
    OSError: "the connection broke",
}
