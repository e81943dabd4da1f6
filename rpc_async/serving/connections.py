"""Tells an aborted call from a lost connection (S13).

gRPC tells a server only that a call was cancelled. When the client cancelled it, the connection is still
there; when the client went away, it is not. The connection's socket is one of this process's open files.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from typing import Final
from urllib.parse import unquote

__all__ = ["Connections"]

_OPEN_FILES: Final = "/proc/self/fd"


class Connections:
    """Looks at the process's sockets, at most once in each turn of the event loop.

    Where there is no `/proc` (not on Linux), or for a client on a Unix socket, it cannot tell.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._snapshot: set[tuple[str, int]] | None = None

    def is_open(self, peer: str) -> bool | None:
        """Tell whether the connection from `peer` (as gRPC writes it) is open; None if that is not known."""
        address = _address(peer)
        if address is None or not os.path.isdir(_OPEN_FILES):
            return None
        if self._snapshot is None:
            self._snapshot = _open_connections()
            self._loop.call_soon(self._forget)
        return address in self._snapshot

    def _forget(self) -> None:
        self._snapshot = None


def _address(peer: str) -> tuple[str, int] | None:
    family, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _open_connections() -> set[tuple[str, int]]:
    found = set()
    for name in os.listdir(_OPEN_FILES):
        with contextlib.suppress(OSError):  # not a socket, not connected, or closed meanwhile
            peer = _open_peer(int(name))
            if peer is not None:
                found.add(peer)
    return found


def _open_peer(number: int) -> tuple[str, int] | None:
    if not os.readlink(f"{_OPEN_FILES}/{number}").startswith("socket:"):
        return None
    copy = os.dup(number)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # another file has this number by now
        os.close(copy)
        raise
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.type != socket.SOCK_STREAM:
            return None
        host, port = connection.getpeername()[:2]
        with contextlib.suppress(BlockingIOError):  # open, and nothing to read
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return None  # the peer has closed its end
        return _plain(host), port
