"""grpclib, which speaks gRPC in Python alone: `python -m benchmarks.peers.grpclib_echo server`, `... client TARGET`."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import grpclib.client
import grpclib.const
import grpclib.server

from benchmarks.children import lines_from_run
from benchmarks.load import PAYLOAD
from benchmarks.peers.client import answer_with
from rpc_async.demo.v1 import demo_pb2

ECHO = "/rpc_async.demo.v1.Demo/Echo"


class Echo:
    """A servicer, as grpclib's generator would have its base written."""

    async def Echo(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(demo_pb2.EchoResponse(payload=request.payload))

    def __mapping__(self) -> dict[str, Any]:
        kind = grpclib.const.Cardinality.UNARY_UNARY
        return {ECHO: grpclib.const.Handler(self.Echo, kind, demo_pb2.EchoRequest, demo_pb2.EchoResponse)}


class EchoStub:
    """A stub, as grpclib's generator writes it."""

    def __init__(self, channel: Any) -> None:
        self.Echo = grpclib.client.UnaryUnaryMethod(channel, ECHO, demo_pb2.EchoRequest, demo_pb2.EchoResponse)


async def serve() -> None:
    """Serve until the process is ended."""
    server = grpclib.server.Server([Echo()])
    await server.start("127.0.0.1", 0)
    print(server._server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


async def call(target: str) -> None:
    """Measure when asked."""
    host, port = target.split(":")
    async with grpclib.client.Channel(host, int(port)) as channel:
        stub = EchoStub(channel)

        def echo() -> Awaitable[object]:
            reply: Awaitable[object] = stub.Echo(demo_pb2.EchoRequest(payload=PAYLOAD))
            return reply

        await answer_with(echo)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        lines_from_run()
        asyncio.run(serve())
    else:
        asyncio.run(call(sys.argv[2]))
