"""C14 and C15 against what there is for real: what is said of execution is true, and a fault arrives whatever its size.

Each way of reaching nobody that gRPC has is met here, on the version of gRPC that the tests run with: only their texts
prove that nothing was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import wrappers_pb2
from google.rpc import error_details_pb2, status_pb2

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.wire.faults import NOTHING_SENT
from tests.harness import (
    PATIENCE,
    EchoCall,
    Parked,
    Servicer,
    SocketWire,
    Wire,
    outcome,
    pair,
    request,
    serve,
)

Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ECHO = "/rpc_async.demo.v1.Demo/Echo"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An HTTP/2 frame, without which there is no connection for gRPC."""


@asynccontextmanager
async def listening(accepted: Accepted) -> AsyncIterator[str]:
    """Listen with what is no gRPC server."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError):
            await accepted(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def unused() -> str:
    """Return an address where nobody listens."""
    async with listening(hang_up) as target:
        return target


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def stay_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def speak_http_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def hang_up_on_the_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the connection, and end it once a call has come."""
    writer.write(SETTINGS)
    heard = b""
    while b"\x00\x00\x00\x00\x01" not in heard[24:] and (more := await reader.read(65536)):  # on stream 1
        heard += more
    writer.transport.abort()


async def call(target: str, **options: Any) -> Any:
    """Make one native call and return its failure."""
    async with rpc_async.connect(target, transport="native", **options) as channel:
        return await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))


def brief(milliseconds: int) -> list[tuple[str, Any]]:
    """Return options with which gRPC gives an attempt to connect up soon."""
    names = ("grpc.min_reconnect_backoff_ms", "grpc.initial_reconnect_backoff_ms", "grpc.max_reconnect_backoff_ms")
    return [(name, milliseconds) for name in names]


async def refused(_: Path) -> Any:
    return await call(await unused())


async def round_robin(_: Path) -> Any:
    policy = [("grpc.lb_policy_name", "round_robin")]
    return await call(f"ipv4:{await unused()},{await unused()}", options=policy)


async def no_name(_: Path) -> Any:
    return await call("dns:///nobody.invalid:50051")


async def no_unix_socket(folder: Path) -> Any:
    return await call(f"unix:{folder}/nobody")


async def no_abstract_socket(folder: Path) -> Any:
    return await call(f"unix-abstract:{folder}")


async def hangs_up(_: Path) -> Any:
    async with listening(hang_up) as target:
        return await call(target)


async def silent(_: Path) -> Any:
    async with listening(stay_silent) as target:
        return await call(target, options=brief(200))


async def http_1(_: Path) -> Any:
    async with listening(speak_http_1) as target:
        return await call(target)


async def no_tls(_: Path) -> Any:
    async with serve(Parked()) as (_server, target):
        return await call(target, credentials=grpc.ssl_channel_credentials())


@pytest.mark.parametrize(
    "way", [refused, round_robin, no_name, no_unix_socket, no_abstract_socket, hangs_up, silent, http_1, no_tls]
)
async def test_C14_whoever_reached_nobody_has_surely_executed_nothing(
    way: Callable[[Path], Awaitable[Any]], tmp_path: Path
) -> None:
    error = await way(tmp_path)
    assert type(error) is rpc_async.ServerUnavailable, error
    assert error.status == RpcStatus.SERVER_UNAVAILABLE
    assert error.executed is False
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith(NOTHING_SENT)


async def test_C14_a_connection_lost_while_the_call_ran_proves_nothing() -> None:
    async with listening(hang_up_on_the_call) as target:
        error = await call(target)
    assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("text", [*NOTHING_SENT, "my own words", "Socket closed"])
async def test_C14_what_a_server_passes_on_of_its_own_calls_proves_nothing(socket_wire: SocketWire, text: str) -> None:
    ran = []

    class PassesOn(Servicer):
        async def Echo(self, request: Any, context: Any) -> demo_pb2.EchoResponse:
            ran.append(request)
            await context.abort(grpc.StatusCode.UNAVAILABLE, text + ": last error: ...")
            raise AssertionError

    async with pair(PassesOn(), socket_wire) as both:
        error = await outcome(begin(both.stub.Echo, request()))
    assert len(ran) == 1
    assert error.status == RpcStatus.CALL_FAILED
    assert error.executed is not False


async def test_C14_credentials_that_cannot_be_had_prove_nothing_as_a_server_may_say_so_too() -> None:
    class NoToken(grpc.AuthMetadataPlugin):
        def __call__(self, context: Any, callback: Any) -> None:
            callback((), RuntimeError("no token"))

    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Parked(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    await server.start()
    try:
        async with rpc_async.connect(f"127.0.0.1:{port}", credentials=grpc.local_channel_credentials()) as channel:
            credentials = grpc.metadata_call_credentials(NoToken())
            error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), credentials=credentials))
    finally:
        await server.stop(None)
    assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)


