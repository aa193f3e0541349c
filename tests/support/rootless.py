"""A second engine that is rootless, without RootlessKit, which would need packages of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.remote import SecondEngine, dockerd, wait_for

_USER = 300_000


@contextmanager
def rootless_engine() -> Iterator[SecondEngine]:
    """A second engine that runs as a user without rights here: root of a user namespace, as RootlessKit makes it."""
    with tempfile.TemporaryDirectory(prefix="volback-second-", ignore_cleanup_errors=True) as name, _user() as user:
        directory = Path(name)
        Path("/etc/docker").mkdir(exist_ok=True)
        for part in ("bin", "root", "exec", "etc"):
            (directory / part).mkdir()
        for path in (directory, *directory.iterdir()):
            os.chown(path, _USER, _USER)
        directory.chmod(0o711)
        (directory / "bin" / "rootlesskit-docker-proxy").symlink_to("/bin/true")  # dockerd looks for it, and needs none
        places = {"ROOTLESSKIT_STATE_DIR": "exec", "XDG_RUNTIME_DIR": "exec", "HOME": "root"}
        words = [f"{key}={directory / part}" for key, part in places.items()]
        options = ["--rootless", "--userland-proxy=false"]
        environment = f"env {' '.join(words)} PATH={directory}/bin:$PATH"
        enter = ["nsenter", "--user", "--target", str(user)]
        with dockerd(
            directory, options, enter=enter, prelude="mount -t tmpfs tmpfs /run", environment=environment
        ) as engine:
            yield engine


@contextmanager
def _user() -> Iterator[int]:
    """A process in a user namespace of its own, whose root is `_USER` here."""
    mine = Path("/proc/self/ns/user").readlink()
    with subprocess.Popen(["unshare", "--user", "sleep", "infinity"]) as process:
        try:
            its = Path(f"/proc/{process.pid}")
            wait_for(lambda: (its / "ns/user").readlink() != mine, "a user namespace")
            for kind in ("uid_map", "gid_map"):
                (its / kind).write_text(f"0 {_USER} 65536\n")
            yield process.pid
        finally:
            process.kill()
