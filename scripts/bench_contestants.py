"""Who is measured: each contestant backs up one volume, and restores what it stored. Only the commands are timed."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import boto3
import docker
from botocore.config import Config

from tests.support.engine import remove_volume

LABEL = "volback.bench"
IMAGE = "volback-bench:latest"


@dataclass(frozen=True)
class Place:
    """Where a contestant works: what it reads, and a directory that is empty at each start."""

    client: docker.DockerClient
    volume: str
    source: Path
    directory: Path

    def new_volume(self) -> str:
        """An empty volume to restore into."""
        return str(self.client.volumes.create(f"{self.volume}-restored", labels={LABEL: "1"}).name)

    def mountpoint(self, volume: str) -> Path:
        return Path(self.client.volumes.get(volume).attrs["Mountpoint"])


class Contestant(Protocol):
    """`prepare` and `stored` are not timed; the commands that `backup` and `restore` return are."""

    name: str
    environment: dict[str, str]

    def prepare(self) -> None: ...
    def backup(self) -> list[str]: ...
    def stored(self) -> Path: ...
    def prepare_restore(self) -> None: ...
    def restore(self) -> list[str]: ...
    def restored(self) -> Path: ...


class Volback:
    """This checkout, as its users run it."""

    name = "volback"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._command = [str(Path(sys.executable).with_name("volback")), "--quiet"]
        self.environment = {
            "VOLBACK_REPO": str(place.directory / "repository"),
            "VOLBACK_STATE_DIR": str(place.directory / "state"),
        }

    def prepare(self) -> None:
        _run([*self._command, "init"], self.environment)

    def backup(self) -> list[str]:
        return [*self._command, "backup", self._place.volume]

    def stored(self) -> Path:
        return self._place.directory / "repository"

    def prepare_restore(self) -> None:
        return

    def restore(self) -> list[str]:
        return [*self._command, "restore", self._place.volume, "--as", f"{self._place.volume}-restored"]

    def restored(self) -> Path:
        return self._place.mountpoint(f"{self._place.volume}-restored")


class VolbackS3(Volback):
    """The same, into a bucket of the S3 server that the environment names."""

    name = "volback_s3"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._bucket = f"volback-bench-{secrets.token_hex(6)}"
        self.environment |= {"VOLBACK_REPO": f"s3://{self._bucket}/repository"}

    def prepare(self) -> None:
        make_bucket(self._bucket)
        super().prepare()


class Files:
    """What the others share: one stored thing, restored into a directory beside it."""

    name = ""
    environment: dict[str, str] = {}  # noqa: RUF012 - replaced whole, never changed

    def __init__(self, place: Place) -> None:
        self._place = place

    def prepare(self) -> None:
        return

    def stored(self) -> Path:
        return self._place.directory / "stored"

    def prepare_restore(self) -> None:
        self.restored().mkdir()

    def restored(self) -> Path:
        return self._place.directory / "restored"

    def _shell(self, line: str, *names: str | Path) -> list[str]:
        quoted = [shlex.quote(str(name)) for name in names]
        return ["bash", "-o", "pipefail", "-c", line.format(*quoted)]


class TarZstd(Files):
    """tar through all cores' zstd on the host's directory: no engine, no integrity, no index."""

    name = "tar_zstd"

    def backup(self) -> list[str]:
        return self._shell("tar -C {} -c . | zstd -q -T0 -3 > {}", self._place.source, self.stored())

    def restore(self) -> list[str]:
        return self._shell("zstd -q -dc {} | tar -C {} -xp --numeric-owner", self.stored(), self.restored())


class DockerPipe(Files):
    """What people type today."""

    name = "docker_pipe"

    def backup(self) -> list[str]:
        line = "docker run --rm -v {}:/data:ro {} tar -C /data -I zstd -c . > {}"
        return self._shell(line, self._place.volume, IMAGE, self.stored())

    def prepare_restore(self) -> None:
        self._place.new_volume()

    def restore(self) -> list[str]:
        line = "docker run --rm -i -v {}:/data {} tar -C /data -I zstd -xp --numeric-owner < {}"
        return self._shell(line, f"{self._place.volume}-restored", IMAGE, self.stored())

    def restored(self) -> Path:
        return self._place.mountpoint(f"{self._place.volume}-restored")


class Restic(Files):
    """The current restic with its own defaults."""

    name = "restic"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        cache = str(place.directory / "cache")
        self.environment = {
            "RESTIC_PASSWORD": "bench",
            "RESTIC_REPOSITORY": str(self.stored()),
            "RESTIC_CACHE_DIR": cache,
        }

    def prepare(self) -> None:
        _run(["restic", "-q", "init"], self.environment)

    def backup(self) -> list[str]:
        return ["restic", "-q", "backup", str(self._place.source)]

    def restore(self) -> list[str]:
        return ["restic", "-q", "restore", "latest", "--target", str(self.restored())]


class ResticS3(Restic):
    """The same, into a bucket."""

    name = "restic_s3"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._bucket = f"volback-bench-{secrets.token_hex(6)}"
        endpoint = os.environ["VOLBACK_S3_ENDPOINT"]
        self.environment |= {"RESTIC_REPOSITORY": f"s3:{endpoint}/{self._bucket}/repository"}

    def prepare(self) -> None:
        make_bucket(self._bucket)
        super().prepare()

    def stored(self) -> Path:
        return self._place.directory


class Borg(Files):
    """Debian's borg, without encryption, with volback's compression; an archive gets a name by chance."""

    name = "borg"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._last = ""
        self.environment = {
            "BORG_BASE_DIR": str(place.directory / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self) -> None:
        _run(["borg", "init", "--encryption", "none", str(self.stored())], self.environment)

    def backup(self) -> list[str]:
        return ["borg", "create", "--compression", "zstd,3", self._archive(), str(self._place.source)]

    def restore(self) -> list[str]:
        return self._shell("cd {} && borg extract --numeric-ids {}", self.restored(), f"{self.stored()}::{self._last}")

    def _archive(self) -> str:
        self._last = secrets.token_hex(6)
        return f"{self.stored()}::{self._last}"


ALL: tuple[Callable[[Place], Contestant], ...] = (Volback, TarZstd, DockerPipe, Restic, Borg)
S3: tuple[Callable[[Place], Contestant], ...] = (VolbackS3, Volback, ResticS3)


def make_bucket(name: str) -> None:
    """It goes with the server: scripts/stack down removes all."""
    endpoint = os.environ["VOLBACK_S3_ENDPOINT"]
    config = Config(s3={"addressing_style": "path"})
    client = boto3.Session().client("s3", "us-east-1", endpoint_url=endpoint, config=config)
    client.create_bucket(Bucket=name)


def clear(place: Place) -> None:
    """Remove what a contestant stored and restored, and let the disk come to rest."""
    remove_volume(place.client, f"{place.volume}-restored")
    shutil.rmtree(place.directory, ignore_errors=True)
    place.directory.mkdir(parents=True)
    os.sync()


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
