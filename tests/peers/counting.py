"""`python -m tests.peers.counting FILE [PORT]`: a server that writes down which calls it executes, one line each.

`Echo` is answered at once, `EchoFromThread` once the process has got a SIGUSR1. The first bytes of a payload, up to a
full stop, name the call.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import Servicer

__all__ = ["executed", "named"]


def named(name: str, size: int) -> demo_pb2.EchoRequest:
    """Make a request of that size that names its call."""
    return demo_pb2.EchoRequest(payload=f"{name}.".encode().ljust(size, b"x"))


def executed(file: Path) -> list[str]:
    """Return which calls were executed."""
    return file.read_text().split()


class Counting(Servicer):
    """Writes each call down before it answers."""

    def __init__(self, file: str) -> None:
        self._go = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._go.set)
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        name, _, _ = request.payload.partition(b".")
        os.write(self._file, name + b"\n")  # appended whole, whoever else writes
        call.complete(demo_pb2.EchoResponse(payload=request.payload))

    @rpc_async.manager
    async def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, call: rpc_async.ServerCall[demo_pb2.EchoFromThreadResponse]
    ) -> None:
        name, _, _ = request.payload.partition(b".")
        os.write(self._file, name + b"\n")
        await self._go.wait()
        call.complete(demo_pb2.EchoFromThreadResponse(payload=request.payload))

    @rpc_async.manager(inline=True)
    def Fail(self, request: demo_pb2.FailRequest, call: rpc_async.ServerCall[demo_pb2.FailResponse]) -> None:
        call.abort(request.code, request.message)


async def _serve(file: str, port: int) -> None:
    server = rpc_async.server(options=(("grpc.so_reuseport", 0),))
    demo_pb2_grpc.add_DemoServicer_to_server(Counting(file), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"listening on 127.0.0.1:{bound}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
