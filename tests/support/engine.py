"""The real engine for tests: what a session makes carries its label and is removed by it, and by nobody else."""

from __future__ import annotations

import json
import os
import secrets
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import docker
import docker.errors

from tests.support.forked import Forked, clean_environment
from tests.support.image import image_tar
from tests.support.schema import faults_of_said

LABEL = "volback.test"
CLIENT_LABEL = "volback.client"
"""Helpers carry the id that volback keeps in its state directory, so each session knows its own."""
PROJECT = Path(__file__).resolve().parents[2]

_SETTLE_S = 60
_MAKE_BACKUPS = {"backup", "import", "restore", "run"}


class Result(NamedTuple):
    """How a volback process ended. The texts hold undecodable bytes as surrogates; `raw` gives stdout's bytes back."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def raw(self) -> bytes:
        return self.stdout.encode("utf-8", "surrogateescape")

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class EngineSession:
    """One session of tests on an engine that others use at the same time."""

    client: docker.DockerClient
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    client_ids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        """As a filter."""
        return f"{LABEL}={self.id}"

    @property
    def labels(self) -> dict[str, str]:
        return {LABEL: self.id}

    def new_name(self, hint: str = "volume") -> str:
        """A name for a volume that nobody has; it is removed in the end, whoever creates it."""
        name = f"volback-test-{self.id}-{hint}-{secrets.token_hex(3)}"
        self.names.add(name)
        return name

    def containers(self) -> list[Any]:
        """Containers with this session's label, and helpers of the volbacks that it ran."""
        labels = [self.label, *(f"{CLIENT_LABEL}={client_id}" for client_id in sorted(self.client_ids))]
        return [
            item
            for label in labels
            for item in self.client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        ]

    def volumes(self) -> list[Any]:
        """Volumes with this session's label or with a name that it gave out."""
        labelled = self.client.volumes.list(filters={"label": self.label})
        known = {volume.name for volume in labelled}
        named = self.client.volumes.list(filters={"name": f"volback-test-{self.id}-"})
        return [*labelled, *(volume for volume in named if volume.name not in known)]

    def leftovers(self) -> list[str]:
        """What is still there, in words."""
        containers = [f"container {item.name} {item.labels}" for item in self.containers()]
        return containers + [f"volume {volume.name}" for volume in self.volumes()]

    def leftovers_in_the_end(self) -> list[str]:
        """What stays: a killed run's guard, and the engine, may still be at work."""
        deadline = time.monotonic() + _SETTLE_S
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def remove(self) -> None:
        """Remove it."""
        remove_containers(self.containers())
        for name in {volume.name for volume in self.volumes()} | self.names:
            remove_volume(self.client, name)


def connect() -> docker.DockerClient:
    """The engine that the tests run against. Raises RuntimeError, with what to do."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError) as exc:
        raise RuntimeError(f"no engine answers ({exc}): run scripts/ensure-docker") from exc
    return client


def engine_socket() -> Path:
    """The socket of the engine that `connect` reaches, which must be on this machine."""
    url = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    assert url.scheme == "unix", f"the tests need an engine's socket on this machine, not {url.geturl()}"
    return Path(url.path)


def build_image(client: docker.DockerClient, tag: str, labels: dict[str, str]) -> str:
    """Import the image of this machine's own programs under `tag`; return its id."""
    changes = [f"LABEL {key}={json.dumps(value)}" for key, value in labels.items()]
    changes += ["ENV PATH=/bin", 'CMD ["/bin/sh"]']
    repository, _, name = tag.partition(":")
    client.api.import_image_from_data(image_tar(), repository=repository, tag=name or "latest", changes=changes)
    return str(client.images.get(tag).id)


def said_in(container: Any, *command: str) -> tuple[int, bytes]:
    """Run a command in a container; return its exit status and all that it said.

    docker-py's `exec_run` reads from the socket past the buffer of its HTTP library: what came together with the
    answer's head is lost there, on a busy machine (docker-py issues 425 and 3332). So the answer is read as a body.
    """
    api = container.client.api
    id_ = api.exec_create(container.id, list(command))["Id"]
    asked = {"Tty": False, "Detach": False}
    with api._post_json(api._url("/exec/{0}/start", id_), data=asked, stream=True) as answer:
        api._raise_for_status(answer)
        framed: bytes = answer.raw.read()
    output = bytearray()
    while framed:  # a stream's number, three zeros, the length
        (size,) = struct.unpack(">4xL", framed[:8])
        output += framed[8 : 8 + size]
        framed = framed[8 + size :]
    return int(api.exec_inspect(id_)["ExitCode"]), bytes(output)


def remove_containers(containers: Iterable[Any]) -> None:
    """Remove them, running or not; one that is gone, or going, is not an error."""
    for container in containers:
        try:
            container.remove(force=True, v=False)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as exc:
            if exc.status_code != 409:
                raise


def remove_volume(client: docker.DockerClient, name: str) -> None:
    """Remove a volume with the containers that use it; one that is gone is not an error."""
    remove_containers(client.containers.list(all=True, ignore_removed=True, filters={"volume": name}))
    try:
        client.volumes.get(name).remove(force=True)
    except docker.errors.NotFound:
        return


@dataclass
class Volback:
    """Runs volback as its users do, as a process, with a repository and a state directory of its own."""

    directory: Path
    client_ids: set[str]

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def __call__(
        self,
        *arguments: str | bytes | Path,
        input: bytes | None = None,
        env: dict[str, str] | None = None,
        check_exit: int | None = 0,
        timeout_s: float = 300,
    ) -> Result:
        """Run to the end, as a fork; asserts the exit code unless `check_exit` is None."""
        if _MAKE_BACKUPS.intersection(arguments):
            self._wait_for_a_new_second()
        run = Forked("volback", arguments, environment=self.environment(env), directory=self.directory, input=input)
        texts = [stream.decode("utf-8", "surrogateescape") for stream in run.communicate(timeout_s)]
        self.note_client_id()
        result = Result(run.wait(0), *texts)
        if "--json" in arguments or "--log-format" in arguments:
            assert (wrong := faults_of_said(result.stdout, result.stderr)) == [], f"volback {arguments}: {wrong}"
        if check_exit is not None:
            said = f"stdout:\n{result.stdout[-3000:]}\nstderr:\n{result.stderr[-6000:]}"
            assert result.exit_code == check_exit, f"volback {arguments} ended with {result.exit_code}\n{said}"
        return result

    def start(self, *arguments: str | bytes | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start it as a new Python in a process group of its own, for tests that signal it; the caller waits for it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(env),
            cwd=self.directory,
            process_group=0,
        )

    def _wait_for_a_new_second(self) -> None:
        """Let a backup be later than those before: their ids have the second, and then four digits by chance."""
        while any(self.repository.glob(f"*/*/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-*")):
            time.sleep(0.01)

    def command(self, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
        return [sys.executable, "-m", "volback", *arguments]

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        own = {"VOLBACK_REPO": str(self.repository), "VOLBACK_STATE_DIR": str(self.state)}
        own["VOLBACK_CACHE"] = str(self.directory / "cache")
        return clean_environment() | own | (extra or {})

    def note_client_id(self) -> None:
        """Remember whose helpers these are, before the directory goes."""
        path = self.state / "client-id"
        if path.is_file():
            self.client_ids.add(path.read_text())
