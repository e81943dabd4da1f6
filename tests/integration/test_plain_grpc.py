"""Ours beside plain gRPC: our client with any server, any client with our server, and ordinary handlers on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2
from tests.harness import PATIENCE, Parked, Seen, Servicer, outcome, pair, request, response, serve, until

CALL_ID = "rpc-async-call-id"


class Plain(Servicer):
    """What a user of grpc.aio wrote."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.go_on = asyncio.Event()

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        if request.payload == b"wait":
            self.running.set()
            await self.go_on.wait()
        if request.payload == b"abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "plainly")
        if request.payload == b"unavailable":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
        context.set_trailing_metadata((("x-trailing", "t"),))
        return response(request.payload)


async def test_our_client_works_with_a_plain_server() -> None:
    server = grpc.aio.server()
    servicer = Plain()
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with rpc_async.connect(target) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        call = begin(stub.Echo, request(b"plain"))
        assert (await call).payload == b"plain"
        assert (await call.trailing_metadata())["x-trailing"] == "t"
        error = await outcome(begin(stub.Echo, request(b"abort")))
        assert (type(error), error.code()) == (rpc_async.CallFailed, grpc.StatusCode.FAILED_PRECONDITION)
        error = await outcome(begin(stub.Echo, request(b"unavailable")))
        assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)  # it was this server that said so
        error = await outcome(begin(stub.AsyncFunc, demo_pb2.AsyncFuncRequest()))
        assert error.status == RpcStatus.PROCNUM_OUT_OF_RANGE

        call = begin(stub.Echo, request(b"wait"))
        await servicer.running.wait()
        assert await call.request_cancel() is RpcStatus.CANNOT_SUPPORT
        assert not call.done()
        servicer.go_on.set()
        assert [report async for report in call.progress()] == []
        assert (await call).payload == b"wait"
    await server.stop(None)


async def test_a_request_to_an_ordinary_handler_of_ours_says_cannot_support() -> None:
    servicer = Plain()
    async with pair(servicer) as both:
        call = begin(both.stub.Echo, request(b"wait"))
        await servicer.running.wait()
        assert both.server.running_calls == 1
        assert await call.request_cancel() is RpcStatus.CANNOT_SUPPORT
        servicer.go_on.set()
        assert (await call).payload == b"wait"


async def test_a_plain_client_calls_a_manager_and_learns_the_call_id() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), grpc.aio.insecure_channel(target) as channel:
        # grpc.aio hands a unary call's initial metadata over only at its end, where other languages do at once. A
        # streaming call gets them at once in Python too, and is the same on the wire.
        echo = channel.unary_stream(
            "/rpc_async.demo.v1.Demo/Echo",
            request_serializer=demo_pb2.EchoRequest.SerializeToString,
            response_deserializer=demo_pb2.EchoResponse.FromString,
        )
        call: Any = echo(request())
        server_call = await servicer.next()
        call_id = (await call.initial_metadata())[CALL_ID]
        assert call_id == server_call.call_id
        assert len(call_id) >= 22  # 128 random bits, in base64

        calls = calls_pb2_grpc.AsyncCallsStub(channel)
        got = await calls.GetCall(calls_pb2.GetCallRequest(call_id=call_id))
        assert (got.call.state, got.call.status) == (types_pb2.CALL_STATE_RUNNING, 997)
        watch: Any = calls.WatchCall(calls_pb2.WatchCallRequest(call_id=call_id))
        first = await watch.read()
        assert first.call.state == types_pb2.CALL_STATE_RUNNING
        server_call.progress(0.5, "half")
        second = await watch.read()
        assert (second.call.progress.fraction, second.call.progress.message) == (0.5, "half")
        cancelled = await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=call_id))
        assert cancelled.state == types_pb2.CALL_STATE_CANCEL_REQUESTED
        third = await watch.read()
        assert third.call.cancel_reason == types_pb2.CANCEL_REASON_CLIENT_REQUESTED
        server_call.complete(response(b"done"))
        last = await watch.read()
        assert await watch.read() is grpc.aio.EOF
        assert (last.call.state, last.call.status) == (types_pb2.CALL_STATE_SETTLED, 0)
        assert (await call.read()).payload == b"done"
        after = await calls.GetCall(calls_pb2.GetCallRequest(call_id=call_id))
        assert after.call.state == types_pb2.CALL_STATE_SETTLED


