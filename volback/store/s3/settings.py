"""Reads an s3:// URL and the environment. Pure; the URL overrides VOLBACK_S3_*, which override AWS's own variables.

Nothing outside store/ reads these settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from volback.errors import UsageError
from volback.store.base import is_part
from volback.store.registry import StoreKeys
from volback.store.s3.endpoint import check_endpoint
from volback.store.s3.parts import PART_MAX_BYTES, PART_MIN_BYTES

_MIB = 1024 * 1024
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_NO_SECRETS = "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from AWS's own files"


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How an S3 store is reached and written. Credentials are not among them."""

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: str = "auto"
    storage_class: str | None = None
    sse: str | None = None
    sse_key_id: str | None = None
    ca_bundle: str | None = None
    proxy: str | None = field(default=None, repr=False)
    """May hold a password, so it is never shown."""
    checksums: str = "when_required"
    parallel: int = 4
    part_size_bytes: int = 8 * _MIB
    max_parts: int = 10_000
    equal_parts: bool = False
    bandwidth_bytes_s: float | None = None
    timeout_s: float = 60.0
    """For connecting, and for each wait for the server's next bytes."""
    give_up_s: float = 120.0
    """No call is tried again once it has failed for this long."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one store only; without them boto3 looks in its usual places."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, the prefix in it (empty, or ending in `/`), how to reach it, and its address for people."""

    bucket: str
    prefix: str
    settings: S3Settings
    url: str
    credentials: Credentials | None = None


