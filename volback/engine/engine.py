"""Engine: one engine, as the operations see it. The library's client does not leave this package."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from volback.engine import containers, helper, image, podman, probe, services, volumes
from volback.engine.connect import DEFAULT_TIMEOUT_S, EngineInfo, connect, identify, translated
from volback.engine.containers import Container, RestartPolicy
from volback.engine.events import Signals
from volback.engine.execute import Execution
from volback.engine.helper import Limits
from volback.engine.mounts import MOUNT_POINT, TARGET_POINT
from volback.engine.own import Own, OwnContainer, find_own
from volback.engine.services import Service, Tasks
from volback.engine.storage import Arrivals, StorageUser, find_storage, storage_users
from volback.engine.streams import Place, ReadCommands, VolumeCopier, VolumeWriter, WriteCommands
from volback.engine.transport import Transports
from volback.engine.volumes import Volume, VolumeUser
from volback.errors import ConflictError, NotFoundError
from volback.policy.storage import Storage
from volback.settings import Transport


class Target(Protocol):
    """A volume, or a directory of the engine's host, that a helper mounts; of a single file, the directory above."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...


class Engine:
    """Volumes, their users and helpers of one engine. It is connected when it is first used.

    So every method and property but `is_connected` can raise EngineUnreachable, and UsageError for a bad address.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client_id: Callable[[], str],
        image: str | None = None,
        limits: Limits | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: Transport | None = None,
    ) -> None:
        """`client_id` is called when the first helper needs it; without `transport`, one that works is found."""
        self._connection: tuple[Any, EngineInfo] | None = None
        self._url = url
        self._timeout_s = timeout_s
        self._ask_client_id = client_id
        self._image = image
        self._limits = limits or Limits()
        self._forced_transport = transport

    @property
    def is_connected(self) -> bool:
        """Whether the engine was used and has answered."""
        return self._connection is not None

    @property
    def address(self) -> str | None:
        """What a person called it: an address or the name of a docker context; None: nothing was given."""
        return self._url

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        return self._connected()[1]

    @property
    def _client(self) -> Any:
        return self._connected()[0]

    def _connected(self) -> tuple[Any, EngineInfo]:
        if self._connection is None:
            self._connection = connect(self._url, timeout_s=self._timeout_s)
        return self._connection

    @cached_property
    def _client_id(self) -> str:
        return self._ask_client_id()

    @cached_property
    def _transports(self) -> Transports:
        return Transports(engine_kernel=self.info.kernel, forced=self._forced_transport)

    @property
    def transport(self) -> Transport | None:
        """The transport in use; None until the first stream has shown it."""
        return self._transports.known

    @cached_property
    def _own(self) -> Own:
        return find_own(self._client)

    @property
    def own_container(self) -> OwnContainer | None:
        """The container of this engine that volback itself runs in, if it does and it is known. Raises EngineError."""
        return self._own.container

    @property
    def own_container_ids(self) -> frozenset[str]:
        """The whole id of it, or of all that it may be: no operation stops, pauses or restarts these."""
        return self._own.possible

    def ensure_image(self) -> str:
        """Return the helper image's name; create it where it is missing."""
        return image.ensure_image(self._client, self.info, self._image)

    def has_program(self, name: str) -> bool:
        """Whether helpers have this program, as far as that is known: of an image that volback assembles."""
        return self.ensure_image() == f"{image.REPOSITORY}:{image.TAG}" and image.is_assembled_with(name)

    def has_image(self) -> bool:
        """Whether the helper image exists already."""
        return image.is_present(self._client, self._image or f"{image.REPOSITORY}:{image.TAG}")

    def take_image(self, origin: Engine) -> bool:
        """Load the helper image of another engine if this one has none, from one connection into the other.

        Return whether it was loaded. Raises ConflictError if it is for another processor, EngineError.
        """
        name = origin.ensure_image()
        if self.has_image() or image.is_present(self._client, name):
            return False
        theirs, mine = image.processor_of(origin._client, name) or origin.info.architecture, self.info.architecture
        if not image.is_same_processor(theirs, mine):
            raise ConflictError(
                f"helper image {name} is for {theirs}, and the engine of host {self.info.name} is {mine}"
            )
        with closing(image.save(origin._client, name)) as saved:
            image.load(self._client, name, saved)
        return True

    def volumes(self, label: str | None = None) -> list[Volume]:
        """Every volume, by name."""
        return volumes.list_volumes(self._client, label)

    def volume_sizes(self) -> dict[str, int]:
        """Sizes in bytes by name, of the volumes that the engine can measure. Raises EngineError."""
        return volumes.volume_sizes(self._client)

    def volumes_made_by_mounting(self) -> list[Volume]:
        """Volumes that the engine made for a helper of this client whose run was killed then: the name was gone."""
        made = self.volumes(helper.MADE_LABEL)
        return [volume for volume in made if volume.labels.get(helper.CLIENT_LABEL) == self._client_id]

    def volume(self, name: str) -> Volume:
        """Describe one volume. Raises NotFoundError."""
        return volumes.inspect_volume(self._client, name)

    def has_volume(self, name: str) -> bool:
        """Whether a volume of that name exists."""
        try:
            self.volume(name)
        except NotFoundError:
            return False
        return True

    def users(self, name: str) -> list[VolumeUser]:
        """Containers that mount the volume, running or not; no helpers."""
        return [user for user in volumes.users(self._client, name).get(name, []) if not user.helper]

    def storage(self, target: Target) -> Storage:
        """Return where the bytes of a volume or a directory are, and by which names and paths they are reached."""
        all_volumes = f"{self.info.root_directory}/volumes"
        return find_storage(
            self._client, target.kind, target.name, all_volumes=all_volumes, on_this_host=self._is_on_this_host()
        )

    def storage_users(self, found: Storage) -> list[StorageUser]:
        """Containers that reach the storage, by whatever name or path, running or not; no helpers.

        Not among them is the container that volback itself runs in, where that has a mount that holds all volumes.
        """
        users = storage_users(self._client, found)
        return [user for user in users if not (user.broad and user.container_id in self.own_container_ids)]

    def arrivals(self, found: Storage) -> Arrivals:
        """Find the containers that start in a block and can write to the storage; a context manager."""
        return Arrivals(self._client, found, clock_ahead_s=self.info.clock_ahead_s)

    def all_users(self) -> dict[str, list[VolumeUser]]:
        """Containers by the volume that they mount; no helpers."""
        return {
            name: [user for user in found if not user.helper] for name, found in volumes.users(self._client).items()
        }

    def containers(self) -> list[Container]:
        """Describe the containers that have processes, by name; no helpers."""
        found = containers.list_containers(self._client)
        return [container for container in found if helper.LABEL not in container.labels]

    def project_containers(self, project: str) -> list[Container]:
        """Describe the containers of a compose project, running or not, by name."""
        return containers.list_containers(self._client, every=True, labels=[f"{volumes.PROJECT_LABEL}={project}"])

    def container(self, name: str) -> Container:
        """Describe one container, by name or id. Raises NotFoundError."""
        return containers.inspect(self._client, name)

    def successor(self, id: str, name: str, replica: tuple[str, str, str] | None) -> Container | None:
        """Describe the container that was made anew in place of that one; None where there is none."""
        return containers.successor(self._client, id, name, replica)

    def stop_container(self, id: str, *, grace_s: int) -> None:
        """Stop it and wait for its end; after `grace_s` the engine kills it. Raises NotFoundError, EngineError."""
        containers.stop(self._client, id, grace_s=grace_s)

    def set_restart_policy(self, id: str, policy: RestartPolicy) -> None:
        """Change when the engine starts a container by itself. Raises NotFoundError, EngineError."""
        containers.set_restart_policy(self._client, id, policy)

    def was_signalled(self, id: str, *, since: float) -> bool:
        """Whether a container was sent a signal since then (seconds since 1970), as far as the engine reports it."""
        return containers.was_signalled(self._client, id, since=since, clock_ahead_s=self.info.clock_ahead_s)

    def signals(self) -> Signals:
        """Find the containers that are sent a signal in a block; a context manager."""
        return Signals(self._client, clock_ahead_s=self.info.clock_ahead_s)

    def pause_container(self, id: str) -> None:
        """Freeze its processes. Raises NotFoundError, EngineError."""
        containers.pause(self._client, id)

    def resume_container(self, id: str, *, may_start: bool = True) -> bool:
        """Unpause or start it, as needed; False if it ran already, or may not be started.

        Raises NotFoundError, EngineError.
        """
        return containers.resume(self._client, id, may_start=may_start)

    def wait_healthy(self, id: str, *, limit_s: float, hurry: Callable[[], bool]) -> str | None:
        """Wait until its health check passes, or `hurry` says so; return its health, None without a check."""
        return containers.wait_healthy(self._client, id, limit_s=limit_s, hurry=hurry)

    @property
    def is_swarm_manager(self) -> bool:
        """Whether it manages a swarm now."""
        return services.is_manager(self._client)

    def service(self, id: str, *, leader_wait_s: float = 0.0) -> Service:
        """Describe a service of the swarm; see inspect_service. Raises NotFoundError, EngineError."""
        return services.inspect_service(self._client, id, leader_wait_s=leader_wait_s)

    def scale_service(self, service: Service, replicas: int) -> None:
        """Change its number of replicas and nothing else. Raises ConflictError if it was changed since `service`."""
        services.scale_service(self._client, service, replicas)

    def tasks(self, service: str, *, node: str) -> Tasks:
        """Count the tasks of a service, by its id; `node` is the id of this engine's node."""
        return services.count_tasks(self._client, service, node=node)

    def service_containers(self, service: str) -> list[Container]:
        """Describe the containers with processes that this engine runs for a service, by name."""
        return services.containers_of_service(self._client, service)

    def create_volume(self, volume: Volume) -> None:
        """Create a volume. Raises ConflictError if there is one of that name."""
        if self.has_volume(volume.name):
            raise ConflictError(f"volume {volume.name!r} exists already", "choose another name with --as")
        volumes.create_volume(self._client, volume)

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone is not an error."""
        volumes.remove_volume(self._client, name)

    def reader(
        self,
        target: Target,
        *,
        run: str,
        directory: Path,
        scan: list[str],
        read: list[str],
        scan_end: str,
        rescan: bool = False,
        on_wire: Iterable[str] = (),
        into: Target | None = None,
        look: list[str] | None = None,
    ) -> AbstractContextManager[VolumeCopier]:
        """Read a volume or directory; a context manager whose end removes the helper. Raises NotFoundError.

        See ReadCommands for what it runs. `into` is a volume that is mounted writable at TARGET_POINT: the command
        copies there what it reads, and writes no more than a report; `look` looks there first.
        """
        place = self._place(self._mount(target, run, read_only=True), run, directory)
        if into is not None:
            place = replace(place, target=self._mount(into, run, read_only=False, at=TARGET_POINT))
        commands = ReadCommands(scan, read, scan_end, rescan, is_report=into is not None, on_wire=[*on_wire], look=look)
        return self._transports.reader(place, commands)

    def writer(
        self,
        target: Target,
        *,
        run: str,
        directory: Path,
        write: list[str],
        privileged_xattrs: bool = False,
        on_wire: list[str] | None = None,
        look: list[str] | None = None,
    ) -> AbstractContextManager[VolumeWriter]:
        """Write into a volume or directory; a context manager whose end removes the helper. Raises NotFoundError.

        `privileged_xattrs` gives the helper CAP_SYS_ADMIN, which attributes such as security.ima need. `on_wire` and
        `look`: see WriteCommands.
        """
        place = self._place(self._mount(target, run, read_only=False), run, directory)
        commands = WriteCommands(write, on_wire, look)
        return self._transports.writer(replace(place, privileged_xattrs=privileged_xattrs), commands)

    def probe(self, *, run: str, directory: Path, size_bytes: int = probe.SIZE_BYTES) -> probe.Speed:
        """Measure how fast zeros come from a helper, and by which transport. Raises EngineError."""
        place = self._place(None, run, directory)
        with self._transports.reader(place, probe.commands(size_bytes)) as reader:
            return probe.measure(reader, self._transports.known or "attach")

    def execute(
        self, container: str, command: str, *, user: str | None = None, limit_s: float, what: str = "command"
    ) -> AbstractContextManager[Execution]:
        """Run a shell command in a running container; see Execution. Raises NotRunningError, NotFoundError."""
        return Execution(self._client, container, command, user=user, limit_s=limit_s, what=what)

    def leftover_helpers(self, *, running: Callable[[], Iterable[str]] = tuple) -> list[str]:
        """Ids of this client's helper containers that belong to none of the runs that `running` returns.

        It is called once the containers are listed: a run that begins later has none among them.
        """
        with translated("helper containers"):
            found = self._client.containers(
                all=True, filters={"label": [helper.LABEL, f"{helper.CLIENT_LABEL}={self._client_id}"]}
            )
        alive = set(running())
        return [facts["Id"] for facts in found if facts["Labels"].get(helper.RUN_LABEL) not in alive]

    def remove_helper(self, container_id: str) -> None:
        """Kill and remove one helper container."""
        helper.remove(self._client, container_id)

    def remove_helpers(self, run: str) -> None:
        """Kill and remove all helpers of that run, and wait until none is left. Raises EngineError."""
        helper.remove_all(self._client, self._labels(run))

    def check_same(self) -> None:
        """Raises EngineUnreachable if it does not answer, ConflictError if another engine answers in its place."""
        if identify(self._client).id != self.info.id:
            raise ConflictError(
                f"another engine answers now where that of host {self.info.name} was", "check its address"
            )

    def _is_on_this_host(self) -> bool:
        """Whether paths of the engine's host are, as far as one can tell, those of this process."""
        same = (self.info.kernel, self.info.name) == (os.uname().release, os.uname().nodename)
        return same and self.transport != "attach" and self.own_container is None

    def _place(self, mount: Any | None, run: str, directory: Path) -> Place:
        there = self._on_host(directory)
        return Place(self._client, self.ensure_image(), mount, self._labels(run), self._limits, directory, there)

    def _labels(self, run: str) -> dict[str, str]:
        return {helper.RUN_LABEL: run, helper.CLIENT_LABEL: self._client_id}

    def _on_host(self, directory: Path) -> str | None:
        """The path by which helpers, which are siblings of a container, reach a directory of this process."""
        if self.transport == "attach" or self.own_container is None:
            return str(directory)
        return self.own_container.on_host(directory)

    def _mount(self, target: Target, run: str, *, read_only: bool, at: str = MOUNT_POINT) -> Any:
        if target.kind == "volume":
            if self.info.is_podman:  # it makes a missing one, without the labels by which that is seen elsewhere
                self.volume(target.name)
            return helper.volume_mount(target.name, read_only=read_only, client_id=self._client_id, at=at)
        path = posixpath.dirname(target.name) if target.kind == "file" else target.name
        if self.info.is_podman:
            podman.require_path(self._client, path, image=self.ensure_image(), labels=self._labels(run))
        return helper.directory_mount(path, read_only=read_only)
