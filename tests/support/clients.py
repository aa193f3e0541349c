"""Connections that volback's clients of engines keep in a process of tests: one for each address that was asked for, as
long as the client. Of hundreds of tests, these were more than a thousand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from docker.transport import UnixHTTPAdapter

from volback.engine.client import Client

_clients: WeakSet[Client] = WeakSet()


@contextmanager
def noted() -> Iterator[None]:
    """Note each client that is made inside."""
    made = Client.__init__

    def make(self: Client, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        _clients.add(self)

    Client.__init__ = make  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Client.__init__ = made  # type: ignore[method-assign]


def disconnect() -> None:
    """Close what they keep open on a socket of this machine; a client that is used again connects again."""
    for client in list(_clients):
        if isinstance(adapter := getattr(client, "_custom_adapter", None), UnixHTTPAdapter):
            adapter.close()
