"""A hostile server of the session wire: the client's calls settle, and its memory and its peace are its own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.core import link
from rpc_async.core.outcome import Fault
from rpc_async.core.session import MAX_METHODS
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.v1 import session_pb2
from rpc_async.wire.session import BothMetadata, Opened, encode_response, fault_head, opened_response
from tests.harness import Parked, outcome, pair, request, until
from tests.raw import K

MIB = 1024 * 1024
OPENED = opened_response(Opened(True, 30.0, MIB), 0)


@asynccontextmanager
async def pretend(serve: Callable[[Any], Awaitable[None]], **options: Any) -> AsyncIterator[rpc_async.Channel]:
    """Run a server that does with each stream what a test says, and connect to it."""

    async def session(_: Any, context: Any) -> None:
        await context.read()
        await serve(context)

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(session)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("rpc_async.v1.AsyncCalls", {"Session": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with rpc_async.connect(f"127.0.0.1:{port}", transport="session", **options) as channel:
            yield channel
    finally:
        await server.stop(None)


@pytest.mark.parametrize("reads", [True, False])
async def test_S16_a_server_that_acknowledges_nothing_does_not_fill_the_clients_memory(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FULL_BYTES", 2 * MIB)
    over = asyncio.Event()

    async def silent(context: Any) -> None:
        await context.write(OPENED)
        while reads and await context.read() is not grpc.aio.EOF:
            """And say nothing."""
        await over.wait()

    async with pretend(silent) as channel:
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        await channel.channel_ready()
        assert channel._session is not None
        machine = channel._session.session.machine
        calls = []
        for _ in range(400):
            full = machine.link.full  # when there is room again is for gRPC
            calls.append(begin(echo, request(bytes(50_000))))
            assert calls[-1].done() == full
            await asyncio.sleep(0)
        settled = [call for call in calls if call.done()]
        assert 200 < len(settled) < 400
        for call in settled:
            error = await outcome(call)
            assert isinstance(error, rpc_async.ServerTooBusy)
            assert error.executed is False
            assert "not sent" in error.details()
        assert machine.held < link.WINDOW + 3 * MIB
        for call in calls:
            call.cancel()
        over.set()


async def test_a_server_that_ends_every_stream_at_once_does_not_keep_the_client_busy() -> None:
    streams = 0

    async def brief(context: Any) -> None:
        nonlocal streams
        streams += 1
        await context.write(OPENED)

    async with pretend(brief, linger=1.0) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.0
        await until(lambda: loop.time() > end or call.done(), "a second")
        assert 1 < streams < 15
        call.cancel()


@pytest.mark.parametrize("linger", [math.nan, -1.0, -math.inf])
async def test_a_session_that_lingers_for_no_time_that_there_is(linger: float) -> None:
    async def strange(context: Any) -> None:
        await context.write(opened_response(Opened(True, linger, MIB), 0))
        await context.read()

    async with pretend(strange) as channel:
        error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
        assert error.status == RpcStatus.INTERNAL_ERROR
        assert "lingers" in error.details()


@pytest.mark.parametrize(
    ("kind", "payload", "status"),
    [
        (K.FAULT, b"\xff", RpcStatus.CALL_FAILED),
        (K.REPLY_WITH_HEAD, b"\xff", RpcStatus.CALL_FAILED),
        (K.CANCEL_NOTE, session_pb2.CancelNote(status=12345).SerializeToString(), RpcStatus.CALL_FAILED),
        (K.FAULT, session_pb2.FaultHead(code=0).SerializeToString(), RpcStatus.CALL_FAILED),
        (K.FAULT, session_pb2.FaultHead(code=99).SerializeToString(), RpcStatus.CALL_FAILED),
        (K.FAULT, session_pb2.FaultHead(code=-5).SerializeToString(), RpcStatus.CALL_FAILED),
        (K.FAULT, fault_head(Fault(4711, "", 99), BothMetadata()), 4711),
        (K.START, b"", RpcStatus.CALL_FAILED),
        (K.CLOSE, b"", RpcStatus.CALL_FAILED),
    ],
)
async def test_an_outcome_that_cannot_be_settles_its_call_all_the_same(
    caplog: pytest.LogCaptureFixture, kind: K, payload: bytes, status: int
) -> None:
    caplog.set_level(logging.DEBUG)

    async def answer(context: Any) -> None:
        await context.write(OPENED)
        await context.read()
        await context.write(encode_response([(int(kind), 1, payload)], 2))
        await context.read()

    async with pretend(answer) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        call.request_cancel()
        error = await outcome(call)
        assert isinstance(error, rpc_async.CallError)
        assert error.status == status
        assert error.code() is not grpc.StatusCode.OK
        assert call.call_id not in caplog.text + str(error) + repr(error) + repr(call)


async def test_methods_that_a_session_cannot_name_begin_no_call() -> None:
    async with pair(Parked(), "session") as both:
        long = both.channel.unary_unary("/" + "m" * 2000)
        with pytest.raises(rpc_async.CannotSupport, match="no call was begun"):
            long(b"")
        calls = [both.channel.unary_unary(f"/no.Such/Method{number}")(b"") for number in range(MAX_METHODS)]
        with pytest.raises(rpc_async.CannotSupport, match="4096 methods"):
            both.channel.unary_unary("/one/more")(b"")
        for call in calls:
            assert (await outcome(call)).status == RpcStatus.PROCNUM_OUT_OF_RANGE
