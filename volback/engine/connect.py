"""Connect: from a URL, a docker context or the environment to a client whose errors are translated."""

from __future__ import annotations

import errno
import os
import re
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import docker.errors
import docker.tls
import requests.exceptions
import urllib3.exceptions

from volback.engine.address import Endpoint, find_endpoint
from volback.engine.client import Client
from volback.engine.contexts import Tls
from volback.engine.ssh import ssh_client
from volback.errors import (
    ConflictError,
    EngineError,
    EngineUnreachable,
    NotFoundError,
    VolbackError,
    as_failure,
)
from volback.masking import masked_mount

DEFAULT_TIMEOUT_S = 60.0
_REASON_LENGTH = 600
_MINIMUM_API = (1, 40)
_CLOCK_DOUBT_S = 2.0
"""Less is the time that the answer took, and what was cut off below the second."""
_PLUGIN = re.compile(r'plugin "?([^" ]+)"? not found')
_GONE = re.compile(r"no container with ID (\w+) found in database: no such container$")
"""Podman's reason, with status 500, if a container is removed while it is asked for."""
_WANTS_TLS = "Client sent an HTTP request to an HTTPS server"
_TLS_HINT = "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use a docker context that has its certificates"
_START_HINT = "start the engine, or name another with --host"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine's description of itself."""

    name: str
    id: str
    """The same at each call: locks, journals and keep rules know the engine by it."""
    version: str
    api_version: str
    architecture: str
    root_directory: str
    kernel: str
    clock_ahead_s: float = 0.0
    """By how much the engine's clock was ahead of this one when it was asked."""
    is_podman: bool = False


def connect(url: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> tuple[Any, EngineInfo]:
    """Return a low-level client and the engine's description.

    `url` may be the name of a docker context; without it the environment says which engine (see `find_endpoint`).
    Raises EngineUnreachable (no engine, no permission, no answer in `timeout_s`), UsageError for an address that is not
    valid.
    """
    endpoint = find_endpoint(url, os.environ)
    what = endpoint.what
    try:
        with translated(what):
            client = _client(endpoint, timeout_s)
            facts = client.info()
        info = _describe(facts, client)
        api = tuple(int(part) for part in info.api_version.split("."))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise EngineUnreachable(f"{what} does not answer as an engine does", "check the address: --host") from exc
    if facts.get("OSType") != "linux":
        raise EngineError(f"{what} runs {facts.get('OSType')} containers; volback needs Linux ones")
    if api < _MINIMUM_API:
        raise EngineError(f"{what} speaks API {info.api_version}; volback needs 1.40 or later")
    return client, info


def identify(client: Any) -> EngineInfo:
    """Ask a connected engine once more who it is. Raises EngineUnreachable."""
    try:
        with translated("engine"):
            return _describe(client.info(), client)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise EngineUnreachable("what answers does not answer as an engine does", "check the address") from exc


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate the library's errors; `what` names the object of the call."""
    try:
        yield
    except docker.errors.NotFound as exc:
        if plugin := _PLUGIN.search(_reason(exc)):
            raise NotFoundError(
                f"{what}: the engine has no volume driver {plugin[1]!r}", "see those that it has: docker plugin ls"
            ) from exc
        raise NotFoundError(f"{what} does not exist: {_reason(exc)}") from exc
    except docker.errors.APIError as exc:
        raise _refused(what, exc) from exc
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as exc:
        raise EngineUnreachable(f"{what}: the engine does not answer", "check whether it hangs: docker info") from exc
    except requests.exceptions.ChunkedEncodingError as exc:
        raise EngineUnreachable(f"{what}: the engine broke off its answer", _START_HINT) from exc
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        cause = _innermost(exc)
        if _is_of_this_machine(cause):
            raise explained(cause, what) from exc
        raise EngineUnreachable(f"{what}: {_root_cause(exc)}", _unreachable_hint(exc)) from exc
    except docker.errors.DockerException as exc:
        raise _not_connected(what, exc) from exc


def _client(endpoint: Endpoint, timeout_s: float) -> Any:
    if urlsplit(endpoint.url).scheme == "ssh":
        return ssh_client(endpoint.url, timeout_s=timeout_s)
    tls = _tls_config(endpoint.tls) if endpoint.tls else False
    return Client(base_url=endpoint.url, tls=tls, timeout=timeout_s, version="auto")


def _tls_config(tls: Tls) -> Any:
    own = (str(tls.certificate), str(tls.key)) if tls.certificate and tls.key else None
    return docker.tls.TLSConfig(client_cert=own, ca_cert=str(tls.ca) if tls.ca else None, verify=tls.is_verified)


def _describe(facts: dict[str, Any], client: Client) -> EngineInfo:
    return EngineInfo(
        name=facts["Name"],
        id=_podman_id(facts) if client.is_podman else facts["ID"],
        version=facts["ServerVersion"],
        api_version=client.version()["ApiVersion"],
        architecture=facts["Architecture"],
        root_directory=facts["DockerRootDir"],
        kernel=facts["KernelVersion"],
        clock_ahead_s=_clock_ahead_s(facts.get("SystemTime") or ""),
        is_podman=client.is_podman,
    )


def _podman_id(facts: dict[str, Any]) -> str:
    """An id by the host's name and the directory of its data, which users without root each have: Podman answers with
    another id each time (https://github.com/containers/podman/blob/main/pkg/api/handlers/compat/info.go)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"podman://{facts['Name']}{facts['DockerRootDir']}"))


def _clock_ahead_s(there: str) -> float:
    """How far the engine's clock (RFC 3339, with nanoseconds) is ahead; 0 where that is less than a second's doubt."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", there)
    if match is None:
        return 0.0
    ahead_s = datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")).timestamp() - time.time()
    return ahead_s if abs(ahead_s) > _CLOCK_DOUBT_S else 0.0


