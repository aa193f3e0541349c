"""Something that is not an engine, or a broken one: one clear line, exit code 8, in time."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.listener import dead_address
from volback.engine.connect import connect
from volback.errors import EngineUnreachable

VERSION = b'{"Version":"1","ApiVersion":"1.41"}'


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWERS = {
    "closes at once": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{",
    "no JSON": _ok(b"<html>welcome</html>"),
    "JSON of another service": _ok(b'{"hello":"world"}'),
    "a list": _ok(b"[]"),
    "a version of no engine": _ok(b'{"ApiVersion":"new"}'),
    "an engine's version, and no more": _ok(VERSION),
    "server error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes | None], str]]:
    """Serves a unix socket that answers every request with the same bytes; None is never."""
    listeners: list[socket.socket] = []

    def start(answer: bytes | None) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "engine.sock"))
        listener.listen()
        listeners.append(listener)
        threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
        return f"unix://{tmp_path}/engine.sock"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, answer: bytes | None) -> None:
    kept: list[socket.socket] = []
    with contextlib.suppress(OSError):  # closed: the test is over
        while True:
            connection, _ = listener.accept()
            kept.append(connection)
            if answer is not None:
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()


def _refused(run_volback: Volback, url: str, **environment: str) -> str:
    result = run_volback("--host", url, "volumes", env=environment, check_exit=8)
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[1].lstrip().startswith("hint:")
    assert url in lines[0]
    return lines[0]


@pytest.mark.parametrize("name", ANSWERS)
def test_garbage_is_one_clear_line(serve: Callable[[bytes | None], str], run_volback: Volback, name: str) -> None:
    _refused(run_volback, serve(ANSWERS[name]))


def test_an_engine_that_never_answers_is_given_up_in_time(
    serve: Callable[[bytes | None], str], run_volback: Volback
) -> None:
    url = serve(None)
    started = time.monotonic()
    line = _refused(run_volback, url, VOLBACK_ENGINE_TIMEOUT="1")
    assert time.monotonic() - started < 30
    assert "answer" in line


def test_no_socket_is_one_clear_line(run_volback: Volback, tmp_path: Path) -> None:
    assert "No such file or directory" in _refused(run_volback, f"unix://{tmp_path}/none.sock")


def test_a_port_that_nobody_listens_on_is_one_clear_line(run_volback: Volback) -> None:
    assert "refused" in _refused(run_volback, f"tcp://{dead_address()}")


def test_ssh_that_fails_says_why(run_volback: Volback) -> None:
    assert "refused" in _refused(run_volback, f"ssh://{dead_address()}")


def test_ssh_to_a_host_that_never_answers_is_given_up_in_time(run_volback: Volback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        _refused(run_volback, f"ssh://127.0.0.1:{server.getsockname()[1]}", VOLBACK_ENGINE_TIMEOUT="1")
        assert time.monotonic() - started < 30


@pytest.mark.root
def test_no_permission_on_the_socket_says_what_to_do() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "engine.sock"
        path.parent.chmod(0o755)
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(EngineUnreachable, match="Permission denied") as caught:
                connect(f"unix://{path}", timeout_s=5)
        finally:
            os.seteuid(0)
    assert caught.value.hint == "run as root, or as a user of the group docker"
