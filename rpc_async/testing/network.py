"""Joins clients and a server in memory, and cuts them when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import grpc

from rpc_async.testing.rpc import Rpc

__all__ = ["Accepting", "Network"]


class Accepting(Protocol):
    """A server that calls can be brought to."""

    def accept(self, rpc: Rpc) -> None:
        """Take a call in."""


class Network:
    """One server, and all that lies between it and its clients. Used on the event loop that it is made on."""

    def __init__(self, max_request: int) -> None:
        """Make it: to a server that takes requests of `max_request` bytes at the most."""
        self.loop: Final = asyncio.get_running_loop()
        self.max_request: Final = max_request
        self._server: Accepting | None = None
        self._refusing = False
        self._rpcs: set[Rpc] = set()
        self._waiting: list[Rpc] = []
        self._connections = 0
        self._open: set[str] = set()
        self.watchers: Final[set[Callable[[], None]]] = set()
        """Called whenever the server may have become reachable, or not."""

    # -- connections ------------------------------------------------------------------------------------

    def connect(self) -> str:
        """Make a connection. Returns its client's name, as gRPC writes addresses."""
        self._connections += 1
        peer = f"in-process:{self._connections}"
        self._open.add(peer)
        return peer

    def disconnect(self, peer: str) -> None:
        """A client closes its connection."""
        self._open.discard(peer)

    def is_open(self, peer: str) -> bool:
        """Tell whether a connection is neither closed nor cut."""
        return peer in self._open

    @property
    def reachable(self) -> bool:
        """Whether a call that begins now gets to the server."""
        return self._server is not None and not self._refusing

    @property
    def refusing(self) -> bool:
        """Whether calls do not get to the server, as if nothing listened on its port."""
        return self._refusing

    @refusing.setter
    def refusing(self, refusing: bool) -> None:
        self._refusing = refusing
        self._changed()

    def listen(self, server: Accepting | None) -> None:
        """Bring calls to this server from now on; None: it has stopped."""
        self._server = server
        self._changed()

    def cut(self) -> None:
        """Break every call that has got to the server. What was on its way is lost."""
        self._open.clear()
        for rpc in tuple(self._rpcs):
            rpc.fail(grpc.StatusCode.UNAVAILABLE, "the connection was cut")

    # -- calls ------------------------------------------------------------------------------------------

    def begin(self, rpc: Rpc) -> None:
        """Bring a call to the server."""
        server = self._server
        if server is not None and not self._refusing:
            self._rpcs.add(rpc)
            rpc.call_at_end(lambda: self._rpcs.discard(rpc))
            rpc.reached.set_result(None)
            server.accept(rpc)
        elif rpc.wait_for_ready:
            self._waiting.append(rpc)
            rpc.call_at_end(lambda: self._forget(rpc))
        else:
            text = "failed to connect to all addresses; last error: nothing listens in this process"
            rpc.fail(grpc.StatusCode.UNAVAILABLE, text)

    def _forget(self, rpc: Rpc) -> None:
        if rpc in self._waiting:
            self._waiting.remove(rpc)

    def _changed(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()
        if self.reachable:
            waiting, self._waiting = self._waiting, []
            for rpc in waiting:
                self.begin(rpc)
