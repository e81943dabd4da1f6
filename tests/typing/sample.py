"""What a user writes, typed: mypy and pyright must pass it in strict mode without a single ignore."""

from __future__ import annotations

import asyncio
import threading
from typing import assert_type

import grpc

import rpc_async
from rpc_async import (
    AsyncCall,
    CancelReason,
    PullCall,
    PushCall,
    PushPullCall,
    RpcStatus,
    ServerCall,
    ServerPullCall,
    ServerPushCall,
    ServerPushPullCall,
    begin,
    dce,
    manager,
)
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc


class Demo(demo_pb2_grpc.DemoServicer):
    """One routine of each kind, and an ordinary gRPC handler."""

    @manager
    async def AsyncFunc(self, request: demo_pb2.AsyncFuncRequest, call: ServerCall[demo_pb2.AsyncFuncResponse]) -> None:
        async with call.interruptible():
            await asyncio.sleep(request.delay_ms / 1000)
        call.on_cancel(asyncio.Event())
        call.on_disconnect(lambda completion: print(completion.key), key=1)
        call.subscribe(rpc_async.Notifications.CLIENT_DISCONNECT | rpc_async.Notifications.CALL_CANCEL, print)
        assert_type(call.unsubscribe(rpc_async.Notifications.CALL_CANCEL), int)
        assert_type(call.complete(demo_pb2.AsyncFuncResponse(reply=1)), RpcStatus)
        assert_type(call.cancel_reason, CancelReason | None)

    @manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: ServerCall[demo_pb2.EchoResponse]) -> None:
        call.complete(demo_pb2.EchoResponse(payload=request.payload))

    @manager
    def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, call: ServerCall[demo_pb2.EchoFromThreadResponse]
    ) -> None:
        call.progress(0.5, "half", request)

    async def Fail(self, request: demo_pb2.FailRequest, context: object) -> demo_pb2.FailResponse:
        return demo_pb2.FailResponse()

    @manager
    async def Upload(self, call: ServerPullCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse]) -> None:
        async for chunk in call:
            assert_type(chunk, demo_pb2.UploadRequest)
        assert_type(call.complete(demo_pb2.UploadResponse(chunks=1)), RpcStatus)

    @manager
    def Download(self, request: demo_pb2.DownloadRequest, call: ServerPushCall[demo_pb2.DownloadResponse]) -> None:
        assert_type(call.push(demo_pb2.DownloadResponse()), RpcStatus)
        call.put(demo_pb2.DownloadResponse(), timeout=1.0)
        call.notify(rpc_async.CompletionQueue(), "key")
        call.complete()

    @manager(inline=True, strict_pipes=True)
    def Chat(self, call: ServerPushPullCall[demo_pb2.ChatResponse, demo_pb2.ChatRequest]) -> None:
        assert_type(call.pull(), demo_pb2.ChatRequest | None)
        call.push(demo_pb2.ChatResponse())
        call.end()


async def serve() -> None:
    """Run a server."""
    server = rpc_async.server(max_calls=10, grace=1.0)
    demo_pb2_grpc.add_DemoServicer_to_server(Demo(), server)
    assert_type(server.add_insecure_port("localhost:0"), int)
    await server.start()
    await server.stop()


async def use(target: str) -> None:
    """Use a client on the running loop."""
    async with rpc_async.connect(target) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        call = begin(stub.Echo, demo_pb2.EchoRequest(payload=b"x"), timeout=1.0, metadata=(("k", "v"),))
        assert_type(call, AsyncCall[demo_pb2.EchoResponse])
        assert_type(await call, demo_pb2.EchoResponse)
        assert_type(call.complete(), demo_pb2.EchoResponse)
        assert_type(await call.request_cancel(), RpcStatus)
        async for report in call.progress():
            assert_type(report.fraction, float)
        try:
            reply = await stub.Echo(demo_pb2.EchoRequest())
        except rpc_async.CallError as error:
            assert_type(error.executed, bool | None)
            assert_type(error.code(), grpc.StatusCode)
        else:
            assert_type(reply, demo_pb2.EchoResponse)


