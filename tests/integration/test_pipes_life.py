"""Calls with pipes are calls: cancels, deadlines, faults, shutdown and all else hold for them as for unary ones."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import wrappers_pb2

import rpc_async
from rpc_async import CancelReason, RpcStatus, ServerPullCall, ServerPushCall, begin, current_call, manager
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from server.demo import Demo
from tests.harness import (
    PATIENCE,
    ChatCall,
    DownloadCall,
    Pair,
    Piped,
    Seen,
    Servicer,
    UploadCall,
    outcome,
    pair,
    serve,
    until,
)

WANTED = demo_pb2.DownloadRequest()
KINDS = ["upload", "download", "chat"]


def up(payload: bytes = b"") -> demo_pb2.UploadRequest:
    return demo_pb2.UploadRequest(payload=payload)


def down(payload: bytes = b"") -> demo_pb2.DownloadResponse:
    return demo_pb2.DownloadResponse(payload=payload)


async def soon(waiting: Any) -> Any:
    return await asyncio.wait_for(waiting, PATIENCE)


async def start(both: Pair, servicer: Piped, kind: str, **options: Any) -> tuple[Any, Any]:
    """Begin a call of a kind; return both handles."""
    if kind == "upload":
        return begin(both.stub.Upload, **options), await servicer.upload()
    if kind == "download":
        return begin(both.stub.Download, WANTED, **options), await servicer.download()
    return begin(both.stub.Chat, **options), await servicer.chat()


def finish(kind: str, handle: Any) -> RpcStatus:
    """Complete a call, whatever the client has pushed."""
    if kind != "download":
        handle.discard()
    status: RpcStatus = handle.complete(*([demo_pb2.UploadResponse(chunks=7)] if kind == "upload" else []))
    return status


@pytest.mark.parametrize("kind", KINDS)
async def test_C5_S8_S9_a_request_to_stop_is_a_question(kind: str) -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call, handle = await start(both, servicer, kind)
        assert not handle.test_cancel()
        assert await call.request_cancel() is RpcStatus.OK
        assert handle.test_cancel()
        assert handle.cancel_reason is CancelReason.CLIENT_REQUESTED
        if kind != "upload":
            handle.push(down(b"still") if kind == "download" else demo_pb2.ChatResponse(text="still"))
            assert (await soon(call.read())) is not None
        assert not call.done()
        assert finish(kind, handle) is RpcStatus.OK
        await soon(call)
        assert call.status() is RpcStatus.OK


@pytest.mark.parametrize("kind", KINDS)
async def test_C6_S11_S13_an_abort_settles_at_once_and_the_server_is_told(kind: str) -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call, handle = await start(both, servicer, kind)
        assert call.cancel() is True
        assert call.status() is RpcStatus.CALL_CANCELLED
        await soon(handle.wait_cancelled())
        assert handle.cancel_reason is CancelReason.CLIENT_ABORTED
        assert finish(kind, handle) is RpcStatus.CALL_CANCELLED
        await until(lambda: both.server.running_calls == 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_C12_S13_a_deadline_passes_though_nobody_pulls(kind: str) -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call, handle = await start(both, servicer, kind, timeout=0.3)
        if kind == "download":  # so that the client's pipe is full when the deadline passes
            with pytest.raises(rpc_async.CallCancelled):
                while True:
                    await handle.write(down(bytes(100_000)))
        error = await soon(outcome(call))
        assert type(error) is rpc_async.DeadlineExceeded
        await soon(handle.wait_cancelled())
        assert handle.cancel_reason is CancelReason.DEADLINE


async def test_S13_S15_the_server_shuts_down() -> None:
    servicer = Piped()
    async with pair(servicer, grace=0.05) as both:
        call, handle = await start(both, servicer, "chat")
        reading = asyncio.ensure_future(handle.read())
        await both.server.stop()
        with pytest.raises(rpc_async.CallCancelled) as caught:
            await soon(reading)
        assert caught.value.cancel_reason is CancelReason.SHUTDOWN
        error = await outcome(call)
        assert (error.status, error.cancel_reason) == (RpcStatus.CALL_FAILED, CancelReason.SHUTDOWN)


async def test_S15_what_was_pushed_before_completing_is_delivered_in_the_grace_period() -> None:
    servicer = Piped()
    async with pair(servicer, grace=PATIENCE) as both:
        call, handle = await start(both, servicer, "download")
        pushed = 0
        while True:
            try:
                handle.push(down(bytes(100_000)))
            except rpc_async.AsyncCallPending:
                break
            pushed += 1
            await asyncio.sleep(0)
        assert handle.complete() is RpcStatus.OK
        stopping = asyncio.ensure_future(both.server.stop())
        assert len([chunk async for chunk in call]) == pushed
        assert await soon(call) is None
        await soon(stopping)


@pytest.mark.parametrize("kind", KINDS)
async def test_S14_a_forgotten_handle_is_aborted_at_once(kind: str) -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call, handle = await start(both, servicer, kind)
        del handle
        gc.collect()
        error = await soon(outcome(call))
        assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, True)
        assert "nothing holds" in error.details()


async def test_S14_an_iteration_holds_the_handle() -> None:
    class Iterating(Servicer):
        @manager
        async def Upload(self, call: UploadCall) -> None:
            chunks = call.__aiter__()

            async def go_on(complete: Callable[[demo_pb2.UploadResponse], RpcStatus]) -> None:
                complete(demo_pb2.UploadResponse(chunks=len([chunk async for chunk in chunks])))

            self.task = asyncio.create_task(go_on(call.complete))

    async with pair(Iterating()) as both:
        async with begin(both.stub.Upload) as call:
            for _ in range(3):
                await call.write(up(b"x"))
                gc.collect()
        assert call.complete().chunks == 3


async def test_S16_calls_with_pipes_count() -> None:
    servicer = Piped()
    async with pair(servicer, max_calls=1) as both:
        call, handle = await start(both, servicer, "upload")
        error = await outcome(begin(both.stub.Download, WANTED))
        assert type(error) is rpc_async.ServerTooBusy
        finish("upload", handle)
        await soon(call)
        await until(lambda: both.server.running_calls == 0)
        await start(both, servicer, "chat")


async def test_S7_S17_routines_in_tasks_and_threads() -> None:
    class Routines(Servicer):
        @manager
        async def Upload(self, call: UploadCall) -> None:
            assert current_call() is call
            raise ValueError("out of a task")

        @manager
        def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
            assert current_call() is call
            assert threading.current_thread() is not threading.main_thread()
            call.put(down(b"first"))
            raise ValueError("out of a thread")

        @manager
        def Chat(self, call: ChatCall) -> None:
            for chunk in call:
                call.put(demo_pb2.ChatResponse(text=chunk.text))
            threading.Thread(target=call.complete).start()

    async with pair(Routines(), disclose_errors=True) as both:
        error = await outcome(begin(both.stub.Upload))
        assert (error.status, "out of a task" in error.details()) == (RpcStatus.CALL_FAILED, True)
        call = begin(both.stub.Download, WANTED)
        assert await soon(call.read()) == down(b"first")
        with pytest.raises(rpc_async.CallFailed, match="out of a thread"):
            await soon(call.read())
        async with begin(both.stub.Chat) as chat:
            await chat.write(demo_pb2.ChatRequest(text="x"))
            chat.end()
            assert [chunk.text async for chunk in chat] == ["x"]


async def test_C15_S6_a_fault_arrives_whole_while_the_client_pushes() -> None:
    """grpc.aio puts INTERNAL in its place, more often than not, if its own `write` is used."""
    details = [wrappers_pb2.StringValue(value="why"), wrappers_pb2.Int64Value(value=7)]

    class Refusing(Servicer):
        @manager
        async def Chat(self, call: ChatCall) -> None:
            await call.read()
            call.abort(4711, "enough", details)

    async with pair(Refusing()) as both:
        for _ in range(50):
            call = begin(both.stub.Chat)
            with pytest.raises(rpc_async.CallAborted) as caught:
                while True:
                    await call.write(demo_pb2.ChatRequest(text="x" * 100))
            error = caught.value
            assert (error.status, error.code(), error.details()) == (4711, grpc.StatusCode.ABORTED, "enough")
            assert [wrappers_pb2.StringValue.FromString(error.status_details[0].value).value] == ["why"]
            assert len(error.status_details) == 2


async def test_progress_and_metadata_of_a_call_with_pipes() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call, handle = await start(both, servicer, "upload", metadata=(("x-mine", "1"),), user_info="mine")
        assert call.user_info == "mine"
        assert dict(handle.invocation_metadata())["x-mine"] == "1"
        assert handle.call_id == call.call_id
        assert handle.peer()
        reports = call.progress()
        first = asyncio.ensure_future(anext(reports))
        handle.progress(0.25, "a quarter")
        assert (await soon(first)).fraction == 0.25
        handle.set_trailing_metadata((("x-trailing", "t"),))
        finish("upload", handle)
        assert (await soon(call)).chunks == 7
        assert (await call.trailing_metadata())["x-trailing"] == "t"
        assert [report async for report in reports] in ([], [call.last_progress])
        done = Seen[Any]()
        call.add_done_callback(done.set)
        assert await done.get() is call


@pytest.mark.parametrize("push_first", [False, True], ids=["confirmed by metadata", "confirmed by time"])
async def test_C14_what_was_half_sent_is_never_taken_for_whole(push_first: bool) -> None:
    """A client that aborts looks, for some milliseconds, like one that has ended its stream."""
    ended: list[bool] = []
    arrived: dict[str, asyncio.Event] = {}

    class Careful(Servicer):
        @manager
        async def Chat(self, call: ChatCall) -> None:
            if push_first:
                call.push(demo_pb2.ChatResponse())
            async for chunk in call:
                arrived.setdefault(chunk.text, asyncio.Event()).set()
            ended.append(True)

    async with pair(Careful()) as both:

        async def half() -> None:
            call = begin(both.stub.Chat)
            await call.write(demo_pb2.ChatRequest(text=call.call_id))
            await soon(arrived.setdefault(call.call_id, asyncio.Event()).wait())
            if push_first:
                await soon(call.read())
            call.cancel()

        for _ in range(5):
            await asyncio.gather(*(half() for _ in range(20)))
        await until(lambda: both.server.running_calls == 0)
    assert ended == []


SERVER = """
import asyncio, rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
class Endless(demo_pb2_grpc.DemoServicer):
    @rpc_async.manager
    async def Download(self, request, call):
        while True:
            await call.write(demo_pb2.DownloadResponse(payload=bytes(1000)))
    @rpc_async.manager
    async def Upload(self, call):
        async for chunk in call: pass
