"""S14 to S17: forgotten handles, shutdown, how many calls run, and the running one."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin, manager
from rpc_async.demo.v1 import demo_pb2
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Servicer,
    Wire,
    outcome,
    pair,
    request,
    response,
)


@pytest.mark.parametrize("kind", ["task", "thread", "inline"])
async def test_S14_a_forgotten_handle_is_aborted_at_once(wire: Wire, kind: str) -> None:
    class Own(Servicer):
        if kind == "task":

            @manager
            async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                await asyncio.sleep(0)

        else:

            @manager(inline=kind == "inline")
            def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                return

    async with pair(Own(), wire) as both:
        error = await outcome(begin(both.stub.Echo, request()))
        assert error.status == RpcStatus.CALL_FAILED
        assert "returned without completing" in error.details()
        assert both.server.running_calls == 0


async def test_S14_a_handle_that_somebody_holds_is_not_forgotten_until_it_is(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call: EchoCall | None = await servicer.next()
        gc.collect()
        assert server_call is not None
        assert not server_call.test_cancel()
        assert not call.done()
        server_call = None
        assert (await outcome(call)).status == RpcStatus.CALL_FAILED


async def test_S14_a_routine_that_drops_its_handle_while_it_runs_is_not_forgotten(wire: Wire) -> None:
    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            del call
            gc.collect()
            await asyncio.sleep(0)
            again = rpc_async.current_call()
            assert again is not None
            again.complete(response(b"found again"))

    async with pair(Own(), wire) as both:
        assert (await begin(both.stub.Echo, request())).payload == b"found again"


async def test_S15_new_calls_are_refused_and_running_ones_may_finish(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire, grace=PATIENCE) as both:
        running = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        stopping = asyncio.ensure_future(both.server.stop())
        while (refused := await outcome(begin(both.stub.EchoFromThread, demo_pb2.EchoFromThreadRequest()))).status == (
            RpcStatus.PROCNUM_OUT_OF_RANGE
        ):
            pass  # not stopping yet
        assert type(refused) is rpc_async.ServerUnavailable
        assert refused.executed is False
        assert not server_call.test_cancel()
        assert not running.done()
        assert await running.request_cancel() is RpcStatus.OK  # a running call can still be asked to stop
        assert server_call.complete(response(b"finished")) is RpcStatus.OK
        assert (await running).payload == b"finished"
        await asyncio.wait_for(stopping, PATIENCE)
        refused = await outcome(begin(both.stub.Echo, request()))
        assert refused.status == RpcStatus.SERVER_UNAVAILABLE
        assert refused.executed is False


async def test_S15_replies_that_take_long_to_send_are_sent_before_the_server_stops(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(4)]
        large = response(bytes(3 * 1024 * 1024))
        for call in [await servicer.next() for _ in calls]:
            assert call.complete(large) is RpcStatus.OK
        await asyncio.wait_for(both.server.stop(PATIENCE), PATIENCE)
        assert [await asyncio.wait_for(call, PATIENCE) for call in calls] == [large] * 4


async def test_S15_a_second_stop_can_end_the_grace_period(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire, grace=10 * PATIENCE) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        stopping = asyncio.ensure_future(both.server.stop())
        await asyncio.sleep(0)
        await asyncio.wait_for(both.server.stop(None), PATIENCE)
        await stopping
        assert server_call.cancel_reason is CancelReason.SHUTDOWN
        assert (await outcome(call)).status == RpcStatus.CALL_FAILED
        assert await both.server.wait_for_termination(PATIENCE) is False


async def test_S16_at_most_max_calls_run(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire, max_calls=2) as both:
        calls = [begin(both.stub.Echo, request()) for _ in range(2)]
        running = [await servicer.next() for _ in range(2)]
        assert both.server.running_calls == 2
        refused = await outcome(begin(both.stub.Echo, request()))
        assert type(refused) is rpc_async.ServerTooBusy
        assert refused.status == 1723
        assert refused.executed is False
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        running[0].complete(response())
        await asyncio.wait(map(asyncio.ensure_future, calls), return_when=asyncio.FIRST_COMPLETED)
        third = begin(both.stub.Echo, request())
        (await servicer.next()).complete(response(b"third"))
        assert (await third).payload == b"third"
        running[1].complete(response())
        await asyncio.gather(*calls)


async def test_S17_the_running_managers_call_is_found_in_its_task_and_in_its_thread(wire: Wire) -> None:
    found: list[bool] = []

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            found.append(rpc_async.current_call() is call)
            found.append(await asyncio.to_thread(rpc_async.current_call) is call)

            async def child() -> bool:
                return rpc_async.current_call() is call

            found.append(await asyncio.create_task(child()))
            call.complete(response())

        @manager
        def EchoFromThread(self, request: Any, call: Any) -> None:
            found.append(rpc_async.current_call() is call)
            call.complete(demo_pb2.EchoFromThreadResponse())

    async with pair(Own(), wire) as both:
        await begin(both.stub.Echo, request())
        await begin(both.stub.EchoFromThread, demo_pb2.EchoFromThreadRequest())
    assert found == [True] * 4
    assert rpc_async.current_call() is None
