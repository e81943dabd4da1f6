"""What the library calls of its user's, on the client: in whose context it runs, and what follows if it raises."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import Apc, AsyncEvent, Post, RpcStatus, alertable_wait, begin
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.harness import (
    PATIENCE,
    DownloadCall,
    EchoCall,
    Parked,
    Servicer,
    SocketWire,
    Wire,
    logged,
    outcome,
    pair,
    request,
    response,
    serve,
    until,
)

ECHO = "/rpc_async.demo.v1.Demo/Echo"
CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


class OfTheUsers(BaseException):
    """What derives from no Exception."""


LOGGED = (ValueError, asyncio.CancelledError, GeneratorExit, OfTheUsers)
"""What ends nothing."""
ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit)


def raiser(kind: type[BaseException]) -> Callable[..., Any]:
    """Return what raises that, whatever it is called with."""

    def routine(*_: object) -> Any:
        raise kind("of the user's")

    return routine


def run_until_raised(
    kind: type[BaseException], main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], told: list[Any]
) -> list[Any]:
    """Run a coroutine until that comes out of its loop, and return what was told by then; see that the loop goes on."""
    with asyncio.Runner() as runner:
        loop, over = runner.get_loop(), asyncio.Event()
        task = loop.create_task(main(over))
        with pytest.raises(kind, match="of the user's"):
            loop.run_until_complete(task)
        by_then = told.copy()
        over.set()
        loop.run_until_complete(task)
        return by_then


class Inline(Servicer):
    """Answers at once."""

    @rpc_async.manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        call.complete(response(request.payload))


# -- contexts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True])
async def test_a_routine_runs_in_the_context_in_which_it_was_named(socket_wire: SocketWire, cut: bool) -> None:
    seen: dict[str, set[str]] = {}
    loop = asyncio.get_running_loop()

    def see(name: str) -> Callable[[Any], None]:
        def routine(_: object) -> None:
            seen.setdefault(name, set()).add(CALLER.get())
            CALLER.set("a routine before")  # seen by no other

        return routine

    async def caller(name: str, stub: demo_pb2_grpc.DemoAsyncStub) -> rpc_async.AsyncCall[demo_pb2.EchoResponse]:
        CALLER.set(name)
        call = begin(stub.Echo, request(), notify=see(name), events=(AsyncEvent.PROGRESS,))
        call.add_done_callback(see(name))
        call.notify(see(name))
        call.notify(Post(loop, see(name)))
        call.notify(Post(loop.call_soon_threadsafe, see(name)))
        call.notify(Apc(see(name)))
        CALLER.set("somebody after it was named")
        return call

    servicer = Parked()
    async with serve(servicer) as (_, target), CuttingProxy(target) as proxy:
        async with rpc_async.connect(proxy.target, transport=socket_wire) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            names = ("alice", "bob", "carol")
            calls = [await asyncio.create_task(caller(name, stub)) for name in names]
            arrived = [await servicer.next() for _ in names]
            for server_call in arrived:
                server_call.progress(0.5)
            await until(lambda: seen == {name: {name} for name in names}, "progress is told")
            if cut and socket_wire == "session":
                proxy.cut()
            for server_call in arrived:
                server_call.complete(response())
            await asyncio.gather(*calls)
            calls[0].add_done_callback(see("after the end"))  # which is told at once
            ran = 0
            while ran < len(names):
                ran += alertable_wait(0)
                await asyncio.sleep(0)
            await until(lambda: "after the end" in seen)
    assert seen == {name: {name} for name in names} | {"after the end": {"nobody"}}


async def test_interceptors_see_what_a_thread_has_set_that_begins_a_call() -> None:
    seen: list[str] = []

    class Looking(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(CALLER.get())
            return await continuation(client_call_details, request)

    def use(target: str) -> None:
        with rpc_async.connect(target, interceptors=[Looking()]) as channel:
            calls, held = [], threading.Event()
            channel.native().mailbox.post(held.wait, PATIENCE)  # so that the loop takes both at once
            for name in ("alice", "bob"):
                CALLER.set(name)
                calls.append(begin(demo_pb2_grpc.DemoStub(channel).Echo, request()))
            held.set()
            for call in calls:
                call.result(PATIENCE)

    async with serve(Inline()) as (_, target):
        await asyncio.to_thread(use, target)
    assert seen == ["alice", "bob"]


# -- what raises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOGGED)
async def test_C8_C10_whatever_one_of_them_raises_the_others_are_told(
    wire: Wire, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []
    servicer = Parked()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Echo, request(), notify=raiser(kind), events=(AsyncEvent.PROGRESS,))
        other = begin(both.stub.Echo, request())
        for add in (call.add_done_callback, call.notify):
            add(raiser(kind))
            add(told.append)
        call.notify(Post(raiser(kind), print))
        call.notify(Post(asyncio.get_running_loop(), raiser(kind)))
        call.notify(told.append)
        server_calls = {one.call_id: one for one in [await servicer.next(), await servicer.next()]}
        server_calls[call.call_id].progress(0.5)
        await until(lambda: logged(caplog), "its progress is told")
        server_calls[call.call_id].complete(response(b"well"))
        assert (await outcome(call)).payload == b"well"
        await until(lambda: len(told) == 3)
        server_calls[other.call_id].complete(response(b"well too"))
        assert (await outcome(other)).payload == b"well too"
    assert told.count(call) == 1
    said = [record.getMessage().partition(": ")[2] for record in logged(caplog)]
    assert sorted(said) == [
        "CALL_COMPLETE was not delivered: its target raised; the call is not lost",
        "a done-callback raised",
        *["the routine that was told of CALL_COMPLETE raised"] * 3,
        "the routine that was told of PROGRESS raised",
    ]


@pytest.mark.parametrize("kind", ENDS_THE_PROGRAM)
@pytest.mark.parametrize("way", ["callback", "callable", "post", "poster"])
def test_what_ends_the_program_comes_out_of_the_loop_when_all_were_told(
    socket_wire: SocketWire, kind: type[BaseException], way: str
) -> None:
    told: list[object] = []

    async def main(over: asyncio.Event) -> None:
        async with pair(Inline(), socket_wire) as both:
            call = begin(both.stub.Echo, request())
            match way:
                case "callback":
                    call.add_done_callback(raiser(kind))
                case "callable":
                    call.notify(raiser(kind))
                case "post":
                    call.notify(Post(asyncio.get_running_loop(), raiser(kind)))
                case "poster":
                    call.notify(Post(raiser(kind), print))
            call.add_done_callback(told.append)
            call.notify(told.append)
            await asyncio.wait_for(over.wait(), PATIENCE)
            assert (await begin(both.stub.Echo, request(b"and on"))).payload == b"and on"

    assert len(run_until_raised(kind, main, told)) == 2


@pytest.mark.parametrize("kind", [*LOGGED, *ENDS_THE_PROGRAM])
def test_nothing_that_a_routine_raises_ends_a_channels_own_thread(
    socket_wire: SocketWire, kind: type[BaseException]
) -> None:
    served, ended = threading.Event(), threading.Event()
    targets: list[str] = []

    def run_server() -> None:
        async def main() -> None:
            async with serve(Inline()) as (_, target):
                targets.append(target)
                served.set()
                await asyncio.to_thread(ended.wait)

        asyncio.run(main())

    thread = threading.Thread(target=run_server)
    thread.start()
    try:
        assert served.wait(PATIENCE)
        with rpc_async.connect(targets[0], transport=socket_wire) as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            call, told = begin(stub.Echo, request(b"one")), threading.Event()
            call.add_done_callback(raiser(kind))
            call.notify(raiser(kind))
            call.notify(told)
            assert call.result(PATIENCE).payload == b"one"
            assert told.wait(PATIENCE)
            assert begin(stub.Echo, request(b"two")).result(PATIENCE).payload == b"two"
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("kind", LOGGED)
async def test_C8_a_deserialiser_that_raises_ends_its_own_call(wire: Wire, kind: type[BaseException]) -> None:
    async with pair(Inline(), wire) as both:
        bad = both.channel.unary_unary(ECHO, demo_pb2.EchoRequest.SerializeToString, raiser(kind))
        calls = [bad(request()) if n % 2 else begin(both.stub.Echo, request(b"well")) for n in range(20)]
        ends = await asyncio.gather(*map(outcome, calls))
        assert {end.payload for end in ends[::2]} == {b"well"}
        assert {(end.status, end.executed) for end in ends[1::2]} == {(RpcStatus.BAD_STUB_DATA, True)}


@pytest.mark.parametrize("kind", ENDS_THE_PROGRAM)
def test_a_deserialiser_that_ends_the_program_settles_its_call_first(
    socket_wire: SocketWire, kind: type[BaseException]
) -> None:
    ends: list[int] = []

    async def main(over: asyncio.Event) -> None:
        async with pair(Inline(), socket_wire) as both:
            call = both.channel.unary_unary(ECHO, demo_pb2.EchoRequest.SerializeToString, raiser(kind))(request())
            call.add_done_callback(lambda done: ends.append(done.status()))
            await asyncio.wait_for(over.wait(), PATIENCE)

    assert run_until_raised(kind, main, ends) == [RpcStatus.BAD_STUB_DATA]


@pytest.mark.parametrize("kind", LOGGED)
async def test_C8_a_serialiser_that_raises_begins_no_call(wire: Wire, kind: type[BaseException]) -> None:
    async with pair(Inline(), wire) as both:
        bad = both.channel.unary_unary(ECHO, raiser(kind), demo_pb2.EchoResponse.FromString)
        with pytest.raises(rpc_async.BadStubData, match="cannot be serialised"):
            bad(request())
        assert (await outcome(begin(both.stub.Echo, request(b"well")))).payload == b"well"


@pytest.mark.parametrize("kind", LOGGED)
async def test_C8_P6_a_chunk_whose_deserialiser_raises_ends_its_call(kind: type[BaseException]) -> None:
    class Downloads(Servicer):
        @rpc_async.manager(inline=True)
        def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
            call.push(demo_pb2.DownloadResponse(payload=b"chunk"))
            call.complete()

    async with pair(Downloads(), "native") as both:
        method: Any = both.channel.unary_stream(
            "/rpc_async.demo.v1.Demo/Download", demo_pb2.DownloadRequest.SerializeToString, raiser(kind)
        )
        call: Any = begin(method, demo_pb2.DownloadRequest())
        with pytest.raises(rpc_async.CallError) as caught:
            await asyncio.wait_for(call.read(), PATIENCE)
        assert caught.value.status == RpcStatus.BAD_STUB_DATA


@pytest.mark.filterwarnings("ignore:Exception ignored in.*InterceptedCall.__del__")  # gRPC 1.76's own
@pytest.mark.parametrize("kind", LOGGED)
@pytest.mark.parametrize("after", [False, True])
async def test_C8_an_interceptor_that_raises_ends_its_own_call(
    kind: type[BaseException], after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1, "rpc_async.calling")  # a record would hold the call beyond the test

    class Raising(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            if after:
                await continuation(client_call_details, request)
            raise kind("of the user's")

    async with serve(Inline()) as (_, target):
        async with rpc_async.connect(target, interceptors=[Raising()]) as channel:
            call, told = begin(demo_pb2_grpc.DemoStub(channel).Echo, request()), asyncio.Event()
            call.notify(told)
            error = await outcome(call)
            await asyncio.wait_for(told.wait(), PATIENCE)
            wanted = RpcStatus.CALL_CANCELLED if kind is asyncio.CancelledError else RpcStatus.INTERNAL_ERROR
            assert error.status == wanted
            del call, error
            gc.collect()


# -- what is the user's, and dies -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["reply", "cancelled", "closed", "dropped"])
async def test_what_a_users_object_does_when_it_dies_hurts_no_call(
    wire: Wire, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[object] = []
    unraisable: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(repr(told.object)))
    servicer = Parked()
    async with AsyncExitStack() as stack:
        both = await stack.enter_async_context(pair(servicer, wire))
        stub = both.stub

        class Info:
            def __del__(self) -> None:
                died.append(self.__class__)
                another = begin(stub.Echo, request())  # takes the library's locks
                another.cancel()
                raise ValueError("of the user's")

        call: Any = begin(stub.Echo, request(), user_info=Info(), notify=lambda _: None, key=Info())
        server_call = await servicer.next()
        match way:
            case "reply":
                server_call.complete(response())
                await outcome(call)
            case "cancelled":
                call.cancel()
            case "closed":
                await both.channel.close()
            case "dropped":
                ended = asyncio.Event()
                call.notify(ended)
                del call
                server_call.complete(response())
                await asyncio.wait_for(ended.wait(), PATIENCE)
        call = None
        del server_call

        gc.collect()

    def gone() -> int:
        gc.collect()
        return len(died)  # one is enough: gRPC 1.76 may keep an aborted call for longer, and with it the other

    await until(gone)
    assert [one for one in unraisable if "Info.__del__" in one]
