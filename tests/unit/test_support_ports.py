"""Ports for servers that need theirs before they start."""

from __future__ import annotations

import socket

import pytest

from tests.support.listener import dead_address
from tests.support.ports import free_ports


def test_free_ports_are_apart_and_none_that_a_connection_gets() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.create_server(("127.0.0.1", 0)) as chosen_by_the_kernel:
        assert max(ports) < chosen_by_the_kernel.getsockname()[1]
    with socket.create_server(("127.0.0.1", ports[0])) as held:
        assert held.getsockname()[1] == ports[0]


def test_nobody_listens_at_a_dead_address() -> None:
    host, port = dead_address().split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
