"""S8 to S11 and S13: what the server sees of a cancel, and why there was one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2_grpc
from tests.harness import (
    PATIENCE,
    Parked,
    SocketWire,
    Wire,
    outcome,
    pair,
    request,
    response,
    serve,
    until,
)

CLIENT_THAT_WAITS = """
import sys, grpc, rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
plain = sys.argv[2] == "plain"
with (grpc.insecure_channel(sys.argv[1]) if plain else rpc_async.connect(sys.argv[1])) as channel:
    stub = demo_pb2_grpc.DemoStub(channel)
    if plain: stub.Echo(demo_pb2.EchoRequest())
    else: stub.Echo(demo_pb2.EchoRequest()).result()
"""


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
        assert server_call.peer().startswith(("ipv4:127.0.0.1:", "in-process:"))  # still known, for the log
        server_call.complete(response())


async def test_S13_the_client_aborted_and_closed_its_channel_at_once(socket_wire: SocketWire) -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target):
        for _ in range(20):
            async with rpc_async.connect(target, transport=socket_wire) as channel:
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
async def test_S13_the_deadline_passed(socket_wire: SocketWire, kind: str) -> None:
    servicer = Parked()
    async with pair(servicer, socket_wire) as both, grpc.aio.insecure_channel(both.target) as plain:
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
