"""P1 to P6: pipes, on both sides, beside every way that a channel's unary calls travel."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import AsyncEvent, CompletionQueue, RpcStatus, begin, manager
from rpc_async.core.pipe import MAX_BYTES, MAX_CHUNKS
from rpc_async.demo.v1 import demo_pb2
from tests.harness import PATIENCE, ChatCall, Piped, SocketWire, Wire, outcome, pair, serve, until

WANTED = demo_pb2.DownloadRequest()
BLOCK = bytes(64 * 1024)


def up(payload: bytes = b"") -> demo_pb2.UploadRequest:
    return demo_pb2.UploadRequest(payload=payload)


def down(payload: bytes = b"") -> demo_pb2.DownloadResponse:
    return demo_pb2.DownloadResponse(payload=payload)


def said(text: str = "") -> demo_pb2.ChatRequest:
    return demo_pb2.ChatRequest(text=text)


def answer(text: str = "") -> demo_pb2.ChatResponse:
    return demo_pb2.ChatResponse(text=text)


async def soon(waiting: Awaitable[Any]) -> Any:
    """Wait for something that must come."""
    return await asyncio.wait_for(waiting, PATIENCE)


async def test_P1_what_was_pushed_may_be_changed_at_once(wire: Wire) -> None:
    servicer = Piped()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        request, response = said("first"), answer("one")
        assert call.push(request) is RpcStatus.OK
        request.text = "second"
        call.push(request)
        assert chat.push(response) is RpcStatus.OK
        response.text = "two"
        chat.push(response)
        request.text = response.text = "never pushed"
        call.end()
        chat.end()
        assert [chunk.text async for chunk in chat] == ["first", "second"]
        chat.complete()
        assert [chunk.text async for chunk in call] == ["one", "two"]
        await call
        assert call.status() is RpcStatus.OK


async def test_P1_a_buffer_of_bytes_may_be_used_again() -> None:
    got = []

    async def collect(requests: Any, context: Any) -> bytes:
        got.extend([chunk async for chunk in requests])
        return b"done"

    server = rpc_async.server()
    handler = grpc.method_handlers_generic_handler("t.T", {"X": grpc.stream_unary_rpc_method_handler(collect)})
    server.add_generic_rpc_handlers([handler])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with rpc_async.connect(target) as channel:
        call = begin(channel.stream_unary("/t.T/X"))
        buffer = bytearray(b"first")
        call.push(buffer)
        buffer[:] = b"other"
        call.push(buffer)
        buffer[:] = b"never"
        call.end()
        assert await soon(call) == b"done"
    await server.stop(None)
    assert got == [b"first", b"other"]


async def test_P2_nothing_to_pull_is_pending_and_then_there_is_a_notification() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        here, there = CompletionQueue(), CompletionQueue()
        call = begin(both.stub.Chat, notify=here, key="here", events=[AsyncEvent.RECEIVE_COMPLETE])
        chat = await servicer.chat()
        chat.notify(there, "there", [AsyncEvent.RECEIVE_COMPLETE])
        for _ in range(3):
            with pytest.raises(rpc_async.AsyncCallPending) as pending:
                call.pull()
            assert (pending.value.status, int(RpcStatus.ASYNC_CALL_PENDING)) == (997, 997)
            with pytest.raises(rpc_async.AsyncCallPending):
                chat.pull()
            assert len(here) == len(there) == 0

            chat.push(answer("to you"))
            assert await soon(here.aget()) == (AsyncEvent.RECEIVE_COMPLETE, call, "here")
            assert getattr(call.pull(), "text", None) == "to you"
            call.push(said("and to you"))
            assert await soon(there.aget()) == (AsyncEvent.RECEIVE_COMPLETE, chat, "there")
            assert getattr(chat.pull(), "text", None) == "and to you"

        for end in (call, chat):
            with pytest.raises(rpc_async.AsyncCallPending):
                end.pull()
        call.push(None)
        assert (await soon(there.aget())).event is AsyncEvent.RECEIVE_COMPLETE
        assert chat.pull() is None  # the end is an empty chunk
        chat.complete()
        assert (await soon(here.aget())).event is AsyncEvent.RECEIVE_COMPLETE
        assert call.pull() is None
        assert (await soon(here.aget())).event is AsyncEvent.CALL_COMPLETE  # the last notification
        assert call.complete() is None
        assert len(here) == len(there) == 0


async def test_P2_there_is_nothing_after_the_end() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        call.end()
        assert await soon(chat.read()) is None
        for pull in (chat.pull, lambda: chat.get(1)):
            with pytest.raises(rpc_async.PipeEmpty) as caught:
                pull()
            assert (caught.value.status, int(RpcStatus.PIPE_EMPTY)) == (1918, 1918)
        with pytest.raises(rpc_async.PipeEmpty):
            await chat.read()
        assert [chunk async for chunk in chat] == []
        assert list(chat) == []
        chat.complete()
        assert await soon(call.read()) is None
        with pytest.raises(rpc_async.PipeEmpty):
            call.pull()
        assert [chunk async for chunk in call] == []


async def test_P2_an_empty_message_is_not_the_end() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Upload)
        upload = await servicer.upload()
        call.push(up())
        call.end()
        assert await soon(upload.read()) == up()
        assert await soon(upload.read()) is None
        upload.complete(demo_pb2.UploadResponse(chunks=1))
        assert (await soon(call)).chunks == 1


async def test_P3_the_end_is_pushed_once() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        assert call.push(None) is RpcStatus.OK
        assert chat.end() is RpcStatus.OK
        for end, message in ((call, said()), (chat, answer())):
            pushing: Any = end
            for again in (lambda p=pushing: p.push(None), pushing.end, lambda p=pushing, m=message: p.push(m)):
                with pytest.raises(rpc_async.PipeClosed) as caught:
                    again()
                assert (caught.value.status, int(RpcStatus.PIPE_CLOSED)) == (1916, 1916)
            with pytest.raises(rpc_async.PipeClosed):
                await pushing.write(message)
            with pytest.raises(rpc_async.PipeClosed):
                pushing.put(message, 1)
        assert await soon(chat.read()) is None
        chat.complete()
        assert await soon(call) is None


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_P4_a_slow_consumer_holds_the_producer_back(direction: str) -> None:
    """In memory, where nothing happens beside the loop's turns; `tests/bulk.py` does it over a socket."""
    servicer = Piped()
    async with pair(servicer, "memory") as both:
        queue = CompletionQueue()
        pusher: Any
        puller: Any
        events = [AsyncEvent.SEND_COMPLETE]
        if direction == "up":
            pusher = begin(both.stub.Upload, notify=queue, events=events)
            puller = await servicer.upload()
            message: Any = up(BLOCK)
        else:
            puller = begin(both.stub.Download, WANTED)
            pusher = await servicer.download()
            pusher.notify(queue, None, events)
            message = down(BLOCK)

        def push_all() -> int:
            """Push until it says to wait."""
            for number in range(10_000):
                try:
                    pusher.push(message)
                except rpc_async.AsyncCallPending:
                    return number
            raise AssertionError("it was never told to wait")

        async def fill() -> int:
            """Push until nothing moves any more: every buffer on the way is full."""
            pushed, quiet = 0, 0
            while quiet < 50:
                count = push_all()
                pushed, quiet = pushed + count, 0 if count else quiet + 1
                await asyncio.sleep(0)
            return pushed

        pushed = await fill()
        assert pushed * len(BLOCK) < 32 * 1024 * 1024
        while len(queue):
            await queue.aget()
        assert push_all() == 0

        pulled = 0
        while not len(queue):
            assert await soon(puller.read()) == message
            pulled += 1
        assert (await queue.aget()).event is AsyncEvent.SEND_COMPLETE
        assert pulled < pushed
        assert await fill() > 0

        waiting = asyncio.ensure_future(pusher.write(message))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        puller.discard()
        await soon(waiting)
        pusher.end()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_P4_a_slow_consumer_holds_the_producer_back_over_a_socket(direction: str) -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        queue = CompletionQueue()
        pusher: Any
        puller: Any
        events = [AsyncEvent.SEND_COMPLETE]
        if direction == "up":
            pusher, puller = begin(both.stub.Upload, notify=queue, events=events), await servicer.upload()
            message: Any = up(BLOCK)
        else:
            puller, pusher = begin(both.stub.Download, WANTED), await servicer.download()
            pusher.notify(queue, None, events)
            message = down(BLOCK)
        pushed = 0
        with pytest.raises(TimeoutError):  # however long it waits for it, it may not push more than this
            while True:
                with pytest.raises(rpc_async.AsyncCallPending):
                    while pushed * len(BLOCK) < 32 * 1024 * 1024:
                        pusher.push(message)
                        pushed += 1
                await asyncio.wait_for(queue.aget(), 0.2)
        told = asyncio.ensure_future(queue.aget())
        pulled = 0
        while not told.done():
            assert await soon(puller.read()) == message
            pulled += 1
        assert told.result().event is AsyncEvent.SEND_COMPLETE
        assert pulled <= pushed
        pusher.push(message)
        puller.discard()
        pusher.end()