async def main():
    server = rpc_async.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Endless(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""

CLIENT = """
import sys, rpc_async
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
with rpc_async.connect(sys.argv[1]) as channel:
    call = rpc_async.begin(demo_pb2_grpc.DemoStub(channel).Chat)
    call.put(demo_pb2.ChatRequest(text="here"))
    call.get()
"""


async def test_C14_the_server_is_killed_in_the_middle() -> None:
    child = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = await asyncio.to_thread(child.stdout.readline)
        async with rpc_async.connect(f"127.0.0.1:{port.strip()}") as channel:
            stub = demo_pb2_grpc.DemoStub(channel)
            pulling, pushing = begin(stub.Download, WANTED), begin(stub.Upload)
            for _ in range(100):
                await soon(pulling.read())
                await soon(pushing.write(up(bytes(1000))))
            child.send_signal(signal.SIGKILL)
            with pytest.raises(rpc_async.CallFailed) as pulled:
                while True:
                    await soon(pulling.read())
            with pytest.raises(rpc_async.CallFailed) as pushed:
                while True:
                    await soon(pushing.write(up(bytes(1000))))
            for error in (pulled.value, pushed.value):
                assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, None)
    finally:
        child.kill()
        child.communicate()


async def test_S13_the_client_is_killed_in_the_middle() -> None:
    servicer = Piped()
    async with serve(servicer) as (server, target):
        child = subprocess.Popen([sys.executable, "-c", CLIENT, target])
        try:
            handle = await servicer.chat()
            assert (await soon(handle.read())).text == "here"
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(rpc_async.CallCancelled) as caught:
                await soon(handle.read())
            assert caught.value.cancel_reason is CancelReason.CLIENT_DISCONNECTED
            assert handle.complete() is RpcStatus.CALL_CANCELLED
            await until(lambda: server.running_calls == 0)
        finally:
            child.kill()
            child.wait()


