"""A second engine that looks like another host, and ways to reach it: its socket, TCP, ssh.

dockerd runs in mount, UTS and network namespaces of its own: without a bridge it would remove `docker0` of this side.
With a state directory of this side's on a filesystem that was mounted after its start, it does not see that directory:
like another machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shlex
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import docker

from tests.support.ports import free_port

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

_DOCKERD = """
hostname {name}; ip link set lo up; {prelude}
mkdir -p /etc/docker; mount --bind {directory}/etc /etc/docker
[ ! -e {directory}/ids ] || for file in /etc/subuid /etc/subgid; do mount --bind {directory}/ids $file; done
exec {environment} dockerd --data-root {directory}/root --exec-root {directory}/exec --pidfile {directory}/docker.pid \
  --iptables=false --bridge=none -H unix://{directory}/docker.sock {options}
"""

_OF_PACKAGES = """sh -c 'mount --bind "{packages}/usr" /usr && exec "$@"' sh"""
"""From there on the programs of this machine are gone, so it comes last."""


@dataclass
class SecondEngine:
    """A second engine; it can be stopped, and started again on the same data."""

    directory: Path
    name: str
    options: Sequence[str] = ()
    """More options of dockerd."""
    enter: Sequence[str] = ()
    """The command that starts it, where it is to run in another user namespace."""
    prelude: str = ":"
    """Commands before it is started."""
    environment: str = ""
    """The command that runs it with an environment of its own."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError if it does not."""
        script = _DOCKERD.format(
            name=self.name, directory=self.directory, options=shlex.join(self.options), prelude=self.prelude,
            environment=self.environment,
        )  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.enter, "unshare", "--mount", "--net", "--uts", "--propagation", "private", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: _answers(self), f"second engine: see {self.directory}/log")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal and wait for its end; after SIGKILL its containers live on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None
            # Its containerd dies with it, and where nobody reaps orphans the next dockerd takes the zombie for alive.
            (self.directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=60)

    def volume_path(self, volume: str) -> Path:
        """Where a volume lies, seen from this side: the data directory itself is shared."""
        with contextlib.closing(self.client()) as client:
            return Path(client.volumes.get(volume).attrs["Mountpoint"])

    def inside(self, *command: str | Path) -> None:
        """Run a command in the engine's mount namespace."""
        subprocess.run(["nsenter", "--mount", "--target", str(self.pid), "--", *command], check=True)


