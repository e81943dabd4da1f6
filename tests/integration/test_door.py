"""From sessions to native calls and back: whatever a server says to a session's opening, its calls are answered."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.calling.cancel_request import CancelRequest
from rpc_async.calling.choice import Transport
from rpc_async.core.outcome import fault
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.harness import PATIENCE, EchoCall, Parked, Servicer, outcome, request, response, serve, until

SESSION = "/rpc_async.v1.AsyncCalls/Session"
NO_SESSIONS = (("grpc.max_receive_message_length", 400 * 1024),)
"""What a server of ours offers no sessions with, and everything else."""


class Plain(Servicer):
    """What a user of grpc.aio wrote."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        self.seen.append(request.payload)
        await context.send_initial_metadata((("x-initial", "i"),))
        context.set_trailing_metadata((("x-trailing", "t"),))
        given = dict(context.invocation_metadata()).get("x-given", "")
        left = context.time_remaining()
        return response(f"{given} {left is not None and 50 < left < 100}".encode())


class Answer(grpc.aio.ServerInterceptor):
    """Answers the opening of a session in its own way, and leaves everything else alone."""

    def __init__(self, behaviour: Callable[[Any, Any], Any]) -> None:
        self._behaviour = behaviour
        self.asked = 0

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method != SESSION:
            return await continuation(handler_call_details)
        self.asked += 1
        return grpc.stream_stream_rpc_method_handler(self._behaviour)


@asynccontextmanager
async def plain(*interceptors: grpc.aio.ServerInterceptor, port: int = 0) -> AsyncIterator[tuple[Plain, str]]:
    server, servicer = grpc.aio.server(interceptors=interceptors), Plain()
    demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def refusing(code: grpc.StatusCode) -> Callable[[Any, Any], Any]:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(code, f"{code.name}, says the server")

    return refuse


async def silent(_: Any, context: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def nonsense(_: Any, context: Any) -> None:
    await context.read()
    await context.write(b"\xff\xff")


async def nothing(_: Any, context: Any) -> None:
    """End the stream well, without a word."""


FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
async def test_C14_whatever_refuses_a_session_its_calls_go_natively(
    code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    answer = Answer(refusing(code))
    with caplog.at_level(logging.INFO, "rpc_async"):
        async with plain(answer) as (servicer, target), rpc_async.connect(target) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            calls = [begin(stub.Echo, request(b"%d" % number)) for number in range(20)]
            assert [type(await outcome(call)) for call in calls] == [demo_pb2.EchoResponse] * 20
            assert sorted(servicer.seen) == sorted(b"%d" % number for number in range(20)), "each once"
            assert {call.transport for call in calls} == {"native"}
            assert "no session could be opened" in calls[0].transport_reason
    said = [record.message for record in caplog.records if "go natively" in record.message]
    assert len(said) == 1, "one line a channel"
    assert target in said[0]


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
async def test_C14_a_channel_for_sessions_only_says_why_there_are_none(code: grpc.StatusCode) -> None:
    async with plain(Answer(refusing(code))) as (servicer, target):
        async with rpc_async.connect(target, transport="session") as channel:
            error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
            assert error.executed is False
            assert code is grpc.StatusCode.UNIMPLEMENTED or "says the server" in error.details()
        assert servicer.seen == []


@pytest.mark.parametrize("behaviour", [silent, nonsense, nothing])
async def test_C8_an_opening_that_is_answered_by_nothing_or_nonsense_is_given_up(behaviour: Any) -> None:
    async with plain(Answer(behaviour)) as (_, target), rpc_async.connect(target, open_timeout=0.2) as channel:
        assert type(await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))) is demo_pb2.EchoResponse


async def test_C12_a_call_does_not_spend_its_whole_time_on_an_opening() -> None:
    async with plain(Answer(silent)) as (servicer, target), rpc_async.connect(target, open_timeout=60.0) as channel:
        stub = demo_pb2_grpc.DemoStub(channel)
        first, hurried = begin(stub.Echo, request(b"first")), begin(stub.Echo, request(b"hurried"), timeout=2.0)
        began = time.monotonic()
        assert type(await outcome(hurried)) is demo_pb2.EchoResponse
        assert time.monotonic() - began < 2.0
        assert type(await outcome(first)) is demo_pb2.EchoResponse, "and those before it (C13)"
        assert sorted(servicer.seen) == [b"first", b"hurried"], "gRPC does not order calls of their own"


