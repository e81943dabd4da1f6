"""Known faults of the layer below, which must not show through."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin, manager
from rpc_async.demo.v1 import demo_pb2
from tests.harness import PATIENCE, EchoCall, Parked, Seen, Servicer, Wire, outcome, pair, request, response, until

BURST = 10_000


async def test_a_manager_that_raises_a_cancel_does_not_leave_the_client_hanging(wire: Wire) -> None:
    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            raise asyncio.CancelledError

    async with pair(Own(), wire) as both:
        assert (await outcome(begin(both.stub.Echo, request()))).status == RpcStatus.CALL_FAILED


async def test_a_manager_whose_task_is_cancelled_and_that_re_raises_does_not_either(wire: Wire) -> None:
    task: Seen[asyncio.Task[Any]] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            current = asyncio.current_task()
            assert current is not None
            task.set(current)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert not call.test_cancel()  # it was the task that was cancelled, not the call
                raise

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        (await task.get()).cancel()
        assert (await outcome(call)).status == RpcStatus.CALL_FAILED


async def test_a_manager_that_swallows_its_cancel_still_completes(wire: Wire) -> None:
    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            await call.wait_cancelled()
            try:
                async with call.interruptible():
                    await asyncio.Event().wait()
            except rpc_async.CallCancelled:
                pass
            call.complete(response(b"after"))

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        call.request_cancel()
        assert (await outcome(call)).payload == b"after"


async def test_no_cancelled_error_is_injected_into_a_manager(wire: Wire) -> None:
    seen: Seen[str] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            try:
                await call.wait_cancelled()
                await asyncio.sleep(0)
                seen.set("told by the flag")
            except BaseException as error:
                seen.set(repr(error))
                raise
            call.complete(response())

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        await until(lambda: both.server.running_calls)
        call.cancel()
        assert await seen.get() == "told by the flag"


@pytest.mark.parametrize("how", ["ask", "abort", "deadline"])
async def test_a_sync_manager_sees_a_cancel(wire: Wire, how: str) -> None:
    started: Seen[None] = Seen()
    seen: Seen[CancelReason | None] = Seen()

    class Own(Servicer):
        @manager
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            started.set(None)
            pause = threading.Event()
            while not call.test_cancel():
                pause.wait(0.001)
            seen.set(call.cancel_reason)
            call.complete(response())

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request(), timeout=0.2 if how == "deadline" else None)
        await started.get()
        if how == "ask":
            call.request_cancel()
        elif how == "abort":
            call.cancel()
        expected = {
            "ask": CancelReason.CLIENT_REQUESTED,
            "abort": CancelReason.CLIENT_ABORTED,
            "deadline": CancelReason.DEADLINE,
        }
        assert await seen.get() is expected[how]
        await outcome(call)


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_ordinary_handler_that_raises_a_cancel_does_not_leave_the_client_hanging(streaming: bool) -> None:
    async def unary(request: Any, context: Any) -> bytes:
        raise asyncio.CancelledError

    async def stream(request: Any, context: Any) -> Any:
        yield b"one"
        raise asyncio.CancelledError

    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = rpc_async.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}") as channel:
        if streaming:
            received = []
            with pytest.raises(grpc.aio.AioRpcError, match="CancelledError"):
                async with asyncio.timeout(PATIENCE):
                    async for message in channel.unary_stream("/t.T/Stream")(b""):
                        received += [message]
            assert received == [b"one"]
        else:
            error = await outcome(channel.unary_unary("/t.T/Unary")(b""))
            assert error.status == RpcStatus.CALL_FAILED
            assert "CancelledError" in error.details()
    assert server.running_calls == 0
    await server.stop(None)


@pytest.mark.timeout(180)
async def test_a_burst_of_calls_is_taken_whole(wire: Wire) -> None:
    asyncio.get_running_loop().set_debug(False)  # ten thousand tracebacks a second
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(BURST)]
        for _ in range(BURST):
            (await servicer.next()).complete(response(b"taken"))
        counts = Counter([getattr(await outcome(call), "payload", b"lost") for call in calls])
    assert counts == {b"taken": BURST}


@pytest.mark.timeout(180)
async def test_a_burst_over_max_calls_is_refused_with_a_word(wire: Wire) -> None:
    asyncio.get_running_loop().set_debug(False)
    servicer = Parked()
    room = 100
    async with pair(servicer, wire, max_calls=room) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(BURST)]
        parked = [await servicer.next() for _ in range(room)]
        await until(lambda: sum(call.done() for call in calls) >= BURST - room)
        counts = Counter(call.status() for call in calls)
        assert counts == {RpcStatus.SERVER_TOO_BUSY: BURST - room, RpcStatus.ASYNC_CALL_PENDING: room}
        for server_call in parked:
            server_call.complete(response())
        for call in calls:
            await outcome(call)
