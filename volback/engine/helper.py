"""Helper containers: least privilege, labelled, removed whatever happens.

A helper runs one shell line. The transports (`pipe`, `attach`) connect to its streams.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker.types
import requests.exceptions

from volback.engine.connect import explained, translated
from volback.engine.image import is_present_soon
from volback.engine.mounts import MOUNT_POINT, TARGET_POINT, no_directory
from volback.engine.volumes import inspect_volume, remove_volume, unrepeated
from volback.errors import (
    ConflictError,
    EngineError,
    EngineUnreachable,
    HelperLost,
    NotFoundError,
    VolbackError,
    cleaning_up,
)
from volback.interrupts import deferred_signals

log = logging.getLogger(__name__)

READ_CAPABILITIES = ("DAC_READ_SEARCH",)
WRITE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
XATTR_CAPABILITY = "SYS_ADMIN"
"""For security.* attributes except capability, and for trusted.* (xattr(7)); a writer has it only if that is asked."""
LABEL = "volback.helper"
RUN_LABEL = "volback.run"
CLIENT_LABEL = "volback.client"
MADE_LABEL = "volback.made"
"""On a volume that an engine created because a helper mounted a name that did not exist; removed again at once."""
BUFFER_BYTES = 4 * 1024 * 1024
SETTLE_S = 60.0
_GOING_S = 0.05
"""How long an engine gets to remove a container that it is removing already, before it is asked again."""
_REMOVED_S = 10.0
"""How long another one's removal of a helper is waited for."""
_TRIES = 4
"""How often a container is created on an image that other runs are replacing at that moment."""
CHECK_S = 10.0
"""How often the engine is checked while a helper is waited for."""
WRITE_LIMIT_S = 24 * 3600.0
"""After the last byte a writer may still have work to do: deleting, or waiting for a slow disk."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a helper may use; None is unlimited."""

    cpus: float | None = None
    memory_bytes: int | None = None
    io_weight: int | None = None


@dataclass(frozen=True, slots=True)
class HelperSpec:
    """One helper: what it is for, what it runs, what it sees."""

    role: str
    image: str
    script: str
    mounts: list[Any]
    capabilities: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    stdin: bool = False
    """Whether it gets a standard input, and a small `/tmp` of its own for what comes in."""


def volume_mount(name: str, *, read_only: bool, client_id: str, at: str = MOUNT_POINT) -> Any:
    """Mount a volume without the engine's copy-up, which would put the image's files into an empty one.

    The labels go onto the volume only if the engine has to create it: so `create` sees that it did not exist.
    """
    labels = {MADE_LABEL: secrets.token_hex(8), CLIENT_LABEL: client_id}
    return docker.types.Mount(at, name, type="volume", read_only=read_only, no_copy=True, labels=labels)


def directory_mount(path: str, *, read_only: bool) -> Any:
    """Mount a directory of the engine's host.

    Without a propagation the engine takes `rprivate`, and `rslave` where it accepts nothing else: for its own data
    root, what is in it, and what is above it (moby, volume/mounts/linux_parser.go).
    """
    return docker.types.Mount(MOUNT_POINT, path, type="bind", read_only=read_only)


def create(client: Any, spec: HelperSpec, *, release: Callable[[], None] = lambda: None) -> str:
    """Create (not start) a helper container and return its id.

    Raises NotFoundError if a volume or directory that it mounts does not exist; then nothing stays. `release` frees
    descriptors for the call that removes the container after a failure, which may be that there are none.
    """
    try:
        with translated(f"helper container for {spec.role}"):
            container = str(_create(client, spec)["Id"])
    except EngineError as exc:
        raise no_directory(spec.mounts, exc) or exc from exc.__cause__
    try:
        made = _made_volumes(client, container)
    except BaseException:
        release()
        with cleaning_up("a helper stays behind until the next run"):
            remove(client, container)
        raise
    if made:
        with cleaning_up(f"volume {made[0]!r}, which mounting it has made, stays"):
            _unmake(client, container, made)
        raise NotFoundError(f"volume {made[0]!r} does not exist", "see `volback volumes`")
    return container


def remove_all(client: Any, labels: dict[str, str], *, limit_s: float = SETTLE_S) -> None:
    """Kill and remove each helper with these labels, and wait until none is left. Raises EngineError."""
    filters = {"label": [LABEL, *(f"{key}={value}" for key, value in labels.items())]}
    deadline = time.monotonic() + limit_s
    while True:
        with translated("helper containers"):
            found = client.containers(all=True, filters=filters)
        if not found:
            return
        if time.monotonic() > deadline:
            raise EngineUnreachable(f"helper container {found[0]['Id'][:12]}: the engine does not remove it")
        for facts in found:
            _removes(client, facts["Id"])
        time.sleep(_GOING_S)


