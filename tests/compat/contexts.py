"""What handlers can ask of their contexts, who is called back, and handlers that run in threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio

from tests.compat.ends import Waiting
from tests.compat.interceptors import VARIABLE
from tests.compat.lab import ALL_KINDS, Lab, Seen, case, downward, drained, echo, method, outcome, pairs, unary
from tests.harness import Seen as Later


@case()
async def done_callbacks_of_the_client(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")(b"x")
    told: list[Any] = []
    both = asyncio.Event()

    def second(one: Any) -> None:
        told.append(("second", one is call, one.done()))
        both.set()

    call.add_done_callback(lambda one: told.append(("first", one is call, one.done())))
    call.add_done_callback(second)
    await call
    await both.wait()
    late = asyncio.Event()
    call.add_done_callback(lambda _: late.set())
    await late.wait()
    return {"told": told}


@case()
async def done_callbacks_of_a_cancelled_call(lab: Lab) -> Seen:
    waiting = Waiting()
    call = method(await lab.channel(waiting.handlers()), "Wait")(b"")
    await waiting.begun.wait()
    told = Later[bool]()
    call.add_done_callback(lambda one: told.set(one.cancelled()))
    call.cancel()
    return {"cancelled": await told.get()}


@case()
async def the_context_of_a_client_callback(lab: Lab) -> Seen:
    channel = await lab.channel(ALL_KINDS)
    seen = []
    for name in ("first", "second"):
        VARIABLE.set(name)
        call = method(channel, "Echo")(b"x")
        told = Later[str]()
        call.add_done_callback(lambda _, told=told: told.set(VARIABLE.get()))
        await call
        seen.append(await told.get())
    return {"seen": seen}


@case()
async def done_callbacks_of_the_server(lab: Lab) -> Seen:
    told = Later[tuple[bool, bool]]()

    async def handler(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda one: told.set((one.done(), one.cancelled())))
        return b"%d %d" % (context.done(), context.cancelled())

    call = method(await lab.channel({"Call": unary(handler)}), "Call")
    return {"inside": await call(b""), "told": await told.get()}


@case()
async def done_callbacks_of_a_server_that_was_cancelled(lab: Lab) -> Seen:
    begun, told = asyncio.Event(), Later[tuple[bool, bool]]()

    async def handler(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda one: told.set((one.done(), one.cancelled())))
        begun.set()
        await asyncio.Event().wait()
        return b""

    call = method(await lab.channel({"Call": unary(handler)}), "Call")(b"")
    await begun.wait()
    call.cancel()
    return {"told": await told.get()}


@case()
async def a_callback_of_the_server_that_raises(lab: Lab) -> Seen:
    told: list[str] = []
    raised = asyncio.Event()

    def fail(_: Any) -> None:
        raised.set()
        raise ValueError("a mistake")

    async def handler(request: bytes, context: Any) -> bytes:
        if request == b"first":
            context.add_done_callback(lambda _: told.append("before"))
            context.add_done_callback(fail)
            context.add_done_callback(lambda _: told.append("after"))
        return b"reply"

    call = method(await lab.channel({"Call": unary(handler)}), "Call")
    first = await call(b"first")
    await raised.wait()
    return {"reply": first, "next": await call(b""), "told": told}


@case()
async def a_reply_that_is_written(lab: Lab) -> Seen:
    async def down(request: bytes, context: Any) -> None:
        for number in range(3):
            await context.write(b"%d" % number)

    async def chat(unused: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    handlers = {"Down": downward(down), "Chat": grpc.stream_stream_rpc_method_handler(chat)}
    channel = await lab.channel(handlers)
    return {
        "down": await drained(method(channel, "Down", "unary_stream")(b"")),
        "chat": await drained(method(channel, "Chat", "stream_stream")(iter([b"a", b"b"]))),
    }


@case()
async def handlers_in_threads(lab: Lab) -> Seen:
    here = threading.get_ident()

    def call(request: bytes, context: Any) -> bytes:
        return b"another thread" if threading.get_ident() != here else b"this thread"

    def stream(request: bytes, context: Any) -> Any:
        for number in range(3):
            yield b"%d" % number

    def up(requests: Any, context: Any) -> bytes:
        return b" ".join(requests)

    def both(requests: Any, context: Any) -> Any:
        yield from requests

    handlers = {
        "Call": unary(call),
        "Down": downward(stream),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    channel = await lab.channel(handlers)
    return {
        "call": await method(channel, "Call")(b""),
        "down": await drained(method(channel, "Down", "unary_stream")(b"")),
        "up": await method(channel, "Up", "stream_unary")(iter([b"a", b"b"])),
        "both": await drained(method(channel, "Both", "stream_stream")(iter([b"a", b"b"]))),
    }


@case()
async def contexts_in_threads(lab: Lab) -> Seen:
    def call(request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("early", "1"),))
        context.set_trailing_metadata((("late", "2"),))
        left = context.time_remaining()
        return repr((pairs(context.invocation_metadata()), context.peer().split(":")[0], left is None)).encode()

    def fail(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        return b""

    def set_code(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("gone")
        return b""

    def wrong(request: bytes, context: Any) -> bytes:
        raise ValueError("a mistake")

    channel = await lab.channel(
        {"Call": unary(call), "Fail": unary(fail), "Set": unary(set_code), "Raise": unary(wrong)}
    )
    one = method(channel, "Call")(b"", metadata=(("a", "1"),))
    return {
        "reply": await one,
        "initial": pairs(await one.initial_metadata()),
        "trailing": pairs(await one.trailing_metadata()),
        "abort": await outcome(method(channel, "Fail")(b"")),
        "set": await outcome(method(channel, "Set")(b"")),
        "raise": await outcome(method(channel, "Raise")(b"")),
    }


@case()
async def a_handler_looked_up_by_metadata(lab: Lab) -> Seen:
    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            wanted = dict(handler_call_details.invocation_metadata).get("wanted")
            if wanted is None:
                return None

            async def reply(request: bytes, context: Any) -> bytes:
                return str(wanted).encode()

            return unary(reply)

    served = await lab.serve(
        {"Echo": unary(echo)}, register=lambda server: server.add_generic_rpc_handlers([Handlers()])
    )
    other: Any = lab.connect(served.target).unary_unary("/other.Service/Any")
    return {
        "one": await outcome(other(b"", metadata=(("wanted", "one"),))),
        "two": await outcome(other(b"", metadata=(("wanted", "two"),))),
        "none": await outcome(other(b"")),
    }
