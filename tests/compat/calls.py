"""Calls of the four kinds, and what can be asked of their handles."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio

from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc
from tests.compat.lab import (
    ALL_KINDS,
    Lab,
    Seen,
    attempt,
    case,
    drained,
    echo,
    ended,
    method,
    outcome,
    pairs,
    unary,
)
from tests.harness import Servicer


@case(managers=True)
async def unary_call(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")(b"hello")
    first = await call
    return {
        "reply": first,
        "awaited again": await call,
        **await ended(call),
        "initial": pairs(await call.initial_metadata()),
        "trailing": pairs(await call.trailing_metadata()),
        "time remaining": call.time_remaining(),
        "cancel after": call.cancel(),
        "grpc.aio.Call": isinstance(call, grpc.aio.Call),
        "UnaryUnaryCall": isinstance(call, grpc.aio.UnaryUnaryCall),
    }


@case(managers=True)
async def server_streaming_iterated(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Count", "unary_stream")(b"3")
    return {"replies": await drained(call), "again": await drained(call), **await ended(call)}


@case(managers=True)
async def server_streaming_read(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Count", "unary_stream")(b"2")
    replies = [await call.read(), await call.read()]
    end = await call.read()
    return {
        "replies": replies,
        "end": end is grpc.aio.EOF,
        "again": await call.read() is grpc.aio.EOF,
        **await ended(call),
    }


@case(managers=True)
async def server_streaming_nothing(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Count", "unary_stream")(b"0")
    return {"end": await call.read() is grpc.aio.EOF, **await ended(call)}


@case(managers=True)
async def client_streaming_from_an_async_generator(lab: Lab) -> Seen:
    async def requests() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    call = method(await lab.channel(ALL_KINDS), "Join", "stream_unary")(requests())
    return {"reply": await call, "write": await outcome(call.write(b"x")), **await ended(call)}


@case(managers=True)
async def client_streaming_from_a_list(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Join", "stream_unary")(iter([b"a", b"b"]))
    return {"reply": await call, **await ended(call)}


@case(managers=True)
async def client_streaming_written(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Join", "stream_unary")()
    await call.write(b"a")
    await call.write(b"b")
    await call.done_writing()
    await call.done_writing()
    return {"reply": await call, "late": await outcome(call.write(b"c")), **await ended(call)}


@case(managers=True)
async def both_streaming_from_a_generator(lab: Lab) -> Seen:
    async def requests() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    call = method(await lab.channel(ALL_KINDS), "Chat", "stream_stream")(requests())
    return {"replies": await drained(call), **await ended(call)}


@case(managers=True)
async def both_streaming_written_and_read(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Chat", "stream_stream")()
    replies = []
    for text in (b"a", b"b"):
        await call.write(text)
        replies.append(await call.read())
    await call.done_writing()
    return {"replies": replies, "end": await call.read() is grpc.aio.EOF, **await ended(call)}


@case(managers=True)
async def the_two_ways_to_stream_do_not_mix(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    reading = method(channel, "Count", "unary_stream")(b"3")
    async for _ in reading:
        break
    writing = method(channel, "Join", "stream_unary")(iter([b"a"]))
    seen = {"read": await outcome(reading.read()), "write": await outcome(writing.write(b"b"))}
    reading.cancel()
    await writing
    return seen


@case(managers=True)
async def an_iterator_of_requests_that_raises(lab: Lab) -> Seen:
    def requests() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("no more")

    call = method(await lab.channel(ALL_KINDS), "Join", "stream_unary")(requests())
    return {"awaited": await outcome(call), "code": (await call.code()).name}


@case(managers=True)
async def many_calls_at_once(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    return {"replies": await asyncio.gather(*(call(b"%d" % number) for number in range(50)))}


@case(managers=True)
async def one_call_awaited_by_many(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")(b"one")

    async def wait() -> Any:
        return await call

    return {"replies": await asyncio.gather(*(wait() for _ in range(5)))}


@case(managers=True)
async def empty_messages(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    chat = method(channel, "Chat", "stream_stream")(iter([b"", b""]))
    return {"unary": await method(channel, "Echo")(b""), "chat": await drained(chat)}


@case(managers=True)
async def large_messages(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    large = bytes(3 << 20)
    chat = method(channel, "Chat", "stream_stream")(iter([large, large]))
    return {
        "unary": await method(channel, "Echo")(large) == large,
        "chat": [reply == large for reply in await drained(chat)],
    }


@case(managers=True)
async def methods_and_services_that_are_not_there(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    no_service: Any = channel.unary_unary("/no.Service/Method")
    return {
        "method": await outcome(method(channel, "None")(b"")),
        "service": await outcome(no_service(b"")),
        "stream": await drained(method(channel, "None", "unary_stream")(b"")),
        "next call": await method(channel, "Echo")(b"fine"),
    }


@case()
async def a_method_called_as_another_kind(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    return {"streaming as unary": await outcome(method(channel, "Chat")(b"a"))}


@case(managers=True)
async def functions_that_make_bytes_and_messages(lab: Lab) -> Seen:
    handler = unary(echo, request_deserializer=int, response_serializer=lambda number: b"%d" % (number + 1))
    channel = await lab.channel({"Echo": handler})
    call = method(channel, "Echo", request_serializer=lambda number: b"%d" % number, response_deserializer=int)
    return {"reply": await call(41)}


@case()
async def messages_that_are_text(lab: Lab) -> Seen:
    async def text(request: bytes, context: Any) -> Any:
        return request.decode()

    call = method(await lab.channel({"Text": unary(text)}), "Text")
    return {"request": await attempt(lambda: call("text")), "reply": await outcome(call(b"bytes"))}


@case(managers=True)
async def a_reply_that_the_client_cannot_read(lab: Lab) -> Seen:
    def fail(data: bytes) -> Any:
        raise ValueError("unreadable")

    call = method(await lab.channel(ALL_KINDS), "Echo", response_deserializer=fail)(b"data")
    return {"awaited": await outcome(call), "code": (await call.code()).name}


@case()
async def a_request_that_the_client_cannot_write(lab: Lab) -> Seen:
    def fail(message: Any) -> bytes:
        raise ValueError("unwritable")

    call = method(await lab.channel(ALL_KINDS), "Echo", request_serializer=fail)
    return {"called": await attempt(lambda: call(b"data"))}


@case()
async def a_request_that_the_server_cannot_read(lab: Lab) -> Seen:
    def fail(data: bytes) -> Any:
        raise ValueError("unreadable")

    channel = await lab.channel({"Echo": unary(echo, request_deserializer=fail), "Fine": unary(echo)})
    return {"awaited": await outcome(method(channel, "Echo")(b"")), "next": await method(channel, "Fine")(b"fine")}


@case()
async def a_reply_that_the_server_cannot_write(lab: Lab) -> Seen:
    def fail(message: Any) -> bytes:
        raise ValueError("unwritable")

    channel = await lab.channel({"Echo": unary(echo, response_serializer=fail), "Fine": unary(echo)})
    return {"awaited": await outcome(method(channel, "Echo")(b"")), "next": await method(channel, "Fine")(b"fine")}


@case()
async def a_raw_handler_that_returns_no_bytes(lab: Lab) -> Seen:
    async def number(request: bytes, context: Any) -> Any:
        return 42

    async def nothing(request: bytes, context: Any) -> Any:
        return None

    channel = await lab.channel({"Number": unary(number), "Nothing": unary(nothing)})
    return {
        "number": await outcome(method(channel, "Number")(b"")),
        "None": await outcome(method(channel, "Nothing")(b"")),
    }


class _Demo(Servicer):
    async def Echo(self, request: demo_pb2.EchoRequest, context: Any) -> demo_pb2.EchoResponse:
        return demo_pb2.EchoResponse(payload=request.payload)


@case()
async def generated_code(lab: Lab) -> Seen:
    served = await lab.serve({}, register=lambda server: demo_pb2_grpc.add_DemoServicer_to_server(_Demo(), server))
    stub = demo_pb2_grpc.DemoStub(lab.connect(served.target))
    reply = await stub.Echo(demo_pb2.EchoRequest(payload=b"generated"))
    return {"reply": reply.payload, "unimplemented": await outcome(stub.Fail(demo_pb2.FailRequest()))}


@case()
async def a_stub_made_outside_any_loop(lab: Lab) -> Seen:
    served = await lab.serve({}, register=lambda server: demo_pb2_grpc.add_DemoServicer_to_server(_Demo(), server))

    def make() -> Any:
        return demo_pb2_grpc.DemoStub(lab.connect(served.target))

    # gRPC binds a channel to the loop of its thread; ours to the loop in which it is first used.
    stub = make() if lab.mix.client == "theirs" else await asyncio.to_thread(make)
    return {"reply": (await stub.Echo(demo_pb2.EchoRequest(payload=b"late"))).payload}


@case(managers=True)
async def calls_in_the_hands_of_asyncio(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")
    task = asyncio.ensure_future(call(b"task"))
    gathered = await asyncio.gather(call(b"a"), call(b"b"), return_exceptions=True)
    completed = sorted([await one for one in asyncio.as_completed([call(b"c"), call(b"d")])])
    shielded = await asyncio.shield(call(b"e"))
    in_time = await asyncio.wait_for(call(b"f"), 10)
    return {
        "task": await task,
        "gather": gathered,
        "as_completed": completed,
        "shield": shielded,
        "wait_for": in_time,
    }


@case()
async def handlers_of_every_shape(lab: Lab) -> Seen:
    made = []

    class Servicer:
        async def bound(self, request: bytes, context: Any) -> bytes:
            return request

        @staticmethod
        async def static(request: bytes, context: Any) -> bytes:
            return request

    async def with_more(more: bytes, request: bytes, context: Any) -> bytes:
        return more + request

    @functools.wraps(echo)
    def wrapped(request: bytes, context: Any) -> Any:
        made.append(echo(request, context))  # which gRPC takes for a reply
        return made[-1]

    handlers = {
        "Bound": unary(Servicer().bound),
        "Static": unary(Servicer.static),
        "Partial": unary(functools.partial(with_more, b"more ")),
        "Wrapped": unary(wrapped),
    }
    channel = await lab.channel(handlers)
    seen = {name: str(await outcome(method(channel, name)(b"x"))).partition(":")[0] for name in handlers}
    for coroutine in made:
        coroutine.close()
    return seen


@case()
async def odd_names_of_methods(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    names = ("/compat.Compat/Echo", "/compat.Compat/Echo ", "/", "/a", "//", "/a/b/c")
    odd: list[Any] = [channel.unary_unary(name) for name in names]
    return {name: str(await outcome(call(b"x"))) for name, call in zip(names, odd, strict=True)}
