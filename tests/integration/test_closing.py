"""Whatever is on its way when a channel is closed: every call settles, every close returns, and the process lives."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import PATIENCE, Parked, SocketWire, pair, request, response, serve, until

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_C8_channels_that_are_closed_at_any_moment() -> None:
    """In a process of its own, which must live: `tests/closing.py` is the long form."""
    command = (sys.executable, "-m", "tests.closing", "--times", "200", "--seed", str(random.randrange(1 << 32)))
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "all is well" in done.stdout


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("grace", [None, PATIENCE])
async def test_C8_a_close_that_is_cancelled_goes_on_and_can_be_waited_for_again(
    socket_wire: SocketWire, grace: float | None, times: int
) -> None:
    servicer = Parked()
    async with pair(servicer, socket_wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        for turns in range(times):
            closing = asyncio.create_task(both.channel.close(grace))
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
        with pytest.raises(rpc_async.InvalidBinding):
            begin(both.stub.Echo, request())
        await asyncio.wait_for(both.channel.close(), PATIENCE)  # and sooner than the grace that was given before
        assert call.status() is RpcStatus.CALL_CANCELLED
        assert "the channel was closed" in await call.details()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)


async def test_C8_a_close_lets_the_calls_end_that_are_on_their_way_natively_too(socket_wire: SocketWire) -> None:
    servicer = Parked()
    options = () if socket_wire == "session" else (("grpc.max_receive_message_length", 400 * 1024),)
    async with serve(servicer, options=options) as (_, target):
        channel = rpc_async.connect(target)
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        closing = asyncio.create_task(channel.close(PATIENCE))
        server_call = await servicer.next()
        assert call.transport == socket_wire
        with pytest.raises(rpc_async.InvalidBinding):
            begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        server_call.complete(response(b"in time"))
        assert (await asyncio.wait_for(call, PATIENCE)).payload == b"in time"
        await asyncio.wait_for(closing, PATIENCE)


async def test_a_session_is_over_for_its_server_when_its_channel_has_closed() -> None:
    async with serve(Parked()) as (server, target):
        for _ in range(20):
            async with rpc_async.connect(target, transport="session") as channel:
                await channel.channel_ready()
            assert server._sessions._streams == 0
            assert len(server._sessions) == 0


# gRPC's own calls say so where their loop was closed before they had ended.
@pytest.mark.filterwarnings("ignore:.*Call.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("when", ["connected", "connecting", "falling back", "nobody there"])
@pytest.mark.parametrize("wait_for_ready", [False, True])
def test_C8_a_loop_that_ends_settles_what_is_outstanding(when: str, wait_for_ready: bool) -> None:
    event = threading.Event()

    async def leave_behind() -> tuple[rpc_async.Channel, rpc_async.AsyncCall[Any]]:
        servicer = Parked()
        options = (("grpc.max_receive_message_length", 400 * 1024),) if when == "falling back" else ()
        async with serve(servicer, options=options) as (_, target):
            channel = rpc_async.connect("127.0.0.1:1" if when == "nobody there" else target)
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            call = begin(echo, request(), notify=event, wait_for_ready=wait_for_ready)
            if when == "connected":
                await servicer.next()
            elif when == "falling back":
                await until(lambda: call.transport == "native")
            return channel, call

    left: list[tuple[rpc_async.Channel, rpc_async.AsyncCall[Any]]] = []

    async def main() -> None:
        left.append(await asyncio.create_task(leave_behind()))

    asyncio.run(main())
    channel, call = left.pop()
    assert event.wait(PATIENCE)
    assert call.done()
    asyncio.run(channel.close())
    del channel, call
    gc.collect()


async def test_an_interceptor_that_does_not_return_does_not_keep_a_channel_open() -> None:
    class Stuck(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            await asyncio.get_running_loop().create_future()

    async with serve(Parked()) as (_, target):
        channel = rpc_async.connect(target, interceptors=[Stuck()])
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, demo_pb2.EchoRequest())
        await asyncio.sleep(0)
        asked = call.request_cancel()
        call.cancel()
        await asyncio.wait_for(channel.close(), PATIENCE)
        assert call.cancelled()
        assert (await asyncio.wait_for(asked, PATIENCE)) is RpcStatus.NO_CALL_ACTIVE
