"""A pair: a server and a client joined, so that a test can drive both ends and look at both."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import grpc.aio
import pytest

import rpc_async
from rpc_async import testing
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.channel import Channel
from rpc_async.core.outcome import Fault
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.mailbox import Mailbox
from rpc_async.serving.server import Server

PATIENCE = 20.0
"""Seconds until something that must come is given up."""
TICK = 0.002
"""Seconds between two looks at a condition."""

SocketWire = Literal["native", "session"]
Wire = Literal["native", "session", "memory"]
EchoCall = rpc_async.ServerCall[demo_pb2.EchoResponse]
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """Both ends."""

    server: Server
    channel: Channel
    stub: demo_pb2_grpc.DemoAsyncStub
    target: str


@asynccontextmanager
async def serve(servicer: demo_pb2_grpc.DemoServicer, **options: Any) -> AsyncIterator[tuple[Server, str]]:
    """Run a server on a free port."""
    server = rpc_async.server(**options)
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def pair(servicer: demo_pb2_grpc.DemoServicer, wire: Wire = "native", **options: Any) -> AsyncIterator[Pair]:
    """Run a server, and connect to it."""
    if wire == "memory":

        def register(server: Server) -> None:
            demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)

        async with testing.pair(register, **options) as joined:
            yield Pair(joined.server, joined.channel, demo_pb2_grpc.DemoStub(joined.channel), "in-process")
        return
    async with serve(servicer, **options) as (server, target), rpc_async.connect(target, transport=wire) as channel:
        yield Pair(server, channel, demo_pb2_grpc.DemoStub(channel), target)


class Servicer(demo_pb2_grpc.DemoServicer):
    """The generated servicer, whose methods answer UNIMPLEMENTED until a test overrides them."""

    if TYPE_CHECKING:  # the stubs call them abstract; the generated class does not

        def AsyncFunc(self, request: Any, context: Any) -> Awaitable[demo_pb2.AsyncFuncResponse]: ...
        def Echo(self, request: Any, context: Any) -> Awaitable[demo_pb2.EchoResponse]: ...
        def EchoFromThread(self, request: Any, context: Any) -> Awaitable[demo_pb2.EchoFromThreadResponse]: ...
        def Fail(self, request: Any, context: Any) -> Awaitable[demo_pb2.FailResponse]: ...
        def Upload(self, request_iterator: Any, context: Any) -> Awaitable[demo_pb2.UploadResponse]: ...
        def Download(self, request: Any, context: Any) -> AsyncIterator[demo_pb2.DownloadResponse]: ...
        def Chat(self, request_iterator: Any, context: Any) -> AsyncIterator[demo_pb2.ChatResponse]: ...


class Parked(Servicer):
    """Keeps every `Echo` call for the test to complete."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[EchoCall] = asyncio.Queue()

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        self.arrived.put_nowait(call)

    async def next(self) -> EchoCall:
        """Wait for the next call."""
        return await asyncio.wait_for(self.arrived.get(), PATIENCE)


class Nowhere:
    """Carries calls nowhere: what settles them is the test itself."""

    def __init__(self) -> None:
        self.mailbox = Mailbox(asyncio.get_running_loop())

    @property
    def transport(self) -> SocketWire:
        return "native"

    def why(self, call: rpc_async.AsyncCall[Any]) -> str:
        return "nothing carries it"

    def tell_cancel(self, call: rpc_async.AsyncCall[Any], request: CancelRequest) -> None:
        request.answer(rpc_async.RpcStatus.OK)

    def tell_abort(self, call: rpc_async.AsyncCall[Any], failure: Fault) -> None:
        return

    def watch(self, call: rpc_async.AsyncCall[Any]) -> None:
        return

    async def initial_metadata(self, call: rpc_async.AsyncCall[Any]) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self, call: rpc_async.AsyncCall[Any]) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await coroutine


UploadCall = rpc_async.ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]
DownloadCall = rpc_async.ServerPushCall[demo_pb2.DownloadResponse]
ChatCall = rpc_async.ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest]


class Piped(Servicer):
    """Keeps every call with pipes for the test to use."""

    def __init__(self) -> None:
        self.uploads: asyncio.Queue[UploadCall] = asyncio.Queue()
        self.downloads: asyncio.Queue[DownloadCall] = asyncio.Queue()
        self.chats: asyncio.Queue[ChatCall] = asyncio.Queue()

    @rpc_async.manager(inline=True)
    def Upload(self, call: UploadCall) -> None:
        self.uploads.put_nowait(call)

    @rpc_async.manager(inline=True)
    def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
        self.downloads.put_nowait(call)

    @rpc_async.manager(inline=True)
    def Chat(self, call: ChatCall) -> None:
        self.chats.put_nowait(call)

    async def upload(self) -> UploadCall:
        """Wait for the next call of `Upload`."""
        return await asyncio.wait_for(self.uploads.get(), PATIENCE)

    async def download(self) -> DownloadCall:
        """Wait for the next call of `Download`."""
        return await asyncio.wait_for(self.downloads.get(), PATIENCE)

    async def chat(self) -> ChatCall:
        """Wait for the next call of `Chat`."""
        return await asyncio.wait_for(self.chats.get(), PATIENCE)


class Seen(Generic[T]):
    """A value that one side sets and the other waits for, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()

    def set(self, value: T) -> None:
        """Set it; only the first counts."""
        self._loop.call_soon_threadsafe(self._set, value)

    def _set(self, value: T) -> None:
        if not self._future.done():
            self._future.set_result(value)

    async def get(self) -> T:
        """Wait for it."""
        return await asyncio.wait_for(asyncio.shield(self._future), PATIENCE)


def request(payload: bytes = b"") -> demo_pb2.EchoRequest:
    """Make a request."""
    return demo_pb2.EchoRequest(payload=payload)


def response(payload: bytes = b"") -> demo_pb2.EchoResponse:
    """Make a reply."""
    return demo_pb2.EchoResponse(payload=payload)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never came: {what or condition}"
        await asyncio.sleep(TICK)


async def outcome(call: Awaitable[Any]) -> Any:
    """Wait for a call's outcome: its reply, or its failure as a value."""
    try:
        return await asyncio.wait_for(call, PATIENCE)
    except rpc_async.CallError as error:
        return error


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the library has logged; asyncio's own words on a busy machine are not meant."""
    return [record for record in caplog.records if record.name.startswith("rpc_async")]
