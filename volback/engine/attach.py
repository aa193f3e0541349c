"""Attach: the transport for an engine with another kernel - over ssh or TCP, or in a virtual machine.

A helper's standard streams over one raw attach connection, read in large buffers: 117-175 MB/s, where the
library's own generator gave 16-19. Same bytes as through `pipe`.

Neither TLS nor ssh can close one direction only, so the input marks its own end: chunks, each after a line with its
length, the last of length 0. One thread does everything: two threads must not use one TLS connection.
"""

from __future__ import annotations

import logging
import secrets
import select
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from volback.engine.helper import BUFFER_BYTES, WRITE_LIMIT_S, Helper
from volback.engine.raw import BROKEN, STDOUT, WOULD_BLOCK, Wire, upgrade
from volback.engine.streams import HelperStreams, Place, ReadCommands, WriteCommands, no_action, read_look
from volback.errors import EngineUnreachable

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024
_BROKEN_LIMIT_S = 10.0
"""How long after its last byte a reading helper may take to end."""

# `read` takes no byte beyond its line, head none beyond its count. 255: the input was cut off.
_CHUNKS = 'n=1; while [ "$n" != 0 ]; do read -r n && head -c "$n" || exit 255; done'


class Attachment(HelperStreams):
    """A helper with its streams attached; a context manager that removes it."""

    def __init__(self, place: Place, script: str, *, write: bool, look: str | None = None) -> None:
        """`look` is a script that runs first. Then it waits for a line: nothing else is in what it says."""
        self._token = secrets.token_hex(16).encode()
        self._has_look = look is not None
        if look is not None:
            script = f"{{ {look}; printf %s {self._token.decode()}; }} >&2; read -r line || exit 255; {script}"
        self._client = place.client
        self._helper = Helper(place.client, place.spec(script=script, write=write, stdin=True), self.messages)
        self._messages = bytearray()
        self._wire: _Wire | None = None

    def look(self) -> tuple[int, bytes]:
        """See VolumeWriter. All of it is on standard error."""
        for pieces in self.receive():
            deque(pieces, maxlen=0)
            if self._messages.endswith(self._token):
                break
        said, token, _ = bytes(self._messages).rpartition(self._token)
        found = read_look(self._helper, said if token else b"")
        self._messages.clear()
        return found

    def _go_on(self) -> None:
        """Let it do what comes after the look, if there was one."""
        if self._has_look:
            self._transmit(b"go on\n")

    def receive(self) -> Iterator[Iterator[memoryview]]:
        """Yield standard output as it arrives, in groups of pieces; keep standard error.

        A group must be used before the next one is requested; after that it is not valid.
        """
        assert self._wire is not None
        while received := self._wire.receive():
            yield self._stdout_of(received)

    def send(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Send all buffers in chunks, and the end. Raises EngineError if the helper ends before it has read them."""
        for chunk in _chunks(buffers):
            self._transmit(chunk)

    def settle(self, *, limit_s: float) -> int:
        """Wait for the helper's end and return its exit status. Raises EngineError, EngineUnreachable."""
        return self._helper.settle(limit_s=limit_s)

    def messages(self) -> bytes:
        """What the helper's programs have written to standard error so far."""
        return bytes(self._messages)

    def check(self) -> None:
        """Raises EngineError if the helper has ended already."""
        self._helper.raise_if_ended("what it waits for")

    def _transmit(self, data: bytes | bytearray) -> None:
        assert self._wire is not None
        rest = memoryview(data)
        while rest:
            sent = self._wire.send(rest)
            if sent is None:
                self._hear()
            else:
                rest = rest[sent:]

    def _hear(self) -> None:
        """Receive the helper's output while its input is sent; it must not end now."""
        assert self._wire is not None
        received = self._wire.receive_at_once()
        if received is None:
            return
        if not received:
            raise self._helper.ended_early("stopped reading")
        for piece in self._stdout_of(received):
            self._messages += piece

    def _stdout_of(self, received: memoryview) -> Iterator[memoryview]:
        assert self._wire is not None
        for stream, piece in self._wire.demultiplex(received):
            if stream == STDOUT:
                yield piece
            else:
                self._messages += piece

    def _open(self) -> None:
        container = self._helper.create()
        self._wire = _Wire(self._client, container, self._helper)
        self._helper.start()

    def _close(self, *, failed: bool) -> None:
        """Close the connection first: an engine does not remove a container whose output it still has to deliver."""
        try:
            if self._wire is not None:
                self._wire.close()
        finally:
            self._helper.close(failed=failed)


class AttachReader(Attachment):
    """Scan and read in one container. After the scan nothing comes before the names are there: so the scan's end
    is a random token at the end of what has been received so far, and no byte has to be looked at for it. Both
    outputs end with it: an engine copies each in a thread of its own, so a scan's errors may come after its end."""

    def __init__(self, place: Place, commands: ReadCommands) -> None:
        self._is_report = commands.is_report
        self._scanned = secrets.token_hex(16).encode()
        self._is_scanned = False
        token = f"printf %s {self._scanned.decode()}"
        scan = (
            f"{{ {shlex.join(commands.scan)}; [ $? -le 1 ] && printf %s {shlex.quote(commands.scan_end)}; }}; "
            f"{token}; {token} >&2; "
        )
        again = f"read -r line || exit 255; {scan}" if commands.rescan else ""
        super().__init__(
            place,
            f"{scan}{again}{{ {_CHUNKS}; }} >/tmp/names; "
            f"exec {shlex.join([*commands.read, *commands.on_wire])} --files-from=/tmp/names --file=-",
            write=False,
            look=commands.look_script,
        )

    def messages(self) -> bytes:
        """See VolumeReader."""
        return super().messages().removesuffix(self._scanned)

    def scan(self) -> Iterator[bytes | bytearray]:
        """See VolumeReader."""
        if self._is_scanned:
            self._messages.clear()
            self._transmit(b"again\n")
        else:
            self._go_on()
        self._is_scanned = True
        pending = bytearray()
        for pieces in self.receive():
            for piece in pieces:
                pending += piece
            if pending.endswith(self._scanned) and self._messages.endswith(self._scanned):
                del self._messages[-len(self._scanned) :]
                yield pending[: -len(self._scanned)]
                return
            if len(pending) >= BUFFER_BYTES:
                yield pending[: -len(self._scanned)]
                pending = pending[-len(self._scanned) :]
        raise self._helper.ended_early("ended before the end of its scan")

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = no_action) -> Iterator[bytes | bytearray]:
        """See VolumeReader. The end mark of a tar stream also shows that it is complete."""
        self.send(names)
        if self._is_report:
            yield from map(bytes, chain.from_iterable(self.receive()))
            at_end()
            self.settle(limit_s=_BROKEN_LIMIT_S)
            return
        out, size = bytearray(BUFFER_BYTES), 0
        for piece in chain.from_iterable(self.receive()):
            at = 0
            while at < len(piece):
                taken = min(len(piece) - at, BUFFER_BYTES - size)
                out[size : size + taken] = piece[at : at + taken]
                at, size = at + taken, size + taken
                if size == BUFFER_BYTES:
                    yield out
                    out, size = bytearray(BUFFER_BYTES), 0
        at_end()
        self.settle(limit_s=_BROKEN_LIMIT_S)
        if size:
            yield out[:size]


