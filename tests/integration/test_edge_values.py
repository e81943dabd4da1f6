"""Values at the edge: each works as in grpc.aio, or raises InvalidArgument, on every wire alike."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CompletionQueue, InvalidArgument, alertable_wait, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
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
    response,
    serve,
)


class Echoes(Servicer):
    """Answers at once, and keeps what it saw."""

    def __init__(self) -> None:
        self.metadata: list[tuple[tuple[str, str | bytes], ...]] = []

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        self.metadata.append(tuple((str(key), value) for key, value in call.invocation_metadata()))
        call.complete(response(request.payload))


class Half:
    """A number that is none of Python's, and says that it is one."""

    def __float__(self) -> float:
        return 0.5


FAR = (9e9, 1e12, 1e308, 10**30, 10**400, math.inf)
PAST = (0, -1, -0.0, -1e308, -(10**400), -math.inf)
NO_SECONDS: tuple[Any, ...] = (math.nan, "3", b"3", True, Decimal(3), 3j, Half(), (3,), object())


# -- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [*FAR, Fraction(2 * int(PATIENCE)), 30], ids=str)
async def test_C12_a_far_deadline_is_none_that_has_passed(wire: Wire, timeout: Any) -> None:
    async with pair(Echoes(), wire) as both:
        call = begin(both.stub.Echo, request(b"well"), timeout=timeout)
        assert (await outcome(call)).payload == b"well"
        remaining = call.time_remaining()
        assert remaining is not None
        assert remaining > 0


@pytest.mark.parametrize("timeout", PAST, ids=str)
async def test_C12_a_deadline_in_the_past_has_passed_and_nothing_is_sent(wire: Wire, timeout: Any) -> None:
    servicer, told = Echoes(), asyncio.Event()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), timeout=timeout, notify=told)
        error = await outcome(call)
        await asyncio.wait_for(told.wait(), PATIENCE)
        assert type(error) is rpc_async.DeadlineExceeded
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.executed is False
        assert call.time_remaining() == 0
        assert len(call.call_id) >= 22
        assert (await outcome(begin(both.stub.Echo, request(b"after")))).payload == b"after"
    assert len(servicer.metadata) == 1


async def test_C12_a_deadline_in_the_past_for_a_call_with_pipes() -> None:
    async with pair(Echoes(), "native") as both:
        for call in (
            begin(both.stub.Upload, timeout=0),
            begin(both.stub.Download, demo_pb2.DownloadRequest(), timeout=-1),
        ):
            with pytest.raises(rpc_async.DeadlineExceeded):
                await asyncio.wait_for(call, PATIENCE)


@pytest.mark.parametrize("seconds", NO_SECONDS, ids=repr)
async def test_what_is_no_number_of_seconds_is_refused_everywhere(wire: Wire, seconds: Any) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        with pytest.raises(InvalidArgument, match="timeout"):
            begin(both.stub.Echo, request(), timeout=seconds)
        with pytest.raises(InvalidArgument, match="timeout"):
            both.stub.Echo(request(), timeout=seconds)
        call: Any = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        with pytest.raises(InvalidArgument, match="abort_after"):
            call.request_cancel(abort_after=seconds)
        queue = CompletionQueue()
        waits: list[Callable[..., Any]] = [call.wait, call.result, queue.get, queue.get_many, alertable_wait]
        for wait in waits:
            with pytest.raises(InvalidArgument, match="timeout"):
                await asyncio.to_thread(wait, timeout=seconds)
        with pytest.raises(InvalidArgument, match="grace"):
            await both.channel.close(seconds)
        assert not server_call.test_cancel()  # nobody was asked, and nothing was closed
        server_call.complete(response())
        await outcome(call)


@pytest.mark.parametrize("seconds", FAR, ids=str)
async def test_a_wait_may_be_as_long_as_one_likes(wire: Wire, seconds: Any) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        call.request_cancel(abort_after=seconds)
        waits = [asyncio.create_task(asyncio.to_thread(call.wait, seconds)) for _ in range(2)]
        server_call.complete(response())
        assert await asyncio.gather(*waits) == [True, True]
        await both.channel.close(seconds)


@pytest.mark.parametrize("seconds", PAST, ids=str)
async def test_a_wait_of_nothing_or_less_does_not_wait(wire: Wire, seconds: Any) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        assert await asyncio.to_thread(call.wait, seconds) is False
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(call.result, seconds)
        with pytest.raises(TimeoutError):
            CompletionQueue().get(seconds)
        assert alertable_wait(seconds) == 0
        server_call.complete(response())
        await outcome(call)


