"""`pair()`: a client and a server in one process, joined without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, TypedDict, Unpack

import grpc
import grpc.aio

from rpc_async.calling.channel import Channel, connect
from rpc_async.serving.server import Server, server
from rpc_async.testing.client import MemoryChannel
from rpc_async.testing.network import Network
from rpc_async.testing.server import MemoryServer

__all__ = ["Pair", "ServerOptions", "pair"]

Transport = Literal["auto", "session", "native"]

_TARGET: Final = "in-process"


class ServerOptions(TypedDict, total=False):
    """What `rpc_async.server` takes."""

    max_calls: int | None
    grace: float | None
    linger: float
    disclose_errors: bool
    max_workers: int | None
    max_trailers: int
    interceptors: Sequence[grpc.aio.ServerInterceptor]
    options: Sequence[tuple[str, Any]]
    compression: grpc.Compression | None


class Pair:
    """A server and a client that are joined. Made by `pair()`."""

    def __init__(self, network: Network, server: Server, linger: float) -> None:
        self.server: Final[Server] = server
        """The server, which runs."""
        self.channel: Channel
        """A channel to it, which is open."""
        self.cuts: int = 0
        """How often `cut` was called."""
        self._network = network
        self._linger = linger

    def connect(
        self,
        *,
        transport: Transport = "session",
        causal: bool = True,
        linger: float | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> Channel:
        """Make another channel to the server: use it in `async with`.

        Args:
            transport: As in `rpc_async.connect`.
            causal: As in `rpc_async.connect`.
            linger: As in `rpc_async.connect`. None: the server's own.
            options: gRPC's channel arguments, of which the message limits are looked at.

        Raises:
            CannotSupport: When it is opened in plain `with`: it has no loop but the pair's.
        """
        seconds = self._linger if linger is None else linger
        channel = connect(_TARGET, transport=transport, causal=causal, linger=seconds, options=options)
        channel._dialer.by = partial(MemoryChannel, self._network, channel._max_reply)
        return channel

    def cut(self) -> None:
        """Cut every connection, without a word to either side. What was on its way is lost.

        A session goes on with a new connection, unless the server is `refusing`.
        """
        self.cuts += 1
        self._network.cut()

    @property
    def refusing(self) -> bool:
        """Whether no new connection gets to the server, as if nothing listened on its port. Yours to set."""
        return self._network.refusing

    @refusing.setter
    def refusing(self, refusing: bool) -> None:
        self._network.refusing = refusing


@asynccontextmanager
async def pair(
    register: Callable[[Server], object],
    *,
    transport: Transport = "session",
    causal: bool = True,
    **server_options: Unpack[ServerOptions],
) -> AsyncIterator[Pair]:
    """Join a client and a server in this process, without a socket.

    Both live on the running event loop; the handles of calls may be used from any thread and any loop, as ever. All
    between the generated stub and the generated servicer is what runs in production, but for gRPC and the network
    below: in its place is memory, with bounded buffers. Streaming methods work too.

        async with pair(lambda server: add_DemoServicer_to_server(Demo(), server), max_calls=5) as both:
            stub = DemoStub(both.channel)
            call = rpc_async.begin(stub.Echo, EchoRequest())

    Args:
        register: Registers your servicers on the server.
        transport: How calls travel: see `rpc_async.connect`.
        causal: Whether calls are dispatched in order: see `rpc_async.connect`.
        **server_options: What `rpc_async.server` takes. `linger` is the channel's too.
    """
    made = server(**server_options)
    network = Network(made._sessions.max_payload)
    interceptors: Sequence[grpc.aio.ServerInterceptor] = made._interceptors
    made._make_inner = lambda: MemoryServer(network, made._pool, interceptors)
    made._managers.peers = network
    register(made)
    await made.start()
    both = Pair(network, made, server_options.get("linger", 30.0))
    try:
        async with both.connect(transport=transport, causal=causal) as both.channel:
            yield both
    finally:
        await made.stop(None)