def _refused(what: str, exc: docker.errors.APIError) -> VolbackError:
    reason = _reason(exc)
    if _WANTS_TLS in reason:
        return _wants_tls(what)
    if (gone := _GONE.search(reason)) and gone[1] in what:
        return NotFoundError(f"{what} does not exist: {reason}")
    return (ConflictError if exc.status_code == 409 else EngineError)(f"{what}: the engine refused: {reason}")


def _wants_tls(what: str) -> EngineUnreachable:
    return EngineUnreachable(f"{what}: the engine wants TLS", _TLS_HINT)


def _not_connected(what: str, exc: docker.errors.DockerException) -> EngineError:
    if isinstance(exc.__cause__, docker.errors.APIError) and _WANTS_TLS in _reason(exc.__cause__):
        return _wants_tls(what)
    cause = _root_cause(exc)
    if _is_of_this_machine(innermost := _innermost(exc)):
        return explained(innermost, what)
    if isinstance(exc.__context__, requests.exceptions.Timeout) or "timed out" in str(exc).lower():
        return EngineUnreachable(f"{what} does not answer in time", "check whether it hangs: docker info")
    return EngineUnreachable(f"{what} cannot be reached: {cause}", _unreachable_hint(exc))


def explained(exc: OSError, what: str) -> EngineError:
    """The error for what this machine's system refuses, such as a descriptor."""
    reason = as_failure(OSError(exc.errno, exc.strerror))
    return EngineError(f"{what}: {reason.message}", reason.hint)


def _is_of_this_machine(exc: BaseException) -> TypeGuard[OSError]:
    """Whether an engine was not reached because this process may open no more files."""
    return isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)


def _root_cause(exc: BaseException) -> str:
    """The message of the library's innermost error."""
    seen = _innermost(exc)
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen).strip() or type(seen).__name__


def _innermost(exc: BaseException) -> BaseException:
    """The library's innermost error; an error of volback that was being raised already is not its cause."""
    seen: BaseException = exc
    while (deeper := seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)) is not None:
        if isinstance(deeper, VolbackError):
            break
        seen = deeper
    return seen


def _unreachable_hint(exc: BaseException) -> str:
    text = _root_cause(exc)
    if isinstance(_innermost(exc), ssl.SSLError):
        return "check that it speaks TLS, and the certificates: DOCKER_CERT_PATH, or those of the docker context"
    if "Permission denied" in text:
        return "run as root, or as a user of the group docker"
    return _START_HINT


def _reason(exc: docker.errors.APIError) -> str:
    """Its first line. Engines repeat all options of a volume that cannot be mounted, passwords too, and the whole of a
    path that is too long."""
    reason = masked_mount((str(exc.explanation or "").strip() or str(exc)).splitlines()[0])
    if len(reason) <= _REASON_LENGTH:
        return reason
    half = _REASON_LENGTH // 2
    return f"{reason[:half]} ... {reason[-half:]}"
