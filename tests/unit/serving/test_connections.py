"""`serving/connections.py`: a connection that is there, one that is gone, and what cannot be told (S13)."""

from __future__ import annotations

import asyncio
import socket

import pytest

from rpc_async.serving.connections import Connections


def connected(host: str, family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    """Make a TCP connection; returns the client's and the server's end."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
    return client, accepted


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_open_and_gone(host: str, family: socket.AddressFamily) -> None:
    connections = Connections(asyncio.get_running_loop())
    client, accepted = connected(host, family)
    port = client.getsockname()[1]
    peer = f"ipv4:{host}:{port}" if family is socket.AF_INET else f"ipv6:%5B{host}%5D:{port}"
    assert connections.is_open(peer) is True
    client.close()
    assert connections.is_open(peer) is True  # looked at once in a turn of the loop
    await asyncio.sleep(0)
    assert connections.is_open(peer) is False  # the peer's end is closed, ours is not
    accepted.close()
    await asyncio.sleep(0)
    assert connections.is_open(peer) is False


async def test_an_ipv4_client_of_an_ipv6_socket() -> None:
    connections = Connections(asyncio.get_running_loop())
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
            accepted, _ = listener.accept()
            with accepted:
                assert connections.is_open(f"ipv4:127.0.0.1:{client.getsockname()[1]}") is True


@pytest.mark.parametrize("peer", ["unix:/tmp/x", "unix:", "", "ipv4:nonsense", "vsock:3:5"])
async def test_what_cannot_be_told(peer: str) -> None:
    assert Connections(asyncio.get_running_loop()).is_open(peer) is None


async def test_no_file_descriptor_is_left_open() -> None:
    import os

    connections = Connections(asyncio.get_running_loop())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        connections.is_open("ipv4:127.0.0.1:1")
        await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before
