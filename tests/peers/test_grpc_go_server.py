"""Our client against grpc-go's interop server: what interop clients do, by stubs as in gRPC and by handles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import grpc
import grpc.aio
import pytest

import rpc_async
from tests.harness import PATIENCE
from tests.peers import interop_pb2 as pb
from tests.peers import interop_pb2_grpc
from tests.peers.plain import serving
from tests.peers.servicer import INITIAL, TRAILING

REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159
ODD_TEXT = "\t\ntwo lines\r\nof text, BMP ☺ and beyond 😈\t\n"
METADATA = ((INITIAL, "what comes first"), (TRAILING, b"\x0a\x0b\x0a\x0b\x0a\x0b"))

Transport = Literal["auto", "native"]


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Run the server."""
    with serving("grpc-go") as target:
        yield target


@pytest.fixture(params=["auto", "native"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport that takes plain servers."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture
async def stub(target: str, transport: Transport) -> AsyncIterator[interop_pb2_grpc.TestServiceAsyncStub]:
    """Connect to it."""
    async with rpc_async.connect(target, transport=transport) as channel:
        yield interop_pb2_grpc.TestServiceStub(channel)


def payload(size: int) -> pb.Payload:
    return pb.Payload(body=bytes(size))


def simple(request_size: int = 1, response_size: int = 1, **fields: Any) -> pb.SimpleRequest:
    return pb.SimpleRequest(payload=payload(request_size), response_size=response_size, **fields)


def streamed(*sizes: int, request_size: int = 0, **fields: Any) -> pb.StreamingOutputCallRequest:
    parameters = [pb.ResponseParameters(size=size) for size in sizes]
    return pb.StreamingOutputCallRequest(response_parameters=parameters, payload=payload(request_size), **fields)


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


# -- unary ----------------------------------------------------------------------------------------------------


async def test_empty_unary(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    assert await soon(stub.EmptyCall(pb.Empty())) == pb.Empty()
    assert await soon(rpc_async.begin(stub.EmptyCall, pb.Empty())) == pb.Empty()


async def test_large_unary(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    reply = await soon(rpc_async.begin(stub.UnaryCall, simple(LARGE_REQUEST, LARGE_RESPONSE)))
    assert reply.payload == payload(LARGE_RESPONSE)


async def test_a_hundred_at_once(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    calls = [rpc_async.begin(stub.UnaryCall, simple(100, size)) for size in range(100)]
    assert [len((await soon(call)).payload.body) for call in calls] == list(range(100))


async def test_status_code_and_message(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    for text in ("test status message", ODD_TEXT):
        status = pb.EchoStatus(code=grpc.StatusCode.UNKNOWN.value[0], message=text)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await soon(stub.UnaryCall(pb.SimpleRequest(response_status=status)))
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, text)


async def test_custom_metadata(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    unary: Any = stub.UnaryCall(simple(), metadata=METADATA)
    await soon(unary)
    chat: Any = stub.FullDuplexCall(metadata=METADATA)
    await soon(chat.write(streamed(1)))
    await soon(chat.done_writing())
    assert [response.payload async for response in chat] == [payload(1)]
    for call in (unary, chat):
        initial, trailing = await soon(call.initial_metadata()), await soon(call.trailing_metadata())
        assert initial.get_all(INITIAL) == [METADATA[0][1]]
        assert trailing.get_all(TRAILING) == [METADATA[1][1]]


async def test_initial_metadata_before_the_reply(target: str, transport: Transport) -> None:
    """The first look of a fresh channel, while it finds out which wire there is."""
    async with rpc_async.connect(target, transport=transport) as channel:
        call: Any = interop_pb2_grpc.TestServiceStub(channel).UnaryCall(simple(), metadata=METADATA)
        assert (await soon(call.initial_metadata())).get_all(INITIAL) == [METADATA[0][1]]
        assert (await soon(call)).payload == payload(1)


async def test_what_is_not_implemented(stub: interop_pb2_grpc.TestServiceAsyncStub, target: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as method:
        await soon(stub.UnimplementedCall(pb.Empty()))
    assert method.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with rpc_async.connect(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as service:
            await soon(interop_pb2_grpc.UnimplementedServiceStub(channel).UnimplementedCall(pb.Empty()))
    assert service.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- streams --------------------------------------------------------------------------------------------------


async def test_client_streaming(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    requests = [pb.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES]
    assert (await soon(stub.StreamingInputCall(iter(requests)))).aggregated_payload_size == sum(REQUEST_SIZES)
    call = rpc_async.begin(stub.StreamingInputCall)
    for request in requests:
        await soon(call.write(request))
    call.end()
    assert (await soon(call)).aggregated_payload_size == sum(REQUEST_SIZES)


async def test_server_streaming(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    request = streamed(*RESPONSE_SIZES)
    for call in (stub.StreamingOutputCall(request), rpc_async.begin(stub.StreamingOutputCall, request)):
        async with asyncio.timeout(PATIENCE):
            assert [len(response.payload.body) async for response in call] == list(RESPONSE_SIZES)


async def test_ping_pong(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    sizes = list(zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True))
    call: Any = stub.FullDuplexCall()
    for there, back in sizes:
        await soon(call.write(streamed(back, request_size=there)))
        assert (await soon(call.read())).payload == payload(back)
    await soon(call.done_writing())
    assert await soon(call.read()) is grpc.aio.EOF
    handle = rpc_async.begin(stub.FullDuplexCall)
    for there, back in sizes:
        await soon(handle.write(streamed(back, request_size=there)))
        response = await soon(handle.read())
        assert response.payload == payload(back)
    handle.end()
    assert await soon(handle.read()) is None
    await soon(handle)


async def test_half_duplex(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    call = rpc_async.begin(stub.HalfDuplexCall)
    for size in RESPONSE_SIZES:
        await soon(call.write(streamed(size)))
    call.end()
    async with asyncio.timeout(PATIENCE):
        assert [len(response.payload.body) async for response in call] == list(RESPONSE_SIZES)


async def test_empty_stream(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    call: Any = stub.FullDuplexCall()
    await soon(call.done_writing())
    assert await soon(call.read()) is grpc.aio.EOF
    handle = rpc_async.begin(stub.FullDuplexCall)
    handle.end()
    assert await soon(handle.read()) is None


async def test_a_stream_that_fails(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    status = pb.EchoStatus(code=grpc.StatusCode.UNKNOWN.value[0], message="test status message")
    call: Any = stub.FullDuplexCall()
    await soon(call.write(streamed(response_status=status)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call.read())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, status.message)


# -- the end, before the end ----------------------------------------------------------------------------------


async def test_timeout_on_sleeping_server(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    slow = pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=1, interval_us=30_000_000)], payload=payload(27182)
    )
    call: Any = stub.FullDuplexCall(timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call.write(slow))
        await soon(call.read())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancel_after_begin(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    call: Any = stub.StreamingInputCall(metadata=METADATA)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(call)
    assert await soon(call.code()) is grpc.StatusCode.CANCELLED
    handle = rpc_async.begin(stub.StreamingInputCall)
    handle.cancel()
    with pytest.raises(rpc_async.CallCancelled):
        await soon(handle)


async def test_cancel_after_first_response(stub: interop_pb2_grpc.TestServiceAsyncStub) -> None:
    call: Any = stub.FullDuplexCall()
    await soon(call.write(streamed(RESPONSE_SIZES[0], request_size=REQUEST_SIZES[0])))
    assert (await soon(call.read())).payload == payload(RESPONSE_SIZES[0])
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(call.read())
    assert await soon(call.code()) is grpc.StatusCode.CANCELLED


async def test_a_cancel_that_is_a_question_says_that_it_cannot_be_asked(
    stub: interop_pb2_grpc.TestServiceAsyncStub,
) -> None:
    """A server that knows nothing of us has nobody to ask; the call goes on, and gRPC's cancel ends it."""
    call = rpc_async.begin(stub.FullDuplexCall)
    await soon(call.write(streamed(1)))
    assert await soon(call.read()) is not None
    call.request_cancel()
    await soon(call.write(streamed(2)))
    response = await soon(call.read())
    assert response.payload == payload(2)
    call.end()
    assert await soon(call.read()) is None
    await soon(call)


# -- channels -------------------------------------------------------------------------------------------------


async def test_channel_soak(target: str, transport: Transport) -> None:
    for _ in range(30):
        async with rpc_async.connect(target, transport=transport) as channel:
            stub = interop_pb2_grpc.TestServiceStub(channel)
            reply: Any = await soon(stub.UnaryCall(simple(LARGE_REQUEST, LARGE_RESPONSE)))
            assert reply.payload == payload(LARGE_RESPONSE)


def test_without_an_event_loop(target: str, transport: Transport) -> None:
    with rpc_async.connect(target, transport=transport) as channel:
        stub = interop_pb2_grpc.TestServiceStub(channel)
        assert rpc_async.begin(stub.UnaryCall, simple(1, 9)).result(PATIENCE).payload == payload(9)
        with rpc_async.begin(stub.FullDuplexCall) as call:
            call.put(streamed(7))
            response = call.get(PATIENCE)
            assert response is not None
            assert response.payload == payload(7)


async def test_a_session_refuses_and_says_why(target: str) -> None:
    async with rpc_async.connect(target, transport="session") as channel:
        stub = interop_pb2_grpc.TestServiceStub(channel)
        for _ in range(2):
            with pytest.raises(rpc_async.CallError, match="the server does not offer sessions") as caught:
                await soon(rpc_async.begin(stub.EmptyCall, pb.Empty()))
            assert caught.value.status is rpc_async.RpcStatus.CANNOT_SUPPORT
            assert caught.value.executed is False
