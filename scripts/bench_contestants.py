"""Who is measured: each contestant backs up one volume, and restores what it stored. Only the commands are timed."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config

from scripts.bench_measure import bytes_below
from scripts.bench_place import Place

IMAGE = "volback-bench:latest"


class Contestant(Protocol):
    """`prepare` and `stored_bytes` are not timed; the commands that `backup` and `restore` return are.

    `unsynced`: what they write and leave to the kernel to write to the disk; None where they wait for that themselves.
    """

    name: str
    environment: dict[str, str]

    def prepare(self) -> None: ...
    def backup(self) -> list[str]: ...
    def stored_bytes(self) -> int: ...
    def prepare_restore(self) -> None: ...
    def restore(self) -> list[str]: ...
    def restored(self) -> Path: ...
    def unsynced(self) -> Path | None: ...


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

    def stored_bytes(self) -> int:
        return bytes_below(self._place.directory / "repository")

    def prepare_restore(self) -> None:
        self.restored().mkdir()

    def restore(self) -> list[str]:
        return [*self._command, "restore", self._place.volume, "--to", str(self.restored())]

    def restored(self) -> Path:
        return self._place.directory / "restored"

    def unsynced(self) -> Path | None:
        return None


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

    def stored_bytes(self) -> int:
        return bytes_in_bucket(self._bucket)


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

    def stored_bytes(self) -> int:
        return bytes_below(self.stored())

    def prepare_restore(self) -> None:
        self.restored().mkdir()

    def restored(self) -> Path:
        return self._place.directory / "restored"

    def unsynced(self) -> Path | None:
        return self._place.directory

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

    def restore(self) -> list[str]:
        line = "docker run --rm -i -v {}:/data {} tar -C /data -I zstd -xp --numeric-owner < {}"
        return self._shell(line, self.restored(), IMAGE, self.stored())


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

    def stored_bytes(self) -> int:
        return bytes_in_bucket(self._bucket)


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
    _s3().create_bucket(Bucket=name)


def bytes_in_bucket(name: str) -> int:
    pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=name)
    return sum(found["Size"] for page in pages for found in page.get("Contents", ()))


def _s3() -> Any:
    config = Config(s3={"addressing_style": "path"})
    endpoint = os.environ["VOLBACK_S3_ENDPOINT"]
    return boto3.Session().client("s3", "us-east-1", endpoint_url=endpoint, config=config)


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
