"""What else the server handle can do: progress, interruptible blocks, metadata."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, begin, manager
from rpc_async.demo.v1 import demo_pb2
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Seen,
    Servicer,
    Wire,
    logged,
    outcome,
    pair,
    request,
    response,
    until,
)


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls pass once the test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.waiting.set()
        await self.open.wait()
        return await continuation(handler_call_details)


async def test_progress_of_a_call_that_is_watched_before_its_routine_runs(wire: Wire) -> None:
    servicer, gate = Parked(), Gate()
    async with pair(servicer, wire, interceptors=[gate]) as both:
        call = begin(both.stub.Echo, request())
        reports = call.progress()
        first = asyncio.ensure_future(anext(reports))
        await asyncio.wait_for(gate.waiting.wait(), PATIENCE)
        gate.open.set()
        server_call = await servicer.next()
        server_call.progress(0.5)
        assert (await asyncio.wait_for(first, PATIENCE)).fraction == 0.5
        server_call.complete(response())
        assert await call == response()


@pytest.mark.parametrize("intercepted", [False, True])
async def test_progress_is_watched_and_the_latest_wins(wire: Wire, intercepted: bool) -> None:
    servicer, gate = Parked(), Gate()
    gate.open.set()
    async with pair(servicer, wire, interceptors=[gate] if intercepted else []) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.progress(0.25, "a quarter", demo_pb2.EchoRequest(payload=b"d"))
        reports = call.progress()
        first = await asyncio.wait_for(anext(reports), PATIENCE)
        assert (first.fraction, first.message) == (0.25, "a quarter")
        assert first.details is not None
        assert first.details.type_url.endswith("EchoRequest")
        for step in range(100):
            server_call.progress(0.25 + step / 400)
        server_call.progress(1.0, "all")
        last = first
        async for last in reports:
            if last.fraction == 1.0:
                server_call.complete(response())
        assert last.message == "all"
        assert call.last_progress == last
        server_call.progress(0.5)  # after the end: nobody is told, and it is no error
        assert call.last_progress == last


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
async def test_progress_out_of_range_is_refused(wire: Wire, fraction: float) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(rpc_async.InvalidArgument):
            server_call.progress(fraction)
        server_call.complete(response())
        await call


async def test_interruptible_turns_a_cancel_into_an_exception(wire: Wire) -> None:
    entered: Seen[None] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            try:
                async with call.interruptible():
                    entered.set(None)
                    await asyncio.Event().wait()
            except rpc_async.CallCancelled:
                task = asyncio.current_task()
                assert task is not None
                assert not task.cancelling()
                call.complete(response(b"interrupted"))

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        await entered.get()
        call.request_cancel()
        assert (await call).payload == b"interrupted"


async def test_C5_a_verdict_of_1818_by_an_exception_out_of_the_routine(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    entered: Seen[None] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            async with call.interruptible():
                entered.set(None)
                await asyncio.Event().wait()

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        await entered.get()
        call.request_cancel()
        error = await outcome(call)
        assert type(error) is rpc_async.CallCancelled
        assert error.cancel_reason is CancelReason.CLIENT_REQUESTED
    assert not logged(caplog)  # it is a verdict, not an error


async def test_interruptible_leaves_the_tasks_own_cancel_alone(wire: Wire) -> None:
    seen: Seen[str] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            async with call.interruptible():
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                except TimeoutError:
                    seen.set("timeout")
            with pytest.raises(rpc_async.InvalidAsyncCall):
                async with call.interruptible() as block, block:
                    pass
            call.complete(response())

    async with pair(Own(), wire) as both:
        await begin(both.stub.Echo, request())
        assert await seen.get() == "timeout"


async def test_trailing_metadata_and_context_reach_the_other_side(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), metadata=(("x-question", "what"), ("x-bytes-bin", b"\x00\xff")))
        server_call = await servicer.next()
        metadata = dict(server_call.invocation_metadata())
        assert metadata["x-question"] == "what"
        assert metadata["x-bytes-bin"] == b"\x00\xff"
        assert server_call.call_id == call.call_id
        assert server_call.method == "/rpc_async.demo.v1.Demo/Echo" == call.method
        assert server_call.time_remaining() is None
        assert server_call.peer().startswith(("ipv4:127.0.0.1:", "in-process:"))
        assert server_call.peer_identities() is None
        assert server_call.peer_identity_key() is None
        assert isinstance(server_call.auth_context(), dict)
        server_call.set_trailing_metadata((("x-answer", "42"),))
        server_call.complete(response())
        assert (await call.trailing_metadata())["x-answer"] == "42"
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            await until(lambda: not server_call.peer())  # known until the reply is on its way, then no more