async def test_a_call_takes_everything_through_the_door() -> None:
    async with plain() as (_, target), rpc_async.connect(target) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), metadata=(("x-given", "g"),), timeout=60.0)
        assert (await call.initial_metadata())["x-initial"] == "i", "at the first look"
        assert (await call.trailing_metadata())["x-trailing"] == "t"
        assert (await call).payload == b"g True"


async def test_C5_what_was_asked_of_a_call_before_the_door_is_asked_behind_it() -> None:
    servicer = Parked()
    async with serve(servicer, options=NO_SESSIONS) as (_, target), rpc_async.connect(target) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        asked = call.request_cancel()
        reports = asyncio.ensure_future(anext(call.progress()))
        server_call = await servicer.next()
        assert call.transport == "native"
        assert await asyncio.wait_for(asked, PATIENCE) is RpcStatus.OK
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        server_call.progress(0.5, "half")
        assert (await asyncio.wait_for(reports, PATIENCE)).fraction == 0.5
        server_call.complete(response(b"done"))
        assert (await call).payload == b"done"


@pytest.mark.parametrize("what", ["cancel", "abort", "watch"])
async def test_who_had_looked_a_calls_driver_up_just_before_the_door_is_heard_behind_it(what: str) -> None:
    """As a thread may have: what it tells the old driver then is told to the new one."""
    servicer = Parked()
    async with serve(servicer, options=NO_SESSIONS) as (_, target), rpc_async.connect(target) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        before = call.driver
        server_call = await servicer.next()
        assert call.driver is not before
        if what == "cancel":
            asked = CancelRequest(call.driver.mailbox)
            before.tell_cancel(call, asked)
            assert await asyncio.wait_for(asked, PATIENCE) is RpcStatus.OK
            assert server_call.test_cancel()
        elif what == "abort":
            reason = rpc_async.CancelReason.CLIENT_ABORTED
            before.tell_abort(call, fault(RpcStatus.CALL_CANCELLED, "aborted", cancel_reason=reason))
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        else:
            before.watch(call)
            server_call.progress(0.5)
            await until(lambda: call.last_progress is not None)
        server_call.complete(response())
        await outcome(call)


@pytest.mark.parametrize("turns", range(12))
async def test_C6_an_abort_at_the_door_reaches_the_server_or_nothing_does(turns: int) -> None:
    arrived: asyncio.Queue[tuple[bytes, EchoCall]] = asyncio.Queue()

    class Keeping(Servicer):
        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            arrived.put_nowait((request.payload, call))

    async with serve(Keeping(), options=NO_SESSIONS) as (_, target), rpc_async.connect(target) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"aborted"))
        for _ in range(3 * turns):
            await asyncio.sleep(0)
        call.cancel()
        assert call.status() is RpcStatus.CALL_CANCELLED
        later = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"later"))
        payload = b"aborted"
        while payload == b"aborted":
            payload, server_call = await asyncio.wait_for(arrived.get(), PATIENCE)
            if payload == b"aborted":
                await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
            server_call.complete(response())
        await asyncio.wait_for(later, PATIENCE)


async def noticed(channel: rpc_async.Channel) -> None:
    """Wait until a channel knows that its server has gone: calls that come before take the way that they took."""
    await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)