async def test_a_plain_client_aborts_by_call_id() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), grpc.aio.insecure_channel(target) as channel:
        metadata = ((CALL_ID, "an-id-of-the-clients-own-00"),)
        call = demo_pb2_grpc.DemoStub(channel).Echo(request(), metadata=metadata)
        sent = asyncio.ensure_future(call)
        server_call = await servicer.next()
        assert server_call.call_id == metadata[0][1]
        calls = calls_pb2_grpc.AsyncCallsStub(channel)
        answer = await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=metadata[0][1], abort=True))
        assert answer.state == types_pb2.CALL_STATE_ORPHANED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await sent
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED


@pytest.mark.parametrize("call_id", ["short", "x" * 129, "no spaces allowed in here ", ""])
async def test_a_call_id_that_is_none_is_refused(call_id: str) -> None:
    async with serve(Parked()) as (server, target), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await demo_pb2_grpc.DemoStub(channel).Echo(request(), metadata=((CALL_ID, call_id),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert server.running_calls == 0


async def test_a_call_id_in_use_is_refused() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), grpc.aio.insecure_channel(target) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        metadata = ((CALL_ID, "used-twice-which-is-wrong"),)
        first = asyncio.ensure_future(stub.Echo(request(), metadata=metadata))
        server_call = await servicer.next()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Echo(request(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        server_call.complete(response(b"first"))
        assert (await first).payload == b"first"


async def test_asking_about_an_unknown_call() -> None:
    async with serve(Parked()) as (_, target), grpc.aio.insecure_channel(target) as channel:
        calls = calls_pb2_grpc.AsyncCallsStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.GetCall(calls_pb2.GetCallRequest(call_id="?"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.WatchCall(calls_pb2.WatchCallRequest(call_id="?")).read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        answer = await calls.CancelCall(calls_pb2.CancelCallRequest(call_id="?"))
        assert answer.state == types_pb2.CALL_STATE_UNSPECIFIED


async def test_at_most_so_many_watch_one_call() -> None:
    servicer = Parked()
    async with pair(servicer) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        calls = calls_pb2_grpc.AsyncCallsStub(both.channel)
        watches = [calls.WatchCall(calls_pb2.WatchCallRequest(call_id=call.call_id)) for _ in range(64)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.WatchCall(calls_pb2.WatchCallRequest(call_id=call.call_id)).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        server_call.complete(response())
        await call


class Every:
    """Ordinary handlers of every kind that gRPC serves."""

    @staticmethod
    async def async_unary(request: bytes, context: Any) -> bytes:
        return request

    @staticmethod
    def sync_unary(request: bytes, context: Any) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        return request

    @staticmethod
    async def async_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield request

    @staticmethod
    def sync_stream(request: bytes, context: Any) -> Iterator[bytes]:
        yield from [request] * 3

    @staticmethod
    async def writer(request: bytes, context: Any) -> None:
        for _ in range(3):
            await context.write(request)

    @staticmethod
    async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([message async for message in requests])

    @staticmethod
    def sync_collect(requests: Iterator[bytes], context: Any) -> bytes:
        return b"".join(requests)

    @staticmethod
    async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message


def every_handler() -> grpc.GenericRpcHandler:
    """Register them all."""
    return grpc.method_handlers_generic_handler(
        "t.T",
        {
            "AsyncUnary": grpc.unary_unary_rpc_method_handler(Every.async_unary),
            "SyncUnary": grpc.unary_unary_rpc_method_handler(Every.sync_unary),
            "AsyncStream": grpc.unary_stream_rpc_method_handler(Every.async_stream),
            "SyncStream": grpc.unary_stream_rpc_method_handler(Every.sync_stream),
            "Writer": grpc.unary_stream_rpc_method_handler(Every.writer),
            "Collect": grpc.stream_unary_rpc_method_handler(Every.collect),
            "SyncCollect": grpc.stream_unary_rpc_method_handler(Every.sync_collect),
            "Both": grpc.stream_stream_rpc_method_handler(Every.both),
        },
    )


async def source() -> AsyncIterator[bytes]:
    """Three messages."""
    for message in (b"a", b"b", b"c"):
        yield message


@pytest.mark.parametrize("busy", [False, True])
async def test_ordinary_handlers_of_every_kind_are_served_and_counted(busy: bool) -> None:
    server = rpc_async.server(max_calls=1)
    servicer = Parked()
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers((every_handler(),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    parked: list[Any] = []
    async with rpc_async.connect(target) as channel:
        if busy:
            demo_pb2_grpc.DemoStub(channel).Echo(request())
            parked.append(await servicer.next())

        async def check(result: Any, expected: Any) -> None:
            try:
                async with asyncio.timeout(PATIENCE):
                    got = [m async for m in result] if isinstance(expected, list) else await result
            except grpc.aio.AioRpcError as error:
                assert busy, error
                # A client of gRPC that is still sending when it is refused learns no more than that.
                assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
            else:
                assert not busy
                assert got == expected
            await until(lambda: server.running_calls == len(parked))

        await check(channel.unary_unary("/t.T/AsyncUnary")(b"x"), b"x")
        await check(channel.unary_unary("/t.T/SyncUnary")(b"x"), b"x")
        await check(channel.unary_stream("/t.T/AsyncStream")(b"x"), [b"x"] * 3)
        await check(channel.unary_stream("/t.T/SyncStream")(b"x"), [b"x"] * 3)
        await check(channel.unary_stream("/t.T/Writer")(b"x"), [b"x"] * 3)
        await check(channel.stream_unary("/t.T/Collect")(source()), b"abc")
        await check(channel.stream_unary("/t.T/SyncCollect")(source()), b"abc")
        await check(channel.stream_stream("/t.T/Both")(source()), [b"a", b"b", b"c"])
        for server_call in parked:
            server_call.complete(response())
    await server.stop(None)


async def test_a_streaming_call_in_plain_with_says_what_to_do() -> None:
    async with serve(Parked()) as (_, target):

        def blocking() -> BaseException | None:
            with rpc_async.connect(target) as channel:
                try:
                    channel.unary_stream("/t.T/Stream")(b"")
                except rpc_async.CannotSupport as error:
                    return error
            return None

        error = await asyncio.to_thread(blocking)
        assert "async with" in str(error)


async def test_server_interceptors_see_messages_and_can_refuse_and_change() -> None:
    seen: list[Any] = []

    class Change(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler = await continuation(handler_call_details)
            if handler is None or not handler_call_details.method.endswith("/Echo"):
                return handler
            inner = handler.unary_unary

            async def behaviour(message: Any, context: Any) -> Any:
                seen.append(message)
                if message.payload == b"refuse":
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
                reply = await inner(message, context)
                reply.payload += b" and back"
                return reply

            return grpc.unary_unary_rpc_method_handler(
                behaviour, handler.request_deserializer, handler.response_serializer
            )

    servicer = Parked()
    async with pair(servicer, interceptors=[Change()]) as both:
        call = begin(both.stub.Echo, request(b"there"))
        reply = response(b"there")
        (await servicer.next()).complete(reply)
        assert (await call).payload == b"there and back"
        assert reply.payload == b"there"
        error = await outcome(begin(both.stub.Echo, request(b"refuse")))
        assert error.status == RpcStatus.ACCESS_DENIED
        unparsable = await outcome(both.channel.unary_unary("/rpc_async.demo.v1.Demo/Echo")(b"\xff"))
        assert unparsable.status == RpcStatus.BAD_STUB_DATA
    assert seen == [request(b"there"), request(b"refuse")]


async def test_a_sync_client_of_plain_grpc_works_too() -> None:
    class Own(Servicer):
        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: Any) -> None:
            call.complete(response(request.payload))

    seen: Seen[bytes] = Seen()
    async with serve(Own()) as (_, target):

        def blocking() -> None:
            with grpc.insecure_channel(target) as channel:
                seen.set(demo_pb2_grpc.DemoStub(channel).Echo(request(b"sync")).payload)

        await asyncio.to_thread(blocking)
        assert await seen.get() == b"sync"