def remove(client: Any, container_id: str) -> None:
    """Kill and remove a helper; one that is gone is not an error.

    Where it is being removed already, by another thread or program, this waits for it: as long as it is there, its
    volume cannot be removed.
    """
    deadline = time.monotonic() + _REMOVED_S
    while not _removes(client, container_id) and time.monotonic() < deadline:
        time.sleep(_GOING_S)


def _removes(client: Any, container_id: str) -> bool:
    """Kill and remove a helper; return whether it is gone then: another one may be removing it still."""
    with translated(f"helper container {container_id[:12]}"):
        try:
            client.remove_container(container_id, force=True, v=False)
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError as exc:
            if exc.status_code != 409:  # 409: its removal is already in progress
                raise
            return False
        return True


class Helper:
    """One helper container: `create`, `start`, `settle`, `close`. Transports hold one and add its streams."""

    def __init__(self, client: Any, spec: HelperSpec, messages: Callable[[], bytes]) -> None:
        self.id: str | None = None
        self.what = f"helper for {spec.role}"
        self._client = client
        self._spec = spec
        self._messages = messages
        self._status: int | None = None
        self._failure: VolbackError | None = None
        self._waiter: threading.Thread | None = None
        self._pipe = threading.Lock()
        self._is_closed = False
        try:  # `ended` becomes readable when the container has ended, or is given up
            self.ended, self._ending = os.pipe()
            self._reserve = [os.dup(self.ended), os.dup(self.ended)]
        except OSError as exc:
            raise explained(exc, self.what) from exc

    def create(self) -> str:
        """Create the container and return its id. Raises NotFoundError, EngineError."""
        # an interrupted call may have created a container whose id is unknown
        with deferred_signals(), unrepeated(self._volume_options):
            self.id = create(self._client, self._spec, release=self._release)
        return self.id

    def start(self) -> None:
        """Start the container and wait for its end in a thread."""
        try:
            with unrepeated(self._volume_options), translated(self.what):
                self._client.start(self.id)
        except EngineError as exc:
            raise no_directory(self._spec.mounts, exc) or exc from exc.__cause__
        waiter = threading.Thread(target=self._wait, name="helper-wait", daemon=True)
        with deferred_signals():  # a thread that runs and is not known here would write into a pipe that is closed
            waiter.start()
            self._waiter = waiter

    def close(self, *, failed: bool) -> None:
        """Remove the container; after a failure, an engine that does not answer must not hide the first error."""
        with deferred_signals():
            try:
                self._release()
                if self.id is not None:
                    self._remove(self.id)
            except VolbackError as exc:
                if not failed:
                    raise
                is_said = isinstance(exc, EngineUnreachable)  # by the first error
                log.log(
                    logging.INFO if is_said else logging.WARNING,
                    "%s stays behind until the next run: %s",
                    self.what,
                    exc.message,
                )
            finally:
                self._close_pipe()

    def _release(self) -> None:
        """Free descriptors for the call that removes the container, which must work where no other is left."""
        while self._reserve:
            os.close(self._reserve.pop())

    def settle(self, *, limit_s: float = SETTLE_S) -> int:
        """Wait for the container's end and return its exit status; for `limit_s` while the engine answers.

        Raises EngineError if it was killed, EngineUnreachable if the engine does not report how it ended, or is gone
        too: an engine that stops kills its containers first.
        """
        assert self._waiter is not None
        deadline = time.monotonic() + limit_s
        while self._waiter.is_alive() and self._failure is None:
            self._waiter.join(max(0.0, min(CHECK_S, self._client.timeout, deadline - time.monotonic())))
            if self._waiter.is_alive() and self._failure is None:
                self.check_engine()
                if time.monotonic() >= deadline:
                    raise EngineUnreachable(f"{self.what}: the engine does not report how it ended")
        if self._failure is not None:
            raise self._failure
        assert self._status is not None
        self.raise_if_killed(self._status)
        return self._status

    def raise_if_killed(self, status: int) -> None:
        """Raises HelperLost for the status of a program that did not end by itself, EngineUnreachable."""
        if status > 125:
            self.check_engine()
            raise HelperLost(
                f"{self.what} was killed or could not run (status {status}): {self._last_message()}",
                "see `volback doctor`; then run the command again",
            )

    def check_engine(self) -> None:
        """Raises EngineUnreachable if the engine does not answer within the client's time-out."""
        with translated(self.what):
            self._client.ping()

    def give_up(self, failure: VolbackError) -> None:
        """Let no thread wait for the container any longer: another one has failed, and it gets nothing more to do."""
        self._failure = self._failure or failure
        self._announce_end()

    def has_ended(self) -> bool:
        """Whether the container has ended, or the engine is gone."""
        return self._failure is not None or self._status is not None

    def raise_if_ended(self, what: str) -> None:
        """Raises EngineError if the container has ended, which it should not have done before it used `what`."""
        if self.has_ended():
            raise self.ended_early(f"ended before it used {what}")

    def ended_early(self, what: str) -> EngineError:
        """The error for a container that stopped before its work was done. Raises the waiter's own error if it has
        one."""
        status = self.settle()
        return HelperLost(f"{self.what} {what} (status {status}): {self._last_message()}")

    def _volume_options(self) -> list[dict[str, str]]:
        """Of the volumes that are mounted; none where the engine does not say."""
        found = []
        for mount in self._spec.mounts:
            if mount["Type"] == "volume" and mount["Target"] in (MOUNT_POINT, TARGET_POINT):
                with suppress(VolbackError):
                    found.append(inspect_volume(self._client, mount["Source"]).options)
        return found

    def _last_message(self) -> str:
        lines = self._messages().decode(errors="backslashreplace").splitlines()
        return lines[-1] if lines else "it wrote no message"

    def _remove(self, container_id: str) -> None:
        try:
            remove(self._client, container_id)
        except EngineUnreachable as exc:
            if isinstance(exc.__cause__, requests.exceptions.Timeout):
                raise
            # where a connection broke, the library may hold more that are broken: once more
            remove(self._client, container_id)

    def _wait(self) -> None:
        try:
            with translated(self.what):
                self._status = int(self._client.wait(self.id, timeout=None)["StatusCode"])
        except VolbackError as exc:
            self._failure = self._failure or exc
        finally:
            self._announce_end()

    def _announce_end(self) -> None:
        """For whoever polls `ended`. After a close nobody does, and the number could belong to another file."""
        with self._pipe:
            if not self._is_closed:
                os.write(self._ending, b".")

    def _close_pipe(self) -> None:
        if self._waiter is not None:
            self._waiter.join(SETTLE_S if self.id is None else 5.0)
        with self._pipe:
            self._is_closed = True
            os.close(self.ended)
            os.close(self._ending)