async def be_told(channel: rpc_async.Channel) -> None:
    """Be told, by each kind of target."""
    echo = demo_pb2_grpc.DemoStub(channel).Echo
    queue = rpc_async.CompletionQueue()
    call = begin(echo, demo_pb2.EchoRequest(), notify=queue, key="mine", events=(rpc_async.AsyncEvent.PROGRESS,))
    assert_type(call, AsyncCall[demo_pb2.EchoResponse])
    call.notify(threading.Event())
    call.notify(rpc_async.Apc(told), key=2)
    call.notify(rpc_async.Post(asyncio.get_running_loop(), told))
    call.notify(rpc_async.Post(lambda function: function(), told))
    call.notify(told)
    assert_type(queue.get(timeout=0), rpc_async.Completion)
    assert_type(await queue.aget_many(10), list[rpc_async.Completion])
    async for completion in queue:
        assert_type(completion.event, rpc_async.AsyncEvent)
    assert_type(rpc_async.alertable_wait(1.0), int)
    target: rpc_async.Target = queue
    call.notify(target)


def told(completion: rpc_async.Completion) -> None:
    """Take a notification."""
    event, call, key = completion
    print(event, call, key)


def use_in_a_thread(target: str) -> bytes:
    """Use a client in plain, blocking code."""
    with rpc_async.connect(target) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.EchoRequest())
        assert_type(call.wait(1.0), bool)
        return call.result(timeout=1.0).payload


class Ported(demo_pb2_grpc.DemoServicer):
    """One routine of each kind, in the documented form."""

    @dce.manager
    async def AsyncFunc(
        self,
        state: dce.RPC_ASYNC_STATE,
        binding: ServerCall[demo_pb2.AsyncFuncResponse],
        request: demo_pb2.AsyncFuncRequest,
    ) -> None:
        assert_type(dce.RpcServerTestCancel(binding), RpcStatus)
        assert_type(dce.RpcAsyncCompleteCall(state, demo_pb2.AsyncFuncResponse(reply=1)), int)

    @dce.manager(inline=True)
    def Echo(
        self,
        state: dce.RPC_ASYNC_STATE,
        binding: ServerCall[demo_pb2.EchoResponse],
        request: demo_pb2.EchoRequest,
    ) -> None:
        assert_type(dce.RpcAsyncAbortCall(state, 5), RpcStatus)

    async def EchoFromThread(
        self, request: demo_pb2.EchoFromThreadRequest, context: object
    ) -> demo_pb2.EchoFromThreadResponse:
        return demo_pb2.EchoFromThreadResponse()

    async def Fail(self, request: demo_pb2.FailRequest, context: object) -> demo_pb2.FailResponse:
        return demo_pb2.FailResponse()


def use_ported(target: str) -> bytes:
    """Use a client in the documented form."""
    with rpc_async.connect(target) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        state = dce.RPC_ASYNC_STATE()
        assert_type(dce.RpcAsyncInitializeHandle(state, dce.SIZEOF_RPC_ASYNC_STATE), RpcStatus)
        state.NotificationType = dce.RpcNotificationTypeEvent
        state.u.hEvent = threading.Event()
        dce.begin(state, stub.Echo, demo_pb2.EchoRequest(), timeout=1.0)
        assert_type(dce.RpcAsyncCancelCall(state, False), RpcStatus)
        assert_type(dce.RpcAsyncGetCallStatus(state), int)
        status, reply = dce.RpcAsyncCompleteCall(state)
        assert_type(status, int)
        print(reply)
        return dce.call(stub.Echo, demo_pb2.EchoRequest()).payload


async def use_pipes(channel: rpc_async.Channel) -> None:
    """Push and pull on the running loop."""
    stub = demo_pb2_grpc.DemoStub(channel)
    async with begin(stub.Upload, timeout=1.0) as upload:
        assert_type(upload, PushCall[demo_pb2.UploadRequest, demo_pb2.UploadResponse])
        await upload.write(demo_pb2.UploadRequest())
        upload.push(None)
    assert_type(upload.complete(), demo_pb2.UploadResponse)
    download = begin(stub.Download, demo_pb2.DownloadRequest(), notify=rpc_async.CompletionQueue())
    assert_type(download, PullCall[demo_pb2.DownloadResponse])
    async for chunk in download:
        assert_type(chunk, demo_pb2.DownloadResponse)
    chat = begin(stub.Chat, strict_pipes=True, events=[rpc_async.AsyncEvent.RECEIVE_COMPLETE])
    assert_type(chat, PushPullCall[demo_pb2.ChatRequest, demo_pb2.ChatResponse])
    assert_type(await chat.read(), demo_pb2.ChatResponse | None)
    assert_type(chat.get(1.0), demo_pb2.ChatResponse | None)
    handle: AsyncCall[None] = chat
    assert_type(handle.status(), int)