async def test_a_session_is_tried_again_with_the_next_server() -> None:
    class Ours(Servicer):
        @rpc_async.manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.complete(response(b"ours"))

    async with plain() as (_, target):
        port = int(target.rpartition(":")[2])
        channel = rpc_async.connect(target)
        echo = demo_pb2_grpc.DemoStub(channel).Echo
        call = begin(echo, request())
        assert (await call, call.transport) == (response(b" False"), "native")
    await noticed(channel)
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Ours(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    call = begin(echo, request(), wait_for_ready=True)
    assert (await asyncio.wait_for(call, PATIENCE), call.transport) == (response(b"ours"), "session")
    await server.stop(None)
    await noticed(channel)
    async with plain(port=port):
        call = begin(echo, request(), wait_for_ready=True)
        assert (await asyncio.wait_for(call, PATIENCE), call.transport) == (response(b" False"), "native")
    await channel.close()


# -- the state of the connection ------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [True, False])
async def test_the_state_is_that_of_the_connection_that_calls_take(sessions: bool) -> None:
    options = () if sessions else NO_SESSIONS
    async with serve(Parked(), options=options) as (server, target), rpc_async.connect(target) as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await server.stop(None)
        await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), PATIENCE)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_channel_that_is_to_connect_goes_on_trying_and_says_that_it_has_failed() -> None:
    async with plain() as (_, target):
        pass
    async with rpc_async.connect(target) as channel:
        ready = asyncio.create_task(channel.channel_ready())
        await until(lambda: channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
        assert (error.status, error.executed) == (RpcStatus.SERVER_UNAVAILABLE, False)
        assert not ready.done()
        async with plain(port=int(target.rpartition(":")[2])):
            await asyncio.wait_for(ready, PATIENCE)


# -- what is said before the channel connects -----------------------------------------------------------

CALL_CREDENTIALS = grpc.access_token_call_credentials("token")
COMPOSITE = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), CALL_CREDENTIALS)


class Watching(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ({"interceptors": [Watching()]}, "interceptors"),
        ({"compression": grpc.Compression.Gzip}, "compression"),
        ({"credentials": COMPOSITE}, "credentials"),
        ({"credentials": grpc.composite_channel_credentials(COMPOSITE, CALL_CREDENTIALS)}, "credentials"),
        ({"options": (("grpc.service_config", "{}"),)}, "service config"),
        ({"options": (("grpc.lb_policy_name", "round_robin"),)}, "load-balancing"),
        ({"options": (("grpc.default_compression_algorithm", 2),)}, "compression"),
        ({"options": (("grpc.enable_channelz", 1),)}, "channelz"),
        ({"options": (("grpc.max_receive_message_length", 1000),)}, "message limits"),
    ],
)
async def test_what_grpcs_client_does_for_each_call_has_the_channel_go_natively(
    what: dict[str, Any], named: str
) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match=named):
        rpc_async.connect("localhost:1", transport="session", **what)
    async with rpc_async.connect("localhost:1", **what) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        assert (call.transport, named in call.transport_reason) == ("native", True)
        await outcome(call)


@pytest.mark.parametrize(
    "credentials",
    [None, grpc.ssl_channel_credentials(), grpc.local_channel_credentials()],
    ids=["none", "tls", "local"],
)
async def test_other_channels_try_sessions(credentials: grpc.ChannelCredentials | None) -> None:
    options = (("grpc.primary_user_agent", "me"), ("grpc.enable_channelz", 0))
    async with rpc_async.connect("localhost:1", credentials=credentials, options=options) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        assert call.transport == "session"
        await outcome(call)


@pytest.mark.parametrize(
    ("what", "named"),
    [({"credentials": CALL_CREDENTIALS}, "credentials"), ({"compression": grpc.Compression.Gzip}, "compression")],
)
async def test_a_call_that_has_what_no_session_can_do_goes_natively(what: dict[str, Any], named: str) -> None:
    tls = grpc.ssl_channel_credentials()  # call credentials want a secure channel; nobody need be reached here
    async with rpc_async.connect("localhost:1", credentials=tls) as channel:
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), **what)
        assert (call.transport, named in call.transport_reason) == ("native", True)
        await outcome(call)
    async with rpc_async.connect("localhost:1", credentials=tls, transport="session") as channel:
        with pytest.raises(rpc_async.InvalidArgument, match=named):
            begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), **what)


