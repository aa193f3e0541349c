"""A swarm of one node, on an engine of its own: its services, and what their tasks do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.types import ServiceMode

from tests.support.engine import build_image
from tests.support.remote import SecondEngine, second_engine, wait_for

IMAGE = "volback-test:swarm"


@dataclass
class Swarm:
    """The engine that is its only node, and its manager."""

    engine: SecondEngine
    client: docker.DockerClient

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.engine.url}

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
        return list(self.client.containers.list(filters={"label": f"com.docker.swarm.service.id={self.id}"}))

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
    """Start the engine, make the swarm, and end both."""
    with second_engine() as engine, closing(engine.client()) as client:
        client.swarm.init(advertise_addr="127.0.0.1")
        build_image(client, IMAGE, {})
        try:
            yield Swarm(engine, client)
        finally:
            for service in client.services.list():
                service.remove()
            client.swarm.leave(force=True)