@contextmanager
def namespaced_engine() -> Iterator[SecondEngine]:
    """A second engine whose containers run in a user namespace with 65536 ids, as `--userns-remap` makes it."""
    with tempfile.TemporaryDirectory(prefix="volback-second-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)  # root of that namespace is somebody else here
        (directory / "ids").write_text("nobody:200000:65536\nnogroup:200000:65536\n")
        with dockerd(directory, ["--userns-remap=nobody:nogroup"]) as engine:
            yield engine


@contextmanager
def second_engine(options: Sequence[str] = (), *, is_machines: bool = False) -> Iterator[SecondEngine]:
    """Start it, wait until it answers, and end it and what it started.

    Beside an engine that `scripts/engine run` has started it is one of the same packages, or of this machine's.
    """
    packages = None if is_machines else os.environ.get("VOLBACK_TEST_PACKAGES")
    environment = _OF_PACKAGES.format(packages=packages) if packages else ""
    with (
        tempfile.TemporaryDirectory(prefix="volback-second-", ignore_cleanup_errors=True) as directory,
        dockerd(Path(directory), options, environment=environment) as engine,
    ):
        yield engine


@contextmanager
def dockerd(directory: Path, options: Sequence[str], **more: Any) -> Iterator[SecondEngine]:
    """Run a second engine that keeps all in a directory; `more`: fields of it."""
    name = f"second-{secrets.token_hex(3)}"
    for part in ("root", "exec", "etc"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    engine = SecondEngine(directory, name, options, **more)
    try:
        engine.start()
        yield engine
    finally:
        if engine.process is None:
            engine.start()  # containers that outlived it must go too
        _remove_all(engine)
        engine.stop()
        _end_shims(directory)
        unmount_below(directory)


@contextmanager
def own_filesystem(path: Path) -> Iterator[Path]:
    """A small filesystem mounted on `path` on this side only: engines that run already do not see it."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


class Relay:
    """Connections to a port of the loopback end at a second engine, until they are cut."""

    def __init__(self, engine: SecondEngine, *, port: int | None = None, resets: bool = False) -> None:
        """They end at its socket, or at a port of its own loopback. `resets`: a cut tells both ends nothing but RST."""
        self._engine = engine
        self._port = port
        self._resets = resets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._thread.join(10)
        self.cut()

    def refuse(self) -> None:
        """Take no further connection."""
        with contextlib.suppress(OSError):  # it does not already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Break every connection that is open now."""
        for end in self._open:
            with contextlib.suppress(OSError):
                if self._resets:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD if self._resets else socket.SHUT_RDWR)  # it wakes who reads from it
            end.close()
        self._open.clear()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                theirs, _ = self._listener.accept()
                ours = self._connected()
                self._open += [theirs, ours]
                for ends, to_engine in (((theirs, ours), True), ((ours, theirs), False)):
                    threading.Thread(target=self._pump, args=(*ends, to_engine), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_engine: bool) -> None:
        pump(source, target)

    def _connected(self) -> socket.socket:
        if self._port is not None:
            return _connected_inside(self._engine.pid, self._port)
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(str(self._engine.directory / "docker.sock"))
        return ours


def _connected_inside(pid: int, port: int) -> socket.socket:
    """Return a connection to a port of the loopback in the network namespace of a process."""
    with ThreadPoolExecutor(1) as executor:  # the thread stays there until it ends; a socket is of where it was made
        return executor.submit(_connected_after_moving, pid, port).result()


def _connected_after_moving(pid: int, port: int) -> socket.socket:
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    return socket.create_connection(("127.0.0.1", port))


@contextmanager
def ssh_server(directory: Path, engine: SecondEngine) -> Iterator[tuple[str, Path]]:
    """Start sshd on the loopback, whose docker command goes to `engine`; give the URL and a directory for PATH.

    The directory holds an `ssh` that uses a configuration of the test's own.
    """
    port = free_port()
    _write_ssh_files(directory, port, engine)
    Path("/run/sshd").mkdir(exist_ok=True)
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", directory / "sshd_config"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(lambda: _listens(port), f"sshd: see {directory}/sshd.log")
        yield f"ssh://root@127.0.0.1:{port}", directory / "bin"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], bool], what: str, *, limit_s: float = 120.0) -> None:
    """Raises RuntimeError if the condition does not come true."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {limit_s:.0f} s")
        time.sleep(0.05)


def unmount_below(directory: Path) -> None:
    """Unmount what was left mounted on this side below `directory`."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)


def _write_ssh_files(directory: Path, port: int, engine: SecondEngine) -> None:
    (directory / "bin").mkdir(parents=True)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / key], check=True)
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/user.pub\nPermitRootLogin yes\nMaxSessions 100\nMaxStartups 100\n"
        f"SetEnv DOCKER_HOST={engine.url}\n"
    )
    (directory / "ssh_config").write_text(
        f"Host *\n  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n  LogLevel ERROR\n"
    )
    wrapper = directory / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {directory}/ssh_config "$@"\n')
    wrapper.chmod(0o755)


def _answers(engine: SecondEngine) -> bool:
    try:
        with contextlib.closing(engine.client()) as client:
            return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False


def _remove_all(engine: SecondEngine) -> None:
    """Its containers die with it only if they are removed: their shims are processes of their own."""
    if not _answers(engine):
        return
    with contextlib.closing(engine.client()) as client:
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True)


def _end_shims(directory: Path) -> None:
    """End what a killed engine has left: such a process keeps all mounts of its time, and so their filesystems."""
    address = str(directory / "exec/containerd/containerd.sock").encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if address in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def pump(
    source: socket.socket, target: socket.socket, *, most: int = 256 * 1024, may_pass: Callable[[int], bool] = bool
) -> None:
    """One direction, in pieces of at most so many bytes, until one may not pass.

    Where the target is gone, the source hears it: else it would wait for a reader without end.
    """
    try:
        while data := source.recv(most):
            if not may_pass(len(data)):
                return
            target.sendall(data)
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
