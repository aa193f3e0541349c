"""Ssh: HTTP to an engine through `ssh HOST docker system dial-stdio`, as the docker command does it.

The library's own way needs paramiko, appends `:22` over what the ssh configuration says, and reads from a pipe without
a time-out. Here ssh gets one end of a socket pair: so time-outs and attached streams work as on any socket.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

import docker.constants
import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from volback.engine.client import Client

BASE_URL = "http://docker.ssh:80"


def ssh_client(url: str, *, timeout_s: float) -> Any:
    """Return a client for `ssh://[USER@]HOST[:PORT]`, of the newest API that engine and library both speak.

    Raises what requests and OSError raise; their message contains ssh's message.
    """
    adapter = _Adapter(command(url, timeout_s=timeout_s))  # shared: a connection is an ssh login
    first = _client(adapter, timeout_s, docker.constants.MINIMUM_DOCKER_API_VERSION)
    client = _client(adapter, timeout_s, str(first.version()["ApiVersion"]))
    client.greeting = first.greeting
    return client


def command(url: str, *, timeout_s: float) -> list[str]:
    """The ssh command for an engine's URL."""
    parts: SplitResult = urlsplit(url)
    words = ["ssh", "-T", "-o", f"ConnectTimeout={max(1, round(timeout_s))}"]
    words += ["-l", parts.username] if parts.username else []
    words += ["-p", str(parts.port)] if parts.port is not None else []
    socket_path = ["--host", f"unix://{parts.path}"] if parts.path not in ("", "/") else []
    return [*words, "--", str(parts.hostname), "docker", *socket_path, "system", "dial-stdio"]


def _client(adapter: requests.adapters.HTTPAdapter, timeout_s: float, version: str) -> Client:
    client = Client(base_url=BASE_URL, version=version, timeout=timeout_s)
    client.trust_env = False  # a proxy of the environment does not apply to this connection
    client.mount(BASE_URL, adapter)
    return client


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, words: list[str]) -> None:
        self._pool = _Pool(words)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, words: list[str]) -> None:
        super().__init__("docker.ssh", maxsize=10)
        self._words = words

    def _new_conn(self) -> Any:
        return _Connection(self._words)


class _Connection(urllib3.connection.HTTPConnection):
    """One ssh process; its end shows as the socket's end, and its message becomes the error."""

    def __init__(self, words: list[str]) -> None:
        super().__init__("docker.ssh")
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._last_message = ""

    def connect(self) -> None:
        ours, theirs = socket.socketpair()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        with theirs:
            # its own session: an interrupt from the terminal is for volback, which needs the engine to clean up
            try:
                self._process = subprocess.Popen(
                    self._words,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._messages,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise OSError("the program ssh is not installed on this machine") from None
        ours.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
        self.sock = ours

    def getresponse(self) -> Any:
        try:
            return super().getresponse()
        except TimeoutError:
            raise
        except OSError as exc:
            self.close()
            raise OSError(self._last_message or str(exc)) from None

    def close(self) -> None:
        super().close()
        process, messages = self._process, self._messages
        if process is None or messages is None:
            return
        self._process = self._messages = None
        process.kill()
        process.wait()
        with messages:
            messages.seek(0)
            lines = messages.read().decode(errors="backslashreplace").strip().splitlines()
        self._last_message = lines[-1] if lines else ""