async def test_a_channel_that_somebody_gives_interceptors_from_outside_goes_natively(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As instrumentation does, which wraps gRPC's functions and looks at their keywords."""
    plainly = grpc.aio.insecure_channel

    def instrumented(*args: Any, **kwargs: Any) -> grpc.aio.Channel:
        kwargs["interceptors"] = [*(kwargs.get("interceptors") or ()), Watching()]
        return plainly(*args, **kwargs)

    monkeypatch.setattr(grpc.aio, "insecure_channel", instrumented)
    servicer = Parked()
    async with serve(servicer) as (_, target):
        wires: tuple[tuple[Transport, str], ...] = (("auto", "native"), ("session", "session"), ("native", "native"))
        for transport, taken in wires:
            async with rpc_async.connect(target, transport=transport) as channel:
                call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"a"))
                (await servicer.next()).complete(response(b"b"))
                assert ((await call).payload, call.transport) == (b"b", taken)


class Strict(grpc.aio.ServerInterceptor):
    """Wants a token of each call, the library's own calls about calls too."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if dict(handler_call_details.invocation_metadata).get("token") != "t":
            return grpc.unary_unary_rpc_method_handler(self._deny)
        self.methods.append(handler_call_details.method.rpartition("/")[2])
        return await continuation(handler_call_details)

    async def _deny(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


async def test_the_librarys_own_calls_about_a_call_carry_its_metadata() -> None:
    servicer, strict = Parked(), Strict()
    async with serve(servicer, interceptors=[strict]) as (_, target):
        async with rpc_async.connect(target, transport="native") as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(), metadata=(("token", "t"),))
            server_call = await servicer.next()
            reports = asyncio.ensure_future(anext(call.progress()))
            assert await asyncio.wait_for(call.request_cancel(), PATIENCE) is RpcStatus.OK
            server_call.progress(0.25)
            assert (await asyncio.wait_for(reports, PATIENCE)).fraction == 0.25
            server_call.complete(response())
            await call
    assert {"Echo", "CancelCall", "WatchCall"} <= set(strict.methods)


async def ended(listener: asyncio.Server, writers: list[asyncio.StreamWriter]) -> None:
    """End a proxy with all its connections: gRPC 1.76 leaves some open until its channels are collected."""
    listener.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)  # wait_closed would wait for what gRPC 1.76 keeps open


# -- streams of a bounded size --------------------------------------------------------------------------


async def both_ways(
    there: Coroutine[Any, Any, None], back: Coroutine[Any, Any, None], *writers: asyncio.StreamWriter
) -> None:
    """Relay until either direction has ended, then close both: asyncio's server waits for each since Python 3.12."""
    relays = [asyncio.ensure_future(there), asyncio.ensure_future(back)]
    await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
    for writer in writers:
        writer.close()
    await asyncio.gather(*relays, return_exceptions=True)


async def test_a_stream_ends_before_it_has_carried_too_much() -> None:
    """A proxy may end a gRPC call that has carried so many bytes to the server."""
    carried: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool) -> None:
        number = len(carried)
        if count:
            carried.append(0)
        while data := await reader.read(1 << 16):
            if count:
                carried[number] += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    class Echoing(Servicer):
        executed = 0

        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            self.executed += 1
            call.complete(response(request.payload[:8]))

    servicer = Echoing()
    async with serve(servicer) as (_, target):

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream = await asyncio.open_connection(*target.split(":"))
            await both_ways(relay(reader, upstream[1], True), relay(upstream[0], writer, False), writer, upstream[1])

        listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with rpc_async.connect(f"127.0.0.1:{port}", transport="session", max_stream_bytes=1 << 20) as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            calls = [begin(echo, request(number.to_bytes(8) + bytes(100_000))) for number in range(100)]
            replies = [(await asyncio.wait_for(call, PATIENCE)).payload for call in calls]
        await ended(listener, writers)
    assert replies == [number.to_bytes(8) for number in range(100)]
    assert servicer.executed == 100
    assert len(carried) >= 10
    assert max(carried) < (1 << 20) + 16_384, "with what HTTP/2 puts around it"


@pytest.mark.parametrize("number", [0, -1, 524_287])
def test_a_bound_that_no_stream_can_keep_is_refused(number: int) -> None:
    with pytest.raises(rpc_async.InvalidArgument, match="max_stream_bytes"):
        rpc_async.connect("localhost:1", max_stream_bytes=number)


