"""Names of S3 servers: which of them hold a bucket, and what to write for them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from volback.errors import UsageError

_HOST = re.compile(r"(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]*[A-Za-z][A-Za-z0-9-]*(?::\d+)?|localhost(?::\d+)?|[\w.-]+:\d+"
                   r"|\d+(?:\.\d+){3}|\[[0-9A-Fa-f:]+\](?::\d+)?")  # fmt: skip
_SHOWN = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d+)?")
_AWS = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]*)\.)?s3(?:[.-](?:dualstack\.)?(?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?"
    r"\.amazonaws\.com(?:\.cn)?"
)
_PART = re.compile(r"[A-Za-z0-9_.%-]+(?:/[A-Za-z0-9_.%-]+)*")


@dataclass(frozen=True, slots=True)
class AwsHost:
    """What a name of AWS's S3 says: a bucket and a region, or neither."""

    bucket: str | None
    region: str | None


def is_host(text: str) -> bool:
    """Whether that is the name of a server, with or without a port, and not of a bucket. Buckets may have dots too."""
    return _HOST.fullmatch(text) is not None


def of_aws(host: str) -> AwsHost | None:
    """Read a name such as `BUCKET.s3.REGION.amazonaws.com`; None for any other."""
    match = _AWS.fullmatch(host.lower())
    return AwsHost(match["bucket"], match["region"]) if match else None


def endpoint_form(scheme: str, host: str, bucket: str, prefix: str) -> str:
    """The s3:// URL of a bucket at a server. What is not a plain name (it may hold a secret) stands in capitals."""
    url = f"s3://{_plain(bucket, 'BUCKET')}" + ("/" + _plain(prefix, "PREFIX") if prefix or not bucket else "")
    if not host:
        return url
    aws = of_aws(host)
    if aws:
        return f"{url}?region={aws.region}" if aws.region else url
    scheme = "http" if scheme.lower().endswith("http") else "https"
    return f"{url}?endpoint={scheme}://{host if _SHOWN.fullmatch(host) else 'HOST'}"


def check_endpoint(endpoint: str, bucket: str) -> None:
    """Raises UsageError for an endpoint that has the bucket in it: the SDK would put it there a second time."""
    parts = urlsplit(endpoint)
    aws = of_aws(parts.hostname or "")
    if aws and aws.bucket:
        where = f"?region={aws.region}" if aws.region else ""
        raise UsageError(
            f"the S3 endpoint {endpoint} holds a bucket: {aws.bucket}",
            f"write s3://{aws.bucket}/PREFIX{where} and no endpoint",
        )
    if parts.path.rstrip("/").endswith(f"/{bucket}"):
        raise UsageError(f"the S3 endpoint {endpoint} ends in the bucket's name", f"write {_server(endpoint)} alone")


def endpoint_advice(endpoint: str, bucket: str) -> str | None:
    """What may be wrong with an endpoint that did not work, and could be right for another server."""
    parts = urlsplit(endpoint)
    if parts.path.strip("/"):
        return f"the endpoint has a path: most servers are reached at {_server(endpoint)}, and the bucket is in s3://"
    if (parts.hostname or "").startswith(f"{bucket}."):
        server = endpoint.replace(f"{bucket}.", "", 1)
        return f"the endpoint begins with the bucket's name: write {server} if the server's name is without it"
    return None


def scheme_advice(endpoint: str) -> str:
    """The endpoint with the other of http and https."""
    scheme, _, server = endpoint.partition("://")
    if scheme == "https":
        return f"if the server does not speak TLS at that port, write http://{server}"
    return f"if the server speaks TLS at that port, write https://{server}"


def _server(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}"


def _plain(text: str, otherwise: str) -> str:
    return text if _PART.fullmatch(text) else otherwise
