"""C5, C12, C14, S13 and S15 in hours of virtual time: what happens when, and not a moment before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import grpc
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin, testing
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing import FakeClock, Pair
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2
from rpc_async.wire.metadata import CALL_ID_KEY
from tests.harness import Parked, request, response

HOUR = 3600.0
Transport = Literal["session", "native"]
both_transports = pytest.mark.parametrize("transport", ["session", "native"])


class Scene:
    """A pair on a fake clock."""

    def __init__(self, clock: FakeClock, both: Pair, servicer: Parked) -> None:
        self.clock = clock
        self.both = both
        self.servicer = servicer
        self.stub: demo_pb2_grpc.DemoAsyncStub = demo_pb2_grpc.DemoStub(both.channel)


def play(scene: Callable[[Scene], Awaitable[None]], transport: Transport = "session", **options: Any) -> None:
    """Run a scene."""
    clock = FakeClock()

    async def main() -> None:
        servicer = Parked()

        def register(server: rpc_async.Server) -> None:
            demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)

        async with testing.pair(register, transport=transport, **options) as both:
            await scene(Scene(clock, both, servicer))

    clock.run(main(), debug=True)


@both_transports
def test_C12_S13_a_deadline_passes_after_an_hour_on_both_sides(transport: Transport) -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request(), timeout=HOUR)
        server_call = await at.servicer.next()
        await at.clock.advance(HOUR - 100)
        assert call.time_remaining() == server_call.time_remaining() == 100
        assert not call.done()
        assert not server_call.test_cancel()
        await at.clock.advance(100)
        assert call.status() is RpcStatus.CALL_CANCELLED
        assert call.time_remaining() == 0
        with pytest.raises(rpc_async.DeadlineExceeded):
            call.complete()
        assert server_call.cancel_reason is CancelReason.DEADLINE
        assert server_call.time_remaining() == 0
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED

    play(scene, transport)


@both_transports
def test_C12_a_deadline_that_was_met_is_forgotten(transport: Transport) -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request(), timeout=HOUR)
        server_call = await at.servicer.next()
        await at.clock.advance(HOUR - 1)
        assert server_call.complete(response(b"in time")) is RpcStatus.OK
        await at.clock.advance(HOUR)
        assert call.complete().payload == b"in time"

    play(scene, transport)


@both_transports
def test_C5_abort_after_aborts_when_it_says_and_not_before(transport: Transport) -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request())
        server_call = await at.servicer.next()
        await at.clock.advance(10)
        call.request_cancel(abort_after=600)
        await at.clock.advance(599.9)
        assert [server_call.cancel_reason] == [CancelReason.CLIENT_REQUESTED]
        assert not call.done()
        await at.clock.advance(0.1)
        with pytest.raises(rpc_async.CallCancelled, match="within 600 s") as caught:
            call.complete()
        assert caught.value.cancel_reason is CancelReason.CLIENT_ABORTED
        assert server_call.cancel_reason is CancelReason.CLIENT_ABORTED
        server_call.complete(response())

    play(scene, transport)


def test_C14_S13_a_session_is_kept_for_as_long_as_it_lingers_and_then_lost_on_both_sides() -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request())
        server_call = await at.servicer.next()
        at.both.refusing = True
        at.both.cut()
        unsent = begin(at.stub.Echo, request(), wait_for_ready=True)
        await at.clock.advance(29.9)
        assert not call.done()
        assert not unsent.done()
        assert not server_call.test_cancel()
        await at.clock.advance(0.1)
        assert call.status() is RpcStatus.CALL_FAILED
        with pytest.raises(rpc_async.CallFailed) as caught:
            call.complete()
        assert caught.value.executed is None
        assert not unsent.done(), "it surely was not executed, and is willing to wait: the next session takes it"
        assert server_call.cancel_reason is CancelReason.CLIENT_DISCONNECTED
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
        at.both.refusing = False
        await at.clock.advance(10.0)  # the longest pause between two attempts
        (await at.servicer.next()).complete(response(b"anew"))
        assert (await unsent).payload == b"anew"

    play(scene, linger=30.0)


def test_between_two_attempts_to_connect_calls_fail_at_once_that_are_not_willing_to_wait() -> None:
    async def scene(at: Scene) -> None:
        at.both.refusing = True
        waits = begin(at.stub.Echo, request(), wait_for_ready=True)
        await at.clock.advance(60.0)  # by now there are seconds between two attempts
        assert at.both.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        for _ in range(3):
            call = begin(at.stub.Echo, request())
            await asyncio.sleep(0)
            assert call.status() is RpcStatus.SERVER_UNAVAILABLE, "no time has passed"
        assert not waits.done()
        at.both.refusing = False
        await at.clock.advance(10.0)
        (await at.servicer.next()).complete(response())
        await waits

    play(scene)


def test_C14_a_session_that_comes_back_in_time_has_lost_nothing() -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request())
        server_call = await at.servicer.next()
        for _ in range(3):  # each cut has the whole of linger to itself
            at.both.refusing = True
            at.both.cut()
            await at.clock.advance(20)
            at.both.refusing = False
            await at.clock.advance(9.9)
            assert at.both.channel.get_state() is grpc.ChannelConnectivity.READY
        server_call.complete(response(b"after all"))
        assert (await call).payload == b"after all"

    play(scene, linger=30.0)


@both_transports
def test_S13_S15_running_calls_have_the_whole_of_grace_and_no_more(transport: Transport) -> None:
    async def scene(at: Scene) -> None:
        calls = [begin(at.stub.Echo, request()) for _ in range(2)]
        first, second = [await at.servicer.next() for _ in calls]
        stopping = asyncio.create_task(at.both.server.stop())
        await at.clock.advance(299.9)
        assert not stopping.done()
        assert first.complete(response(b"in time")) is RpcStatus.OK
        assert (await calls[0]).payload == b"in time"
        assert not second.test_cancel()
        await at.clock.advance(0.1)
        assert second.cancel_reason is CancelReason.SHUTDOWN
        assert calls[1].status() is RpcStatus.CALL_FAILED
        await stopping
        assert second.complete(response()) is RpcStatus.CALL_CANCELLED

    play(scene, transport, grace=300.0)


def test_a_call_that_ended_can_be_looked_at_for_as_long_as_linger() -> None:
    async def scene(at: Scene) -> None:
        call = begin(at.stub.Echo, request())
        server_call = await at.servicer.next()
        server_call.progress(1.0)
        server_call.complete(response())
        await call
        calls: Any = calls_pb2_grpc.AsyncCallsStub(at.both.channel)
        question = calls_pb2.GetCallRequest(call_id=call.call_id)
        await at.clock.advance(30)
        assert (await calls.GetCall(question)).call.state == types_pb2.CALL_STATE_SETTLED
        await at.clock.advance(1)
        with pytest.raises(rpc_async.CallError) as caught:
            await calls.GetCall(question)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    play(scene, linger=30.0)


@pytest.mark.parametrize(("seconds", "met"), [(30.0, True), (30.5, False)])
def test_a_cancel_that_came_before_its_call_waits_half_a_minute(seconds: float, met: bool) -> None:
    call_id = "A" * 32

    async def scene(at: Scene) -> None:
        calls: Any = calls_pb2_grpc.AsyncCallsStub(at.both.channel)
        await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=call_id))
        await at.clock.advance(seconds)
        plain: Any = demo_pb2_grpc.DemoStub(at.both.channel.native().channel)
        call = plain.Echo(request(), metadata=((CALL_ID_KEY, call_id),))
        server_call = await at.servicer.next()
        assert server_call.test_cancel() is met
        server_call.complete(response())
        await call

    play(scene)
