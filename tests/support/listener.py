"""An HTTP server on loopback that keeps what it is sent, and answers as requested: well, badly, slowly, never."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.support.ports import free_port

Manner = Literal["answer", "hang", "drip", "close"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One request."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


@dataclass
class Listener:
    """What came in, and how it is answered; `statuses` are used up one by one, the last one stays."""

    statuses: list[int] = field(default_factory=lambda: [200])
    manner: Manner = "answer"
    heard: list[Heard] = field(default_factory=list)
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def status(self) -> int:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def listening(*statuses: int, manner: Manner = "answer") -> Iterator[Listener]:
    """Serve inside; whoever still waits for an answer at the end is let go."""
    listener = Listener(list(statuses) or [200], manner)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            listener.heard.append(Heard(self.command, self.path, body, dict(self.headers)))
            if listener.manner == "hang":
                listener.released.wait(60)
            if listener.manner == "drip":
                while not listener.released.wait(0.1):
                    self.wfile.write(b"H")
                    self.wfile.flush()
            if listener.manner == "answer":
                self.send_response(listener.status())
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        do_POST = do_PUT = do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    listener.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield listener
    finally:
        listener.released.set()
        server.shutdown()
        server.server_close()


def dead_address() -> str:
    """An address of loopback where nobody listens."""
    return f"127.0.0.1:{free_port()}"