@pytest.mark.parametrize("size", [0, 4 * MAX_BYTES])
async def test_P4_the_bound_is_in_bytes_and_in_chunks(size: int) -> None:
    """Nothing takes anything: the call waits for a server that is not there."""
    async with rpc_async.connect("127.0.0.1:1") as channel:
        call: Any = begin(channel.stream_unary("/t.T/X"), wait_for_ready=True)
        taken = 0
        with pytest.raises(rpc_async.AsyncCallPending) as caught:
            while True:
                call.push(bytes(size))
                taken += 1
        assert caught.value.status == 997
        # At most one more is in gRPC's hands already.
        assert MAX_CHUNKS <= taken <= MAX_CHUNKS + 1 if size == 0 else taken <= 2
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.write(b"x"), 0.01)
        assert not call._push_end._waiting  # who gives up waiting leaves nothing behind
        with pytest.raises(rpc_async.InvalidAsyncCall):
            call.put(b"x")  # this is the loop that must send
        assert not call._push_end._waiting
        call.cancel()
        with pytest.raises(rpc_async.CallCancelled):
            call.push(b"x")


async def test_P4_waits_in_threads_end_in_time() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(call.get, 0.01)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(chat.get, 0.01)

        def fill() -> int:
            for number in range(10_000):
                try:
                    chat.put(answer("x" * 100_000), timeout=0.05)
                except TimeoutError:
                    return number
            raise AssertionError

        assert await asyncio.to_thread(fill) > 0
        with pytest.raises(rpc_async.InvalidAsyncCall):
            chat.get()  # this is the loop that must receive
        call.cancel()


