"""S1 to S7: how the server ends a call."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin, manager
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

MIB = 1024 * 1024


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
    assert not logged(caplog)


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
        await until(lambda: logged(caplog))
    (record,) = logged(caplog)
    assert "after the call had settled" in record.getMessage()
    assert record.exc_info is not None
    assert "too late" in str(record.exc_info[1])
