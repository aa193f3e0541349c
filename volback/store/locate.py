"""From the address that people type to a store. Opens nothing yet: the store's first call does."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from volback.errors import UsageError
from volback.store.base import Store
from volback.store.limit import LimitStore
from volback.store.local import LocalStore
from volback.store.s3.settings import Credentials, read_s3_url

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HINT = "give a directory (/path, ~/path or file:///path) or s3://BUCKET/PREFIX"


def open_store(
    url: str,
    environment: Mapping[str, str] | None = None,
    *,
    credentials: Credentials | None = None,
    bandwidth_bytes_s: float | None = None,
) -> Store:
    """The store at a path (`~` is expanded), `file:///path` or `s3://bucket/prefix`. Raises UsageError.

    What is given counts for this store alone: the VOLBACK_S3_* of `environment` (None is the process's), credentials.
    """
    store = _open(url, os.environ if environment is None else environment, credentials)
    return store if bandwidth_bytes_s is None else LimitStore(store, bandwidth_bytes_s)


def _open(url: str, environment: Mapping[str, str], credentials: Credentials | None) -> Store:
    match = _SCHEME.match(url)
    if match is None:
        return LocalStore(_expand(url))
    scheme = match[1].lower()
    if scheme == "file":
        return LocalStore(_path_of_file_url(url))
    if scheme == "s3":
        return _open_s3(url, environment, credentials)
    raise UsageError(f"repository {_without_secrets(url)}: there is no store for '{scheme}://'", _HINT)


def _open_s3(url: str, environment: Mapping[str, str], credentials: Credentials | None) -> Store:
    # Only here: the AWS SDK takes 0.3 s to import, which every other command would pay.
    from volback.store.s3.store import S3Store  # noqa: PLC0415

    location = replace(read_s3_url(url, environment), credentials=credentials)
    store = S3Store(location)
    bandwidth = location.settings.bandwidth_bytes_s
    return store if bandwidth is None else LimitStore(store, bandwidth)


def _expand(path: str) -> Path:
    if not path.strip() or "\0" in path:
        raise UsageError(f"repository {path!r} is not a path", _HINT)
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise UsageError(f"repository {path!r}: no such user's home directory", _HINT) from exc


def _path_of_file_url(url: str) -> Path:
    """RFC 8089: the host is empty or localhost, and the path is percent-encoded."""
    rest = url[len("file://") :]
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash or "\0" in unquote(path):
        raise UsageError(f"repository {url!r}: a file URL has three slashes", _HINT)
    return Path("/" + unquote(path))


def _without_secrets(url: str) -> str:
    """Scheme and host alone: the rest of a mistyped URL may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(url.split("://", maxsplit=1)[0] + "://...")
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