def _create(client: Any, spec: HelperSpec) -> Any:
    limits: dict[str, Any] = {}
    if spec.limits.cpus is not None:
        limits["nano_cpus"] = int(spec.limits.cpus * 1e9)
    if spec.limits.memory_bytes is not None:
        limits["mem_limit"] = spec.limits.memory_bytes
    if spec.limits.io_weight is not None:
        limits["blkio_weight"] = spec.limits.io_weight
    if spec.stdin:
        limits["tmpfs"] = {"/tmp": "rw,noexec,nosuid,nodev,mode=0700"}
    host_config = client.create_host_config(
        mounts=spec.mounts,
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=list(spec.capabilities),
        security_opt=["no-new-privileges", "label=disable"],
        log_config=docker.types.LogConfig(type="none"),
        **limits,
    )
    tries = _TRIES
    while True:
        try:
            return _create_container(client, spec, host_config)
        except docker.errors.ImageNotFound as exc:
            tries -= 1
            if tries and is_present_soon(client, spec.image):
                continue
            raise EngineError(
                f"helper image {spec.image} is gone", "run the command again: it is created again"
            ) from exc


def _create_container(client: Any, spec: HelperSpec, host_config: Any) -> Any:
    return client.create_container(
        spec.image,
        command=["-c", spec.script],
        entrypoint=["/bin/sh"],
        user="0:0",
        working_dir=MOUNT_POINT,
        environment={"LC_ALL": "C", "TZ": "UTC0"},
        labels={LABEL: spec.role, **spec.labels},
        host_config=host_config,
        network_disabled=True,  # with mode "none" alone the engine makes it a sandbox, which takes as long as its start
        stdin_open=spec.stdin,
        stop_signal="SIGKILL",  # an engine that stops need not wait 10 s for a PID 1 that handles no other signal
        healthcheck={"test": ["NONE"]},
    )


def _made_volumes(client: Any, container_id: str) -> list[str]:
    """Names of the container's volumes that did not exist before it was created."""
    with translated(f"helper container {container_id[:12]}"):
        mounts = client.inspect_container(container_id)["HostConfig"].get("Mounts") or []
        asked = [mount for mount in mounts if mount["Type"] == "volume"]
        return [mount["Source"] for mount in asked if _is_made_by(client, mount)]


def _unmake(client: Any, container_id: str, volumes: list[str]) -> None:
    """Remove the empty volumes that mounting missing ones created: none must be mistaken for the real one. Only here,
    right after it was created: later it may contain data of others.
    """
    remove(client, container_id)
    for name in volumes:
        try:
            remove_volume(client, name)
        except ConflictError:
            log.debug("volume %s is in use by others by now", name)


def _is_made_by(client: Any, mount: dict[str, Any]) -> bool:
    mark = ((mount.get("VolumeOptions") or {}).get("Labels") or {}).get(MADE_LABEL)
    try:
        labels = client.inspect_volume(mount["Source"])["Labels"] or {}
    except docker.errors.NotFound:
        return False
    return mark is not None and labels.get(MADE_LABEL) == mark
