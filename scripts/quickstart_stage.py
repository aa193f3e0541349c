"""The quickstart's stage: a container with a volume of real files, and a witness of what was in it.

The witness reads through the kernel alone (tests/support/fingerprint.py). Objects on the engine carry LABEL;
none without it is touched.
"""

from __future__ import annotations

import os
import pickle
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.support.engine import build_image, connect, remove_containers
from tests.support.fingerprint import differences, fingerprint
from tests.support.tree import make_odd_tree

LABEL = "volback.quickstart"
VOLUME = "demo"
CONTAINER = "volback-quickstart"
IMAGE = "volback-quickstart:latest"
HELPER_IMAGES = "volback-helper"
FILES = 5000
TREE_MAX_BYTES = 60_000_000


def fill(client: docker.DockerClient, here: Path) -> None:
    """Make the volume anew and let a running container fill it."""
    _refuse_foreign_volume(client)
    _note_helper_images(client, here / "helper-images-before")
    _remove_demo(client)
    odd = here / "odd"
    if not odd.exists():
        odd.mkdir()
        make_odd_tree(odd, deep=False)
    if not client.images.list(IMAGE):
        build_image(client, IMAGE, {LABEL: "1"})
    client.volumes.create(VOLUME, labels={LABEL: "1"})
    container = _start_container(client)
    _copy(container, odd, "odd")
    for tree in _real_trees():
        _copy(container, tree, "real" + str(tree))
    entries = fingerprint(_mountpoint(client))
    (here / "before").write_bytes(pickle.dumps(entries))
    size = sum(end - start for entry in entries.values() for start, end in entry.holes)
    print(f"{len(entries)} entries, {size / 1e6:.0f} MB: files of this machine, links, ACLs, xattrs, holes, odd names")


def delete(client: docker.DockerClient, _: Path) -> None:
    """Remove the container and its volume."""
    _remove_demo(client)
    try:
        client.volumes.get(VOLUME)
    except docker.errors.NotFound:
        print(f"the volume '{VOLUME}' is gone")
        return
    sys.exit(f"error: the volume '{VOLUME}' is still there")


def compare(client: docker.DockerClient, here: Path) -> None:
    """Hold the restored volume against what was seen before the backup."""
    after = fingerprint(_mountpoint(client))
    lines = differences(pickle.loads((here / "before").read_bytes()), after)
    if lines:
        sys.exit("\n".join([*lines[:20], f"error: {len(lines)} differences"]))
    print(f"{len(after)} entries: content, owners, modes, times, links, holes, ACLs, xattrs: no difference")


def clean(client: docker.DockerClient, here: Path) -> None:
    """Remove all that the quickstart made on the engine; helper images only if they were not there before."""
    _remove_demo(client)
    noted = here / "helper-images-before"
    made = _helper_images(client) - set(noted.read_text().split()) if noted.exists() else set()
    for tag in sorted(made):
        client.images.remove(tag)
    for image in client.images.list(filters={"label": LABEL}):
        client.images.remove(image.id, force=True)


def _refuse_foreign_volume(client: docker.DockerClient) -> None:
    try:
        volume = client.volumes.get(VOLUME)
    except docker.errors.NotFound:
        return
    if LABEL not in (volume.attrs["Labels"] or {}):
        sys.exit(
            f"error: there is a volume '{VOLUME}' that is not the quickstart's\nhint: it was left alone; remove it"
        )


def _remove_demo(client: docker.DockerClient) -> None:
    remove_containers(client.containers.list(all=True, ignore_removed=True, filters={"label": LABEL}))
    for volume in client.volumes.list(filters={"label": LABEL}):
        volume.remove()


def _helper_images(client: docker.DockerClient) -> set[str]:
    return {tag for image in client.images.list(HELPER_IMAGES) for tag in image.tags}


def _note_helper_images(client: docker.DockerClient, path: Path) -> None:
    if not path.exists():
        path.write_text("\n".join(sorted(_helper_images(client))))


def _start_container(client: docker.DockerClient) -> Any:
    return client.containers.run(
        IMAGE,
        ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done"],
        name=CONTAINER,
        labels={LABEL: "1"},
        volumes={VOLUME: {"bind": "/data", "mode": "rw"}, "/": {"bind": "/from", "mode": "ro"}},
        network_mode="none",
        detach=True,
    )


def _copy(container: Any, source: Path, target: str) -> None:
    """The container does it, with its own cp: owners, times, links, holes, ACLs and capabilities go along."""
    script = 'mkdir -p "$1" && cp -a "$0/." "$1"'
    status, output = container.exec_run(["/bin/sh", "-c", script, f"/from{source}", f"/data/{target}"])
    if status:
        sys.exit(f"error: the container could not copy {source}: {output.decode(errors='replace')[-500:]}")


def _real_trees() -> Iterator[Path]:
    """Directories of this machine, none of them large, until they hold FILES files; Python's own is always there."""
    found = 0
    candidates = sorted(path for path in Path("/usr/share").glob("*/") if not path.is_symlink())
    for tree in [*candidates, Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]:
        files, size = _measure(tree)
        if found < FILES and files > 0 and size < TREE_MAX_BYTES:
            found += files
            yield tree.resolve()


def _measure(tree: Path) -> tuple[int, int]:
    sizes = [os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(tree) for name in names]
    return len(sizes), sum(sizes)


def _mountpoint(client: docker.DockerClient) -> Path:
    path = Path(client.volumes.get(VOLUME).attrs["Mountpoint"])
    if not path.is_dir():
        sys.exit(f"error: the engine keeps the volume at {path}, which is not on this machine\nhint: unset DOCKER_HOST")
    return path


if __name__ == "__main__":
    action = {"fill": fill, "delete": delete, "compare": compare, "clean": clean}[sys.argv[1]]
    action(connect(), Path(sys.argv[2] if len(sys.argv) > 2 else ".quickstart"))
