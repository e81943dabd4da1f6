"""`testing/pair.py`: client and server in one process, with nothing of gRPC's between them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Literal

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import CancelReason, RpcStatus, begin, testing
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing.pair import ServerOptions
from rpc_async.testing.rpc import ROOM
from rpc_async.v1 import calls_pb2, calls_pb2_grpc, types_pb2
from tests.harness import PATIENCE, Parked, Seen, logged, outcome, request, response, until


def register(servicer: demo_pb2_grpc.DemoServicer) -> Any:
    """Return what registers a servicer."""
    return lambda server: demo_pb2_grpc.add_DemoServicer_to_server(servicer, server)


def handlers(**methods: Any) -> Any:
    """Return what registers handlers of bytes."""

    def add(server: rpc_async.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))

    return add


async def test_a_cut_is_not_seen_by_a_sessions_calls() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer)) as both:
        call = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        server_call = await servicer.next()
        both.refusing = True
        both.cut()
        assert server_call.complete(response(b"while it was cut")) is RpcStatus.OK
        await until(lambda: both.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        assert not call.done()
        both.refusing = False
        assert (await asyncio.wait_for(call, PATIENCE)).payload == b"while it was cut"
        assert both.cuts == 1


async def test_a_cut_ends_a_native_call() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer), transport="native") as both:
        call = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        server_call = await servicer.next()
        both.cut()
        error = await outcome(call)
        assert error.status == RpcStatus.CALL_FAILED
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.executed is None
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.CLIENT_DISCONNECTED
        assert server_call.complete(response()) is RpcStatus.CALL_CANCELLED
        again = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        server_call = await servicer.next()
        assert again.cancel()
        await asyncio.wait_for(server_call.wait_cancelled(), PATIENCE)
        assert server_call.cancel_reason is CancelReason.CLIENT_ABORTED
        server_call.complete(response())


async def test_cuts_under_load_lose_nothing_and_execute_nothing_twice() -> None:
    executed: list[bytes] = []

    class Counting(Parked):
        @rpc_async.manager
        async def Echo(self, request: Any, call: Any) -> None:
            executed.append(request.payload[:8])
            await asyncio.sleep(0)
            call.complete(response(request.payload))

    async with testing.pair(register(Counting())) as both:
        echo = demo_pb2_grpc.DemoStub(both.channel).Echo

        async def worker(name: int) -> None:
            for number in range(40):
                payload = b"%03d %04d" % (name, number) + bytes(100_000 if number % 20 == 7 else 0)
                assert (await echo(request(payload))).payload == payload

        def more(enough: int) -> bool:
            return len(executed) >= enough

        async def cut_now_and_then() -> None:
            while True:
                await until(partial(more, len(executed) + 60))
                both.cut()

        cutting = asyncio.create_task(cut_now_and_then())
        await asyncio.gather(*(worker(name) for name in range(30)))
        cutting.cancel()
        assert both.cuts > 5
    assert len(executed) == len(set(executed)) == 1200


async def test_calls_are_refused_while_nothing_listens_unless_they_wait() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer)) as both:
        both.refusing = True
        assert both.refusing
        for transport in ("session", "native"):
            wire: Any = transport
            async with both.connect(transport=wire) as channel:
                echo = demo_pb2_grpc.DemoStub(channel).Echo
                error = await outcome(begin(echo, request()))
                assert type(error) is rpc_async.ServerUnavailable
                assert error.executed is False
                waiting = begin(echo, request(), wait_for_ready=True)
                given_up = begin(echo, request(), wait_for_ready=True)
                given_up.cancel()
                both.refusing = False
                (await servicer.next()).complete(response(b"in the end"))
                assert (await waiting).payload == b"in the end"
                both.refusing = True


async def test_a_pair_has_no_ports_and_no_loop_but_its_own() -> None:
    async with testing.pair(register(Parked())) as both:
        credentials = grpc.ssl_server_credentials([(b"", b"")])
        for add in (
            both.server.add_insecure_port,
            partial(both.server.add_secure_port, server_credentials=credentials),
        ):
            with pytest.raises(rpc_async.CannotSupport, match=r"pair\.connect"):
                add("127.0.0.1:0")

        def elsewhere() -> None:
            with pytest.raises(rpc_async.CannotSupport, match="async with"), both.connect():
                pass

        await asyncio.to_thread(elsewhere)


async def test_handles_are_used_from_any_thread() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer)) as both:
        stub = demo_pb2_grpc.DemoStub(both.channel)
        waiting = asyncio.create_task(asyncio.to_thread(lambda: begin(stub.Echo, request()).result(PATIENCE)))
        server_call = await servicer.next()
        threading.Thread(target=server_call.complete, args=(response(b"from a thread"),)).start()
        assert (await waiting).payload == b"from a thread"


async def test_a_call_is_looked_at_watched_and_cancelled_by_its_id() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer)) as both, both.connect(transport="native") as other:
        call = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        server_call = await servicer.next()
        calls: Any = None
        for channel in (both.channel, other):
            calls = calls_pb2_grpc.AsyncCallsStub(channel)
            watch = calls.WatchCall(calls_pb2.WatchCallRequest(call_id=call.call_id))
            assert (await watch.read()).call.state == types_pb2.CALL_STATE_RUNNING
            server_call.progress(0.5 if channel is other else 0.25)
            assert (await watch.read()).call.progress.fraction == (0.5 if channel is other else 0.25)
            assert watch.cancel()
            got = await calls.GetCall(calls_pb2.GetCallRequest(call_id=call.call_id))
            assert got.call.state == types_pb2.CALL_STATE_RUNNING
        await calls.CancelCall(calls_pb2.CancelCallRequest(call_id=call.call_id))
        assert server_call.cancel_reason is CancelReason.CLIENT_REQUESTED
        server_call.complete(response())
        await call


# -- streaming methods, which go past sessions ----------------------------------------------------------


async def _gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([one async for one in requests])


def _gather_in_thread(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


async def _spread(request: bytes, context: Any) -> AsyncIterator[bytes]:
    await context.send_initial_metadata((("x-initial", "1"),))
    for byte in request:
        yield bytes((byte,))
    context.set_trailing_metadata((("x-trailing", "2"),))


async def _spread_by_writing(request: bytes, context: Any) -> None:
    for byte in request:
        await context.write(bytes((byte,)))


def _spread_in_thread(request: bytes, context: Any) -> Iterator[bytes]:
    assert context.peer().startswith("in-process:")
    for byte in request:
        yield bytes((byte,))


async def _echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for one in requests:
        yield one.upper()


async def _echo_by_hand(_: Any, context: Any) -> None:
    while (one := await context.read()) is not grpc.aio.EOF:
        await context.write(one.upper())


def _echo_in_thread(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for one in requests:
        yield one.upper()


@pytest.mark.parametrize("behaviour", [_gather, _gather_in_thread])
async def test_a_client_streaming_method(behaviour: Any) -> None:
    async with testing.pair(handlers(M=grpc.stream_unary_rpc_method_handler(behaviour))) as both:
        method: Any = both.channel.stream_unary("/t.T/M")
        call = method()
        await call.write(b"one ")
        await call.write(b"two")
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"three")
        assert await call == b"one two" == await call

        async def given() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        assert await method(given()) == b"ab"
        by_iterable = method(iter([b"c", b"d"]))
        with pytest.raises(grpc.aio.UsageError):
            await by_iterable.write(b"e")
        with pytest.raises(grpc.aio.UsageError):
            await by_iterable.done_writing()
        assert await by_iterable == b"cd"


@pytest.mark.parametrize("behaviour", [_spread, _spread_by_writing, _spread_in_thread])
async def test_a_server_streaming_method(behaviour: Any) -> None:
    async with testing.pair(handlers(M=grpc.unary_stream_rpc_method_handler(behaviour))) as both:
        method: Any = both.channel.unary_stream("/t.T/M")
        call = method(b"abc")
        assert [reply async for reply in call] == [b"a", b"b", b"c"]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        if behaviour is _spread:
            assert dict(tuple(await call.initial_metadata())) == {"x-initial": "1"}
            assert dict(tuple(await call.trailing_metadata())) == {"x-trailing": "2"}


@pytest.mark.parametrize("behaviour", [_echo, _echo_by_hand, _echo_in_thread])
async def test_a_bidirectional_method(behaviour: Any) -> None:
    async with testing.pair(handlers(M=grpc.stream_stream_rpc_method_handler(behaviour))) as both:
        method: Any = both.channel.stream_stream("/t.T/M")
        call = method()
        for word in (b"one", b"two"):
            await call.write(word)
            assert await call.read() == word.upper()
        await call.wait_for_connection()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        assert await call.details() == ""


async def test_a_writer_waits_for_its_reader() -> None:
    written = 0
    go_on = asyncio.Event()

    async def pour(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal written
        for _ in range(64):
            yield bytes(16 * 1024)
            written += 1

    async def late(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await go_on.wait()
        return b"%d" % len([one async for one in requests])

    methods: dict[str, Any] = {
        "Pour": grpc.unary_stream_rpc_method_handler(pour),
        "Late": grpc.stream_unary_rpc_method_handler(late),
    }
    async with testing.pair(handlers(**methods)) as both:
        replies: Any = both.channel.unary_stream("/t.T/Pour")(b"")
        await until(lambda: written * 16 * 1024 >= ROOM)
        for _ in range(20):
            await asyncio.sleep(0)
        assert written * 16 * 1024 == ROOM  # and no more, until somebody reads
        assert len([reply async for reply in replies]) == 64
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(64):
                await call.write(bytes(16 * 1024))
                sent += 1
            await call.done_writing()

        call: Any = both.channel.stream_unary("/t.T/Late")()
        sending = asyncio.create_task(send())
        await until(lambda: sent * 16 * 1024 >= ROOM)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent * 16 * 1024 == ROOM
        go_on.set()
        assert await call == b"64"
        await sending


@pytest.mark.parametrize("how", ["cancel", "deadline", "cut", "forget", "stop", "close"])
async def test_a_stream_that_breaks_ends_on_both_sides(how: str) -> None:
    started, ended = Seen[None](), Seen[BaseException]()

    async def hang(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.add_done_callback(lambda _: None)
        started.set(None)
        try:
            async for one in requests:
                yield one
        except asyncio.CancelledError as error:
            ended.set(error)
            raise

    async with testing.pair(handlers(M=grpc.stream_stream_rpc_method_handler(hang)), grace=0.0) as both:
        other = both.connect(transport="native")
        call: Any = other.stream_stream("/t.T/M")(timeout=0.05 if how == "deadline" else None)
        assert (call.time_remaining() is None) == (how != "deadline")
        told: Seen[object] = Seen()
        if how != "forget":
            call.add_done_callback(told.set)
        await started.get()
        expected = grpc.StatusCode.CANCELLED
        match how:
            case "cancel":
                assert call.cancel()
                assert call.cancelled()
                with pytest.raises(asyncio.CancelledError):
                    await call.read()
            case "deadline":
                expected = grpc.StatusCode.DEADLINE_EXCEEDED
            case "cut":
                both.cut()
                expected = grpc.StatusCode.UNAVAILABLE
            case "stop":
                await both.server.stop()
                expected = grpc.StatusCode.UNAVAILABLE
            case "close":
                await other.close()
            case _:
                del call
                assert isinstance(await ended.get(), asyncio.CancelledError)
                await other.close()
                return
        assert await call.code() is expected
        assert await told.get() is call
        broken: Any = call
        if how in ("deadline", "cut", "stop"):
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await broken.read()
                assert caught.value.code() is expected
            with pytest.raises(asyncio.InvalidStateError):
                await broken.write(b"")
        assert isinstance(await ended.get(), asyncio.CancelledError)
        await other.close()


async def test_whoever_cancels_the_wait_cancels_the_call_as_in_grpc() -> None:
    async def hang(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with testing.pair(handlers(M=grpc.stream_unary_rpc_method_handler(hang))) as both:
        call: Any = both.channel.stream_unary("/t.T/M")()
        waiting = asyncio.ensure_future(call)
        await until(lambda: both.server.running_calls)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()


async def test_an_iterable_that_raises_cancels_its_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise LookupError("no more")

    async with testing.pair(handlers(M=grpc.stream_unary_rpc_method_handler(_gather))) as both:
        method: Any = both.channel.stream_unary("/t.T/M")
        with pytest.raises(asyncio.CancelledError):
            await method(broken())
    assert "the iterable of requests raised" in logged(caplog)[0].getMessage()


async def test_a_handler_learns_from_what_it_sends_that_its_client_is_gone_or_knows_it_already() -> None:
    learnt: Seen[list[BaseException]] = Seen()
    go_on = asyncio.Event()

    async def late(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata(())
        errors: list[BaseException] = []
        for send in (partial(context.send_initial_metadata, ()), partial(context.write, b"")):
            try:
                await send()
                await go_on.wait()
            except BaseException as error:
                errors.append(error)
        try:
            await context.send_initial_metadata(())
        except grpc.aio.BaseError as error:
            errors.append(error)
        learnt.set(errors)
        await context.write(b"into nothing")
        yield b""

    async with testing.pair(handlers(M=grpc.unary_stream_rpc_method_handler(late))) as both:
        call: Any = both.channel.unary_stream("/t.T/M")(b"")
        await call.wait_for_connection()
        assert await call.read() == b""
        call.cancel()
        kinds = [type(error) for error in await learnt.get()]
        assert kinds[:2] == [grpc.aio.UsageError, asyncio.CancelledError]
        assert issubclass(kinds[2], grpc.aio.BaseError)
        other = both.connect(transport="native")
        inner: Any = other.native().channel
        unary = inner.unary_unary("/t.T/None")(b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await unary.wait_for_connection()
        await other.close()


async def test_handlers_that_fail_fail_their_calls(caplog: pytest.LogCaptureFixture) -> None:
    async def abort(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here")

    async def fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
        raise LookupError("a mistake")
        yield b""

    async def set_code(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("gone")
        return b""

    methods: dict[str, Any] = {
        "Abort": grpc.unary_stream_rpc_method_handler(abort),
        "Fail": grpc.unary_stream_rpc_method_handler(fail),
        "SetCode": grpc.stream_unary_rpc_method_handler(set_code),
    }
    async with testing.pair(handlers(**methods)) as both:
        aborted: Any = both.channel.unary_stream("/t.T/Abort")(b"")
        assert await aborted.read() == b"first"
        with pytest.raises(grpc.aio.AioRpcError, match="not here"):
            await aborted.read()
        failed: Any = both.channel.unary_stream("/t.T/Fail")(b"")
        assert await failed.code() is grpc.StatusCode.UNKNOWN
        assert "a mistake" in await failed.details()
        with pytest.raises(grpc.aio.AioRpcError):
            await failed.wait_for_connection()  # it has ended
        code: Any = both.channel.stream_unary("/t.T/SetCode")(iter(()))
        with pytest.raises(grpc.aio.AioRpcError, match="gone"):
            await code
        missing: Any = both.channel.unary_stream("/t.T/Missing")(b"")
        assert await missing.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [record.getMessage() for record in logged(caplog)] == ["/t.T/Fail: the handler raised, and the call fails"]


@pytest.mark.parametrize("transport", ["session", "native"])
async def test_server_interceptors_run(transport: Literal["session", "native"]) -> None:
    seen: list[str] = []

    class Watch(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            seen.append(handler_call_details.method)
            return await continuation(handler_call_details)

    servicer = Parked()
    async with testing.pair(register(servicer), transport=transport, interceptors=[Watch()]) as both:
        call = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        (await servicer.next()).complete(response(b"in"))
        assert (await call).payload == b"in"
    assert "/rpc_async.demo.v1.Demo/Echo" in seen


async def test_message_limits_hold_on_both_sides() -> None:
    limit = 1 << 20
    servicer = Parked()
    options = [("grpc.max_receive_message_length", limit)]
    async with testing.pair(register(servicer), transport="native", options=options) as both:
        stub = demo_pb2_grpc.DemoStub(both.channel)
        error = await outcome(begin(stub.Echo, request(bytes(2 * limit))))
        assert (error.status, error.executed) == (RpcStatus.OUT_OF_MEMORY, False)
        async with both.connect(transport="native", options=options) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
            (await servicer.next()).complete(response(bytes(2 * limit)))
            error = await outcome(call)
            assert (error.status, error.executed) == (RpcStatus.OUT_OF_MEMORY, None)


async def test_a_request_over_the_limit_ends_a_stream_of_them() -> None:
    limit = 1 << 20

    async def given() -> AsyncIterator[bytes]:
        while True:
            yield bytes(limit + 1)

    options = [("grpc.max_receive_message_length", limit)]
    async with testing.pair(handlers(M=grpc.stream_unary_rpc_method_handler(_gather)), options=options) as both:
        method: Any = both.channel.stream_unary("/t.T/M")
        for requests in (given(), itertools.repeat(bytes(limit + 1))):
            with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
                await method(requests)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_native_channels_state() -> None:
    states = grpc.ChannelConnectivity
    async with testing.pair(register(Parked())) as both, both.connect(transport="native") as channel:
        assert channel.get_state() is states.IDLE
        both.refusing = True
        assert channel.get_state(try_to_connect=True) is states.TRANSIENT_FAILURE
        inner = channel.native().channel
        waiting = [asyncio.create_task(one.channel_ready()) for one in (channel, inner)]
        await asyncio.sleep(0)
        both.refusing = False
        for ready in waiting:
            await asyncio.wait_for(ready, PATIENCE)
        assert channel.get_state() is states.READY
        await both.server.stop()
        await asyncio.wait_for(channel.wait_for_state_change(states.READY), PATIENCE)
        await inner.close()
        assert inner.get_state(try_to_connect=True) is states.SHUTDOWN
        method: Any = inner.unary_unary("/t.T/M")
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            method(b"")


async def test_a_channel_waits_for_its_calls_as_long_as_it_is_told() -> None:
    servicer = Parked()
    async with testing.pair(register(servicer)) as both:
        channel = both.connect(transport="native")
        call = begin(demo_pb2_grpc.DemoStub(channel).Echo, request())
        server_call = await servicer.next()
        closing = asyncio.create_task(channel.close(PATIENCE))
        await asyncio.sleep(0)
        server_call.complete(response(b"in time"))
        assert (await call).payload == b"in time"
        await closing
        other = both.connect(transport="native")
        inner: Any = other.native().channel
        calls = calls_pb2_grpc.AsyncCallsStub(inner)
        watched = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
        server_call = await servicer.next()
        watch: Any = calls.WatchCall(calls_pb2.WatchCallRequest(call_id=watched.call_id))
        assert await watch.read()
        await inner.close(0.01)
        assert watch.cancelled()
        server_call.complete(response())
        await watched
        await other.close()


@pytest.mark.parametrize("how", ["end", "cut"])
async def test_a_writer_that_waits_is_told_that_the_stream_has_ended(how: str) -> None:
    go_on = asyncio.Event()

    async def late(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await go_on.wait()
        return b"enough"

    async with testing.pair(handlers(M=grpc.stream_unary_rpc_method_handler(late))) as both:
        method: Any = both.channel.stream_unary("/t.T/M")
        call, by_iterable = method(), method(bytes(ROOM) for _ in range(3))

        async def given() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield bytes(ROOM)

        by_async_iterable = method(given())
        await call.write(bytes(ROOM))
        writing = asyncio.create_task(call.write(b"more"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not writing.done()
        if how == "end":
            go_on.set()
            for one in (call, by_iterable, by_async_iterable):
                assert await one == b"enough"
            with pytest.raises(asyncio.InvalidStateError):
                await writing
        else:
            both.cut()
            for one in (writing, by_iterable, by_async_iterable):
                with pytest.raises(grpc.aio.AioRpcError, match="cut"):
                    await one


async def test_a_writer_that_is_cancelled_cancels_its_call() -> None:
    async with testing.pair(handlers(M=grpc.stream_stream_rpc_method_handler(_never_reads))) as both:
        call: Any = both.channel.stream_stream("/t.T/M")()
        await call.write(bytes(ROOM))
        writing = asyncio.create_task(call.write(b"more"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert call.cancelled()


async def _never_reads(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_a_handler_in_a_thread_looks_at_its_call_and_cancels_it() -> None:
    seen: list[bool] = []

    def plain(request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-initial", "from a thread"),))
        return request.upper()

    def cancels(request: bytes, context: Any) -> Iterator[bytes]:
        seen.append(context.is_active())
        yield b"one"
        context.cancel()
        go_on.wait(PATIENCE)
        seen.append(context.is_active())
        yield b"two"

    def sets_code(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        return b""

    go_on = threading.Event()
    methods: dict[str, Any] = {
        "Plain": grpc.unary_unary_rpc_method_handler(plain),
        "Cancels": grpc.unary_stream_rpc_method_handler(cancels),
        "SetsCode": grpc.unary_unary_rpc_method_handler(sets_code),
    }
    async with testing.pair(handlers(**methods), transport="native") as both:
        plainly: Any = both.channel.unary_unary("/t.T/Plain")(b"abc")
        assert await plainly == b"ABC"
        assert dict(tuple(await plainly.initial_metadata())) == {"x-initial": "from a thread"}
        assert (await outcome(both.channel.unary_unary("/t.T/SetsCode")(b""))).code() is grpc.StatusCode.NOT_FOUND
        call: Any = both.channel.unary_stream("/t.T/Cancels")(b"")
        assert await call.read() == b"one"
        assert await call.code() is grpc.StatusCode.CANCELLED
        go_on.set()
        await until(lambda: seen == [True, False])


def test_a_server_that_stops_with_grace_lets_streams_end() -> None:
    clock = testing.FakeClock()

    async def main() -> None:
        servicer = Parked()
        async with testing.pair(register(servicer), grace=60.0) as both, both.connect(transport="native") as other:
            call = begin(demo_pb2_grpc.DemoStub(both.channel).Echo, request())
            server_call = await servicer.next()
            calls: Any = calls_pb2_grpc.AsyncCallsStub(other)
            watch = calls.WatchCall(calls_pb2.WatchCallRequest(call_id=call.call_id))
            assert (await watch.read()).call.state == types_pb2.CALL_STATE_RUNNING
            stopping = asyncio.create_task(both.server.stop())
            inner = both.server._inner
            assert inner is not None
            assert await inner.wait_for_termination(0) is True
            await clock.advance(61)  # what is left when grace is over has a second to be written
            await stopping
            assert await inner.wait_for_termination() is False
            with pytest.raises(grpc.aio.AioRpcError, match="stopped"):
                await watch.read()
            server_call.complete(response())

    clock.run(main())


def test_the_servers_options_are_all_known() -> None:
    assert set(ServerOptions.__annotations__) == set(inspect.signature(rpc_async.server).parameters)
