"""A proxy between an S3 client and a server that harms requests and replies as planned, and counts what it harmed.

One request a connection: that keeps it simple, and makes every request a fresh one to harm.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Harm = Literal[
    "refuse", "cut-request", "cut-reply", "truncate", "delay", "status", "reply", "flip-request", "flip-reply"
]

_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Planned:
    """The `nth` request (from 1; None: each) is harmed whose first line holds all `words`, and its head `header`."""

    harm: Harm
    words: tuple[str, ...]
    nth: int | None = 1
    status: int = 503
    delay_s: float = 0.0
    header: str = ""
    reply: bytes = b""
    """With "reply", all that the server says: head and body; it says it without having done anything."""


class Proxy:
    """Listens on 127.0.0.1 and forwards to `server`; `hits` counts each fault of the plan."""

    def __init__(self, server: tuple[str, int], plan: Sequence[Planned]) -> None:
        self._server = server
        self._plan = tuple(plan)
        self._lock = threading.Lock()
        self._seen: Counter[int] = Counter()
        self._hits: Counter[int] = Counter()
        self._under_way = 0
        self.at_once = 0
        """The most requests that were under way at one moment."""
        self.heads: list[str] = []
        """Of all requests so far: the first line and the headers."""
        self._serving: list[tuple[socket.socket, threading.Thread]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def hits(self) -> list[int]:
        """How often each fault was hit, in the order of the plan."""
        with self._lock:
            return [self._hits[number] for number in range(len(self._plan))]

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serves inside; in the end its port is closed, and what was under way has reached the server or never will."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for client, thread in self._serving:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)  # a client that keeps an idle connection sends nothing more
                thread.join(_LIMIT_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                serving = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._serving.append((client, serving))
                serving.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head, body = _read_message(client)
            if not head:
                return
            fault = self._due(head.decode("latin-1"))
            with self._counted():
                self._harm(client, fault, head, body)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _due(self, head: str) -> Planned | None:
        line = head.partition("\r\n")[0]
        with self._lock:
            self.heads.append(head)
            for number, fault in enumerate(self._plan):
                if all(word in line for word in fault.words) and fault.header in head:
                    self._seen[number] += 1
                    if fault.nth in (None, self._seen[number]):
                        self._hits[number] += 1
                        return fault
        return None

    def _harm(self, client: socket.socket, fault: Planned | None, head: bytes, body: bytes) -> None:
        harm = fault.harm if fault else None
        if harm == "refuse":
            return
        if fault and harm == "status":
            client.sendall(f"HTTP/1.1 {fault.status} Harmed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        if fault and harm == "reply":
            client.sendall(fault.reply)
            return
        if fault and harm == "delay":
            time.sleep(fault.delay_s)
        body = _flipped(body) if harm == "flip-request" else body
        reply_head, reply_body = self._forward(head, body[: len(body) // 2] if harm == "cut-request" else body, harm)
        if harm in ("cut-request", "cut-reply"):
            return  # the server may have done it, and nobody hears of it
        reply_body = _flipped(reply_body) if harm == "flip-reply" else reply_body
        client.sendall(closing(reply_head))
        client.sendall(reply_body[: len(reply_body) // 2] if harm == "truncate" else reply_body)

    def _forward(self, head: bytes, body: bytes, harm: str | None) -> tuple[bytes, bytes]:
        with socket.create_connection(self._server, timeout=_LIMIT_S) as server:
            server.sendall(closing(head) + body)
            if harm == "cut-request" or _is_cut(head, body):
                return b"", b""  # a server that waits for the rest would wait for a minute
            return _read_message(server, is_head=head.startswith(b"HEAD"))


def _is_cut(head: bytes, body: bytes) -> bool:
    """Whether the client went away before it had sent all."""
    length = re.search(rb"\r\ncontent-length: *([0-9]+)\r\n", head, re.IGNORECASE)
    return length is not None and len(body) < int(length[1])


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :] if data else data


def closing(head: bytes) -> bytes:
    """A head that asks for, or tells of, the end of its connection."""
    lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def read_head(peer: socket.socket) -> tuple[bytes, bytes]:
    """The head of a message with its blank line, and what came behind it; nothing where it does not come whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = peer.recv(65536)
        if not block:
            return b"", b""
        data += block
    head, blank_line, rest = data.partition(b"\r\n\r\n")
    return head + blank_line, rest


def _read_message(peer: socket.socket, *, is_head: bool = False) -> tuple[bytes, bytes]:
    """The head and the body, as they came; a chunked body stays as it is."""
    head, rest = read_head(peer)
    if not head:
        return b"", b""
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
    body = bytearray(rest)
    length = 0 if is_head else int(headers.get(b"content-length", b"-1"))
    is_request = not head.startswith(b"HTTP/")
    while (len(body) < length) if length >= 0 else not is_request:
        block = peer.recv(1 << 20)
        if not block:
            break
        body += block
    return head, bytes(body)
