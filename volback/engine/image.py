"""Helper image: GNU tar, find, sync, head and a shell, without any registry where the client is a Linux host.

In this order: the configured image; one that is present under its recipe's tag; one assembled from the
host's own programs and their libraries (5-7 MB, under a second, no network); `debian:stable-slim`, pulled.
BusyBox cannot be used: its shell runs its own tar instead of GNU tar.
"""

from __future__ import annotations

import hashlib
import io
import platform
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import docker.errors

from volback.engine.connect import EngineInfo, translated
from volback.errors import EngineError, VolbackError

REPOSITORY = "volback-helper"
FALLBACK = "debian:stable-slim"
PROGRAMS = ("tar", "find", "sh", "cat", "head", "sleep", "sync", "tee", "zstd", "sha256sum", "stat", "mv")
_OPTIONAL = frozenset({"tee", "zstd", "sha256sum", "stat"})
_MOUNT_POINTS = ("volume", "target", "io", "tmp", "proc", "sys", "dev", "etc")
_GO_NAMES = {
    "x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv6l": "arm", "armv7l": "arm",
    "loongarch64": "loong64",
}  # fmt: skip
_REPLACED_S = 2.0
_CHUNK_BYTES = 1024 * 1024
_LOADED = re.compile(r"Loaded image(?: ID|\(s\))?: (\S+)")
"""https://github.com/moby/moby/blob/master/image/tarexport/load.go; (s): Podman."""
_RECIPE = repr(("1", PROGRAMS, _MOUNT_POINTS))
TAG = hashlib.sha256(_RECIPE.encode()).hexdigest()[:12]


def ensure_image(client: Any, info: EngineInfo, configured: str | None = None) -> str:
    """Return the name of an image that helpers can run on; create or pull it where it is missing.

    Raises EngineError if neither is possible.
    """
    name = configured or f"{REPOSITORY}:{TAG}"
    if is_present(client, name):
        return name
    if configured is None and _can_assemble(info):
        _import(client, name)
        return name
    name = configured or FALLBACK
    if is_present(client, name):
        return name
    try:
        with translated(f"helper image {name}"):
            client.pull(name)
    except EngineError as exc:
        raise EngineError(
            f"helper image {name} is not present and cannot be pulled: {exc.message}",
            "name an image that has GNU tar, find, sync, head and sh with VOLBACK_HELPER_IMAGE",
        ) from exc
    return name


def _import(client: Any, name: str) -> None:
    try:
        with translated(f"helper image {name}"):
            client.import_image_from_data(
                assemble(), repository=REPOSITORY, tag=TAG, changes=["ENV PATH=/usr/bin:/bin", "LABEL volback.image=1"]
            )
    except VolbackError:
        if not is_present_soon(client, name):
            raise


def is_present_soon(client: Any, name: str) -> bool:
    """Whether the engine has an image of this name, or has it in a moment.

    With containerd's image store (engine 28.5), runs that create the same image at once replace each other's: the name
    is gone for a moment, and the engine refuses to give it ("AlreadyExists").
    """
    deadline = time.monotonic() + _REPLACED_S
    while not is_present(client, name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_present(client: Any, name: str) -> bool:
    """Whether the engine has an image of this name."""
    try:
        with translated(f"image {name}"):
            try:
                client.inspect_image(name)
            except docker.errors.ImageNotFound:
                return False
    except EngineError:
        raise
    return True


def is_assembled_with(program: str) -> bool:
    """Whether an image that this host assembles has the program."""
    return program in PROGRAMS and shutil.which(program) is not None


def processor_of(client: Any, name: str) -> str:
    """The processor that an image is for, as the engine names it; empty where it does not say."""
    with translated(f"image {name}"):
        return str(client.inspect_image(name).get("Architecture") or "")


def save(client: Any, name: str) -> Generator[bytes, None, None]:
    """Yield an image as `docker save` writes it, as it arrives. Raises EngineError."""
    with translated(f"image {name}"):
        yield from client.get_image(name, chunk_size=_CHUNK_BYTES)


def load(client: Any, name: str, saved: Iterable[bytes]) -> None:
    """Load an image from what `save` yields, and let it have its name. Raises EngineError, and what `saved` raises."""
    with translated(f"image {name}"):
        said = "".join(str(line.get("stream") or "") for line in client.load_image(saved))
        if is_present(client, name):
            return
        loaded = _LOADED.search(said)  # Podman gives names a registry of its own: localhost/
        if loaded is None:
            raise EngineError(f"image {name}: the engine has not loaded it: {said.strip() or 'it does not say why'}")
        repository, _, tag = name.rpartition(":")
        client.tag(loaded[1], repository, tag)


def assemble() -> bytes:
    """Return a root filesystem (a tar) of this host's own programs and the libraries that they load."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for directory in _MOUNT_POINTS:
            archive.addfile(_entry(directory, tarfile.DIRTYPE, mode=0o755))
        libraries: dict[str, None] = {}
        for program in PROGRAMS:
            path = shutil.which(program)
            if path is None:
                continue
            _add_file(archive, f"usr/bin/{program}", Path(path))
            libraries.update(dict.fromkeys(_libraries(path)))
        archive.addfile(_entry("bin", tarfile.SYMTYPE, link="usr/bin"))
        for library in libraries:
            _add_file(archive, library.lstrip("/"), Path(library))
    return out.getvalue()


def _can_assemble(info: EngineInfo) -> bool:
    return (
        platform.system() == "Linux"
        and is_same_processor(platform.machine(), info.architecture)
        and all(shutil.which(program) for program in PROGRAMS if program not in _OPTIONAL)
        and _says("ldd", "ldd")
        and _says("tar", "GNU tar")
        and _says("find", "GNU findutils")
    )


def is_same_processor(first: str, second: str) -> bool:
    """Whether two names mean one processor: Docker uses the kernel's name (uname), Podman that of Go."""
    return _GO_NAMES.get(first, first) == _GO_NAMES.get(second, second)


def _says(program: str, mark: str) -> bool:
    """Whether it runs, and is the expected program. ldd is a script for bash, which an image may lack."""
    try:
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return mark in result.stdout


def _libraries(program: str) -> list[str]:
    """Paths that the loader would open for `program`; ldd prints `name => path (address)` or `path (address)`."""
    result = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in result.stdout + result.stderr:
        return []
    found = [word for line in result.stdout.splitlines() for word in line.split() if word.startswith("/")]
    if not found:
        raise EngineError(f"helper image cannot be assembled: the libraries of {program} are unknown")
    return found


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    data = path.resolve(strict=True).read_bytes()
    entry = _entry(name, tarfile.REGTYPE, mode=0o755)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _entry(name: str, kind: bytes, *, mode: int = 0o777, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, mode, link
    return entry
