"""The servers that are measured, each a process of its own: `python -m benchmarks.servers KIND`.

Prints the port that it serves on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio

import rpc_async
from benchmarks.children import lines_from_run
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

__all__ = [
    "BIG_BYTES",
    "BIG_METHOD",
    "FINISH_METHOD",
    "GIVE_METHOD",
    "LOOK_METHOD",
    "PARK_METHOD",
    "STREAM_METHOD",
    "TAKE_METHOD",
    "TOKEN",
    "UNLIMITED",
    "resident_bytes",
]

BIG_METHOD = "/benchmarks.Big/Get"
"""Answers with a big reply, whatever it is asked."""
BIG_BYTES = 16 << 20

TAKE_METHOD = "/benchmarks.Large/Take"
"""Takes a request of any size, and answers nothing."""
GIVE_METHOD = "/benchmarks.Large/Give"
"""Answers as many bytes as the request says, in decimal digits."""

STREAM_METHOD = "/benchmarks.Stream/Echo"
"""Sends each message back that comes on the stream."""

PARK_METHOD = "/benchmarks.Parked/Park"
"""Keeps the call."""
LOOK_METHOD = "/benchmarks.Parked/Look"
"""Tells how many calls are kept, and the server's memory, as JSON."""
FINISH_METHOD = "/benchmarks.Parked/Finish"
"""Completes every call that is kept, and tells what came of it, as JSON."""

TOKEN = (("authorization", "a token"),)
"""What calls bring where a token is checked."""

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
"""What raw grpc.aio needs for big replies; the library takes 64 MiB as it is."""

_BIG_REPLY = bytes(BIG_BYTES)
_zeros = cache(bytes)
_TURN = 1000
"""How many calls are completed until the loop gets to run."""


def resident_bytes() -> int:
    """Return how much memory this process really has (RSS)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class RawEcho(demo_pb2_grpc.DemoServicer):
    """What a user of grpc.aio writes."""

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        return demo_pb2.EchoResponse(payload=request.payload)

    async def big(self, request: bytes, context: Any) -> bytes:
        return _BIG_REPLY

    async def take(self, request: bytes, context: Any) -> bytes:
        return b""

    async def give(self, request: bytes, context: Any) -> bytes:
        return _zeros(int(request))

    async def stream(self, requests: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)


class RawThreadEcho(demo_pb2_grpc.DemoServicer):
    """What a user of grpc.aio writes whose reply comes from another thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[bytes, asyncio.Future[demo_pb2.EchoResponse]]] = SimpleQueue()
        threading.Thread(target=self._complete, daemon=True).start()

    def _complete(self) -> None:
        while True:
            payload, done = self._calls.get()
            self._loop.call_soon_threadsafe(done.set_result, demo_pb2.EchoResponse(payload=payload))

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        done: asyncio.Future[demo_pb2.EchoResponse] = self._loop.create_future()
        self._calls.put((request.payload, done))
        return await done


class ManagerEcho(demo_pb2_grpc.DemoServicer):
    """Completed inside an `async def` manager routine."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.EchoResponse(payload=request.payload))

    @rpc_async.manager
    async def big(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        call.complete(_BIG_REPLY)

    @rpc_async.manager
    async def take(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        call.complete(b"")

    @rpc_async.manager
    async def give(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        call.complete(_zeros(int(request)))


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


class CancelledEcho(demo_pb2_grpc.DemoServicer):
    """Waits until it is asked to stop, and answers when that was, in nanoseconds of the machine's clock."""

    @rpc_async.manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        await call.wait_cancelled()
        call.complete(demo_pb2.EchoResponse(payload=str(time.monotonic_ns()).encode()))


class Parked(demo_pb2_grpc.DemoServicer):
    """Keeps calls until it is told to complete them all."""

    def __init__(self) -> None:
        self._calls: list[rpc_async.ServerCall[bytes]] = []

    @rpc_async.manager(inline=True)
    def park(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        self._calls.append(call)

    @rpc_async.manager(inline=True)
    def look(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        if request:
            gc.collect()
        call.complete(json.dumps({"parked": len(self._calls), "resident": resident_bytes()}).encode())

    @rpc_async.manager
    async def finish(self, request: bytes, call: rpc_async.ServerCall[bytes]) -> None:
        parked, self._calls = self._calls, []
        ended: Counter[str] = Counter()
        for number, kept in enumerate(parked):
            found = "cancelled" if kept.test_cancel() else "completed"
            status = kept.complete(found.encode())
            ended[found if status is rpc_async.RpcStatus.OK else "aborted"] += 1
            if number % _TURN == 0:
                await asyncio.sleep(0)
        call.complete(json.dumps(ended).encode())


class CheckToken(grpc.aio.ServerInterceptor):
    """What a user of grpc.aio writes to let in only calls with a token."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if TOKEN[0] in handler_call_details.invocation_metadata:
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(self._deny)

    @staticmethod
    async def _deny(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


KINDS: dict[str, tuple[Callable[[], grpc.aio.Server], Callable[[], Any]]] = {
    "raw": (lambda: grpc.aio.server(options=UNLIMITED), RawEcho),
    "raw-thread": (grpc.aio.server, RawThreadEcho),
    "manager": (rpc_async.server, ManagerEcho),
    "inline": (rpc_async.server, InlineEcho),
    "thread": (rpc_async.server, ThreadEcho),
    "raw-token": (lambda: grpc.aio.server(interceptors=[CheckToken()]), RawEcho),
    "token": (lambda: rpc_async.server(interceptors=[CheckToken()]), InlineEcho),
    "cancelled": (rpc_async.server, CancelledEcho),
    "parked": (rpc_async.server, Parked),
}
EXTRA_METHODS = {
    "big": BIG_METHOD,
    "take": TAKE_METHOD,
    "give": GIVE_METHOD,
    "stream": STREAM_METHOD,
    "park": PARK_METHOD,
    "look": LOOK_METHOD,
    "finish": FINISH_METHOD,
}
"""Methods that carry bytes and have no .proto, by the name of the function that serves them."""


def register(servicer: Any, server: grpc.aio.Server) -> None:
    """Register what a servicer serves."""
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for name, path in EXTRA_METHODS.items():
        if hasattr(servicer, name):
            _, service, method = path.split("/")
            handlers = services.setdefault(service, {})
            of = grpc.stream_stream_rpc_method_handler if name == "stream" else grpc.unary_unary_rpc_method_handler
            handlers[method] = of(getattr(servicer, name))
    handlers_of = grpc.method_handlers_generic_handler
    server.add_generic_rpc_handlers([handlers_of(service, handlers) for service, handlers in services.items()])


async def serve(kind: str) -> None:
    """Serve until the process is ended."""
    make_server, make_servicer = KINDS[kind]
    server = make_server()
    register(make_servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    lines_from_run()
    asyncio.run(serve(sys.argv[1]))
