"""Contexts of the docker command: its files below DOCKER_CONFIG, as `docker context create` writes them.

Each has a directory of metadata and one of TLS material, named by the SHA-256 of its name (docker/cli,
cli/context/store). Only the endpoint `docker` is of interest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volback.errors import UsageError

DEFAULT = "default"
"""The context that has no files: what the environment says, or the local socket."""
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")
"""docker/cli, cli/context/store: restrictedNamePattern."""
_MATERIAL = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files for a TLS connection; a connection without certificate and key is possible."""

    ca: Path | None = None
    """None: the authorities that the system trusts."""
    certificate: Path | None = None
    key: Path | None = None
    is_verified: bool = True
    """Whether the engine's certificate is checked."""


@dataclass(frozen=True, slots=True)
class DockerContext:
    """The endpoint of one context."""

    name: str
    url: str
    tls: Tls | None = None


def config_directory(environment: Mapping[str, str]) -> Path:
    """Where the docker command keeps its configuration."""
    place = environment.get("DOCKER_CONFIG")
    return Path(place) if place else Path(environment.get("HOME") or Path.home()) / ".docker"


def current_context(environment: Mapping[str, str]) -> str:
    """The name of the context that is used where nothing else is said. Raises UsageError."""
    name = environment.get("DOCKER_CONTEXT")
    if name:
        return name
    file = config_directory(environment) / "config.json"
    if not file.is_file():
        return DEFAULT
    return str(_read(file, f"docker's configuration {file}").get("currentContext") or DEFAULT)


def known_contexts(environment: Mapping[str, str]) -> list[str]:
    """The names of all contexts; those whose files cannot be read are left out."""
    names = [DEFAULT]
    for file in sorted((config_directory(environment) / "contexts" / "meta").glob("*/meta.json")):
        try:
            names.append(str(_read(file, "")["Name"]))
        except (UsageError, KeyError):
            continue
    return sorted(names)


def read_context(name: str, environment: Mapping[str, str]) -> DockerContext | None:
    """Read a context that has files; None where there is none of that name. Raises UsageError."""
    directory = config_directory(environment) / "contexts"
    digest = hashlib.sha256(name.encode()).hexdigest()
    what = f"docker context {name!r}"
    try:
        if not (directory / "meta" / digest / "meta.json").exists():
            return None
    except OSError as exc:
        raise UsageError(f"{what} cannot be read: {exc.strerror}") from exc
    facts = _read(directory / "meta" / digest / "meta.json", what)
    endpoint = (facts.get("Endpoints") or {}).get("docker")
    if not isinstance(endpoint, dict) or not endpoint.get("Host"):
        raise UsageError(f"{what} names no docker engine", f"see docker context inspect {name}")
    return DockerContext(name, str(endpoint["Host"]), _tls(directory / "tls" / digest / "docker", endpoint))


def _tls(directory: Path, endpoint: dict[str, Any]) -> Tls | None:
    """None where the context has no TLS material, and does not say that the engine's certificate is not checked."""
    ca, certificate, key = (_existing(directory / f"{kind}.pem") for kind in _MATERIAL)
    unverified = bool(endpoint.get("SkipTLSVerify"))
    if ca is None and certificate is None and key is None and not unverified:
        return None
    return Tls(ca, certificate, key, is_verified=not unverified)


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _read(file: Path, what: str) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_bytes())
    except OSError as exc:
        raise UsageError(f"{what} cannot be read: {exc.strerror}", "name the engine with --host") from exc
    except ValueError as exc:
        raise UsageError(f"{what} cannot be read: it is not JSON", "name the engine with --host") from exc
    if not isinstance(facts, dict):
        raise UsageError(f"{what} cannot be read: it is not a JSON object", "name the engine with --host")
    return facts