def read_s3_url(url: str, environment: Mapping[str, str]) -> S3Location:
    """Raises UsageError, whose message never contains what could be a secret."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise UsageError("the repository's S3 URL cannot be read", _HINT) from None
    if "@" in parts.netloc:
        raise UsageError("the repository's S3 URL holds a user or a password", _NO_SECRETS)
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(f"repository s3://{parts.netloc}: that is not the name of a bucket", _HINT)
    if parts.fragment or not all(is_part(part) for part in prefix.split("/") if prefix):
        raise UsageError(f"repository s3://{parts.netloc}: its prefix is not made of A-Z a-z 0-9 _ . % -", _HINT)
    _check_names([name for name, _ in query])
    values = {name: (environment[variable], variable) for name, variable in S3_VARIABLES.items()
              if environment.get(variable)}  # fmt: skip
    values |= {name: (value, f"the URL's {name}") for name, value in query}
    _check_no_password(dict(query))
    clean = "s3://" + "/".join(part for part in (parts.netloc, prefix) if part)
    clean += "?" + urlencode(query, quote_via=quote, safe=":/") if query else ""
    settings = _settings(values)
    if settings.endpoint:
        check_endpoint(settings.endpoint, parts.netloc)
    return S3Location(parts.netloc, prefix + "/" if prefix else "", settings, clean)


def with_credentials(location: S3Location, given: Mapping[str, str]) -> S3Location:
    """The location with its own credentials, if an access key is given."""
    if "access_key_id" not in given or "secret_access_key" not in given:
        return location
    own = Credentials(given["access_key_id"], given["secret_access_key"], given.get("session_token"))
    return replace(location, credentials=own)


def _check_credentials(given: Collection[str]) -> str | None:
    missing = [name for name in ("access_key_id", "secret_access_key") if name not in given]
    return f"has no {missing[0]}: S3 needs both, or neither of them here" if len(missing) == 1 else None


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in S3_VARIABLES or names.count(name) > 1:
            shown = repr(name) if re.fullmatch(r"[a-z_-]{1,30}", name) else "one of its names"
            raise UsageError(f"the repository's S3 URL: {shown} is unknown or there twice", f"{_HINT}; {_NO_SECRETS}")


def _check_no_password(query: Mapping[str, str]) -> None:
    for name in ("endpoint", "proxy"):
        if "@" in query.get(name, ""):
            raise UsageError(f"the repository's S3 URL: its {name} holds a user or a password", _NO_SECRETS)


def _settings(values: Mapping[str, tuple[str, str]]) -> S3Settings:
    fields: dict[str, Any] = {}
    for name, (value, where) in values.items():
        field, read, wanted = _READERS[name]
        try:
            fields[field] = read(value)
        except ValueError:
            shown = "its value" if name in ("endpoint", "proxy") else repr(value)
            raise UsageError(f"{where}: {shown} is not valid", f"give {wanted}") from None
    settings = S3Settings(**fields)
    if settings.sse_key_id and settings.sse != "aws:kms":
        raise UsageError("an S3 sse-key-id is only for sse=aws:kms", "set sse to aws:kms, or leave out the key id")
    return settings


def _text(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError
    return value


def _server(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return value.rstrip("/")


def _endpoint(value: str) -> str:
    if "@" in value:
        raise ValueError
    return _server(value)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError
        return value

    return read


def _number(lowest: float, highest: float, *, scale: int = 1) -> Callable[[str], float]:
    def read(value: str) -> float:
        number = float(value)
        if not lowest <= number <= highest:
            raise ValueError
        return number * scale

    return read


def _whole(lowest: int, highest: int, *, scale: int = 1) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = int(value)
        if not lowest <= number <= highest:
            raise ValueError
        return number * scale

    return read


def _yes_or_no(value: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[_one_of(
        "yes", "true", "1", "no", "false", "0")(value.lower())]  # fmt: skip


_SIZES_MIB = (PART_MIN_BYTES // _MIB, PART_MAX_BYTES // _MIB)
_READERS: dict[str, tuple[str, Callable[[str], object], str]] = {
    "endpoint": ("endpoint", _endpoint, "a URL such as https://s3.example.org, without a user or a password"),
    "region": ("region", _text, "a region such as eu-central-1"),
    "profile": ("profile", _text, "a profile of AWS's own files"),
    "addressing": ("addressing", _one_of("path", "virtual", "auto"), "path, virtual or auto"),
    "storage-class": ("storage_class", _text, "a storage class such as STANDARD_IA"),
    "sse": ("sse", _one_of("AES256", "aws:kms"), "AES256 or aws:kms"),
    "sse-key-id": ("sse_key_id", _text, "the id of a KMS key"),
    "ca-bundle": ("ca_bundle", _text, "the path of a PEM file"),
    "proxy": ("proxy", _server, "a URL such as http://proxy:3128"),
    "checksums": ("checksums", _one_of("when_required", "when_supported"), "when_required or when_supported"),
    "parallel": ("parallel", _whole(1, 64), "a number from 1 to 64"),
    "part-size": ("part_size_bytes", _whole(*_SIZES_MIB, scale=_MIB), "MiB, a whole number from 5 to 5120"),
    "max-parts": ("max_parts", _whole(1, 10_000), "a number from 1 to 10000"),
    "equal-parts": ("equal_parts", _yes_or_no, "yes or no"),
    "bandwidth": ("bandwidth_bytes_s", _number(0.001, 1e6, scale=_MIB), "MiB a second, such as 10 or 0.5"),
    "timeout": ("timeout_s", _number(0.1, 3600), "seconds, from 0.1 to 3600"),
    "give-up": ("give_up_s", _number(0, 86_400), "seconds, from 0 to 86400"),
}
S3_VARIABLES = {name: f"VOLBACK_S3_{name.upper().replace('-', '_')}" for name in _READERS}
"""A setting's name in an s3:// URL's query, and its variable."""
S3_KEYS = StoreKeys(
    credentials=("access_key_id", "secret_access_key", "session_token"),
    variables=tuple(S3_VARIABLES.values()),
    secret_variables=frozenset({S3_VARIABLES["proxy"]}),
    check=_check_credentials,
)
_HINT = "write s3://BUCKET/PREFIX?name=value; the names are " + ", ".join(S3_VARIABLES)
