"""A connection that has gone silent is noticed, by either side, and one that is only idle is left alone."""

from __future__ import annotations

import asyncio

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.harness import PATIENCE, Parked, SocketWire, outcome, request, response, serve, until

PING = 17
"""Bytes: an HTTP/2 ping."""
QUICK_SERVER = (("grpc.keepalive_time_ms", 100), ("grpc.http2.ping_timeout_ms", 100))


async def test_an_idle_session_may_be_tested_as_often_as_keepalive_says() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session", keepalive=1.0) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            server_call = await servicer.next()
            before = proxy.bytes_to_server
            await until(lambda: proxy.bytes_to_server > before + 7 * PING, "gRPC allows two strikes")
            server_call.complete(response(b"undisturbed"))
            assert (await asyncio.wait_for(call, PATIENCE)).payload == b"undisturbed"
            assert proxy.connections == 1


async def test_C14_a_session_whose_connection_went_silent_goes_on_with_another() -> None:
    servicer = Parked()
    async with serve(servicer) as (server, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session", keepalive=0.1) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            server_call = await servicer.next()
            proxy.stall()
            server_call.complete(response(b"said into the void"))
            await until(lambda: proxy.connections == 2, "the client has noticed")
            proxy.resume()
            assert (await asyncio.wait_for(call, PATIENCE)).payload == b"said into the void"
            assert servicer.arrived.empty()
            assert server.running_calls == 0


async def test_S13_a_client_that_has_vanished_without_a_word_is_noticed(socket_wire: SocketWire) -> None:
    servicer = Parked()
    async with serve(servicer, linger=0.05, options=QUICK_SERVER) as (server, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport=socket_wire, keepalive=None) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            server_call = await servicer.next()
            proxy.stall()
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
            if socket_wire == "session" or server_call.cancel_reason is not CancelReason.CLIENT_ABORTED:
                # A native call may be told before gRPC has closed the socket that says which it was.
                assert server_call.cancel_reason is CancelReason.CLIENT_DISCONNECTED
            assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
            assert server.running_calls == 0
            proxy.resume()
            error = await outcome(call)
            assert error.status == RpcStatus.CALL_FAILED
            assert error.executed is None
