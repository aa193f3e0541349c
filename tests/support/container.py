"""volback in a container: its image, built from the Dockerfile, and containers of it with the engine's socket mounted.

The base is made from Debian packages (`scripts/stack base`), the wheels come from the index that this machine's pip
uses, and the build itself has no network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors

from tests.support.engine import PROJECT, EngineSession, Result, engine_socket, remove_containers

BASE = "volback-test-base:1"
SOCKET = "/var/run/docker.sock"
"""Of the engine, in a container."""
HOME = "/var/lib/volback"
USER = 10001
"""The image's own."""
_CONTEXT = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml")


@contextmanager
def built_image(engine: EngineSession) -> Iterator[str]:
    """Build the image, with the session's label; in the end it and what its building left are removed.

    Where VOLBACK_TEST_IMAGES names a directory, it is built once, and other engines get it from there.
    """
    tag = f"volback-test-program:{engine.id}"
    saved = Path(os.environ.get("VOLBACK_TEST_IMAGES") or os.devnull) / "program.tar"
    if saved.exists():
        layers = _load(engine, saved, tag)
    else:
        layers = _build_from_clone(engine, tag)
        if saved.parent.is_dir():
            saved.write_bytes(b"".join(engine.client.images.get(tag).save(named=True)))
    try:
        yield tag
    finally:
        for image in (tag, *reversed(layers)):
            _remove_image(engine, image)


def _load(engine: EngineSession, saved: Path, tag: str) -> list[str]:
    """Give a saved image the session's name; it keeps none of another session's."""
    with saved.open("rb") as file:
        (image,) = engine.client.images.load(file)
    image.tag(*tag.split(":"))
    for name in image.tags:
        if not name.endswith(f"/{tag}") and name != tag:
            engine.client.images.remove(name)
    return []


def _build_from_clone(engine: EngineSession, tag: str) -> list[str]:
    _run([str(PROJECT / "scripts/stack"), "base"])
    with tempfile.TemporaryDirectory(prefix="volback-context-") as directory:
        context = Path(directory)
        for name in _CONTEXT:
            shutil.copy(PROJECT / name, context)
        shutil.copytree(PROJECT / "volback", context / "volback", ignore=shutil.ignore_patterns("__pycache__"))
        _download_wheels(engine, context / "wheels")
        return _build(engine, context, tag)


@dataclass(frozen=True)
class Contained:
    """Runs volback in containers, with a volume of its own on /var/lib/volback, as root or as a user of the image."""

    engine: EngineSession
    image: str
    volume: str
    home: Path
    """The volume, on this side."""

    def __call__(self, *commands: str, check_exit: int | None = 0, **options: Any) -> Result:
        """Run `volback COMMAND` for each, one after the other, in one container; the first that fails ends it.

        Before them the repository is made, if it does not exist yet.
        """
        script = "\n".join(f"volback {command}" for command in ("--quiet init", *commands))
        container = self.start(entrypoint=["sh", "-ec", script], **options)
        try:
            exit_code = int(container.wait(timeout=300)["StatusCode"])
            result = Result(exit_code, *(container.logs(stdout=out, stderr=not out).decode() for out in (True, False)))
        finally:
            self.end(container)
        assert check_exit in (None, exit_code), f"{script}\nended with {exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, *commands: str, **options: Any) -> list[Any]:
        """The results of all commands."""
        text, found = self(*(f"--json {command}" for command in commands), **options).stdout.strip(), []
        while text:
            document, end = json.JSONDecoder().raw_decode(text)
            found.append(document["result"])
            text = text[end:].strip()
        return found

    def start(self, *arguments: str, root: bool = False, volumes: dict[str, str] | None = None, **options: Any) -> Any:
        """Start a container; without an entrypoint in `options` it is the image's. `end` it."""
        mounts = {str(engine_socket()): SOCKET, self.volume: HOME} if volumes is None else volumes
        who = {"user": "0"} if root else {"group_add": [str(engine_socket().stat().st_gid)]}
        options = {"labels": self.engine.labels, "network_mode": "none", **who, **options}
        binds = {name: {"bind": path, "mode": "rw"} for name, path in mounts.items()}
        return self.engine.client.containers.run(self.image, list(arguments), detach=True, volumes=binds, **options)

    def end(self, container: Any) -> None:
        """Remove it, and remember whose helpers it may have left."""
        remove_containers([container])
        path = self.home / "state/client-id"
        if path.is_file():
            self.engine.client_ids.add(path.read_text())


def _download_wheels(engine: EngineSession, directory: Path) -> None:
    """All that a build needs, for the base's Python, which may be another than this one."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    ask = ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = engine.client.containers.run(BASE, ask, remove=True, network_mode="none", labels=engine.labels)
    options = ["--only-binary=:all:", "--python-version", version.decode().strip(), "--dest", str(directory)]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *options, *wanted])


def _build(engine: EngineSession, context: Path, tag: str) -> list[str]:
    """Build by the engine's own builder, and return the ids of what it made on the way."""
    arguments = {"BASE": BASE, "PACKAGES": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "wheels"}
    try:
        _, log = engine.client.images.build(
            path=str(context), tag=tag, buildargs=arguments, network_mode="none", labels=engine.labels,
            rm=True, forcerm=True,
        )  # fmt: skip
    except docker.errors.BuildError as exc:
        said = "".join(line.get("stream", "") for line in exc.build_log)
        raise RuntimeError(f"the Dockerfile does not build: {exc}\n{said}") from exc
    return re.findall(r"^ ---> ([0-9a-f]{12})$", "".join(line.get("stream", "") for line in log), re.MULTILINE)


def _remove_image(engine: EngineSession, image: str) -> None:
    """The base, which others use, has names: only by these could it be removed."""
    try:
        if image.startswith("volback-test-program:") or not engine.client.images.get(image).tags:
            engine.client.images.remove(image)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as exc:
        if exc.status_code != 409:  # 409: another build stands on it
            raise


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {done.stderr[-3000:]}")
