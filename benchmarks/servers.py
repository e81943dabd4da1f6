"""The servers that are measured, each a process of its own: `python -m benchmarks.servers KIND`.

Prints the port that it serves on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import grpc.aio

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc


class RawEcho(demo_pb2_grpc.DemoServicer):
    """What a user of grpc.aio writes."""

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        return demo_pb2.EchoResponse(payload=request.payload)


class ManagerEcho(demo_pb2_grpc.DemoServicer):
    """Completed inside an `async def` manager routine."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.EchoResponse(payload=request.payload))


class InlineEcho(demo_pb2_grpc.DemoServicer):
    """Completed inside an inline manager routine: no task and no thread switch."""

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.EchoResponse(payload=request.payload))


class ThreadEcho(demo_pb2_grpc.DemoServicer):
    """Completed from another thread, after the manager routine has returned."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[bytes, rpc_async.ServerCall[demo_pb2.EchoResponse]]] = SimpleQueue()
        threading.Thread(target=self._complete, daemon=True).start()

    def _complete(self) -> None:
        while True:
            payload, call = self._calls.get()
            call.complete(demo_pb2.EchoResponse(payload=payload))

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        self._calls.put((request.payload, call))


KINDS: dict[str, tuple[Callable[[], grpc.aio.Server], Callable[[], demo_pb2_grpc.DemoServicer]]] = {
    "raw": (grpc.aio.server, RawEcho),
    "manager": (rpc_async.server, ManagerEcho),
    "inline": (rpc_async.server, InlineEcho),
    "thread": (rpc_async.server, ThreadEcho),
}


async def serve(kind: str) -> None:
    """Serve until the process is ended."""
    make_server, make_servicer = KINDS[kind]
    server = make_server()
    demo_pb2_grpc.add_DemoServicer_to_server(make_servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
