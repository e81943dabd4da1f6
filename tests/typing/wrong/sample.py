"""What the type checkers must refuse: each line that is marked is an error, and no other is."""

from __future__ import annotations

import rpc_async
from rpc_async import ServerCall, ServerPullCall, ServerPushCall, begin, dce, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc


class WrongReply(demo_pb2_grpc.DemoServicer):
    """Its routine replies with another method's message."""

    @manager
    def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.FailResponse]) -> None:  # wrong
        call.complete(demo_pb2.FailResponse())


class WrongComplete(demo_pb2_grpc.DemoServicer):
    """Its routine completes with another message than it says."""

    @manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.FailResponse())  # wrong


async def wrong_request(channel: rpc_async.Channel) -> None:
    """Begins a call with another method's request."""
    begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.FailRequest())  # wrong


async def wrong_use(channel: rpc_async.Channel) -> None:
    """Takes a status for a reply."""
    call = begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.EchoRequest())
    payload: str = (await call).payload  # wrong
    print(payload)


async def wrong_target(channel: rpc_async.Channel) -> None:
    """Names something that cannot be told."""
    begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.EchoRequest(), notify="me")  # wrong


class WrongPortedReply(demo_pb2_grpc.DemoServicer):
    """Its routine, in the documented form, replies with another method's message."""

    @dce.manager
    def Echo(  # wrong
        self, state: dce.RPC_ASYNC_STATE, binding: ServerCall[demo_pb2.FailResponse], request: demo_pb2.EchoRequest
    ) -> None:
        dce.RpcAsyncCompleteCall(state, demo_pb2.FailResponse())


def wrong_ported_request(channel: rpc_async.Channel, state: dce.RPC_ASYNC_STATE) -> None:
    """Begins a call with another method's request."""
    dce.begin(state, demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.FailRequest())  # wrong


class WrongPipes(demo_pb2_grpc.DemoServicer):
    """Its routines have the pipes of other methods."""

    @manager
    async def Upload(self, call: ServerPullCall[demo_pb2.UploadRequest, demo_pb2.EchoResponse]) -> None:  # wrong
        call.complete(demo_pb2.EchoResponse())

    @manager
    def Download(self, request: demo_pb2.DownloadRequest, call: ServerPushCall[demo_pb2.EchoResponse]) -> None:  # wrong
        call.push(demo_pb2.EchoResponse())


async def wrong_chunks(channel: rpc_async.Channel) -> None:
    """Pushes and pulls what the methods do not have."""
    stub = demo_pb2_grpc.DemoStub(channel)
    begin(stub.Upload).push(demo_pb2.EchoRequest())  # wrong
    begin(stub.Download)  # wrong
    begin(stub.Upload, demo_pb2.UploadRequest())  # wrong
    begin(stub.Upload).pull()  # wrong
    begin(stub.Download, demo_pb2.DownloadRequest()).push(None)  # wrong
    text: int = (await begin(stub.Chat).read()).text  # wrong
    print(text)