CONNECTING: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("linger", (0, 0.5, 1e308, math.inf, Fraction(1, 2)), (-1, math.nan, None, "3", True)),
    ("keepalive", (1e-9, 5, 1e9, 10**400, math.inf, None), (0, -1, math.nan, "3", True)),
    ("open_timeout", (1e-9, 5, math.inf), (0, -1, math.nan, None, "3")),
    ("options", ((), [], (("grpc.foo", 1),), [["a", "b"]]), ("ab", {"a": 1}, ((1, 2),), ("ab",), 5, ((1,),))),
    ("credentials", (None,), ("secret", 1)),
    ("compression", (None, grpc.Compression.Gzip), ("gzip", 17)),
    ("interceptors", (None, (), []), (5, (5,), ("x",))),
    ("transport", ("auto", "session", "native"), ("", None, 5, "tcp")),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, good, _ in CONNECTING for value in good], ids=str)
async def test_what_a_channel_takes(name: str, value: Any) -> None:
    async with serve(Echoes()) as (_, target):
        async with rpc_async.connect(target, **{name: value}) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            for _ in range(3):
                assert (await outcome(begin(stub.Echo, request(b"well")))).payload == b"well"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, _, bad in CONNECTING for value in bad], ids=str)
def test_what_a_channel_refuses(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name.rstrip("s")):
        rpc_async.connect("localhost:1", **{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("credentials", "x"), ("compression", "gzip"), ("events", 5), ("events", "CALL"), ("notify", 5)]
)
async def test_what_begin_refuses(wire: Wire, name: str, value: Any) -> None:
    async with pair(Echoes(), wire) as both:
        options: Any = {"notify": print, name: value}
        with pytest.raises(InvalidArgument):
            begin(both.stub.Echo, request(), **options)


# -- metadata -------------------------------------------------------------------------------------------

WORKS: list[tuple[Any, list[tuple[str, str | bytes]]]] = [
    (None, []),
    ((), []),
    ([["k", "v"]], [("k", "v")]),
    ((("k", "v"), ("k", "w")), [("k", "v"), ("k", "w")]),
    (grpc.aio.Metadata(("k", "v"), ("k", "w")), [("k", "v"), ("k", "w")]),
    ((("k", b"v"),), [("k", "v")]),
    (((b"k", "v"),), [("k", "v")]),
    ((("k", ""),), [("k", "")]),
    ((("k", " v "),), [("k", " v ")]),
    ((("k-bin", b"\0\xff"),), [("k-bin", b"\0\xff")]),
    ((("grpc-foo", "v"),), [("grpc-foo", "v")]),
    ((("host", "h"),), [("host", "h")]),
    *(
        (((name, b"v" if name.endswith("-bin") else "v"),), [])
        for name in (
            "user-agent",
            "te",
            "content-type",
            "grpc-timeout",
            "grpc-message",
            "grpc-encoding",
            "grpc-accept-encoding",
            "grpc-trace-bin",
            "grpc-tags-bin",
            "grpc-internal-encoding-request",
            "grpc-previous-rpc-attempts",
            "grpc-server-stats-bin",
        )
    ),
]
REFUSED: list[Any] = [
    {"k": "v"},
    {"ab": "v"},
    "ab",
    b"ab",
    ("ab",),
    5,
    (("k",),),
    (("a", "b", "c"),),
    ((None, "v"),),
    ((5, "v"),),
    (("", "v"),),
    (("K", "v"),),
    (("k\n", "v"),),
    ((":path", "/"),),
    (("é", "v"),),
    ((b"\xff", "v"),),
    (("k", None),),
    (("k", 5),),
    (("k", "é"),),
    (("k", "a\nb"),),
    (("k", b"\xff"),),
    (("k", bytearray(b"v")),),
    (("k-bin", "v"),),
    (None,),
    (("rpc-async-call-id", "x" * 30),),
]


