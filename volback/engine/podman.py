"""Podman, where its Docker API differs: it makes a directory that is to be bound and is missing."""

from __future__ import annotations

from typing import Any

from volback.engine.connect import translated
from volback.engine.helper import LABEL, remove
from volback.engine.mounts import MOUNT_POINT, is_about_path
from volback.errors import EngineError, NotFoundError
from volback.interrupts import deferred_signals

_CREATE = "v4.0.0/libpod/containers/create"
"""Of Podman's own API, which refuses to create a container with a source that is missing:
https://docs.podman.io/en/latest/_static/api.html."""


def require_path(client: Any, path: str, *, image: str, labels: dict[str, str]) -> None:
    """Create a container that binds `path`, and remove it. Raises NotFoundError if the host has no such path."""
    asked = {
        "image": image,
        "command": ["true"],
        "labels": {LABEL: "probe", **labels},
        "mounts": [{"type": "bind", "source": path, "destination": MOUNT_POINT}],
    }
    with deferred_signals():
        try:
            with translated(f"directory {path}"):
                response = client.post(f"{client.base_url}/{_CREATE}", json=asked, timeout=client.timeout)
                client._raise_for_status(response)
        except EngineError as exc:
            if is_about_path(exc, path):
                raise NotFoundError(f"directory {path} does not exist on the engine's host") from exc
            raise
        remove(client, response.json()["Id"])