async def test_P4_send_complete_after_all_that_was_pushed_and_after_the_null_push() -> None:
    """The documented server: push, wait for SEND_COMPLETE, push ..., push the null chunk, wait, complete."""
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Download, WANTED)
        download = await servicer.download()
        queue = CompletionQueue()
        download.notify(queue)
        for number in range(5):
            download.push(down(bytes((number,))))
            assert await soon(queue.aget()) == (AsyncEvent.SEND_COMPLETE, download, None)
        download.push(None)
        assert (await soon(queue.aget())).event is AsyncEvent.SEND_COMPLETE
        assert len(queue) == 0
        assert download.complete() is RpcStatus.OK
        assert [chunk.payload[0] async for chunk in call] == [0, 1, 2, 3, 4]
        assert await soon(call) is None


async def test_P5_the_server_completes_before_the_pipe_is_drained() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Upload)
        upload = await servicer.upload()
        call.push(up(b"not pulled"))
        with pytest.raises(rpc_async.PipeDisciplineError) as caught:
            upload.complete(demo_pb2.UploadResponse())
        assert (caught.value.status, int(RpcStatus.PIPE_DISCIPLINE_ERROR)) == (1917, 1917)
        error = await outcome(call)  # final all the same (S5)
        assert (error.status, error.executed) == (1917, True)
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            upload.complete(demo_pb2.UploadResponse())
        with pytest.raises(rpc_async.InvalidAsyncHandle):
            upload.pull()


async def test_P5_what_is_not_wanted_can_be_discarded() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Upload)
        upload = await servicer.upload()
        call.push(up(b"enough"))
        assert await soon(upload.read()) == up(b"enough")
        upload.discard()
        with pytest.raises(rpc_async.PipeEmpty):
            upload.pull()
        for _ in range(100):  # far more than the buffers hold
            await soon(call.write(up(bytes(1024 * 1024))))
        upload.complete(demo_pb2.UploadResponse(chunks=1))
        assert (await soon(call)).chunks == 1
        with pytest.raises(rpc_async.PipeClosed):  # the server has had enough
            call.push(up())

        pulling = begin(both.stub.Download, WANTED)
        download = await servicer.download()
        pulling.discard()
        for _ in range(100):
            await soon(download.write(down(BLOCK)))
        download.complete()
        assert await soon(pulling) is None


