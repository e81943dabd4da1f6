"""S1 to S11 and S13 to S17: what the server's side of a call must do."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Seen,
    Servicer,
    Wire,
    outcome,
    pair,
    request,
    response,
    serve,
    until,
)


async def test_S1_only_complete_completes_a_call_even_with_an_empty_reply(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()  # its routine has returned
        assert both.server.running_calls == 1
        assert not call.done()
        assert server_call.complete(response()) is RpcStatus.OK
        assert await call == response()


async def test_S1_an_async_routine_that_returns_does_not_complete_its_call(wire: Wire) -> None:
    kept: Seen[EchoCall] = Seen()

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            kept.set(call)

    async with pair(Own(), wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await kept.get()
        assert not call.done()
        server_call.complete(response(b"later"))
        assert (await call).payload == b"later"


@pytest.mark.parametrize("kind", ["task", "thread", "inline"])
async def test_S2_completed_inside_the_routine(wire: Wire, kind: str) -> None:
    status: Seen[RpcStatus] = Seen()

    class Own(Servicer):
        if kind == "task":

            @manager
            async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                status.set(call.complete(response(request.payload)))

        elif kind == "thread":

            @manager
            def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                status.set(call.complete(response(request.payload)))

        else:

            @manager(inline=True)
            def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                status.set(call.complete(response(request.payload)))

    async with pair(Own(), wire) as both:
        assert (await begin(both.stub.Echo, request(b"x"))).payload == b"x"
        assert await status.get() is RpcStatus.OK


async def test_S2_an_inline_routine_runs_on_the_dispatch_thread_without_a_task(wire: Wire) -> None:
    where: Seen[tuple[int, Any]] = Seen()

    class Own(Servicer):
        @manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            where.set((threading.get_ident(), rpc_async.current_call()))
            call.complete(response())

    async with pair(Own(), wire) as both:
        await begin(both.stub.Echo, request())
        thread, call = await where.get()
        assert thread == threading.get_ident()
        assert isinstance(call, rpc_async.ServerCall)


async def test_S2_completed_later_from_any_thread_without_any_help_from_the_user(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        status: Seen[RpcStatus] = Seen()
        thread = threading.Thread(target=lambda: status.set(server_call.complete(response(b"thread"))))
        thread.start()
        assert (await asyncio.wait_for(call, PATIENCE)).payload == b"thread"
        assert await status.get() is RpcStatus.OK
        thread.join()


@pytest.mark.parametrize("interceptors", [(), (grpc.aio.ServerInterceptor,)], ids=["plain", "intercepted"])
async def test_S3_the_reply_is_frozen_by_complete(wire: Wire, interceptors: tuple[Any, ...]) -> None:
    class PassOn(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            return await continuation(handler_call_details)

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            reply = response(b"as it was")
            call.complete(reply)
            reply.payload = b"changed"

    async with pair(Own(), wire, interceptors=[PassOn() for _ in interceptors]) as both:
        assert (await begin(both.stub.Echo, request())).payload == b"as it was"


async def test_S4_the_handle_is_destroyed_by_complete(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.complete(response(b"first"))
        with pytest.raises(rpc_async.InvalidAsyncHandle, match="before") as caught:
            server_call.complete(response(b"second"))
        assert caught.value.status == 1914
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            server_call.abort(5)
        assert (await call).payload == b"first"


async def test_S4_the_handle_is_destroyed_by_abort_and_by_an_exception(wire: Wire) -> None:
    raised: Seen[EchoCall] = Seen()

    class Own(Parked):
        @manager
        async def EchoFromThread(self, request: Any, call: Any) -> None:
            raised.set(call)
            raise ValueError("out of the routine")

    servicer = Own()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.abort(77, "first")
        for again in (lambda: server_call.abort(78), lambda: server_call.complete(response())):
            with pytest.raises(rpc_async.InvalidAsyncHandle):
                again()
        assert (await outcome(call)).status == 77
        await outcome(begin(both.stub.EchoFromThread, demo_pb2.EchoFromThreadRequest()))
        dead = await raised.get()
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            dead.complete(response())


async def test_S5_a_reply_of_the_wrong_type_settles_the_call_and_raises(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        for wrong in (demo_pb2.EchoRequest(payload=b"?"), None, b"bytes", "text"):
            call = begin(both.stub.Echo, request())
            server_call = await servicer.next()
            with pytest.raises(rpc_async.BadStubData, match="EchoResponse") as caught:
                server_call.complete(wrong)  # type: ignore[arg-type]
            assert isinstance(caught.value, TypeError)
            error = await outcome(call)
            assert error.status == RpcStatus.BAD_STUB_DATA
            assert error.code() is grpc.StatusCode.INTERNAL
            with pytest.raises(rpc_async.InvalidAsyncHandle):
                server_call.complete(response())


async def test_S5_a_reply_over_the_size_limit_settles_the_call_and_raises(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire, options=[("grpc.max_send_message_length", MIB)]) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(rpc_async.PayloadTooLarge, match=str(MIB)):
            server_call.complete(response(b"x" * MIB))
        error = await outcome(call)
        assert error.status == RpcStatus.OUT_OF_MEMORY
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("code", "status", "grpc_code", "cls"),
    [
        (1, 1, "ABORTED", rpc_async.CallAborted),
        (0xFFFF_FFFF, 0xFFFF_FFFF, "ABORTED", rpc_async.CallAborted),
        (RpcStatus.ACCESS_DENIED, 5, "PERMISSION_DENIED", rpc_async.CallFailed),
        (RpcStatus.CALL_CANCELLED, 1818, "CANCELLED", rpc_async.CallCancelled),
        (1723, 1723, "RESOURCE_EXHAUSTED", rpc_async.ServerTooBusy),
        (grpc.StatusCode.NOT_FOUND, 1726, "NOT_FOUND", rpc_async.CallFailed),
        (grpc.StatusCode.PERMISSION_DENIED, 5, "PERMISSION_DENIED", rpc_async.CallFailed),
    ],
)
async def test_S6_an_abort_code_reaches_the_client_unchanged(
    wire: Wire, code: Any, status: int, grpc_code: str, cls: type[rpc_async.CallError]
) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        aborted = (await servicer.next()).abort(code, "the text: ä, 100 %")
        assert aborted.status is RpcStatus.OK
        error = await outcome(call)
        assert type(error) is cls
        assert error.status == status == call.status()
        assert error.code() is grpc.StatusCode[grpc_code]
        assert error.details() == "the text: ä, 100 %"


@pytest.mark.parametrize("code", [0, -1, 2**32, 997, 1791, grpc.StatusCode.OK])
async def test_S6_a_code_that_cannot_be_an_outcome_is_refused_and_changes_nothing(wire: Wire, code: Any) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(rpc_async.InvalidArgument) as caught:
            server_call.abort(code)
        assert caught.value.status == 87
        assert not call.done()
        assert server_call.complete(response()) is RpcStatus.OK
        await call


async def test_S6_awaiting_an_abort_ends_the_routine(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    went_on = False

    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            nonlocal went_on
            await call.abort(grpc.StatusCode.NOT_FOUND, "not here")
            went_on = True

    async with pair(Own(), wire) as both:
        error = await outcome(begin(both.stub.Echo, request()))
        assert error.code() is grpc.StatusCode.NOT_FOUND
    assert not went_on
    assert not caplog.records


@pytest.mark.parametrize("kind", ["task", "thread", "inline"])
@pytest.mark.parametrize("disclose", [False, True])
async def test_S7_an_exception_fails_the_call(wire: Wire, kind: str, disclose: bool) -> None:
    class Own(Servicer):
        if kind == "task":

            @manager
            async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                raise LookupError("a secret")

        else:

            @manager(inline=kind == "inline")
            def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
                raise LookupError("a secret")

    async with pair(Own(), wire, disclose_errors=disclose) as both:
        error = await outcome(begin(both.stub.Echo, request()))
        assert type(error) is rpc_async.CallFailed
        assert error.status == RpcStatus.CALL_FAILED
        assert ("LookupError: a secret" in error.details()) is disclose
        assert error.executed is True


async def test_S7_an_exception_after_the_end_is_logged_and_changes_nothing(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(Servicer):
        @manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.complete(response(b"done"))
            raise LookupError("too late")

    async with pair(Own(), wire) as both:
        assert (await begin(both.stub.Echo, request())).payload == b"done"
        await until(lambda: caplog.records)
    (record,) = caplog.records
    assert "after the call had settled" in record.getMessage()
    assert record.exc_info is not None
    assert "too late" in str(record.exc_info[1])


async def test_S8_S9_S10_test_cancel_only_looks_and_a_cancelled_call_completes_normally(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        assert server_call.test_cancel() is False
        server_call.raise_if_cancelled()
        assert await call.request_cancel() is RpcStatus.OK
        assert server_call.test_cancel() is True
        assert server_call.test_cancel() is True
        assert server_call.cancel_reason is CancelReason.CLIENT_REQUESTED
        with pytest.raises(rpc_async.CallCancelled):
            server_call.raise_if_cancelled()
        assert not call.done()  # looking has settled nothing
        assert server_call.complete(response(b"an answer")) is RpcStatus.OK
        assert (await call).payload == b"an answer"


async def test_S10_a_settled_call_tests_as_cancelled(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        server_call.complete(response())
        assert server_call.test_cancel() is True
        assert server_call.cancel_reason is None
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        await call


@pytest.mark.parametrize("answer", ["complete", "abort"])
async def test_S11_an_answer_that_nobody_waits_for_is_no_error(wire: Wire, answer: str) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        call.cancel()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        if answer == "complete":
            assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
        else:
            assert server_call.abort(7).status is RpcStatus.CALL_CANCELLED
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            server_call.complete(response())
        assert (await outcome(call)).status == RpcStatus.CALL_CANCELLED


async def test_S13_the_client_asked(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        await call.request_cancel()
        assert server_call.cancel_reason is CancelReason.CLIENT_REQUESTED
        call.cancel()  # an abort outranks a request
        await until(lambda: server_call.cancel_reason is CancelReason.CLIENT_ABORTED)
        server_call.complete(response())


async def test_S13_the_client_aborted(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        assert call.cancel()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.CLIENT_ABORTED
        assert server_call.peer().startswith("ipv4:127.0.0.1:")  # still known, for the log
        server_call.complete(response())


async def test_S13_the_client_aborted_and_closed_its_channel_at_once(wire: Wire) -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target):
        for _ in range(20):
            async with rpc_async.connect(target, transport=wire) as channel:
                call = demo_pb2_grpc.DemoStub(channel).Echo(request())
                server_call = await servicer.next()
                call.cancel()
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
            assert server_call.cancel_reason is CancelReason.CLIENT_ABORTED
            server_call.complete(response())


async def test_S13_a_plain_grpc_client_aborted() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), grpc.aio.insecure_channel(target) as channel:
        call = demo_pb2_grpc.DemoStub(channel).Echo(request())
        sent = asyncio.ensure_future(call)
        server_call = await servicer.next()
        call.cancel()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.CLIENT_ABORTED
        server_call.complete(response())
        with pytest.raises(asyncio.CancelledError):
            await sent


MIB = 1024 * 1024
CLIENT_THAT_WAITS = """
import sys, grpc, rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
plain = sys.argv[2] == "plain"
with (grpc.insecure_channel(sys.argv[1]) if plain else rpc_async.connect(sys.argv[1])) as channel:
    stub = demo_pb2_grpc.DemoStub(channel)
    if plain: stub.Echo(demo_pb2.EchoRequest())
    else: stub.Echo(demo_pb2.EchoRequest()).result()
