"""Ports of loopback for servers that need theirs before they start, and addresses where nobody listens.

A port that the kernel chose and that was given back is soon another connection's: they come from the same range. These
are chosen below it, at random, as other workers choose there too.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

_LOWEST = 10240
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""What the kernel chooses from: ip(7)."""


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has; all are held until the last is found, so each is another one."""
    end = int(_RANGE.read_text().split()[0])
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(range(_LOWEST, end), end - _LOWEST):
            with suppress(OSError):  # somebody has it
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"this machine has no {count} free ports from {_LOWEST} to {end}")