async def test_C14_trailers_over_the_clients_limit_are_not_a_server_that_is_too_busy() -> None:
    async def run(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        context.set_trailing_metadata((("large", "x" * 400_000),))
        return b""

    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(run)}
    server = grpc.aio.server(options=[("grpc.absolute_max_metadata_size", 2**20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rpc_async.demo.v1.Demo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        error = await call(f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)


async def test_C14_a_method_that_nobody_has_was_not_executed_and_one_that_says_so_may_have_been(wire: Wire) -> None:
    class Says(Servicer):
        async def Echo(self, request: Any, context: Any) -> demo_pb2.EchoResponse:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not on a Sunday")
            raise AssertionError

    async with pair(Says(), wire) as both:
        nobody = await outcome(both.channel.unary_unary("/no.Such/Method")(b""))
        says = await outcome(begin(both.stub.Echo, request()))
    assert (nobody.status, nobody.executed) == (RpcStatus.PROCNUM_OUT_OF_RANGE, False)
    assert says.status == RpcStatus.PROCNUM_OUT_OF_RANGE
    assert says.executed is not False


# -- faults of any size ---------------------------------------------------------------------------------


class Fails(Servicer):
    """Aborts as a test says."""

    def __init__(self, text: str, details: tuple[Any, ...] = (), trailing: Any = ()) -> None:
        self.text, self.details, self.trailing = text, details, trailing

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        if self.trailing:
            call.set_trailing_metadata(self.trailing)
        call.abort(77, self.text, self.details)


def number(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Read the number as any client can, and what was left out."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            info = error_details_pb2.ErrorInfo()
            assert status_pb2.Status.FromString(value).details[0].Unpack(info)
            return info.metadata["status"], info.metadata["shed"]
    raise AssertionError("no details")


def sizes() -> Iterator[tuple[str, tuple[Any, ...], Any, str]]:
    large = (wrappers_pb2.BytesValue(value=bytes(5000)), wrappers_pb2.BytesValue(value=bytes(5000)))
    for size in (0, 100, 3000, 6000, 7000):
        yield "x" * size, (), (), ""
    for size in (8000, 12_000, 16_000, 20_000, 60_000):
        yield "x" * size, (), (), "text"
    yield "ж" * 4000, (), (), "text"
    yield "why", large, (), "details"
    yield "x" * 9000, large, (), "details,text"
    yield "why", (), (("mine", "x" * 5000),), ""
    yield "x" * 5000, large, (("mine-bin", bytes(3000)),), "details,text"
    yield "why", large, (("mine", "x" * 12_000),), "trailing_metadata,details"


@pytest.mark.parametrize(("text", "details", "trailing", "shed"), list(sizes()))
async def test_C15_S6_a_plain_client_reads_code_and_number_whatever_the_size(
    text: str, details: tuple[Any, ...], trailing: Any, shed: str
) -> None:
    async with serve(Fails(text, details, trailing)) as (_, target):
        async with grpc.aio.insecure_channel(target) as channel:
            for _ in range(5):  # above gRPC's first limit it refuses at random
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await demo_pb2_grpc.DemoStub(channel).Echo(request(), timeout=PATIENCE)
                assert caught.value.code() is grpc.StatusCode.ABORTED
                assert number(caught.value) == ("77", shed)
                assert "text" in shed or caught.value.details() == text
                mine = [value for key, value in caught.value.trailing_metadata() or () if key.startswith("mine")]
                assert mine == ([] if "trailing_metadata" in shed else [value for _, value in trailing])


async def test_C15_a_session_carries_a_fault_whole_and_the_native_wire_says_what_it_left_out(wire: Wire) -> None:
    details = (wrappers_pb2.StringValue(value="d" * 9000), wrappers_pb2.StringValue(value="e"))
    async with pair(Fails("x" * 9000, details), wire) as both:
        error = await outcome(begin(both.stub.Echo, request()))
    assert (error.status, type(error)) == (77, rpc_async.CallAborted)
    if wire == "native":
        assert error.shed == ("details", "text")
        assert error.details().endswith("x...")
        assert not error.status_details
    else:
        assert error.shed == ()
        assert error.details() == "x" * 9000
        assert len(error.status_details) == 2


async def test_C15_max_trailers_carries_as_much_as_the_clients_are_known_to_take() -> None:
    details = (wrappers_pb2.StringValue(value="d" * 9000),)
    async with pair(Fails("x" * 9000, details), "native", max_trailers=60_000) as both:
        error = await outcome(begin(both.stub.Echo, request()))
    assert (error.shed, error.details(), len(error.status_details)) == ((), "x" * 9000, 1)


@pytest.mark.parametrize("value", [0, 2047, 262_145, 8000.0, True, None, "8000"])
async def test_max_trailers_has_bounds(value: Any) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match="max_trailers"):
        rpc_async.server(max_trailers=value)


async def test_S7_a_disclosed_text_that_cannot_be_sent_settles_the_call_all_the_same(wire: Wire) -> None:
    class Raises(Servicer):
        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            raise ValueError("a\ud800b")

    async with pair(Raises(), wire, disclose_errors=True) as both:
        error = await outcome(begin(both.stub.Echo, request()))
        assert error.status == RpcStatus.CALL_FAILED
        assert error.details().endswith(r"a\ud800b")
