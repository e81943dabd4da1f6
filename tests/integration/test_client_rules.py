"""C1 to C3, C5 to C8, C11, C12, C15, and of C14 what the native wire can tell: the client's side of a call."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import (
    PATIENCE,
    Parked,
    Seen,
    SocketWire,
    Wire,
    logged,
    outcome,
    pair,
    request,
    response,
    serve,
    until,
)


async def test_C1_C2_C3_pending_consumes_nothing_and_then_the_reply_is_there(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), user_info="mine")
        server_call = await servicer.next()
        for _ in range(3):
            assert call.status() is RpcStatus.ASYNC_CALL_PENDING
            with pytest.raises(rpc_async.AsyncCallPending) as caught:
                call.complete()
            assert caught.value.status == 997
        assert not call.done()
        assert not call.cancelled()
        server_call.complete(response(b"reply"))
        await until(call.done)
        for _ in range(3):
            assert call.status() is RpcStatus.OK
            assert call.complete().payload == b"reply"
        assert call.user_info == "mine"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""


async def test_C2_C3_a_failure_is_the_status_and_is_raised_each_time_anew(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        (await servicer.next()).abort(4711, "no")
        await until(call.done)
        assert call.status() == 4711
        errors: list[rpc_async.CallError] = []
        for _ in range(2):
            with pytest.raises(rpc_async.CallAborted) as caught:
                call.complete()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert isinstance(errors[0], grpc.RpcError)
        assert isinstance(errors[0], grpc.aio.AioRpcError)
        assert await call.code() is grpc.StatusCode.ABORTED
        assert await call.details() == "no"
        again = pickle.loads(pickle.dumps(errors[0]))
        assert (type(again), str(again), again.fault) == (type(errors[0]), str(errors[0]), errors[0].fault)
        assert call.call_id not in str(errors[0])  # a secret


@pytest.mark.parametrize("verdict", ["reply", "fault", "cancelled"])
async def test_C5_the_verdict_of_a_request_is_what_the_server_then_does(wire: Wire, verdict: str) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        asked = call.request_cancel()
        assert asked is call.request_cancel()
        assert await asked is RpcStatus.OK
        assert asked.status is RpcStatus.OK
        assert not call.done()
        match verdict:
            case "reply":
                server_call.complete(response(b"all the same"))
                assert (await call).payload == b"all the same"
            case "fault":
                server_call.abort(99)
                assert (await outcome(call)).status == 99
            case _:
                server_call.abort(RpcStatus.CALL_CANCELLED, "stopped")
                assert type(await outcome(call)) is rpc_async.CallCancelled


async def test_C5_abort_after_asks_waits_and_then_aborts(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        began = time.monotonic()
        call.request_cancel(abort_after=0.2)
        error = await outcome(call)
        assert time.monotonic() - began >= 0.2
        assert error.cancel_reason is CancelReason.CLIENT_ABORTED
        assert "0.2 s" in error.details()
        await until(lambda: server_call.cancel_reason is CancelReason.CLIENT_ABORTED)
        server_call.complete(response())


async def test_C5_abort_after_does_nothing_to_a_call_that_settles_in_time(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(rpc_async.InvalidArgument):
            call.request_cancel(abort_after=-1)
        assert not server_call.test_cancel()
        call.request_cancel(abort_after=PATIENCE)
        await server_call.wait_cancelled()
        server_call.complete(response(b"in time"))
        assert (await call).payload == b"in time"


async def test_C5_a_request_that_overtakes_its_call_is_not_lost(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        for _ in range(30):
            call = begin(both.stub.Echo, request(b"x" * 300_000))
            asked = call.request_cancel()  # before anything of the call is on the wire
            server_call = await servicer.next()
            assert await asyncio.wait_for(asked, PATIENCE) is RpcStatus.OK
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
            assert server_call.cancel_reason is CancelReason.CLIENT_REQUESTED
            server_call.complete(response())
            await call


async def test_C6_an_abort_settles_at_once_and_the_server_is_told(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        assert call.cancel() is True
        assert call.done()
        assert call.cancelled()
        assert call.status() is RpcStatus.CALL_CANCELLED
        with pytest.raises(rpc_async.CallCancelled) as caught:
            call.complete()
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert caught.value.cancel_reason is CancelReason.CLIENT_ABORTED
        assert caught.value.executed is None
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        server_call.complete(response())


async def test_C6_a_call_aborted_before_it_left_never_arrives(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls: list[rpc_async.AsyncCall[demo_pb2.EchoResponse]] = []

        def in_thread() -> None:
            calls.append(begin(both.stub.Echo, request(b"aborted")))
            calls[0].cancel()

        both_done = threading.Thread(target=in_thread)
        both_done.start()
        both_done.join()  # the loop has not run since
        assert calls[0].status() is RpcStatus.CALL_CANCELLED
        second = begin(both.stub.Echo, request(b"second"))
        (await servicer.next()).complete(response())
        await second
        assert servicer.arrived.empty()
        assert dict(tuple(await calls[0].initial_metadata())) == {}
        assert dict(tuple(await calls[0].trailing_metadata())) == {}


async def test_C7_cancelling_a_settled_call_is_a_no_op_that_says_so(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        (await servicer.next()).complete(response(b"kept"))
        await call
        assert call.cancel() is False
        assert await call.request_cancel() is RpcStatus.NO_CALL_ACTIVE
        assert call.request_cancel(abort_after=0).result(1) is RpcStatus.NO_CALL_ACTIVE
        assert call.complete().payload == b"kept"


async def test_C8_exactly_one_notification_for_a_call_that_began(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        notified: list[object] = []
        call = begin(both.stub.Echo, request())
        for _ in range(3):
            call.add_done_callback(notified.append)
        server_call = await servicer.next()
        await call.request_cancel()
        call.cancel()
        call.cancel()
        server_call.complete(response())
        await until(lambda: len(notified) >= 3)
        call.add_done_callback(notified.append)  # after the fact: at once
        await until(lambda: len(notified) >= 4)
        assert notified == [call] * 4


async def test_C8_a_callback_that_raises_is_logged_and_stops_no_other(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        notified: list[object] = []
        call.add_done_callback(lambda _: 1 / 0)
        call.add_done_callback(notified.append)
        (await servicer.next()).complete(response())
        await until(lambda: notified)
    assert [record.getMessage() for record in logged(caplog)] == [f"{call!r}: a done-callback raised"]


async def test_C8_none_when_beginning_the_call_raised(wire: Wire) -> None:
    async with pair(Parked(), wire) as both:
        wrong: Any = demo_pb2.EchoResponse()
        with pytest.raises(rpc_async.BadStubData, match="EchoRequest"):
            begin(both.stub.Echo, wrong)
        bad: Any
        for bad in ({"timeout": float("nan")}, {"metadata": (("Upper", "x"),)}, {"metadata": (("x-bin", "text"),)}):
            with pytest.raises(rpc_async.InvalidArgument):
                begin(both.stub.Echo, request(), **bad)
        with pytest.raises(rpc_async.InvalidArgument, match="rpc_async channel"):
            begin(both.stub.Echo.__call__, request())  # type: ignore[call-overload]
        assert both.server.running_calls == 0


async def test_C11_a_wait_that_ends_early_leaves_the_call_outstanding(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.01)
        assert await asyncio.to_thread(call.wait, 0.01) is False
        with pytest.raises(TimeoutError, match="outstanding"):
            await asyncio.to_thread(call.result, 0.01)
        waiting = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not call.done()
        assert not server_call.test_cancel()
        server_call.complete(response(b"still"))
        assert (await call).payload == b"still"


async def test_C12_a_deadline_is_honoured_and_told(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), timeout=0.2)
        remaining = call.time_remaining()
        assert remaining is not None
        assert 0 < remaining <= 0.2
        server_call = await servicer.next()
        assert server_call.time_remaining() is not None
        error = await outcome(call)
        assert type(error) is rpc_async.DeadlineExceeded
        assert error.status == RpcStatus.CALL_CANCELLED == call.status()
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.cancel_reason is CancelReason.DEADLINE
        assert not call.cancelled()  # as in gRPC
        assert call.time_remaining() == 0
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        server_call.complete(response())


async def test_C12_a_deadline_that_has_passed_when_the_call_begins(wire: Wire) -> None:
    async with pair(Parked(), wire) as both:
        for timeout in (0, -1, 1e-9):
            assert type(await outcome(begin(both.stub.Echo, request(), timeout=timeout))) is rpc_async.DeadlineExceeded


async def test_C14_a_server_that_was_never_there_surely_executed_nothing() -> None:
    async with serve(Parked()) as (_, target):
        pass
    async with rpc_async.connect(target) as channel:
        error = await outcome(demo_pb2_grpc.DemoStub(channel).Echo(request()))
        assert type(error) is rpc_async.ServerUnavailable
        assert error.executed is False
        assert "surely not executed" in str(error)


SERVER_THAT_PARKS = """
import asyncio, rpc_async
from tests.harness import Parked, serve
async def main():
    async with serve(Parked()) as (_, target):
        print(target, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_C14_a_server_killed_while_it_runs_the_call_may_have_executed_it(socket_wire: SocketWire) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER_THAT_PARKS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        target = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with rpc_async.connect(target, transport=socket_wire, linger=0.2) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            assert await call.request_cancel() is RpcStatus.OK  # so it has arrived
            process.send_signal(signal.SIGKILL)
            error = await outcome(call)
            assert type(error) is rpc_async.CallFailed
            assert error.status == RpcStatus.CALL_FAILED
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.executed is None


async def test_C15_a_faults_whole_chain_arrives_in_order(wire: Wire) -> None:
    chain = [
        error_details_pb2.ErrorInfo(domain="theirs", reason="A"),
        error_details_pb2.DebugInfo(detail="second"),
        demo_pb2.EchoRequest(payload=b"\x00" * 20_000),
    ]
    servicer = Parked()
    async with pair(servicer, wire, max_trailers=60_000) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.set_trailing_metadata((("x-more", "also"),))
        server_call.abort(600, "why", chain)
        error = await outcome(call)
        assert [detail.type_url.rpartition("/")[2] for detail in error.status_details] == [
            message.DESCRIPTOR.full_name for message in chain
        ]
        assert [detail.value for detail in error.status_details] == [message.SerializeToString() for message in chain]
        assert error.trailing_metadata()["x-more"] == "also"


async def test_C15_a_chain_that_is_too_large_aborts_with_the_code_and_raises(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        with pytest.raises(rpc_async.PayloadTooLarge):
            (await servicer.next()).abort(600, "why", [demo_pb2.EchoRequest(payload=b"\x00" * 70_000)])
        error = await outcome(call)
        assert error.status == 600
        assert "not sent" in error.details()


async def test_a_channel_that_closes_aborts_what_is_outstanding(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        await both.channel.close()
        error = await outcome(call)
        assert type(error) is rpc_async.CallCancelled
        assert "closed" in error.details()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        with pytest.raises(rpc_async.InvalidBinding, match="closed"):
            begin(both.stub.Echo, request())
        assert both.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        server_call.complete(response())


async def test_a_channel_that_closes_with_grace_lets_calls_finish(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        closing = asyncio.ensure_future(both.channel.close(grace=PATIENCE))
        await asyncio.sleep(0)
        server_call.complete(response(b"in time"))
        assert (await call).payload == b"in time"
        await closing


def in_new_loop(coroutine: Any) -> Any:
    """Run a coroutine on a loop of its own, in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(coroutine)))
    thread.start()
    thread.join()
    return results[0]


async def test_a_handle_works_from_any_loop_and_any_thread(wire: Wire) -> None:
    servicer = Parked()

    async def elsewhere(call: rpc_async.AsyncCall[demo_pb2.EchoResponse]) -> tuple[Any, ...]:
        asked = await call.request_cancel()
        reports = [report.fraction async for report in call.progress()]
        reply = await call
        return asked, reports[-1:], reply.payload, (await call.trailing_metadata())["x-key"], await call.code()

    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        other = asyncio.to_thread(in_new_loop, elsewhere(call))
        task = asyncio.ensure_future(other)
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        server_call.progress(0.5)
        await until(lambda: call.last_progress is not None)
        server_call.set_trailing_metadata((("x-key", "v"),))
        server_call.complete(response(b"across"))
        assert await task == (RpcStatus.OK, [0.5], b"across", "v", grpc.StatusCode.OK)


async def test_server_handles_wait_on_any_loop(wire: Wire) -> None:
    servicer = Parked()

    async def elsewhere(server_call: Any) -> CancelReason:
        await server_call.wait_cancelled()
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(rpc_async.CallCancelled):
                await stack.enter_async_context(server_call.interruptible())
        server_call.complete(response())
        reason: CancelReason = server_call.cancel_reason
        return reason

    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        task = asyncio.ensure_future(asyncio.to_thread(in_new_loop, elsewhere(server_call)))
        call.request_cancel()
        assert await task is CancelReason.CLIENT_REQUESTED
        await call


async def test_plain_with_has_a_thread_and_a_loop_of_its_own(socket_wire: SocketWire) -> None:
    servicer = Parked()

    def blocking(target: str) -> bytes:
        with rpc_async.connect(target, transport=socket_wire) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            call = begin(stub.Echo, request(b"from a thread"))
            assert call.wait(0.0) is False
            reply = call.result(PATIENCE)
            refused: Seen[BaseException] = blocked
            call.add_done_callback(lambda done: refused.set(_raised(begin(stub.Echo, request()).result)))
            threads = threading.enumerate()
            assert any(thread.name.startswith("rpc_async-channel") for thread in threads)
            assert call.result() == reply
            blocked_done.wait(PATIENCE)
        assert not any(thread.name.startswith("rpc_async-channel") for thread in threading.enumerate())
        with pytest.raises(rpc_async.InvalidBinding):
            stub.Echo(request())
        return reply.payload

    blocked: Seen[BaseException] = Seen()
    blocked_done = threading.Event()
    async with serve(servicer) as (_, target):
        task = asyncio.ensure_future(asyncio.to_thread(blocking, target))
        (await servicer.next()).complete(response(b"to a thread"))
        # Blocking the channel's own loop would wait for itself: it is refused, not hung.
        assert isinstance(await blocked.get(), rpc_async.InvalidAsyncCall)
        blocked_done.set()
        assert await task == b"to a thread"


def _raised(function: Any) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    return AssertionError("did not raise")


async def test_a_channel_can_be_used_without_with_as_grpcs_can(socket_wire: SocketWire) -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target):
        channel = rpc_async.connect(target, transport=socket_wire)
        stub = demo_pb2_grpc.DemoStub(channel)
        call = stub.Echo(request())
        (await servicer.next()).complete(response(b"ok"))
        assert (await call).payload == b"ok"
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await channel.close()
        await channel.close()


def test_a_channel_that_is_not_open_says_what_to_do() -> None:
    stub = demo_pb2_grpc.DemoStub(rpc_async.connect("localhost:1"))
    with pytest.raises(rpc_async.InvalidBinding, match="async with"):
        stub.Echo(request())


async def test_waiting_for_ready_waits_and_fail_fast_fails(socket_wire: SocketWire) -> None:
    async with serve(Parked()) as (_, target):
        pass
    async with rpc_async.connect(target, transport=socket_wire) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        assert type(await outcome(stub.Echo(request()))) is rpc_async.ServerUnavailable
        patient = stub.Echo(request(), wait_for_ready=True, timeout=0.3)
        assert type(await outcome(patient)) is rpc_async.DeadlineExceeded


async def test_client_interceptors_see_messages() -> None:
    seen: list[object] = []

    class Watch(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(request)
            return await continuation(client_call_details, request)

    servicer = Parked()
    async with serve(servicer) as (_, target):
        async with rpc_async.connect(target, interceptors=[Watch()]) as channel:
            call = demo_pb2_grpc.DemoStub(channel).Echo(request(b"in"))
            (await servicer.next()).complete(response(b"out"))
            assert (await call).payload == b"out"
    assert seen == [request(b"in")]
