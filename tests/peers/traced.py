"""A servicer of each kind of method, by managers or by ordinary handlers, and calls of each kind, for others to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
import grpc.aio

import rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import PATIENCE, Servicer, outcome

__all__ = ["CHUNKS", "KINDS", "METHODS", "SERVICE", "Managed", "Ordinary", "call_each", "fail"]

SERVICE: Final = "rpc_async.demo.v1.Demo"
METHODS: Final = ("Echo", "EchoFromThread", "Upload", "Download", "Chat")
CHUNKS: Final = 3


class Managed(Servicer):
    """Manager routines."""

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.EchoResponse(payload=request.payload))

    @rpc_async.manager
    async def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, call: rpc_async.ServerCall[demo_pb2.EchoFromThreadResponse]
    ) -> None:
        call.complete(demo_pb2.EchoFromThreadResponse(payload=request.payload))

    @rpc_async.manager
    async def Fail(self, request: demo_pb2.FailRequest, call: rpc_async.ServerCall[demo_pb2.FailResponse]) -> None:
        await call.abort(grpc.StatusCode.NOT_FOUND, request.message)

    @rpc_async.manager
    async def Upload(self, call: rpc_async.ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]) -> None:
        call.complete(demo_pb2.UploadResponse(chunks=len([chunk async for chunk in call])))

    @rpc_async.manager
    async def Download(
        self, request: demo_pb2.DownloadRequest, call: rpc_async.ServerPushCall[demo_pb2.DownloadResponse]
    ) -> None:
        for _ in range(request.chunks):
            await call.write(demo_pb2.DownloadResponse(payload=b"x"))
        call.complete()

    @rpc_async.manager
    async def Chat(self, call: rpc_async.ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest]) -> None:
        async for chunk in call:
            await call.write(demo_pb2.ChatResponse(text=chunk.text))
        call.complete()


class Ordinary(Servicer):
    """gRPC's own handlers."""

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        return demo_pb2.EchoResponse(payload=request.payload)

    async def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, context: Any
    ) -> demo_pb2.EchoFromThreadResponse:
        return demo_pb2.EchoFromThreadResponse(payload=request.payload)

    async def Fail(self, request: demo_pb2.FailRequest, context: Any) -> demo_pb2.FailResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, request.message)
        raise AssertionError

    async def Upload(self, request_iterator: Any, context: Any) -> demo_pb2.UploadResponse:
        return demo_pb2.UploadResponse(chunks=len([chunk async for chunk in request_iterator]))

    async def Download(self, request: demo_pb2.DownloadRequest, context: Any) -> AsyncIterator[Any]:
        for _ in range(request.chunks):
            yield demo_pb2.DownloadResponse(payload=b"x")

    async def Chat(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for chunk in request_iterator:
            yield demo_pb2.ChatResponse(text=chunk.text)


KINDS: Final[Mapping[str, type[Managed | Ordinary]]] = {"managers": Managed, "ordinary": Ordinary}


async def call_each(channel: grpc.aio.Channel) -> None:
    """Make one call of each kind, as gRPC's stubs do, and check what comes back."""
    stub: Any = demo_pb2_grpc.DemoStub(channel)
    texts = [str(number) for number in range(CHUNKS)]
    async with asyncio.timeout(PATIENCE):
        assert (await stub.Echo(demo_pb2.EchoRequest(payload=b"1"))).payload == b"1"
        assert (await stub.EchoFromThread(demo_pb2.EchoFromThreadRequest(payload=b"2"))).payload == b"2"
        upload = stub.Upload(iter([demo_pb2.UploadRequest(payload=b"x")] * CHUNKS))
        assert (await upload).chunks == CHUNKS
        download = stub.Download(demo_pb2.DownloadRequest(chunks=CHUNKS, chunk_size=1))
        assert len([chunk async for chunk in download]) == CHUNKS
        chat = stub.Chat(iter([demo_pb2.ChatRequest(text=text) for text in texts]))
        assert [chunk.text async for chunk in chat] == texts


async def fail(channel: grpc.aio.Channel) -> None:
    """Make a call that fails."""
    stub: Any = demo_pb2_grpc.DemoStub(channel)
    failure = await outcome(stub.Fail(demo_pb2.FailRequest(message="gone")))
    assert (failure.code(), failure.details()) == (grpc.StatusCode.NOT_FOUND, "gone")
