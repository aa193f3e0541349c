"""A mail server on loopback that keeps what it is sent."""

from __future__ import annotations

import asyncio
import email
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from aiosmtpd.smtp import SMTP


@dataclass
class Mails:
    """Where the server listens, and the mails that came in."""

    address: str = ""
    received: list[Message] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.append(email.message_from_bytes(envelope.content))
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[Mails]:
    """Serve inside."""
    mails, loop = Mails(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(mails, loop=loop), "127.0.0.1", 0))
    mails.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield mails
    finally:
        loop.call_soon_threadsafe(server.close)  # in its own thread: a connection that ends there wakes it too
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
