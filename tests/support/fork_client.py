"""Runs `python -m MODULE ARGUMENT...` as a fork of the fork server, for shells that start volback by its name.

    python -m tests.support.fork_client DESCRIPTOR MODULE ARGUMENT...

DESCRIPTOR is the server's socket, inherited. A start takes 0.1 s of the processor in place of 0.4. The run has this
process's streams, environment, directory and process group, and this one ends as the run does.
"""

from __future__ import annotations

import os
import socket
import sys

from tests.support.fork_server import STATUS, send_request


def main() -> None:
    """Start it, wait for its end, and end with the exit code that a shell has for it."""
    control = socket.socket(fileno=int(sys.argv[1]))
    module, *arguments = sys.argv[2:]
    channel = send_request(
        control, module, [os.fsencode(argument) for argument in arguments], dict(os.environb),
        directory=os.getcwdb(), process_group=os.getpgrp(), descriptors=(0, 1, 2),
    )  # fmt: skip
    _next(channel)  # its process id
    code = os.waitstatus_to_exitcode(_next(channel))
    os._exit(code if code >= 0 else 128 - code)


def _next(channel: socket.socket) -> int:
    packet = channel.recv(STATUS.size)
    assert packet, "the fork server has ended"
    return int(STATUS.unpack(packet)[0])


if __name__ == "__main__":
    main()
