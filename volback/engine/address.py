"""Addresses: from what a person calls an engine, or the environment says, to the URL and the TLS files to reach it by.

The order is that of the docker command: a given name, DOCKER_HOST, DOCKER_CONTEXT, its current context, the socket.
Nothing is connected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from volback.engine.contexts import (
    DEFAULT,
    NAME,
    Tls,
    config_directory,
    current_context,
    known_contexts,
    read_context,
)
from volback.errors import UsageError

LOCAL_SOCKET = "unix:///var/run/docker.sock"
_SCHEMES = ("unix", "tcp", "http", "https", "ssh")
_LIKE = "like unix:///var/run/docker.sock, ssh://HOST or tcp://HOST:2376"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine is reached."""

    url: str
    tls: Tls | None = None
    context: str = ""
    """The docker context that it comes from."""

    @property
    def what(self) -> str:
        """It, in words."""
        return f"engine {self.url} (docker context {self.context!r})" if self.context else f"engine {self.url}"


def find_endpoint(given: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Return the endpoint for what a person has given: a URL or a context's name; None is what the environment says.

    Raises UsageError for what is neither, and for a context or certificates that cannot be read.
    """
    if given is None and (host := environment.get("DOCKER_HOST")):
        return _at(host, environment, f"DOCKER_HOST={host}")
    if given is None:
        name = current_context(environment)
        found = _of_context(name, environment)
        if found is None:
            by = "DOCKER_CONTEXT" if environment.get("DOCKER_CONTEXT") else "docker's configuration"
            message = f"docker context {name!r}, which {by} names, does not exist"
            raise UsageError(message, _known(environment))
        return found
    if NAME.fullmatch(given):
        found = _of_context(given, environment)
        if found is None:
            message = f"engine {given!r} is neither an address nor a docker context"
            raise UsageError(message, f"{_known(environment)}; an address is {_LIKE}")
        return found
    return _at(given, environment, f"engine {given!r}")


def check_context_name(name: str) -> str:
    """Return the name of a context as a person gives it. Raises UsageError for what no context is called."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--context {name!r} is not the name of a docker context", "give an address with --host")
    return name


def _of_context(name: str, environment: Mapping[str, str]) -> Endpoint | None:
    """None where there is no such context. `default` is what the environment says, as for the docker command."""
    if name == DEFAULT:
        host = environment.get("DOCKER_HOST")
        return _at(host, environment, f"DOCKER_HOST={host}") if host else Endpoint(LOCAL_SOCKET)
    found = read_context(name, environment)
    if found is None:
        return None
    _split(found.url, f"engine {found.url!r} of docker context {name!r}")
    return Endpoint(found.url, found.tls, name)


def _at(url: str, environment: Mapping[str, str], what: str) -> Endpoint:
    parts = _split(url, what)
    return Endpoint(url, _tls(environment) if parts.scheme == "tcp" else None)


def _split(url: str, what: str) -> SplitResult:
    """Raises UsageError for what is not a valid address."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise UsageError(f"{what} is not an engine address: {exc}", _LIKE) from exc
    if parts.password is not None:
        hidden = url.replace(f":{parts.password}@", ":***@")
        raise UsageError(f"engine {hidden!r}: an address takes no password", "ssh uses keys, tcp certificates")
    try:
        is_valid = parts.scheme in _SCHEMES and parts.port != 0
    except ValueError as exc:
        raise UsageError(f"{what} is not an engine address: {exc}", _LIKE) from exc
    if not is_valid:
        raise UsageError(f"{what} is not an engine address", _meant(url))
    if parts.scheme != "unix" and not parts.hostname:
        raise UsageError(f"{what} names no host", _LIKE)
    return parts


def _meant(text: str) -> str:
    """The hint for something that lacks the scheme."""
    if text.startswith("/"):
        return f"for a socket: unix://{text}"
    if "://" not in text and "@" in text:
        return f"over ssh: ssh://{text}"
    return _LIKE


def _tls(environment: Mapping[str, str]) -> Tls | None:
    """What the docker command's variables say; None where they ask for no TLS."""
    is_verified = bool(environment.get("DOCKER_TLS_VERIFY"))
    if not (is_verified or environment.get("DOCKER_TLS")):
        return None
    directory = Path(environment.get("DOCKER_CERT_PATH") or config_directory(environment))
    ca, certificate, key = (directory / f"{kind}.pem" for kind in ("ca", "cert", "key"))
    if is_verified and not ca.exists():
        raise UsageError(
            f"certificate {ca} does not exist, and DOCKER_TLS_VERIFY is set",
            "set DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem",
        )
    has_own = certificate.exists() and key.exists()
    return Tls(
        ca=ca if is_verified else None,
        certificate=certificate if has_own else None,
        key=key if has_own else None,
        is_verified=is_verified,
    )


def _known(environment: Mapping[str, str]) -> str:
    return f"docker contexts: {', '.join(known_contexts(environment))}"
