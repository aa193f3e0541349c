"""Contexts of the docker command, written by that command itself, below a DOCKER_CONFIG of the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.forked import clean_environment


class Contexts:
    """A configuration of the docker command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """With this alone, the current context says which engine is used."""
        return {"DOCKER_CONFIG": str(self.directory)}

    def create(self, name: str, host: str, *, certificates: Path | None = None, skip_verify: bool = False) -> None:
        """Create a context; `certificates` is a directory of ca.pem, cert.pem and key.pem."""
        endpoint = [f"host={host}"]
        if certificates is not None:
            endpoint += [f"{kind}={certificates / f'{kind}.pem'}" for kind in ("ca", "cert", "key")]
        endpoint += ["skip-tls-verify=true"] if skip_verify else []
        self._docker("context", "create", name, "--docker", ",".join(endpoint))

    def use(self, name: str) -> None:
        """Make it the current one."""
        self._docker("context", "use", name)

    def _docker(self, *arguments: str) -> None:
        environment = clean_environment() | self.environment
        environment.pop("DOCKER_HOST", None)
        environment.pop("DOCKER_CONTEXT", None)
        subprocess.run(["docker", *arguments], check=True, capture_output=True, env=environment)