async def test_P5_the_client_completes_before_the_pipes_are_drained() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        with pytest.raises(rpc_async.PipeDisciplineError) as caught:
            call.complete()
        assert caught.value.status == 1917
        call.end()
        with pytest.raises(rpc_async.AsyncCallPending):
            call.complete()
        chat.push(answer("unread"))
        assert await soon(chat.read()) is None
        chat.complete()
        await until(call.done)
        assert call.status() is RpcStatus.OK
        with pytest.raises(rpc_async.PipeDisciplineError):
            call.complete()
        with pytest.raises(rpc_async.PipeDisciplineError):
            await call
        assert await call.code() is grpc.StatusCode.OK
        assert call.pull() == answer("unread")
        assert call.pull() is None
        assert call.complete() is None  # nothing was consumed by asking too early


class Strict(Piped):
    @manager(inline=True, strict_pipes=True)
    def Chat(self, call: ChatCall) -> None:
        self.chats.put_nowait(call)


async def test_P5_pipes_in_the_documented_order() -> None:
    servicer = Strict()
    async with pair(servicer) as both:
        call = begin(both.stub.Chat, strict_pipes=True)
        chat = await servicer.chat()
        with pytest.raises(rpc_async.WrongPipeOrder) as caught:
            call.pull()
        assert (caught.value.status, int(RpcStatus.WRONG_PIPE_ORDER)) == (1831, 1831)
        with pytest.raises(rpc_async.WrongPipeOrder):
            await call.read()
        for chunk in (answer(), None):
            with pytest.raises(rpc_async.WrongPipeOrder):
                chat.push(chunk)
        with pytest.raises(rpc_async.WrongPipeOrder):
            chat.end()
        call.push(said("in"))
        call.end()
        with pytest.raises(rpc_async.AsyncCallPending):
            call.pull()
        assert await soon(chat.read()) == said("in")
        assert await soon(chat.read()) is None
        chat.push(answer("out"))
        chat.end()
        assert chat.complete() is RpcStatus.OK
        assert [chunk.text async for chunk in call] == ["out"]

        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        call.end()
        assert await soon(chat.read()) is None
        with pytest.raises(rpc_async.PipeDisciplineError):
            chat.complete()  # the end of the pipe that goes out was not pushed
        assert (await outcome(call)).status == 1917


async def test_P5_chunks_may_cross_as_in_grpc(wire: Wire) -> None:
    servicer = Piped()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        for number in range(10):
            call.push(said(f"{number}?"))
            assert await soon(chat.read()) == said(f"{number}?")
            chat.push(answer(f"{number}!"))
            assert await soon(call.read()) == answer(f"{number}!")
        call.end()
        assert await soon(chat.read()) is None
        assert chat.complete() is RpcStatus.OK
        assert await soon(call.read()) is None
        assert await soon(call) is None


@pytest.mark.parametrize("ending", ["abort", "cancel"])
async def test_P6_a_failed_push_or_pull_has_cleaned_everything_up(ending: str) -> None:
    servicer = Piped()
    kinds: tuple[type[rpc_async.CallError], ...] = (rpc_async.CallAborted, rpc_async.CallCancelled)
    async with pair(servicer) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        for _ in range(3):
            call.push(said("x" * 100_000))
        chat.push(answer("before"))
        await until(lambda: call.pipes.pulling is not None and call.pipes.pulling.chunks)
        if ending == "abort":
            chat.abort(4711, "no more")
            status, kind = 4711, kinds[0]
        else:
            call.cancel()
            status, kind = 1818, kinds[1]
        await until(call.done)
        if ending == "abort":
            assert call.pull() == answer("before")  # what came before the failure comes before it
        for use in (call.pull, lambda: call.push(said()), call.end, lambda: call.get(1), lambda: call.put(said(), 1)):
            with pytest.raises(kind) as caught:
                use()
            assert caught.value.status == status
        with pytest.raises(kind):
            await call.read()
        with pytest.raises(kind):
            await call.write(said())
        with pytest.raises(kind):
            call.complete()
        pushing, pulling = call.pipes.pushing, call.pipes.pulling
        assert pushing is not None
        assert pulling is not None
        await until(lambda: not pushing.held and not pulling.held)
        driver = both.channel.native()
        await until(lambda: not driver._outstanding and not driver._tasks)
        if ending == "cancel":
            await soon(chat.wait_cancelled())
            with pytest.raises(rpc_async.CallCancelled):
                chat.pull()
            with pytest.raises(rpc_async.CallCancelled):
                chat.push(answer())
            assert chat.complete() is RpcStatus.CALL_CANCELLED
        await until(lambda: both.server.running_calls == 0)


