"""A proxy before the engine, on a unix socket, that notes each call and refuses those that no rule allows.

What it lets through reaches the real engine as it is, attach connections included. One request a connection, and those
that leave HTTP until one side closes.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from tests.support.engine import engine_socket
from tests.support.proxy import closing, read_head
from tests.support.remote import pump

_REFUSAL = b'{"message":"the proxy does not allow this"}'
_REFUSED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_REFUSAL), _REFUSAL)
)

Rule = tuple[str, str]
"""A method, and a regular expression that the whole path has to match."""


class ApiProxy:
    """Listens on `path` and forwards to the engine's socket; a context manager."""

    def __init__(
        self,
        path: Path,
        rules: Iterable[Rule] | None = None,
        engine: Path | None = None,
        *,
        own_answers: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """Without `rules` all is allowed. `engine` is a socket; None: that of the tests' engine.

        `own_answers` are JSON by the end of a path, as an engine of another version gives them, or a whole response;
        None: it never answers.
        """
        self._own_answers = own_answers or {}
        self._silenced = threading.Event()
        self.path = path
        self.used: set[Rule] = set()
        """Rules that let something through."""
        self.refused: list[str] = []
        self.calls: set[str] = set()
        self._rules = None if rules is None else list(rules)
        self._engine = str(engine or engine_socket())
        self._listener = socket.socket(socket.AF_UNIX)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def __enter__(self) -> ApiProxy:
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._silenced.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.path.unlink()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, rest = read_head(client)
            if not head:
                return
            method, target = head.split(b" ", 2)[:2]
            if not self._allows(method.decode(), unquote(target.decode().partition("?")[0])):
                client.sendall(_REFUSED)
                return
            if self._answers_itself(client, target.decode().partition("?")[0]):
                return
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(self._engine)
                upgrades = b"\r\nupgrade:" in head.lower()
                server.sendall((head if upgrades else closing(head)) + rest)
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                pump(server, client)

    def _answers_itself(self, client: socket.socket, path: str) -> bool:
        for end, answer in self._own_answers.items():
            if path.endswith(end):
                if answer is None:
                    self._silenced.wait(60)
                elif answer.startswith(b"HTTP/"):
                    client.sendall(answer)
                else:
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
                return True
        return False

    def _allows(self, method: str, path: str) -> bool:
        self.calls.add(f"{method} {re.sub(r'^/v1[.][0-9]+/', '/', path)}")
        if self._rules is None:
            return True
        matching = [rule for rule in self._rules if rule[0] == method and re.fullmatch(rule[1], path)]
        self.used.update(matching)
        if not matching:
            self.refused.append(f"{method} {path}")
        return bool(matching)
