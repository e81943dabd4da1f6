"""The state of a connection, as gRPC names it, and how to wait for a change of it."""

from __future__ import annotations

import asyncio

import grpc

__all__ = ["Connectivity"]


class Connectivity:
    """Used on one event loop, but for looking at `state`."""

    __slots__ = ("_changed", "_loop", "state")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.state: grpc.ChannelConnectivity = grpc.ChannelConnectivity.IDLE
        self._loop = loop
        self._changed: asyncio.Future[None] = loop.create_future()

    def change(self, state: grpc.ChannelConnectivity) -> None:
        """Set the state, and wake who waits for another."""
        if state is not self.state:
            self.state = state
            self._changed.set_result(None)
            self._changed = self._loop.create_future()

    async def wait_for_change(self, last_observed: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another."""
        while self.state is last_observed:
            await asyncio.shield(self._changed)

    async def wait_for(self, state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is this one."""
        while self.state is not state:
            await asyncio.shield(self._changed)