class AttachWriter(Attachment):
    """Runs one command in a container that has the target mounted writable, and gives it a stream."""

    is_wire = True

    def __init__(self, place: Place, commands: WriteCommands) -> None:
        super().__init__(
            place,
            f"{{ {_CHUNKS}; }} | {shlex.join(commands.on_wire or commands.write)} >&2",
            write=True,
            look=commands.look_script,
        )

    def write(self, buffers: Iterable[bytes | memoryview]) -> int:
        """See VolumeWriter."""
        self._go_on()
        self.send(buffers)
        for piece in chain.from_iterable(self.receive()):
            self._messages += piece
        return self.settle(limit_s=WRITE_LIMIT_S)


class _Wire(Wire):
    """The attach connection of a helper; attached before the start, so that no byte is missed."""

    def __init__(self, client: Any, container: str, helper: Helper) -> None:
        streams = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
        super().__init__(upgrade(client, f"containers/{container}/attach", helper.what, params=streams), helper.what)
        self._helper = helper
        self._silence_limit_s = client.timeout

    def receive(self) -> memoryview:
        """Wait for data and return it; empty at the end. Raises EngineUnreachable."""
        while (received := self.receive_at_once()) is None:
            self._wait(select.POLLIN)
        return received

    def send(self, data: memoryview) -> int | None:
        """Send a part of `data` and return its size; None after waiting, if there may be data to receive first."""
        try:
            return int(self.socket.send(data))
        except WOULD_BLOCK:
            self._wait(select.POLLIN | select.POLLOUT)
            return None
        except BROKEN as exc:
            raise self._helper.ended_early("stopped reading") from exc

    def _wait(self, event: int) -> None:
        """Wait for the socket; while no data arrives, check from time to time whether the engine still answers."""
        while not self.is_ready(event, self._silence_limit_s):
            if self._helper.has_ended():
                raise EngineUnreachable(f"{self._helper.what}: the connection does not end")
            self._helper.check_engine()


def _chunks(buffers: Iterable[bytes | memoryview]) -> Iterator[bytes | bytearray]:
    """Gather small buffers, because each chunk costs a process in the helper; a line with the size precedes it."""
    gathered = bytearray()
    for buffer in buffers:
        gathered += buffer
        if len(gathered) >= _CHUNK_BYTES:
            yield b"%d\n" % len(gathered)
            yield gathered
            gathered = bytearray()
    if gathered:
        yield b"%d\n" % len(gathered)
        yield gathered
    yield b"0\n"
