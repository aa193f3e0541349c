"""A swarm of one node, on an engine that nobody else uses: its services, and what their tasks do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.types import ServiceMode

from tests.support.engine import EngineSession, build_image, connect, engine_socket
from tests.support.events import Events, followed
from tests.support.remote import SecondEngine, second_engine, wait_for

IMAGE = "volback-test:swarm"
_OF_SCRIPTS_ENGINE = ".volback-engine"
"""A file that scripts/engine puts beside the socket."""


@dataclass
class Swarm:
    """The engine that is its only node, and its manager."""

    socket: Path
    client: docker.DockerClient
    second: SecondEngine | None = None
    """The engine, where it was started for the swarm: only that one can be killed."""

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    @property
    def engine(self) -> SecondEngine:
        assert self.second is not None, "the tests' engine is not this test's to stop"
        return self.second

    @contextmanager
    def events(self) -> Iterator[Events]:
        """What happens to the containers of its node inside."""
        client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=60)
        with followed(EngineSession(self.client), client) as events:
            yield events

    def volume_path(self, volume: str) -> Path:
        return Path(self.client.volumes.get(volume).attrs["Mountpoint"])

    def volume(self) -> str:
        """Create a volume with a file."""
        volume = self.client.volumes.create(f"volume-{secrets.token_hex(3)}")
        (Path(volume.attrs["Mountpoint"]) / "data").write_bytes(b"x" * 10_000)
        return str(volume.name)

    def service(
        self, *volumes: str, replicas: int = 1, mode: str = "replicated",
        container_labels: Mapping[str, str] | None = None, **options: Any,
    ) -> Service:  # fmt: skip
        """Create a service whose tasks write to the volumes, and wait until they run."""
        made = self.client.services.create(
            IMAGE, ["/bin/sleep", "600"], name=f"web-{secrets.token_hex(3)}", stop_signal="SIGKILL",
            mounts=[f"{volume}:/{volume}:rw" for volume in volumes],
            mode=ServiceMode(mode, replicas if mode == "replicated" else None),
            container_labels=dict(container_labels or {}), **options,
        )  # fmt: skip
        service = Service(self.client, made.id, made.name)
        service.wait_for_tasks(replicas)
        return service


@dataclass
class Service:
    """A service of the swarm."""

    client: docker.DockerClient
    id: str
    name: str

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.client.api.inspect_service(self.id))

    @property
    def replicas(self) -> int:
        return int(self.facts["Spec"]["Mode"]["Replicated"]["Replicas"])

    def containers(self) -> list[Any]:
        return list(
            self.client.containers.list(
                ignore_removed=True, filters={"label": f"com.docker.swarm.service.id={self.id}"}
            )
        )

    def running_tasks(self) -> int:
        states = [task["Status"]["State"] for task in self.client.api.tasks(filters={"service": self.id})]
        return states.count("running")

    def wait_for_tasks(self, count: int) -> None:
        wait_for(lambda: self.running_tasks() == count, f"{count} tasks of {self.name}")

    def change(self, change: Callable[[dict[str, Any]], object], *, version: int | None = None) -> None:
        """Change its specification, as a person would. Raises docker.errors.APIError for an older version."""
        facts = self.facts
        change(facts["Spec"])
        api = self.client.api
        response = api.post(
            f"{api.base_url}/v{api.api_version}/services/{self.id}/update",
            params={"version": facts["Version"]["Index"] if version is None else version}, json=facts["Spec"],
        )  # fmt: skip
        api._raise_for_status(response)

    def scale(self, replicas: int, *, version: int | None = None) -> None:
        self.change(lambda spec: spec["Mode"]["Replicated"].update(Replicas=replicas), version=version)

    def remove(self) -> None:
        self.client.services.get(self.id).remove()


@contextmanager
def one_node_swarm() -> Iterator[Swarm]:
    """Make a swarm, and end it: of the tests' engine, if scripts/engine started that for them, else of a second one."""
    with ExitStack() as stack:
        swarm = _own_node(stack) if (engine_socket().parent / _OF_SCRIPTS_ENGINE).exists() else _second_node(stack)
        swarm.client.swarm.init(advertise_addr="127.0.0.1")
        stack.callback(swarm.client.swarm.leave, force=True)
        build_image(swarm.client, IMAGE, {})
        try:
            yield swarm
        finally:
            for service in swarm.client.services.list():
                service.remove()


def _own_node(stack: ExitStack) -> Swarm:
    return Swarm(engine_socket(), stack.enter_context(closing(connect())))


def _second_node(stack: ExitStack) -> Swarm:
    second = stack.enter_context(second_engine())
    client = stack.enter_context(closing(second.client()))
    return Swarm(second.directory / "docker.sock", client, second)
