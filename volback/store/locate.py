"""From the address that people type to a store: the only entry into this package. The kinds of stores are registered
here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from volback.errors import UsageError
from volback.settings import absolute
from volback.store.base import Store
from volback.store.foreign import advice_for_scheme, foreign_path
from volback.store.limit import LimitStore
from volback.store.local import LocalStore
from volback.store.local_tree import Modes
from volback.store.registry import StoreKeys, StoreKind, all_keys, forms, kind_of, register, scheme_of
from volback.store.s3.settings import S3_KEYS, S3Location, read_s3_url, with_credentials


def open_store(
    url: str,
    environment: Mapping[str, str] | None = None,
    *,
    credentials: Mapping[str, str] | None = None,
    bandwidth_bytes_s: float | None = None,
) -> Store:
    """The store at a path (`~` is expanded) or URL; its first call connects. Raises UsageError.

    What is passed applies to this store only: the variables of `environment` (None is the process's), and the
    credentials, by the names that `keys_of` has.
    """
    kind = _kind(url)
    store = kind.open(kind.read_settings(url, _given(environment)), credentials or {})
    return store if bandwidth_bytes_s is None else LimitStore(store, bandwidth_bytes_s)


def check_address(url: str, environment: Mapping[str, str] | None = None) -> None:
    """Read an address and its settings, and open nothing. Raises UsageError."""
    _kind(url).read_settings(url, _given(environment))


def address_of(url: str, environment: Mapping[str, str] | None = None) -> str:
    """The same text for all ways to write one place: by it this machine remembers a repository. Raises UsageError."""
    kind = _kind(url)
    return kind.address(kind.read_settings(url, _given(environment)))


def keys_of(url: str) -> StoreKeys:
    """What a table of volback.toml may hold for the store at `url`.

    A path and an unknown scheme have the keys of every store: a table whose url is a variable may name a directory
    on one machine and a bucket on another.
    """
    scheme = scheme_of(url)
    kind = None if scheme in (None, "file") else kind_of(scheme)
    return all_keys() if kind is None else kind.keys


def _given(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environment is None else environment


def _kind(url: str) -> StoreKind[Any]:
    scheme = scheme_of(url) or "file"
    kind = kind_of(scheme)
    if kind is None:
        advice = advice_for_scheme(url)
        raise UsageError(
            f"repository {_without_secrets(url)}: no store is registered for '{scheme}://'",
            f"{advice}; or give {forms()}" if advice else f"give {forms()}",
        )
    return kind


def _without_secrets(url: str) -> str:
    """Scheme and host alone: the rest of a mistyped URL may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(url.split("://", maxsplit=1)[0] + "://...")
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


# directories

_ACCESS = "VOLBACK_REPO_ACCESS"
_MODES = {"private": Modes(), "group": Modes(file=0o640, directory=0o750)}


@dataclass(frozen=True, slots=True)
class _Directory:
    path: Path
    modes: Modes


def _read_directory(url: str, environment: Mapping[str, str]) -> _Directory:
    access = environment.get(_ACCESS) or "private"
    if access not in _MODES:
        raise UsageError(f"{_ACCESS}: {access!r} is not valid", f"give {' or '.join(_MODES)}")
    path = _expand(url) if scheme_of(url) is None else _path_of_file_url(url)
    return _Directory(path, _MODES[access])


def _expand(path: str) -> Path:
    if not path.strip() or "\0" in path:
        raise UsageError(f"repository {path!r} is not a path", f"give {forms()}")
    foreign = foreign_path(path)
    if foreign:
        shown, advice = foreign
        raise UsageError(f"repository {shown!r} is not a directory or a bucket, but another program's address", advice)
    try:
        return _encodable(absolute(Path(path).expanduser(), "repository"))
    except RuntimeError as exc:
        raise UsageError(f"repository {path!r}: no such user's home directory", f"give {forms()}") from exc


def _encodable(path: Path) -> Path:
    """Journals and JSON name the repository, and both are UTF-8. Raises UsageError."""
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"repository {str(path)!r}: its path is not UTF-8", "give a symbolic link to it") from exc
    return path


def _path_of_file_url(url: str) -> Path:
    """RFC 8089: the host is empty or localhost, and the path is percent-encoded."""
    rest = url[len("file://") :]
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash or "\0" in unquote(path):
        raise UsageError(f"repository {url!r}: a file URL has three slashes", f"give {forms()}")
    return _encodable(Path("/" + unquote(path, errors="surrogateescape")))


def _open_directory(directory: _Directory, _: Mapping[str, str]) -> Store:
    return LocalStore(directory.path, modes=directory.modes)


register(
    "file",
    form="a directory (/path, ~/path or file:///path)",
    read_settings=_read_directory,
    open=_open_directory,
    address=lambda directory: os.path.abspath(directory.path),
    keys=StoreKeys(variables=(_ACCESS,)),
)

# S3


def _open_s3(location: S3Location, credentials: Mapping[str, str]) -> Store:
    # Only here: boto3 takes 0.3 s to import, which every other command would pay.
    from volback.store.s3.store import S3Store  # noqa: PLC0415

    store = S3Store(with_credentials(location, credentials))
    bandwidth = location.settings.bandwidth_bytes_s
    return store if bandwidth is None else LimitStore(store, bandwidth)


def _address_in_s3(location: S3Location) -> str:
    """Buckets of one name at two endpoints are two; how one is reached otherwise does not matter."""
    endpoint = (location.settings.endpoint or "").rstrip("/").lower()
    return f"s3://{location.bucket}/{location.prefix} {endpoint}".rstrip()


register(
    "s3",
    form="s3://BUCKET/PREFIX",
    read_settings=read_s3_url,
    open=_open_s3,
    address=_address_in_s3,
    keys=S3_KEYS,
)
