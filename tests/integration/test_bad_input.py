"""Bad input: one right status, and nothing left hanging."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.harness import Parked, SocketWire, Wire, outcome, pair, request, response, serve

MIB = 1024 * 1024
ECHO = "/rpc_async.demo.v1.Demo/Echo"


@pytest.mark.parametrize("target", ["  ", "host:65536", "host:port", "[::1]:99999"])
def test_a_target_that_is_none(target: str) -> None:
    with pytest.raises(rpc_async.InvalidArgument) as caught:
        rpc_async.connect(target)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("target", ["localhost:50051", "[::1]:50051", "dns:///host:443", "unix:/tmp/s", "host"])
def test_a_target_that_may_be_one(target: str) -> None:
    assert rpc_async.connect(target).target == target


def test_an_unknown_transport() -> None:
    with pytest.raises(rpc_async.InvalidArgument, match="pigeon"):
        rpc_async.connect("localhost:1", transport="pigeon")  # type: ignore[arg-type]


async def test_an_unknown_method(wire: Wire) -> None:
    async with pair(Parked(), wire) as both:
        error = await outcome(both.channel.unary_unary("/no.Such/Method")(b""))
        assert error.status == RpcStatus.PROCNUM_OUT_OF_RANGE
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert error.executed is False


async def test_a_request_that_does_not_parse(wire: Wire) -> None:
    async with pair(Parked(), wire) as both:
        error = await outcome(both.channel.unary_unary(ECHO)(b"\xff\xff\xff"))
        assert error.status == RpcStatus.BAD_STUB_DATA
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.executed is False
        assert "does not parse" in error.details()
        assert both.server.running_calls == 0


async def test_a_reply_that_does_not_parse(wire: Wire) -> None:
    def refuse(payload: bytes) -> Any:
        raise ValueError("not for me")

    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = both.channel.unary_unary(ECHO, demo_pb2.EchoRequest.SerializeToString, refuse)(request())
        (await servicer.next()).complete(response(b"well"))
        error = await outcome(call)
        assert error.status == RpcStatus.BAD_STUB_DATA
        assert error.executed is True
        assert "not for me" in error.details()


async def test_a_request_over_this_sides_limit(socket_wire: SocketWire) -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target):
        options = [("grpc.max_send_message_length", MIB)]
        async with rpc_async.connect(target, transport=socket_wire, options=options) as channel:
            with pytest.raises(rpc_async.PayloadTooLarge, match=str(MIB)):
                demo_pb2_grpc.DemoStub(channel).Echo(request(b"x" * MIB))


async def test_a_request_over_the_servers_limit(wire: Wire) -> None:
    async with pair(Parked(), wire, options=[("grpc.max_receive_message_length", MIB)]) as both:
        error = await outcome(begin(both.stub.Echo, request(b"x" * 2 * MIB)))
        assert error.status == RpcStatus.OUT_OF_MEMORY
        assert error.executed is False


async def test_a_reply_over_the_clients_limit(socket_wire: SocketWire) -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target):
        options = [("grpc.max_receive_message_length", MIB)]
        async with rpc_async.connect(target, transport=socket_wire, options=options) as channel:
            call = demo_pb2_grpc.DemoStub(channel).Echo(request())
            (await servicer.next()).complete(response(b"x" * 2 * MIB))
            error = await outcome(call)
            assert error.status == RpcStatus.OUT_OF_MEMORY
            assert error.executed is not False


async def test_a_handle_that_completes_after_its_server_is_gone(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
    await outcome(call)
    assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED


def test_a_handle_that_completes_after_its_loop_is_closed() -> None:
    kept: list[Any] = []

    async def main() -> None:
        servicer = Parked()
        async with pair(servicer) as both:
            begin(both.stub.Echo, request())
            kept.append(await servicer.next())

    asyncio.run(main())
    assert kept[0].complete(response()) is RpcStatus.CALL_CANCELLED
    with pytest.raises(rpc_async.InvalidAsyncHandle):
        kept[0].complete(response())