def added(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return what the client gave, of what a handler saw."""
    return [(key, value) for key, value in metadata if key not in ("user-agent", "rpc-async-call-id")]


@pytest.mark.parametrize(("metadata", "wanted"), WORKS, ids=str)
async def test_metadata_that_gRPC_takes_arrives_as_by_gRPC(
    wire: Wire, metadata: Any, wanted: list[tuple[str, str | bytes]]
) -> None:
    servicer = Echoes()
    async with pair(servicer, wire) as both:
        await outcome(begin(both.stub.Echo, request(), metadata=metadata))
        await outcome(begin(both.stub.Echo, request(), metadata=metadata and iter(tuple(metadata))))
    assert [added(one) for one in servicer.metadata] == [wanted, wanted]
    if wire == "native" and wanted is not None:  # and by gRPC's own client
        async with serve(servicer) as (_, target), grpc.aio.insecure_channel(target) as plain:
            await demo_pb2_grpc.DemoStub(plain).Echo(request(), metadata=metadata)
        assert added(servicer.metadata[-1]) == wanted


async def test_metadata_by_which_gRPC_ends_a_call_does_not(wire: Wire) -> None:
    async with pair(Echoes(), wire) as both:
        reply = await outcome(begin(both.stub.Echo, request(b"well"), metadata=(("grpc-status", "3"),)))
        assert reply.payload == b"well"


@pytest.mark.parametrize("metadata", REFUSED, ids=repr)
async def test_metadata_that_is_none_is_refused(wire: Wire, metadata: Any) -> None:
    servicer = Echoes()
    async with pair(servicer, wire) as both:
        with pytest.raises(InvalidArgument, match="metadata"):
            begin(both.stub.Echo, request(), metadata=metadata)
    assert not servicer.metadata


async def test_metadata_whose_iteration_raises_is_refused(wire: Wire) -> None:
    def pairs() -> Any:
        yield "k", "v"
        raise ValueError("of the user's")

    async with pair(Echoes(), wire) as both:
        with pytest.raises(InvalidArgument, match="of the user's"):
            begin(both.stub.Echo, request(), metadata=pairs())


# -- targets --------------------------------------------------------------------------------------------


def sockets(folder: Path) -> dict[str, tuple[str, Callable[[int], str]]]:
    """Return where a server listens, and what a client names it by, given the port."""
    name = f"edges-{os.getpid()}"
    return {
        "unix-abstract": (f"unix-abstract:{name}", lambda _: f"unix-abstract:{name}"),
        "unix": (f"unix:{folder}/s", lambda _: f"unix:{folder}/s"),
        "unix://": (f"unix://{folder}/s", lambda _: f"unix://{folder}/s"),
        "ipv4": ("127.0.0.1:0", lambda port: f"ipv4:127.0.0.1:{port}"),
        "ipv4, several": ("127.0.0.1:0", lambda port: f"ipv4:127.0.0.1:1,127.0.0.1:{port}"),
        "dns:": ("127.0.0.1:0", lambda port: f"dns:localhost:{port}"),
        "dns:///": ("127.0.0.1:0", lambda port: f"dns:///localhost:{port}"),
        "name": ("127.0.0.1:0", lambda port: f"localhost:{port}"),
        "capitals": ("127.0.0.1:0", lambda port: f"LOCALHOST:{port}"),
    }


@pytest.mark.parametrize("kind", list(sockets(Path())))
async def test_whatever_gRPC_resolves_is_called(socket_wire: SocketWire, kind: str, tmp_path: Path) -> None:
    address, target = sockets(tmp_path)[kind]
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Echoes(), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        async with rpc_async.connect(target(port), transport=socket_wire) as channel:
            assert (await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"well")))).payload == b"well"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    "target",
    [
        "host", "[::1]", "[::1]:50051", "ipv6:[::1]:50051", "ipv6:%5B::1%5D:50051", "::1", "dns:host", "dns://8.8.8.8/host:443",
        "xds:///service", "vsock:2:1234", "host:https", "host:http", "unix:relative", "unix-abstract:name%00more",
        "google-c2p:///service", "DNS:host", "host:0",
    ],
)  # fmt: skip
def test_whatever_gRPC_judges_is_left_to_it(target: str) -> None:
    assert rpc_async.connect(target).target == target


@pytest.mark.parametrize("target", [None, 5, b"host:1", " ", "host:", "host:-1", "host:65536", "host:１"])
def test_a_target_that_is_plainly_none_is_refused(target: Any) -> None:
    with pytest.raises(InvalidArgument, match="target"):
        rpc_async.connect(target)


@pytest.mark.parametrize("transport", ["native", "auto", "session"])
async def test_an_empty_target_is_refused_at_the_first_use(transport: Any) -> None:
    channel = rpc_async.connect("", transport=transport)
    with pytest.raises(InvalidArgument, match="empty"):
        channel.unary_unary("/a/B")(b"")
    with pytest.raises(InvalidArgument, match="empty"):
        async with rpc_async.connect("", transport=transport):
            raise AssertionError
    with pytest.raises(InvalidArgument, match="empty"), rpc_async.connect("", transport=transport):
        raise AssertionError
    await channel.close()


# -- gRPC's classes -------------------------------------------------------------------------------------


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


async def test_a_failure_has_all_that_gRPCs_own_has(socket_wire: SocketWire) -> None:
    class Says(Servicer):
        async def Echo(self, request: Any, context: Any) -> demo_pb2.EchoResponse:
            context.set_trailing_metadata((("more", "also"),))
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            raise AssertionError

    async with serve(Says()) as (_, target):
        async with grpc.aio.insecure_channel(target) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await demo_pb2_grpc.DemoStub(plain).Echo(request())
            theirs = caught.value
        async with rpc_async.connect(target, transport=socket_wire) as channel:
            call: Any = demo_pb2_grpc.DemoStub(channel).Echo(request())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            ours = caught.value
    assert isinstance(ours, grpc.RpcError)
    assert public(type(ours)) >= public(grpc.aio.AioRpcError)
    for name in public(grpc.aio.AioRpcError) - {"add_note", "args", "with_traceback"}:
        mine, plain_one = getattr(ours, name)(), getattr(theirs, name)()
        assert type(mine) is type(plain_one), name
        if name == "trailing_metadata":
            assert mine["more"] == "also"
        elif name == "debug_error_string":
            assert "not here" in mine
        elif name != "initial_metadata":
            assert mine == plain_one, name
    again = pickle.loads(pickle.dumps(ours))
    assert type(again) is type(ours)
    assert str(again) == str(ours)
    assert repr(again) == repr(ours)
    assert again.debug_error_string() == ours.debug_error_string()
    assert tuple(again.trailing_metadata()) == tuple(ours.trailing_metadata())
    assert await call.debug_error_string() == ours.debug_error_string()


async def test_a_handle_has_all_that_gRPCs_own_has(socket_wire: SocketWire) -> None:
    async with serve(Echoes()) as (_, target):
        async with grpc.aio.insecure_channel(target) as plain:
            theirs: Any = demo_pb2_grpc.DemoStub(plain).Echo(request(), timeout=30)
            async with rpc_async.connect(target, transport=socket_wire) as channel:
                ours: Any = demo_pb2_grpc.DemoStub(channel).Echo(request(), timeout=30)
                assert public(type(ours)) >= public(grpc.aio.UnaryUnaryCall)
                assert isinstance(ours, grpc.aio.UnaryUnaryCall)
                for call in (theirs, ours):
                    assert await call == response()
                for name in ("code", "details", "initial_metadata", "trailing_metadata", "debug_error_string"):
                    mine, plain_one = await getattr(ours, name)(), await getattr(theirs, name)()
                    assert type(mine) is type(plain_one), name
                    assert mine == plain_one, name
                for name in ("done", "cancelled", "cancel"):
                    assert getattr(ours, name)() == getattr(theirs, name)(), name
                assert type(ours.time_remaining()) is type(theirs.time_remaining())
                await ours.wait_for_connection()
                await theirs.wait_for_connection()


async def test_waiting_for_the_connection_raises_where_gRPC_does(socket_wire: SocketWire) -> None:
    class Says(Servicer):
        async def Echo(self, request: Any, context: Any) -> demo_pb2.EchoResponse:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            raise AssertionError

    async with serve(Says()) as (_, target):
        async with rpc_async.connect(target, transport=socket_wire) as channel:
            for _ in range(20):
                with pytest.raises(rpc_async.CallError, match="not here"):
                    await demo_pb2_grpc.DemoStub(channel).Echo(request()).wait_for_connection()
            pipe: Any = begin(demo_pb2_grpc.DemoStub(channel).Upload)
            with pytest.raises(rpc_async.CallError):
                await pipe
            with pytest.raises(rpc_async.CallError):
                await pipe.wait_for_connection()
    async with rpc_async.connect("127.0.0.1:1", transport=socket_wire) as channel:
        with pytest.raises(rpc_async.ServerUnavailable):
            await demo_pb2_grpc.DemoStub(channel).Echo(request()).wait_for_connection()
        pipe = begin(demo_pb2_grpc.DemoStub(channel).Upload)
        with pytest.raises(rpc_async.ServerUnavailable):
            await pipe.wait_for_connection()


async def test_a_closed_channel_says_so_in_gRPCs_words_too(wire: Wire) -> None:
    async with pair(Parked(), wire) as both:
        stub = both.stub
        await both.channel.close()
        misuse: list[Callable[[], Any]] = [
            lambda: stub.Echo(request()),
            lambda: begin(stub.Echo, request()),
            lambda: begin(stub.Upload),
            lambda: begin(stub.Download, demo_pb2.DownloadRequest()),
            stub.Chat,
        ]
        for use in misuse:
            with pytest.raises(grpc.aio.UsageError) as caught:
                use()
            assert isinstance(caught.value, rpc_async.InvalidBinding)
        with pytest.raises(grpc.aio.UsageError):
            await both.channel.channel_ready()


def test_a_channel_that_was_never_opened_says_so_in_gRPCs_words_too() -> None:
    stub = demo_pb2_grpc.DemoStub(rpc_async.connect("localhost:1"))
    with pytest.raises(grpc.aio.UsageError):
        begin(stub.Echo, request())
