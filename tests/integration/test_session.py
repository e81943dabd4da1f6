"""What only a session does: it outlives its connection, and falls back where there is none."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from rpc_async.core.assembly import Assembly
from rpc_async.core.frames import FrameKind
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.serving import session
from rpc_async.testing import CuttingProxy
from rpc_async.wire.session import Opened, encode_request, new_session_id, open_request, opened_response, read_response
from tests.harness import PATIENCE, EchoCall, Parked, Servicer, Wire, outcome, pair, request, response, serve, until


async def test_C14_a_cut_connection_is_not_seen_by_its_calls() -> None:
    servicer = Parked()
    async with serve(servicer) as (server, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session") as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request(b"before"))
            server_call = await servicer.next()
            proxy.cut()
            assert server_call.complete(response(b"while it was cut")) is RpcStatus.OK
            assert (await asyncio.wait_for(call, PATIENCE)).payload == b"while it was cut"
            assert not server_call.cancel_reason
            assert server.running_calls == 0


@pytest.mark.parametrize("causal", [True, False])
async def test_C14_cuts_under_load_lose_nothing_and_execute_nothing_twice(causal: bool) -> None:
    executed: list[bytes] = []

    class Counting(Servicer):
        @rpc_async.manager
        async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            executed.append(request.payload[:8])
            await asyncio.sleep(0)
            call.complete(demo_pb2.EchoResponse(payload=request.payload))

    async with serve(Counting()) as (_, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session", causal=causal) as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            done = 0

            async def worker(name: int) -> None:
                nonlocal done
                for number in range(40):
                    payload = b"%03d %04d" % (name, number) + bytes(100_000 if number % 20 == 7 else 0)
                    assert (await echo(request(payload))).payload == payload
                    done += 1

            def more(enough: int) -> bool:
                return done >= enough or work.done()

            work = asyncio.gather(*(worker(name) for name in range(30)))
            while not work.done():
                enough = done + 60
                await until(partial(more, enough), "some more calls")
                proxy.cut()
            await work
            assert proxy.cuts > 5
    assert len(executed) == len(set(executed)) == 1200


async def test_C13_calls_of_one_thread_are_dispatched_in_order(wire: Wire) -> None:
    servicer = Parked()
    async with pair(servicer, wire) as both:
        calls = [begin(both.stub.Echo, request(bytes(200_000 if n == 3 else 0))) for n in range(50)]
        arrived = [await servicer.next() for _ in calls]
        if wire != "native":  # gRPC itself does not order calls
            assert [call.call_id for call in arrived] == [call.call_id for call in calls]
        for call in arrived:
            call.complete(response())
        await asyncio.gather(*calls)


async def test_C14_a_session_that_was_away_too_long_is_lost() -> None:
    servicer = Parked()
    async with serve(servicer, linger=0.05) as (_, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session", linger=0.05) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            server_call = await servicer.next()
            channel._dialer._credentials = grpc.ssl_channel_credentials()  # from now on it cannot connect
            proxy.cut()
            error = await outcome(call)
            assert error.status == RpcStatus.CALL_FAILED
            assert error.executed is None
            await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
            assert server_call.cancel_reason is rpc_async.CancelReason.CLIENT_DISCONNECTED


async def test_C14_a_server_that_has_gone_silent_does_not_keep_a_session_beyond_its_linger() -> None:
    servicer = Parked()
    async with serve(servicer) as (_, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport="session", linger=0.05) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            await servicer.next()
            proxy.stall()  # the next connection is taken, and nothing comes of it
            proxy.cut()
            error = await outcome(call)
            assert error.status == RpcStatus.CALL_FAILED
            assert error.executed is None


@pytest.mark.parametrize("answer", [b"\xff\xff", opened_response(Opened(False, 1.0, 1 << 20), 0), b""])
async def test_a_server_that_breaks_the_protocol_fails_the_calls_with_a_word(answer: bytes) -> None:
    async def nonsense(_: Any, context: Any) -> None:
        await context.read()
        await context.write(answer)
        await context.read()

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(nonsense)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("rpc_async.v1.AsyncCalls", {"Session": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with rpc_async.connect(f"127.0.0.1:{port}", transport="session") as channel:
            error = await outcome(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
            assert error.status == RpcStatus.INTERNAL_ERROR
            assert error.executed is False
            assert "protocol" in error.details()
    finally:
        await server.stop(None)


async def test_a_session_is_found_by_its_calls_ids_and_by_nobody_elses() -> None:
    servicer = Parked()
    async with pair(servicer, "session") as both, rpc_async.connect(both.target, transport="native") as other:
        stub = demo_pb2_grpc.DemoStub(both.channel)
        call, second = begin(stub.Echo, request()), begin(stub.Echo, request())
        assert call.call_id[:16] == second.call_id[:16]
        assert call.call_id[-32:] != second.call_id[-32:]
        server_call = await servicer.next()
        from rpc_async.v1 import calls_pb2, calls_pb2_grpc

        calls = calls_pb2_grpc.AsyncCallsStub(other)
        forged = call.call_id[:-32] + second.call_id[-32:]
        assert not (await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=forged, abort=True))).state
        assert not server_call.test_cancel()
        await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=call.call_id))
        assert server_call.test_cancel()
        server_call.complete(response(b"stopped"))
        assert (await call).payload == b"stopped"
        second.cancel()


async def test_a_stream_that_speaks_nonsense_is_ended_with_a_word_and_others_do_not_notice() -> None:
    servicer = Parked()
    async with pair(servicer, "session") as both, grpc.aio.insecure_channel(both.target) as plain:
        call = begin(both.stub.Echo, request())
        server_call = await servicer.next()
        for nonsense in (b"\xff\xff\xff", b"", b"\x0a\x03\x0a\x01x", b"\x10\x05"):
            stream: Any = plain.stream_stream("/rpc_async.v1.AsyncCalls/Session")()
            await stream.write(nonsense)
            assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert both.channel.get_state() is grpc.ChannelConnectivity.READY
        assert not call.done()
        server_call.complete(response(b"undisturbed"))
        assert (await call).payload == b"undisturbed"


@pytest.mark.parametrize("causal", [True, False])
async def test_replies_and_requests_far_larger_than_the_window_arrive(causal: bool) -> None:
    servicer = Parked()
    large = bytes(12 << 20)
    async with serve(servicer) as (_, target):
        async with rpc_async.connect(target, transport="session", causal=causal) as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            calls = [begin(echo, request(large if n == 2 else b"")) for n in range(4)]
            for _ in calls:
                (await servicer.next()).complete(response(large))
            for call in calls:
                assert len((await asyncio.wait_for(call, PATIENCE)).payload) == len(large)


async def test_S16_a_client_that_does_not_read_is_refused_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FULL", 6 << 20)
    monkeypatch.setattr(session, "OVERFULL", 7 << 20)
    servicer = Parked()
    async with serve(servicer) as (server, target), grpc.aio.insecure_channel(target) as plain:
        stream: Any = plain.stream_stream("/rpc_async.v1.AsyncCalls/Session")()
        await stream.write(open_request(new_session_id(), resume=False, ack=0))
        await stream.write(encode_request([(3, 0, b"/rpc_async.demo.v1.Demo/Echo")], 0))
        number = 0
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while not stream.done():
                frames = [(1, n << 12, b"") for n in range(number + 1, number + 501)]
                number += len(frames)
                await stream.write(encode_request(frames, 0))
                while not servicer.arrived.empty():
                    servicer.arrived.get_nowait().complete(response(bytes(60_000)))
        assert await stream.code() is not grpc.StatusCode.OK  # gRPC has no room for a better one behind what is unread
        await until(lambda: not len(server._sessions), "the session is forgotten")


async def test_C14_a_connection_lost_before_the_session_was_open_on_it_executed_nothing() -> None:
    arrived = asyncio.Event()

    async def say_nothing(_: Any, context: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(say_nothing)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("rpc_async.v1.AsyncCalls", {"Session": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with CuttingProxy(f"127.0.0.1:{port}") as proxy:
        async with rpc_async.connect(proxy.target, transport="session") as channel:
            echo = demo_pb2_grpc.DemoStub(channel).Echo
            call, patient = begin(echo, request()), begin(echo, request(), wait_for_ready=True)
            await asyncio.wait_for(arrived.wait(), PATIENCE)
            proxy.cut()
            error = await outcome(call)
            assert type(error) is rpc_async.ServerUnavailable
            assert error.executed is False
            assert not patient.done()
    await server.stop(None)


async def test_an_open_whose_answer_was_lost_can_be_sent_again() -> None:
    servicer = Parked()
    async with serve(servicer) as (server, target), grpc.aio.insecure_channel(target) as plain:
        session_id = new_session_id()
        streams: list[Any] = [plain.stream_stream("/rpc_async.v1.AsyncCalls/Session")() for _ in range(3)]
        for stream in streams[:2]:
            await stream.write(open_request(session_id, resume=False, ack=0))
            opened = read_response(await stream.read())[0]
            assert opened is not None
            assert opened.found
            assert len(server._sessions) == 1
        await streams[1].write(encode_request([(3, 0, b"/rpc_async.demo.v1.Demo/Echo"), (1, 1 << 12, b"")], 0))
        await servicer.next()
        await streams[2].write(open_request(session_id, resume=False, ack=0))
        assert await streams[2].code() is grpc.StatusCode.INVALID_ARGUMENT, "it has been used, and cannot be new again"


@pytest.mark.parametrize("side", ["client", "server"])
async def test_C14_a_session_that_fails_in_an_unforeseen_way_leaves_no_call_hanging(
    side: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was said and not heard is lost, so the session cannot go on; the next one does."""
    kinds = {"client": FrameKind.REPLY, "server": FrameKind.CALL}
    piece, failures = Assembly.piece, [RuntimeError("nobody has thought of this")]

    def fail_once(self: Assembly, call: int, payload: bytes) -> Any:
        if failures and self._partial[call].kind == kinds[side]:
            raise failures.pop()
        return piece(self, call, payload)

    monkeypatch.setattr(Assembly, "piece", fail_once)

    class Echoing(Servicer):
        @rpc_async.manager(inline=True)
        def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
            call.complete(response(request.payload))

    async with pair(Echoing(), "session") as both:
        calls = [begin(both.stub.Echo, request(bytes(size))) for size in (2_000_000, *range(50))]
        outcomes = [await asyncio.wait_for(outcome(call), PATIENCE) for call in calls]
        assert not failures
        assert {type(found) for found in outcomes} <= {demo_pb2.EchoResponse, rpc_async.CallFailed}
        if side == "client":
            assert isinstance(outcomes[0], rpc_async.CallFailed), "it has been executed, and its reply is lost"
        assert (await asyncio.wait_for(begin(both.stub.Echo, request(b"later")), PATIENCE)).payload == b"later"
    assert "unforeseen" in caplog.text
