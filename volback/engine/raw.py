"""Raw: connections that leave HTTP (attaching to a container, starting a command in one), and the engine's framing.

Non-blocking, and used by one thread: two threads must not use one TLS connection.
"""

from __future__ import annotations

import select
import ssl
import struct
from collections.abc import Iterator
from typing import Any

from volback.engine.connect import translated
from volback.errors import EngineError, EngineUnreachable

STDOUT, STDERR = 1, 2
BUFFER_BYTES = 1024 * 1024
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
BROKEN = (BrokenPipeError, ConnectionError, ssl.SSLError)

_HEADER = struct.Struct(">BxxxL")


def upgrade(client: Any, path: str, what: str, *, params: Any = None, body: Any = None) -> Any:
    """Post to `path` (below the API's version) and return the response once the engine has left HTTP.

    The library's own ways there have no time-out. Raises EngineError, EngineUnreachable.
    """
    with translated(what):
        response = client.post(
            f"{client.base_url}/v{client.api_version}/{path}",
            params=params,
            json=body,
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            stream=True,
            timeout=client.timeout,
        )
        if response.status_code != 101:
            raise EngineError(f"{what}: the engine does not attach: {response.status_code} {response.text.strip()}")
    return response


class Wire:
    """An upgraded connection, and the engine's framing of two streams on it."""

    def __init__(self, response: Any, what: str, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._what = what
        self._response = response
        self._connection = response.raw.connection
        self.socket = self._connection.sock
        self.socket.setblocking(False)
        self._early = _read_too_far(response)
        self._input = memoryview(bytearray(buffer_bytes))
        self._head = bytearray()
        self._stream = 0
        self._left = 0

    def receive_at_once(self) -> memoryview | None:
        """Return the data received; None if there is none, empty at the end. Not valid after the next call."""
        if self._early:
            early, self._early = memoryview(self._early), b""
            return early
        try:
            return self._input[: self.socket.recv_into(self._input)]
        except WOULD_BLOCK:
            return None
        except BROKEN as exc:
            raise EngineUnreachable(f"{self._what}: the connection broke: {exc}") from exc

    def demultiplex(self, received: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield (stream, piece). A frame is 8 bytes (stream, size), then data: Engine API, "Attach to a container"."""
        at, end = 0, len(received)
        while at < end:
            if not self._left:
                taken = min(_HEADER.size - len(self._head), end - at)
                self._head += received[at : at + taken]
                at += taken
                if len(self._head) == _HEADER.size:
                    self._stream, self._left = _HEADER.unpack(self._head)
                    self._head.clear()
                continue
            taken = min(self._left, end - at)
            piece = received[at : at + taken]
            at, self._left = at + taken, self._left - taken
            yield self._stream, piece

    def is_ready(self, event: int, limit_s: float) -> bool:
        """Wait until the socket is ready for `event` (of `select.poll`), for `limit_s` at most; whether it is."""
        poll = select.poll()
        poll.register(self.socket, event)
        return bool(poll.poll(limit_s * 1000))

    def close(self) -> None:
        """Close the connection itself first: the response would return it to the pool for the next call."""
        self._connection.close()
        self._response.close()


def _read_too_far(response: Any) -> bytes:
    """What http.client read beyond the head of its response: the first bytes of a stream that began at once."""
    try:
        return bytes(response.raw._fp.fp.peek())
    except WOULD_BLOCK:
        return b""
