"""The databases of compose.test.yaml, a load that writes to them all the time, and checks that they are whole.

The load keeps, on the client's side, which entries were acknowledged and when: these must be in a backup that was made
later. It outlives lost connections, as the servers are stopped and paused under it.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.support.engine import PROJECT, EngineSession, remove_containers, said_in
from tests.support.ports import free_ports

SERVICES = ("postgres", "redis", "mariadb")
PUBLISHED = ("postgres", "redis")
"""The services with a port on this machine."""
POSTGRES, REDIS, MARIADB = "volback-test-postgres:15", "volback-test-redis:7", "volback-test-mariadb:10"
READY = {
    POSTGRES: b"database system is ready to accept connections",
    REDIS: b"Ready to accept connections",
    MARIADB: b"ready for connections",
}
"""What a server writes once it serves: to read that costs nothing, while each question by `exec` takes a process of the
engine as long as a container's start."""
START_S = 120
PAUSE_S = 0.008
"""Between the entries of one writer: the load is there to write without end, not to fill the machine."""
Write = Callable[[int], None]


def make_images() -> None:
    """Make the images, where they are not there yet: see scripts/stack."""
    done = subprocess.run(
        [PROJECT / "scripts/stack", "images"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Compose:
    """A project of compose.test.yaml with a name, ports and a label of its own."""

    engine: EngineSession
    project: str
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(PUBLISHED, free_ports(2), strict=True)))

    def __call__(self, *arguments: str, override: Path | None = None) -> None:
        """Run docker-compose; `override` is a second file that changes services."""
        environment = {f"VOLBACK_TEST_{service.upper()}_PORT": str(port) for service, port in self.ports.items()}
        files = [file for path in (PROJECT / "compose.test.yaml", override) if path for file in ("-f", str(path))]
        done = subprocess.run(
            ["docker-compose", "--project-name", self.project, *files, *arguments],
            env={**os.environ, **environment, "VOLBACK_TEST_SESSION": self.engine.id},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def up(self, *services: str, override: Path | None = None) -> None:
        """Start the services, or bring them to what `override` says, and wait until they serve."""
        self("up", "--detach", *services, override=override)
        for service in services:
            container = self.container(service)
            wait_until(partial(_serves, container, container.attrs["Config"]["Image"]), service)

    def container(self, service: str) -> Any:
        """The service's container as it is now."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (found,) = self.engine.client.containers.list(all=True, ignore_removed=True, filters={"label": labels})
        return found

    def volume(self, service: str) -> str:
        return f"{self.project}_{service}"


@contextmanager
def compose_project(engine: EngineSession, *services: str) -> Iterator[Compose]:
    """These servers run and serve inside; after, nothing of the project is left."""
    compose = Compose(engine, engine.new_name("compose"))
    try:
        compose.up(*services)
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "1")


class Acknowledged(NamedTuple):
    """An entry that a server said to have kept, and when (the client's clock, which is also the engine's)."""

    entry: int
    at_ns: int


class Load:
    """Writers that write entry after entry until they are stopped; a context manager."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Write]], writers: int = 2) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.connections = 0
        self._connect = connect
        self._count = writers
        self._turns = threading.BoundedSemaphore(writers)
        self._numbers = itertools.count(1)
        self._ending = threading.Event()
        self._writers = [threading.Thread(target=self._write, daemon=True) for _ in range(writers)]

    def __enter__(self) -> Load:
        for writer in self._writers:
            writer.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for writer in self._writers:
            writer.join(START_S)
        assert not any(writer.is_alive() for writer in self._writers), "a writer hangs"

    def wait_for_more(self, entries: int = 200) -> None:
        """Return when so many more were acknowledged: the server runs, and is at work."""
        enough = len(self.acknowledged) + entries
        wait_until(lambda: len(self.acknowledged) >= enough, f"{entries} more entries")

    def before(self, time_ns: int) -> set[int]:
        """The entries that were acknowledged before a time."""
        return {entry for entry, at_ns in list(self.acknowledged) if at_ns < time_ns}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is written inside; connections stay open."""
        with ExitStack() as turns:
            for _ in range(self._count):
                turns.enter_context(self._turns)
            yield

    def _write(self) -> None:
        while not self._ending.is_set():
            try:
                with self._connect() as write:
                    self.connections += 1
                    while not self._ending.is_set():
                        with self._turns:
                            entry = next(self._numbers)
                            write(entry)
                            self.acknowledged.append(Acknowledged(entry, time.time_ns()))
                        time.sleep(PAUSE_S)
            except (OSError, psycopg.Error):  # stopped under it: whether the last entry was kept is not known
                self._ending.wait(0.05)


def postgres_load(port: int) -> Load:
    """Each entry is a transaction over two tables, so that half of one is noticed."""
    where = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5"
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("CREATE TABLE entry (id bigint PRIMARY KEY, content text); CREATE INDEX ON entry (content)")
        connection.execute("CREATE TABLE total (entries bigint); INSERT INTO total VALUES (0)")
        connection.execute("CREATE TABLE bulk AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")

    @contextmanager
    def connect() -> Iterator[Write]:
        with psycopg.connect(where, autocommit=True) as connection:
            yield lambda entry: _insert(connection, entry)

    return Load(connect)


def _insert(connection: psycopg.Connection[Any], entry: int) -> None:
    insert = "INSERT INTO entry VALUES (%s, repeat(md5(%s::text), 20))"
    connection.execute(f"WITH added AS ({insert}) UPDATE total SET entries = entries + 1", (entry, entry))


def redis_load(port: int) -> Load:
    """Redis's own protocol, in its inline form: a line each way."""

    @contextmanager
    def connect() -> Iterator[Write]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, connection.makefile("rb") as said:

            def write(entry: int) -> None:
                connection.sendall(b"SET entry:%d %s\r\n" % (entry, b"%d," % entry * 50))
                reply = said.readline()
                if reply != b"+OK\r\n":
                    raise ConnectionError(f"Redis said {reply!r}")

            yield write

    return Load(connect)


@contextmanager
def served(engine: EngineSession, image: str, volume: str, path: str, *command: str) -> Iterator[Any]:
    """A new container of `image` on a volume, that serves inside."""
    container = engine.client.containers.run(
        image, list(command) or None, detach=True, labels=engine.labels, network_mode="none", shm_size="128m",
        volumes={volume: {"bind": path, "mode": "rw"}},
    )  # fmt: skip
    try:
        wait_until(partial(_serves, container, image), f"{image} on {volume}")
        yield container
    finally:
        remove_containers([container])


def said(container: Any, *command: str) -> str:
    """What a command in a container says; it has to succeed."""
    status, output = said_in(container, *command)
    text: str = output.decode()
    assert status == 0, f"{command} ended with {status}: {text[-3000:]}"
    return text


def checked(engine: EngineSession, image: str, volume: str, path: str, *command: str) -> str:
    """What a program of `image` says of a volume that no server has opened yet; it has to succeed."""
    output: bytes = engine.client.containers.run(
        image, list(command), remove=True, labels=engine.labels, network_mode="none",
        volumes={volume: {"bind": path, "mode": "rw"}}, stderr=True,
    )  # fmt: skip
    return output.decode()


def postgres_entries(container: Any) -> set[int]:
    """The entries that are there; each was added in one transaction with what the other table counts."""
    entries = {int(line) for line in _asked(container, "SELECT id FROM entry")}
    assert _asked(container, "SELECT entries FROM total") == [str(len(entries))]
    return entries


def assert_postgres_is_consistent(container: Any) -> None:
    """Every table and index is checked, and everything can be read."""
    said(
        container,
        "pg_amcheck",
        "--database=postgres",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "--rootdescend",
    )
    said(container, "pg_dumpall", "--no-sync", "--file=/dev/null")


def redis_entries(container: Any) -> set[int]:
    """The entries that are there, each with all of its value."""
    torn = "local n = 0 for _, key in ipairs(redis.call('keys', 'entry:*')) do local id = string.sub(key, 7) "
    torn += "if redis.call('get', key) ~= string.rep(id .. ',', 50) then n = n + 1 end end return n"
    assert said(container, "redis-cli", "--raw", "eval", torn, "0").split() == ["0"]
    return {int(key[6:]) for key in said(container, "redis-cli", "--raw", "keys", "entry:*").split()}


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = START_S) -> None:
    """Fails if the condition does not come true."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {limit_s:.0f} s"
        time.sleep(0.05)


def _asked(container: Any, query: str) -> list[str]:
    lines = said(container, "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", query)
    return re.findall(r"\S+", lines)


def _serves(container: Any, image: str) -> bool:
    """Of a new container, which has not served before."""
    container.reload()
    said: bytes = container.logs()
    assert container.status in {"created", "running", "restarting"}, said.decode()[-3000:]
    return READY[image] in said
