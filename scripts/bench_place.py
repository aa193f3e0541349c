"""Where the benchmark works: a filesystem of its own for each round, as creating files is slow for minutes where many
were just deleted (ext4 looks at each inode that was deleted lately)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from scripts.bench_measure import MIB
from tests.support.engine import remove_volume

LABEL = "volback.bench"
DISK_BYTES = 40 * 1024 * MIB
"""Of the sparse image in /dev/shm; what is stored there needs memory."""


@dataclass(frozen=True)
class Place:
    """Where a contestant works: what it reads, and a directory that is empty at each start."""

    client: docker.DockerClient
    volume: str
    source: Path
    directory: Path


@contextmanager
def fresh_place(client: docker.DockerClient, *, inodes: int) -> Iterator[Place]:
    """A new filesystem in memory for all; it is gone afterwards."""
    name = f"volback-bench-{os.getpid()}"
    image, mounted = Path(f"/dev/shm/{name}.img"), Path(f"/var/tmp/{name}-disk")
    try:
        _make_disk(image, mounted, inodes=inodes)
        with place_in(client, mounted) as place:
            yield place
    finally:
        subprocess.run(["umount", str(mounted)], check=False)
        image.unlink(missing_ok=True)
        if not mounted.is_mount():
            shutil.rmtree(mounted, ignore_errors=True)


@contextmanager
def place_in(client: docker.DockerClient, directory: Path) -> Iterator[Place]:
    """An empty volume and a directory for all else, both below that one; they stay, the engine's volume goes."""
    name, source, stored = f"volback-bench-{os.getpid()}", directory / "volume", directory / "stored"
    for made in (source, stored):
        made.mkdir(parents=True)
    options = {"type": "none", "o": "bind", "device": str(source)}
    volume = client.volumes.create(name, driver="local", driver_opts=options, labels={LABEL: "1"})
    assert volume.attrs["Options"] == options, f"there was a volume {name} already"
    try:
        yield Place(client, name, source, stored)
    finally:
        remove_volume(client, name)


def _make_disk(image: Path, mounted: Path, *, inodes: int) -> None:
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    now = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-E", now, "-N", str(inodes), "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)


def part_of(place: Place, name: str) -> Place:
    """A contestant's own directory there."""
    directory = place.directory / name
    directory.mkdir()
    return Place(place.client, place.volume, place.source, directory)
