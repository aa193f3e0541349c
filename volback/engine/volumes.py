"""Volumes and who uses them, as frozen facts; creating and removing volumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import docker.errors

from volback.engine.connect import translated
from volback.errors import EngineError, NotFoundError, VolbackError
from volback.masking import masked, secret_values

_RELEASED_S = 5.0
_MEASURE_S = 60.0
PROJECT_LABEL = "com.docker.compose.project"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the engine describes it."""

    name: str
    driver: str
    options: dict[str, str]
    labels: dict[str, str]
    mountpoint: str = ""
    """Where the engine's host has it, or will have it; not every driver tells."""


@dataclass(frozen=True, slots=True)
class VolumeUser:
    """A container that mounts a volume."""

    container_id: str
    name: str
    state: str
    """The engine's state: created, running, paused, restarting, exited, dead."""
    writable: bool
    helper: bool
    """Whether it is one of volback's own."""
    labels: dict[str, str] = field(default_factory=dict)
    """The container's."""

    @property
    def is_active(self) -> bool:
        """Whether its processes may touch the volume now."""
        return self.state in ("running", "paused", "restarting")


def list_volumes(client: Any, label: str | None = None) -> list[Volume]:
    """Every volume, by name; those with `label` (`KEY` or `KEY=VALUE`) only."""
    with translated("volumes"):
        found = client.volumes(filters={"label": label} if label else None)["Volumes"] or []
    return sorted((_volume(facts) for facts in found), key=lambda volume: volume.name)


def volume_sizes(client: Any) -> dict[str, int]:
    """Sizes by name, of the volumes that the engine can measure: it walks through them. Raises EngineError.

    A volume with driver options is not among them (moby, volume/service: only plain local ones are measured).
    """
    with translated("sizes of volumes"):
        answer = _measured(client)
    # From API 1.52 on `VolumeUsage` holds them, and from 1.53 on nothing else does.
    found = (answer.get("VolumeUsage") or {}).get("Items") or answer.get("Volumes")
    if found is None:
        raise EngineError("sizes of volumes: the engine does not report them")
    sizes = {facts["Name"]: (facts.get("UsageData") or {}).get("Size", -1) for facts in found if "Name" in facts}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and size >= 0}


def inspect_volume(client: Any, name: str) -> Volume:
    """Describe one volume. Raises NotFoundError."""
    try:
        with translated(f"volume {name!r}"):
            return _volume(client.inspect_volume(name))
    except NotFoundError:
        raise NotFoundError(f"volume {name!r} does not exist", "see `volback volumes`") from None


def users(client: Any, name: str | None = None) -> dict[str, list[VolumeUser]]:
    """Containers by the volume that they mount, running or not, for one volume or for all."""
    filters = {"volume": name} if name is not None else {}
    with translated(f"containers of volume {name!r}" if name else "containers"):
        containers = client.containers(all=True, filters=filters)
    by_volume: dict[str, list[VolumeUser]] = {}
    for facts in containers:
        for mount in facts["Mounts"]:
            if mount.get("Type") == "volume" and mount.get("Name"):
                by_volume.setdefault(mount["Name"], []).append(_user(facts, mount))
    return by_volume


def create_volume(client: Any, volume: Volume) -> None:
    """Create a volume; the caller has checked that none of that name exists."""
    with unrepeated(lambda: [volume.options]), translated(f"volume {volume.name!r}"):
        client.create_volume(volume.name, volume.driver, volume.options or None, volume.labels or None)


@contextmanager
def unrepeated(options: Callable[[], Iterable[Mapping[str, str]]]) -> Iterator[None]:
    """Mask the secrets among volumes' options in an error of the block: engines and plugins repeat them."""
    try:
        yield
    except VolbackError as exc:
        exc.message = masked(exc.message, [value for given in options() for value in secret_values(given)])
        exc.args = (exc.message,)
        raise


def remove_volume(client: Any, name: str) -> None:
    """Remove a volume; one that is gone is not an error. Raises ConflictError if a container uses it.

    An engine forgets a container before it releases its volumes: what no container has is released in a moment.
    """
    deadline = time.monotonic() + _RELEASED_S
    with translated(f"volume {name!r}"):
        while True:
            try:
                client.remove_volume(name)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as exc:
                is_late = exc.status_code != 409 or time.monotonic() > deadline
                if is_late or client.containers(all=True, filters={"volume": name}):
                    raise
                time.sleep(0.05)
            else:
                return


def _measured(client: Any) -> dict[str, Any]:
    """What `docker system df` reports of volumes. Engines up to 20.10 measure for one caller at a time, and refuse the
    next one."""
    url, wanted = client._url("/system/df"), {"type": "volume", "verbose": "1"}
    deadline = time.monotonic() + _MEASURE_S
    while True:
        try:
            answer = client._result(client._get(url, params=wanted), json=True)
        except docker.errors.APIError as exc:
            if "already running" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return answer if isinstance(answer, dict) else {}


def _volume(facts: dict[str, Any]) -> Volume:
    return Volume(
        name=facts["Name"],
        driver=facts["Driver"],
        options=facts.get("Options") or {},
        labels=facts.get("Labels") or {},
        mountpoint=facts.get("Mountpoint") or "",
    )


def _user(facts: dict[str, Any], mount: dict[str, Any]) -> VolumeUser:
    return VolumeUser(
        container_id=facts["Id"],
        name=facts["Names"][0].lstrip("/") if facts.get("Names") else facts["Id"][:12],
        state=facts["State"],
        writable=bool(mount.get("RW")),
        helper="volback.helper" in (facts.get("Labels") or {}),
        labels=facts.get("Labels") or {},
    )