# -- channels that are dropped --------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["auto", "session", "native"])
async def test_a_channel_that_is_dropped_warns_and_its_calls_still_settle(transport: Any) -> None:
    servicer = Parked()
    async with serve(servicer) as (server, target):
        channel = rpc_async.connect(target, transport=transport)
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        server_call = await servicer.next()
        dropped = weakref.ref(channel)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del channel
            gc.collect()
        assert any(one.category is ResourceWarning and "not closed" in str(one.message) for one in caught)
        caught.clear()  # a warning holds what it is about
        assert dropped() is None
        server_call.complete(response(b"still"))
        assert (await asyncio.wait_for(call, PATIENCE)).payload == b"still"
        await until(lambda: len(server._sessions) == 0, "its session is closed")


async def test_a_channel_whose_only_call_has_failed_does_not_go_on_connecting() -> None:
    """As gRPC's own: it connects for calls, or where it is asked to."""
    attempts: list[None] = []

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(None)
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with rpc_async.connect(f"127.0.0.1:{port}", transport="session") as channel:
        error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
        assert error.executed is False
        assert channel._session is not None
        await until(lambda: channel._session is not None and channel._session._streams._waker is not None, "it sleeps")
        assert attempts
    listener.close()
    await listener.wait_closed()


# -- sessions that are lost -----------------------------------------------------------------------------


async def test_C13_C14_what_surely_was_not_executed_is_begun_anew_in_its_order_and_within_its_deadline() -> None:
    class Noting(Servicer):
        def __init__(self) -> None:
            self.seen: list[tuple[bytes, float | None]] = []
            self.held: list[EchoCall] = []

        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            self.seen.append((request.payload[:8], call.time_remaining()))
            self.held.append(call)

    first, second = Noting(), Noting()
    async with serve(first) as (_, old), serve(second) as (_, new), CuttingProxy(old) as proxy:
        async with rpc_async.connect(proxy.target, transport="session") as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            ran = begin(echo, request(b"ran"))
            await until(lambda: len(first.seen) == 1)
            proxy.stall("to_server")
            seen = proxy.bytes_to_server
            large = begin(echo, request(b"large   " + bytes(20_000_000)), wait_for_ready=True)
            behind = [
                begin(echo, request(b"call %3d" % number), wait_for_ready=True, timeout=60.0) for number in range(50)
            ]
            await until(lambda: proxy.bytes_to_server > seen, "a part of the large one has left")
            proxy.lead_to(new)
            proxy.cut()
            proxy.resume()
            error = await outcome(ran)
            assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)
            await until(lambda: len(second.seen) == 51, "all of them arrive")
            assert [payload for payload, _ in second.seen] == [b"large   ", *(b"call %3d" % n for n in range(50))]
            assert all(left is not None and left < 60.0 for _, left in second.seen[1:])
            for call in second.held:
                call.complete(response(b"anew"))
            assert {(await asyncio.wait_for(call, PATIENCE)).payload for call in (large, *behind)} == {b"anew"}
            assert len(first.seen) == 1, "none of them was executed there"


async def test_C14_a_request_that_three_sessions_died_of_goes_natively() -> None:
    """Whatever cuts them (a proxy's limit) would cut the next one too; gRPC's own call tells why, or gets through."""
    limit, cut = 1_000_000, 0
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bounded: bool) -> None:
        nonlocal cut
        count = 0
        while data := await reader.read(1 << 16):
            count += len(data)
            if bounded and cut < 3 and count > limit:
                cut += 1
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    class Echoing(Servicer):
        executed = 0

        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            self.executed += 1
            call.complete(response(request.payload[:8]))

    servicer = Echoing()
    async with serve(servicer, linger=0.0) as (_, target):

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream = await asyncio.open_connection(*target.split(":"))
            await both_ways(relay(reader, upstream[1], True), relay(upstream[0], writer, False), writer, upstream[1])

        listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with rpc_async.connect(f"127.0.0.1:{port}", linger=0.0) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"12345678" + bytes(10_000_000)))
            assert (await asyncio.wait_for(call, PATIENCE)).payload == b"12345678"
            assert (call.transport, servicer.executed, cut) == ("native", 1, 3)
            assert "3 sessions were lost" in call.transport_reason
            del call  # whose gRPC call would keep the connection, as gRPC's own does
        await ended(listener, writers)