"""


@pytest.mark.parametrize("kind", ["ours", "plain"])
async def test_S13_the_client_was_killed(kind: str) -> None:
    servicer = Parked()
    async with serve(servicer, linger=0.2) as (_, target):
        with subprocess.Popen([sys.executable, "-c", CLIENT_THAT_WAITS, target, kind]) as process:
            server_call = await servicer.next()
            assert not server_call.test_cancel()
            process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.CLIENT_DISCONNECTED
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED


@pytest.mark.parametrize("kind", ["ours", "plain"])
async def test_S13_the_deadline_passed(wire: Wire, kind: str) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both, grpc.aio.insecure_channel(both.target) as plain:
        stub = both.stub if kind == "ours" else demo_pb2_grpc.DemoStub(plain)
        call = asyncio.ensure_future(stub.Echo(request(), timeout=0.3))
        server_call = await servicer.next()
        remaining = server_call.time_remaining()
        assert remaining is not None
        assert 0 < remaining <= 0.31
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.DEADLINE
        assert server_call.time_remaining() == 0
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_S13_S15_the_server_shuts_down(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire, grace=0.05) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        await both.server.stop()
        assert server_call.cancel_reason is CancelReason.SHUTDOWN
        error = await outcome(call)
        assert type(error) is rpc_async.CallFailed
        assert error.status == RpcStatus.CALL_FAILED
        assert error.cancel_reason is CancelReason.SHUTDOWN
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED  # after the end: dropped, no error


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


async def test_progress_is_watched_and_the_latest_wins(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
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
    assert not caplog.records  # it is a verdict, not an error


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
        assert server_call.peer().startswith("ipv4:127.0.0.1")
        assert server_call.peer_identities() is None
        assert server_call.peer_identity_key() is None
        assert isinstance(server_call.auth_context(), dict)
        server_call.set_trailing_metadata((("x-answer", "42"),))
        server_call.complete(response())
        assert dict(await call.trailing_metadata())["x-answer"] == "42"
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            await until(lambda: not server_call.peer())  # known until the reply is on its way, then no more