async def test_leaving_a_block() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        async with begin(both.stub.Download, WANTED) as call:
            handle = await servicer.download()
            handle.push(down(b"one"))
            assert await soon(call.read()) == down(b"one")
        assert call.status() is RpcStatus.CALL_CANCELLED  # not pulled to the end
        await soon(handle.wait_cancelled())

        upload = begin(both.stub.Upload)
        with pytest.raises(KeyError):
            async with upload:
                await servicer.upload()
                raise KeyError
        assert upload.status() is RpcStatus.CALL_CANCELLED

        with pytest.raises(rpc_async.CallAborted):
            async with begin(both.stub.Upload):
                (await servicer.upload()).abort(4711)

        with pytest.raises(rpc_async.CallAborted):
            async with begin(both.stub.Download, WANTED) as call:
                (await servicer.download()).abort(4711)
                await until(call.done)


class Requests(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(request)
        return await continuation(client_call_details, request)


class Streams(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        async def passing() -> AsyncIterator[Any]:
            async for request in request_iterator:
                self.seen.append(request)
                yield request

        return await continuation(client_call_details, passing())


class Passing(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        assert handler.request_deserializer is not None  # it is given messages
        self.methods.append(handler_call_details.method)
        return handler


@pytest.mark.parametrize("which", ["requests", "streams", "both"])
async def test_interceptors_on_both_sides(which: str) -> None:
    servicer, passing, requests, streams = Piped(), Passing(), Requests(), Streams()
    interceptors: list[Any] = [
        one for one, name in ((requests, "requests"), (streams, "streams")) if which in (name, "both")
    ]
    async with serve(servicer, interceptors=[passing]) as (_, target):
        async with rpc_async.connect(target, interceptors=interceptors) as channel:
            stub: demo_pb2_grpc.DemoAsyncStub = demo_pb2_grpc.DemoStub(channel)
            request = demo_pb2.DownloadRequest(chunks=1)
            call = begin(stub.Download, request)
            handle = await servicer.download()
            chunk = down(b"one")
            handle.push(chunk)
            chunk.payload = b"changed"
            handle.complete()
            assert [one.payload async for one in call] == [b"one"]
            assert requests.seen == ([request] if requests in interceptors else [])

            upload = begin(stub.Upload)
            mine = up(b"first")
            upload.push(mine)
            mine.payload = b"changed"
            upload.end()
            pulling = await servicer.upload()
            assert [one.payload async for one in pulling] == [b"first"]
            pulling.complete(demo_pb2.UploadResponse(chunks=1))
            assert (await soon(upload)).chunks == 1
            assert streams.seen == ([up(b"first")] if streams in interceptors else [])

            async with begin(stub.Chat) as both:
                await both.write(demo_pb2.ChatRequest(text="x"))
                chat = await servicer.chat()
                assert (await soon(chat.read())).text == "x"
                await chat.write(demo_pb2.ChatResponse(text="y"))
                assert (await soon(both.read())).text == "y"
                both.end()
                assert await soon(chat.read()) is None
                chat.complete()
                assert await soon(both.read()) is None
            assert len(passing.methods) == 3


async def test_a_plain_client_and_our_server() -> None:
    servicer = Piped()
    async with serve(servicer) as (server, target), grpc.aio.insecure_channel(target) as channel:
        stub: Any = demo_pb2_grpc.DemoStub(channel)

        async def requests() -> AsyncIterator[demo_pb2.ChatRequest]:
            for text in "abc":
                yield demo_pb2.ChatRequest(text=text)

        plain = stub.Chat(requests())
        chat = await servicer.chat()
        async for chunk in chat:
            chat.push(demo_pb2.ChatResponse(text=chunk.text))
        chat.complete()
        assert [chunk.text async for chunk in plain] == ["a", "b", "c"]
        assert (await plain.initial_metadata())["rpc-async-call-id"] == chat.call_id

        plain = stub.Download(WANTED)
        download = await servicer.download()
        assert (await plain.initial_metadata())["rpc-async-call-id"] == download.call_id  # before anything comes
        download.push(down(b"x"))
        download.abort(4711, "plainly")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [chunk async for chunk in plain]
        assert caught.value.code() is grpc.StatusCode.ABORTED

        plain = stub.Upload(iter([up(b"1"), up(b"2")]))
        upload = await servicer.upload()
        assert len([chunk async for chunk in upload]) == 2
        upload.complete(demo_pb2.UploadResponse(chunks=2))
        assert (await plain).chunks == 2
        await until(lambda: server.running_calls == 0)


async def test_our_client_and_a_plain_server() -> None:
    class Plain(Servicer):
        async def Upload(self, request_iterator: Any, context: Any) -> demo_pb2.UploadResponse:
            return demo_pb2.UploadResponse(chunks=len([chunk async for chunk in request_iterator]))

        async def Download(self, request: Any, context: Any) -> AsyncIterator[demo_pb2.DownloadResponse]:
            for number in range(request.chunks):
                yield down(bytes((number,)))
            if request.chunk_size:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "plainly")

    server = grpc.aio.server()
    demo_pb2_grpc.add_DemoServicer_to_server(Plain(), server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with rpc_async.connect(target) as channel:
        stub: demo_pb2_grpc.DemoAsyncStub = demo_pb2_grpc.DemoStub(channel)
        async with begin(stub.Upload) as call:
            for _ in range(3):
                await call.write(up())
        assert call.complete().chunks == 3
        pulling = begin(stub.Download, demo_pb2.DownloadRequest(chunks=2, chunk_size=1))
        assert [(await soon(pulling.read())).payload[0] for _ in range(2)] == [0, 1]
        with pytest.raises(rpc_async.CallFailed, match="plainly"):
            await soon(pulling.read())
        error = await outcome(begin(stub.Chat))
        assert error.status == RpcStatus.PROCNUM_OUT_OF_RANGE
    await server.stop(None)


async def test_wrong_messages() -> None:
    servicer = Piped()
    limit = (("grpc.max_send_message_length", 1024 * 1024),)
    async with serve(servicer, options=limit) as (_, target), rpc_async.connect(target, options=limit) as channel:
        stub: Any = demo_pb2_grpc.DemoStub(channel)
        call: Any = begin(stub.Upload)
        handle: Any = await servicer.upload()
        with pytest.raises(rpc_async.BadStubData):
            call.push(down())
        with pytest.raises(rpc_async.PayloadTooLarge):
            call.push(up(bytes(2 * 1024 * 1024)))
        call.push(up(b"the call goes on"))
        call.end()
        assert [chunk.payload async for chunk in handle] == [b"the call goes on"]
        with pytest.raises(rpc_async.BadStubData):
            handle.complete(down())
        assert (await outcome(call)).status == RpcStatus.BAD_STUB_DATA

        pulling: Any = begin(stub.Download, WANTED)
        pusher: Any = await servicer.download()
        with pytest.raises(rpc_async.BadStubData, match="it was not pushed"):
            pusher.push(up())
        with pytest.raises(rpc_async.PayloadTooLarge, match="it was not pushed"):
            pusher.push(down(bytes(2 * 1024 * 1024)))
        pusher.push(down(b"the call goes on"))
        assert (await soon(pulling.read())).payload == b"the call goes on"
        with pytest.raises(rpc_async.BadStubData):
            pusher.complete(down())  # the replies were pushed
        assert (await outcome(pulling)).status == RpcStatus.BAD_STUB_DATA


async def test_chunks_that_do_not_parse() -> None:
    garbage = b"\xff\xff\xff"
    servicer = Piped()
    async with serve(servicer) as (server, target), rpc_async.connect(target) as channel:
        raw: Any = begin(channel.stream_unary("/rpc_async.demo.v1.Demo/Upload"))
        raw.push(garbage)
        handle = await servicer.upload()
        error = await soon(outcome(raw))
        assert (error.status, error.executed) == (RpcStatus.BAD_STUB_DATA, True)
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            handle.pull()
        await until(lambda: server.running_calls == 0)

        async def serve_garbage(request: Any, context: Any) -> None:
            await context.write(garbage)
            await asyncio.Event().wait()

        plain = grpc.aio.server()
        handlers: dict[str, Any] = {"Download": grpc.unary_stream_rpc_method_handler(serve_garbage)}
        plain.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("rpc_async.demo.v1.Demo", handlers)])
        port = plain.add_insecure_port("127.0.0.1:0")
        await plain.start()
        async with rpc_async.connect(f"127.0.0.1:{port}") as other:
            stub: demo_pb2_grpc.DemoAsyncStub = demo_pb2_grpc.DemoStub(other)
            with pytest.raises(rpc_async.CallFailed, match="does not parse"):
                await soon(begin(stub.Download, WANTED).read())
        await plain.stop(None)


async def test_a_chunk_over_the_servers_limit_does_not_say_that_nothing_was_executed() -> None:
    servicer = Piped()
    async with pair(servicer, options=(("grpc.max_receive_message_length", 1024 * 1024),)) as both:
        call, handle = await start(both, servicer, "upload")
        call.push(up(b"fits"))
        assert await soon(handle.read()) is not None
        call.push(up(bytes(2 * 1024 * 1024)))
        error = await soon(outcome(call))
        assert (error.status, error.executed) == (RpcStatus.OUT_OF_MEMORY, None)


async def test_calls_that_are_not_begun() -> None:
    async with pair(Piped()) as both:
        stub: Any = both.stub
        for wrong in (
            lambda: begin(stub.Upload, up()),
            lambda: begin(stub.Download),
            lambda: begin(stub.Echo),
            lambda: begin(stub.Echo, demo_pb2.EchoRequest(), strict_pipes=True),
            lambda: begin(stub.Chat, timeout=float("nan")),
        ):
            with pytest.raises(rpc_async.InvalidArgument, match="no call was begun"):
                wrong()
        with pytest.raises(rpc_async.BadStubData):
            begin(stub.Download, up())
        assert both.server.running_calls == 0
    with pytest.raises(rpc_async.InvalidBinding):
        begin(stub.Chat)


async def test_servicers_that_are_not_served() -> None:
    class WrongUpload(Servicer):
        @manager
        async def Upload(self, request: Any, call: ServerPushCall[Any]) -> None: ...  # type: ignore[override]

    class WrongDownload(Servicer):
        @manager
        async def Download(self, call: ServerPullCall[Any, Any]) -> None: ...  # type: ignore[override]

    class WrongEcho(Servicer):
        @manager(strict_pipes=True)
        async def Echo(self, request: Any, call: rpc_async.ServerCall[demo_pb2.EchoResponse]) -> None: ...

    server = rpc_async.server()
    await server.start()  # gRPC never lets go of a server that was made and not started
    for wrong in (WrongUpload, WrongDownload, WrongEcho):
        with pytest.raises(rpc_async.InvalidArgument):
            demo_pb2_grpc.add_DemoServicer_to_server(wrong(), server)
    await server.stop(None)


async def test_closing_the_channel_ends_its_calls() -> None:
    servicer = Piped()
    async with serve(servicer) as (server, target):
        async with rpc_async.connect(target) as channel:
            call = begin(demo_pb2_grpc.DemoStub(channel).Chat)
            handle = await servicer.chat()
            reading = asyncio.ensure_future(call.read())
            await asyncio.sleep(0)
        with pytest.raises(rpc_async.CallCancelled):
            await soon(reading)
        await soon(handle.wait_cancelled())
        with pytest.raises(rpc_async.CallCancelled):
            handle.pull()
        del handle
        locals()  # gRPC 1.76 closing reads all tasks' variables; up to Python 3.12 a frame keeps what was read of it
        await until(lambda: server.running_calls == 0)


async def test_the_demo_serves_pipes() -> None:
    async with pair(Demo()) as both:
        blocks = [bytes((number,)) * 1000 for number in range(20)]
        async with begin(both.stub.Upload) as upload:
            for block in blocks:
                await upload.write(up(block))
        reply = upload.complete()
        assert (reply.chunks, reply.size) == (20, 20_000)
        assert reply.sha256 == hashlib.sha256(b"".join(blocks)).digest()

        wanted = demo_pb2.DownloadRequest(chunks=20, chunk_size=1000)
        assert [chunk.payload async for chunk in begin(both.stub.Download, wanted)] == blocks
        for wrong in (demo_pb2.DownloadRequest(chunks=-1), demo_pb2.DownloadRequest(chunk_size=-1)):
            assert (await outcome(begin(both.stub.Download, wrong))).status == RpcStatus.INVALID_ARG

        async with begin(both.stub.Chat) as chat:
            await chat.write(demo_pb2.ChatRequest(text="hello"))
            assert (await soon(chat.read())).text == "hello"
            chat.end()
            assert await soon(chat.read()) is None

        asked = begin(both.stub.Upload)  # one that is asked to stop replies with what it has got
        await asked.write(up(b"before"))
        assert await asked.request_cancel() is RpcStatus.OK
        with contextlib.suppress(rpc_async.PipeClosed):  # which it does at the next chunk
            while not asked.done():
                await asked.write(up(b"more"))
        assert (await soon(asked)).chunks >= 1
        endless = begin(both.stub.Download, demo_pb2.DownloadRequest(chunks=10**9, chunk_size=1000))
        await soon(endless.read())
        assert await endless.request_cancel() is RpcStatus.OK
        endless.discard()
        assert await soon(endless) is None