async def test_P6_who_waits_to_push_or_to_pull_is_told_of_the_failure() -> None:
    servicer = Piped()
    async with pair(servicer) as both:
        queue = CompletionQueue()
        call = begin(both.stub.Chat, notify=queue, events=[AsyncEvent.RECEIVE_COMPLETE, AsyncEvent.SEND_COMPLETE])
        chat = await servicer.chat()
        reading = asyncio.ensure_future(call.read())
        in_thread = asyncio.ensure_future(asyncio.to_thread(call.get))

        async def write() -> None:
            while True:
                await call.write(said("x" * 100_000))

        writing = asyncio.ensure_future(write())
        theirs = asyncio.ensure_future(asyncio.to_thread(chat.get))
        await soon(theirs)
        while True:
            try:
                call.push(said("x" * 100_000))
            except rpc_async.AsyncCallPending:
                break
            await asyncio.sleep(0)
        chat.abort(4711)
        for waiting in (reading, in_thread, writing):
            with pytest.raises(rpc_async.CallAborted) as caught:
                await soon(waiting)
            assert caught.value.status == 4711
        events: list[AsyncEvent] = []
        while not events or events[-1] is not AsyncEvent.CALL_COMPLETE:
            events.append((await soon(queue.aget())).event)
        assert set(events) == {AsyncEvent.RECEIVE_COMPLETE, AsyncEvent.SEND_COMPLETE, AsyncEvent.CALL_COMPLETE}
        assert len(queue) == 0


async def test_threads_and_loops_use_one_call_at_once(wire: Wire) -> None:
    """Many threads and tasks push into one pipe and pull from the other: every chunk comes through once."""
    servicer = Piped()
    async with pair(servicer, wire) as both:
        call = begin(both.stub.Chat)
        chat = await servicer.chat()
        each, pushers = 300, 4
        got: list[str] = []
        lock = threading.Lock()

        def push_in_thread(name: str) -> None:
            for number in range(each):
                call.put(said(f"{name}{number}"))

        async def push_here(name: str) -> None:
            for number in range(each):
                await call.write(said(f"{name}{number}"))

        def push_on_another_loop(name: str) -> None:
            asyncio.run(push_here(name))

        def echo_in_thread() -> None:
            for chunk in chat:
                chat.put(answer(chunk.text))

        async def echo_here() -> None:
            async for chunk in chat:
                await chat.write(answer(chunk.text))

        def pull_in_thread() -> None:
            for chunk in call:
                with lock:
                    got.append(chunk.text)

        async def pull_here() -> None:
            async for chunk in call:
                with lock:
                    got.append(chunk.text)

        async def serve_it() -> None:
            threads = (asyncio.to_thread(echo_in_thread) for _ in range(2))
            await asyncio.gather(echo_here(), *threads)
            chat.complete()

        serving = asyncio.ensure_future(serve_it())
        pulled = asyncio.gather(asyncio.to_thread(pull_in_thread), pull_here())
        await soon(
            asyncio.gather(
                asyncio.to_thread(push_in_thread, "a"),
                push_here("b"),
                asyncio.to_thread(push_on_another_loop, "c"),
                asyncio.to_thread(push_in_thread, "d"),
            )
        )
        call.end()
        await soon(serving)
        await soon(pulled)
        assert sorted(got) == sorted(f"{name}{number}" for name in "abcd"[:pushers] for number in range(each))


async def test_blocking_code_on_a_plain_with_channel(socket_wire: SocketWire) -> None:
    servicer = Piped()
    async with serve(servicer) as (server, target):

        def client() -> list[str]:
            from rpc_async.demo.v1 import demo_pb2_grpc

            with rpc_async.connect(target, transport=socket_wire) as channel:
                stub = demo_pb2_grpc.DemoStub(channel)
                with begin(stub.Chat) as call:
                    call.put(said("from a thread"))
                    call.end()
                    return [chunk.text for chunk in call]

        running = asyncio.ensure_future(asyncio.to_thread(client))
        chat = await servicer.chat()
        async for chunk in chat:
            chat.push(answer(chunk.text))
        chat.complete()
        assert await soon(running) == ["from a thread"]
        await until(lambda: server.running_calls == 0)
    gc.collect()
