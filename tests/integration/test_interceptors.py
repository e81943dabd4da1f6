"""Users' server interceptors: they see every call, by whatever wire it came, and nothing that is no call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin, manager
from rpc_async.demo.v1 import demo_pb2
from rpc_async.serving.interceptors import interceptors_of_others
from tests.harness import (
    PATIENCE,
    ChatCall,
    DownloadCall,
    EchoCall,
    Parked,
    Seen,
    Servicer,
    UploadCall,
    Wire,
    outcome,
    pair,
    request,
    response,
    until,
)

DEMO = "/rpc_async.demo.v1.Demo/"
TOKEN = (("authorization", "token"),)
WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Seeing(grpc.aio.ServerInterceptor):
    """Keeps what it sees, and wraps handlers as tracing and counting libraries do: it awaits, or iterates."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.metadata: list[tuple[Any, ...]] = []
        self.requests: list[Any] = []
        self.replies: list[Any] = []
        self.kept: list[Any] = []
        self.writing = False

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.methods.append(handler_call_details.method)
        self.metadata.append(tuple(handler_call_details.invocation_metadata))
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        make, behaviour = _parts(handler)
        wrap = self._iterating if handler.response_streaming else self._awaiting
        return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)

    def _awaiting(self, behaviour: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        async def serve(message: Any, context: Any) -> Any:
            reply = await behaviour(self._seen(message), context)
            self.replies.append(reply)
            return reply

        return serve

    def _iterating(self, behaviour: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def serve(message: Any, context: Any) -> AsyncIterator[Any]:
            replies = behaviour(self._seen(message), context)
            self.kept.append(replies)  # so that its end is told by nothing but the call's
            async for reply in replies:
                self.replies.append(reply)
                self.writing = True
                yield reply
                self.writing = False

        return serve

    def _seen(self, message: Any) -> Any:
        if not hasattr(message, "__aiter__"):
            self.requests.append(message)
            return message

        async def counted() -> AsyncIterator[Any]:
            async for one in message:
                self.requests.append(one)
                yield one

        return counted()


def _parts(handler: Any) -> tuple[Any, Any]:
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


class Tasks(Servicer):
    """Managers in tasks, of every shape."""

    @manager
    async def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        call.complete(response(request.payload))

    @manager
    async def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
        for number in range(3):
            await call.write(demo_pb2.DownloadResponse(payload=b"%d" % number))
        call.complete()

    @manager
    async def Upload(self, call: UploadCall) -> None:
        size = 0
        async for chunk in call:
            size += len(chunk.payload)
        call.complete(demo_pb2.UploadResponse(size=size))

    @manager
    async def Chat(self, call: ChatCall) -> None:
        async for message in call:
            await call.write(demo_pb2.ChatResponse(text=message.text))
        call.complete()


class Threads(Servicer):
    """The same in threads."""

    @manager
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        call.complete(response(request.payload))

    @manager
    def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
        for number in range(3):
            call.put(demo_pb2.DownloadResponse(payload=b"%d" % number))
        call.complete()

    @manager
    def Upload(self, call: UploadCall) -> None:
        call.complete(demo_pb2.UploadResponse(size=sum(len(chunk.payload) for chunk in call)))

    @manager
    def Chat(self, call: ChatCall) -> None:
        for message in call:
            call.put(demo_pb2.ChatResponse(text=message.text))
        call.complete()


class Ordinary(Servicer):
    """Ordinary handlers of every shape."""

    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        return response(request.payload)

    async def Download(self, request: Any, context: Any) -> AsyncIterator[demo_pb2.DownloadResponse]:
        for number in range(3):
            yield demo_pb2.DownloadResponse(payload=b"%d" % number)

    async def Upload(self, request_iterator: Any, context: Any) -> demo_pb2.UploadResponse:
        return demo_pb2.UploadResponse(size=sum([len(chunk.payload) async for chunk in request_iterator]))

    async def Chat(self, request_iterator: Any, context: Any) -> AsyncIterator[demo_pb2.ChatResponse]:
        async for message in request_iterator:
            yield demo_pb2.ChatResponse(text=message.text)


@pytest.mark.parametrize("servicer", [Tasks(), Threads(), Ordinary()], ids=lambda one: type(one).__name__)
async def test_they_await_or_iterate_over_handlers_of_every_kind(wire: Wire, servicer: Servicer) -> None:
    seeing = Seeing()
    async with pair(servicer, wire, interceptors=[seeing]) as both:
        assert await begin(both.stub.Echo, request(b"x")) == response(b"x")
        chunks = [chunk.payload async for chunk in begin(both.stub.Download, demo_pb2.DownloadRequest())]
        assert chunks == [b"0", b"1", b"2"]
        upload = begin(both.stub.Upload)
        for _ in range(3):
            await upload.write(demo_pb2.UploadRequest(payload=b"ab"))
        upload.end()
        assert (await upload).size == 6
        chat = begin(both.stub.Chat)
        await chat.write(demo_pb2.ChatRequest(text="hello"))
        assert (await chat.read()) == demo_pb2.ChatResponse(text="hello")
        chat.end()
        assert await chat.read() is None
        await chat
    assert seeing.methods == [DEMO + name for name in ("Echo", "Download", "Upload", "Chat")]
    assert [type(one).__name__ for one in seeing.requests] == [
        *("EchoRequest", "DownloadRequest"),
        *["UploadRequest"] * 3,
        "ChatRequest",
    ]
    assert [type(one).__name__ for one in seeing.replies] == [
        "EchoResponse",
        *["DownloadResponse"] * 3,
        "UploadResponse",
        "ChatResponse",
    ]


async def test_they_see_what_is_asked_about_calls_and_not_the_sessions_stream(wire: Wire) -> None:
    seeing = Seeing()
    async with pair(Tasks(), wire, interceptors=[seeing]) as both:
        for _ in range(3):
            await begin(both.stub.Echo, request(), metadata=(("x-mine", "1"),))
        answer = await outcome(begin(both.channel.unary_unary("/t.T/Missing"), b""))
        assert answer.status == RpcStatus.PROCNUM_OUT_OF_RANGE
    assert seeing.methods == [f"{DEMO}Echo"] * 3 + ["/t.T/Missing"]
    for metadata in seeing.metadata[:3]:
        pairs = {one.key: one.value for one in metadata}  # gRPC's have names
        assert pairs["x-mine"] == "1"
        assert len(pairs["rpc-async-call-id"]) >= 22
        assert wire == "memory" or pairs["user-agent"].startswith("grpc-python-asyncio")


class Token(grpc.aio.ServerInterceptor):
    """Wants a token in each call's metadata."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if TOKEN[0] in (tuple(one) for one in handler_call_details.invocation_metadata):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(self.deny)

    @staticmethod
    async def deny(message: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


async def test_a_token_is_wanted_of_each_call_and_not_of_the_session(wire: Wire) -> None:
    async with pair(Tasks(), wire, interceptors=[Token(), Seeing()]) as both:
        for _ in range(2):
            assert await begin(both.stub.Echo, request(b"x"), metadata=TOKEN) == response(b"x")
            error = await outcome(begin(both.stub.Echo, request(b"x")))
            assert (error.status, error.code()) == (RpcStatus.ACCESS_DENIED, grpc.StatusCode.UNAUTHENTICATED)


class Raising(grpc.aio.ServerInterceptor):
    """Raises what it is told to, at the first call."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return await continuation(handler_call_details)


class Own(BaseException):
    """What is no Exception."""


@pytest.mark.parametrize("error", [ValueError("v"), asyncio.CancelledError(), Own("own"), GeneratorExit()], ids=repr)
async def test_one_that_raises_ends_that_call_and_no_other(wire: Wire, error: BaseException) -> None:
    async with pair(Tasks(), wire, interceptors=[Raising(error)]) as both:
        failed = await outcome(begin(both.stub.Echo, request()))
        assert (failed.status, failed.code()) == (RpcStatus.CALL_FAILED, grpc.StatusCode.UNKNOWN)
        assert await outcome(begin(both.stub.Echo, request(b"x"))) == response(b"x")
        await until(lambda: not both.server.running_calls)


async def test_a_client_that_aborts_ends_a_call_that_waits_in_one(wire: Wire) -> None:
    waiting: Seen[None] = Seen()
    cancelled: Seen[bool] = Seen()

    class Waiting(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            waiting.set(None)
            try:
                await asyncio.Event().wait()
            finally:
                task = asyncio.current_task()
                cancelled.set(task is not None and bool(task.cancelling()))

    async with pair(Tasks(), wire, interceptors=[Waiting()]) as both:
        call = begin(both.stub.Echo, request())
        await waiting.get()
        call.cancel()
        assert await cancelled.get()


class Stalled:
    """Pushes all that goes, and tells whether gRPC is at a write that does not end: the client does not read."""

    def __init__(self, handle: DownloadCall, seeing: Seeing) -> None:
        self._handle, self._seeing = handle, seeing
        self._written, self._looks = -1, 0

    def __call__(self) -> bool:
        with contextlib.suppress(rpc_async.AsyncCallPending):
            while True:
                self._handle.push(demo_pb2.DownloadResponse(payload=bytes(256 * 1024)))
        written = len(self._seeing.replies)
        self._looks = self._looks + 1 if self._seeing.writing and written == self._written else 0
        self._written = written
        return self._looks == 50


async def test_a_client_that_aborts_is_told_to_a_manager_that_pushes_behind_one(wire: Wire) -> None:
    handles: asyncio.Queue[DownloadCall] = asyncio.Queue()

    class Parks(Servicer):
        @manager(inline=True)
        def Download(self, request: demo_pb2.DownloadRequest, call: DownloadCall) -> None:
            handles.put_nowait(call)

    seeing = Seeing()
    async with pair(Parks(), wire, interceptors=[seeing]) as both:
        for fill in (False, True):  # its client aborts while gRPC waits for a chunk, and while it writes one
            call = begin(both.stub.Download, demo_pb2.DownloadRequest())
            handle = await handles.get()
            if fill:
                await until(Stalled(handle, seeing))
            call.cancel()
            await until(handle.test_cancel)
            assert handle.cancel_reason is rpc_async.CancelReason.CLIENT_ABORTED
            assert handle.complete() is RpcStatus.CALL_CANCELLED
            await until(lambda: not both.server.running_calls)


class Names(grpc.aio.ServerInterceptor):
    """Sets a context variable for each call."""

    def __init__(self) -> None:
        self.before: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.before.append(WHO.get())
        WHO.set(dict(handler_call_details.invocation_metadata)["x-who"])
        return await continuation(handler_call_details)


class Looking(Servicer):
    """Replies with what it sees in the context variable, and changes it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    @manager(inline=True)
    def Echo(self, request: demo_pb2.EchoRequest, call: EchoCall) -> None:
        call.complete(response(WHO.get().encode()))
        WHO.set("changed by another call")

    @manager
    async def AsyncFunc(self, request: demo_pb2.AsyncFuncRequest, call: Any) -> None:
        reply = demo_pb2.AsyncFuncResponse(reply=len(WHO.get()))
        WHO.set("changed by another call")
        call.complete(reply)

    @manager
    def EchoFromThread(self, request: demo_pb2.EchoFromThreadRequest, call: Any) -> None:
        call.complete(demo_pb2.EchoFromThreadResponse(payload=WHO.get().encode()))
        WHO.set("changed by another call")

    async def Fail(self, request: demo_pb2.FailRequest, context: Any) -> demo_pb2.FailResponse:
        context.set_trailing_metadata((("x-seen", WHO.get()),))
        WHO.set("changed by another call")
        return demo_pb2.FailResponse()


@pytest.mark.parametrize("intercepted", [False, True])
async def test_a_context_variable_is_seen_by_its_call_and_by_no_other(wire: Wire, intercepted: bool) -> None:
    names = Names()
    WHO.set("server")  # where the server is started
    async with pair(Looking("all"), wire, interceptors=[names] if intercepted else []) as both:
        WHO.set("client")  # which is another's, though it may be the same task
        stub = both.stub
        for who in ("ann", "bob", "ann"):
            metadata = (("x-who", who),)
            expected = who if intercepted else "server"
            assert (await begin(stub.Echo, request(), metadata=metadata)).payload == expected.encode()
            task = await begin(stub.AsyncFunc, demo_pb2.AsyncFuncRequest(), metadata=metadata)
            assert task.reply == len(expected)
            thread = await begin(stub.EchoFromThread, demo_pb2.EchoFromThreadRequest(), metadata=metadata)
            assert thread.payload == expected.encode()
            call = begin(stub.Fail, demo_pb2.FailRequest(), metadata=metadata)
            await call
            assert (await call.trailing_metadata())["x-seen"] == expected
    assert names.before == (["server"] * 12 if intercepted else [])


async def test_what_a_library_puts_before_all_servers_stands_with_the_others(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tracing libraries do that instrument all of a program: they put another function in place of gRPC's."""
    theirs, original = Seeing(), grpc.aio.server

    def instrumented(*args: Any, **options: Any) -> grpc.aio.Server:
        options["interceptors"] = [theirs, *(options.get("interceptors") or ())]
        return original(*args, **options)

    assert interceptors_of_others() == ()
    monkeypatch.setattr(grpc.aio, "server", instrumented)
    assert interceptors_of_others() == (theirs,)
    async with pair(Tasks(), wire, interceptors=[Token()]) as both:
        assert await begin(both.stub.Echo, request(b"x"), metadata=TOKEN) == response(b"x")
        assert [chunk async for chunk in begin(both.stub.Download, demo_pb2.DownloadRequest(), metadata=TOKEN)]
    assert theirs.methods == [f"{DEMO}Echo", f"{DEMO}Download"]


class Door(grpc.aio.ServerInterceptor):
    """Lets calls pass once the test says so."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.open = asyncio.Event()
        self.prefix = DEMO

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith(self.prefix):
            self.waiting.set()
            await self.open.wait()
        return await continuation(handler_call_details)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("asked", ["in the interceptor", "in the routine"])
async def test_C5_a_request_to_stop_reaches_the_manager_behind_one(wire: Wire, wrapped: bool, asked: str) -> None:
    servicer, door = Parked(), Door()
    async with pair(servicer, wire, interceptors=[door, Seeing()] if wrapped else [door]) as both:
        call = begin(both.stub.Echo, request())
        await asyncio.wait_for(door.waiting.wait(), PATIENCE)
        answer = call.request_cancel() if asked == "in the interceptor" else None
        door.open.set()
        handle = await servicer.next()
        answer = answer or call.request_cancel()
        assert await asyncio.wait_for(answer, PATIENCE) is RpcStatus.OK
        await asyncio.wait_for(handle.wait_cancelled(), PATIENCE)
        assert handle.cancel_reason is rpc_async.CancelReason.CLIENT_REQUESTED
        handle.complete(response(b"stopped"))
        assert (await call).payload == b"stopped"


async def test_C5_a_request_to_an_ordinary_handler_behind_one_says_so(wire: Wire) -> None:
    door, running, go_on = Door(), asyncio.Event(), asyncio.Event()

    class Waits(Servicer):
        async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
            running.set()
            await go_on.wait()
            return response(b"not stopped")

    async with pair(Waits(), wire, interceptors=[door]) as both:
        call = begin(both.stub.Echo, request())
        await asyncio.wait_for(door.waiting.wait(), PATIENCE)
        answer = call.request_cancel()
        door.open.set()
        await asyncio.wait_for(running.wait(), PATIENCE)
        assert await asyncio.wait_for(answer, PATIENCE) is RpcStatus.CANNOT_SUPPORT
        go_on.set()
        assert (await call).payload == b"not stopped"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_call_behind_one_has_all_that_others_have(wire: Wire, wrapped: bool) -> None:
    servicer = Parked()
    async with pair(servicer, wire, interceptors=[Seeing() if wrapped else Token()], max_calls=1) as both:
        call = begin(both.stub.Echo, request(), timeout=PATIENCE, metadata=TOKEN)
        handle = await servicer.next()
        remaining = handle.time_remaining()
        assert remaining is not None
        assert 0 < remaining < PATIENCE + 1
        assert handle.call_id == call.call_id
        assert rpc_async.current_call() is None
        busy = await outcome(begin(both.stub.Echo, request(), metadata=TOKEN))
        assert (busy.status, busy.executed) == (RpcStatus.SERVER_TOO_BUSY, False)
        handle.set_trailing_metadata((("x-trailing", "1"),))
        handle.complete(response(b"x"))
        assert (await call).payload == b"x"
        assert (await call.trailing_metadata())["x-trailing"] == "1"
        late = begin(both.stub.Echo, request(), timeout=0.05, metadata=TOKEN)
        handle = await servicer.next()
        assert (await outcome(late)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(handle.test_cancel)
        assert handle.cancel_reason is rpc_async.CancelReason.DEADLINE
        handle.complete(response())
        await until(lambda: not both.server.running_calls)
        unread = await outcome(both.channel.unary_unary(f"{DEMO}Echo")(b"\xff", metadata=TOKEN))
        assert (unread.status, unread.executed) == (RpcStatus.BAD_STUB_DATA, False)


async def test_a_context_variable_that_a_deserialiser_sets_is_seen_by_no_other_call(wire: Wire) -> None:
    def deserialize(payload: bytes) -> bytes:
        WHO.set("whoever sent it")
        return payload

    class Both:
        @manager(inline=True)
        def managed(self, request: bytes, call: Any) -> None:
            call.complete(request)

        async def ordinary(self, request: bytes, context: Any) -> bytes:
            return WHO.get().encode()

    one = Both()
    async with pair(Servicer(), wire) as both:
        methods: dict[str, Any] = {
            "Managed": grpc.unary_unary_rpc_method_handler(one.managed, request_deserializer=deserialize),
            "Ordinary": grpc.unary_unary_rpc_method_handler(one.ordinary),
        }
        both.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
        for _ in range(3):
            assert await begin(both.channel.unary_unary("/t.T/Managed"), b"x") == b"x"
            assert await begin(both.channel.unary_unary("/t.T/Ordinary"), b"") == b"nobody"


async def test_C5_a_request_to_stop_waits_until_it_is_known_who_serves_the_call(wire: Wire) -> None:
    door, handles = Door(), asyncio.Queue[Any]()

    class Managed:
        @manager(inline=True)
        def managed(self, request: bytes, call: Any) -> None:
            handles.put_nowait(call)

    async with pair(Servicer(), wire, interceptors=[door]) as both:
        methods: dict[str, Any] = {"Managed": grpc.unary_unary_rpc_method_handler(Managed().managed)}
        service = DEMO.strip("/") + "s"  # and not as generated code does: nobody has looked the method up before
        both.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        door.prefix = f"/{service}/"
        call = begin(both.channel.unary_unary(f"/{service}/Managed"), b"x")
        await asyncio.wait_for(door.waiting.wait(), PATIENCE)
        answer = call.request_cancel()
        door.open.set()
        handle = await asyncio.wait_for(handles.get(), PATIENCE)
        assert await asyncio.wait_for(answer, PATIENCE) is RpcStatus.OK
        await asyncio.wait_for(handle.wait_cancelled(), PATIENCE)
        handle.complete(b"stopped")
        assert await call == b"stopped"
