"""Interceptors of each kind, on each side."""

from __future__ import annotations

import contextvars
from typing import Any

import grpc
import grpc.aio

from tests.compat.lab import ALL_KINDS, Lab, Seen, case, drained, echo, ended, method, outcome, pairs, unary

Details = grpc.aio.ClientCallDetails


def marked(details: Any, mark: str) -> Any:
    """Return a call's details with one more pair of metadata."""
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("mark", mark)
    return Details(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


async def marks(request: bytes, context: Any) -> bytes:
    """Reply with the marks that interceptors left."""
    return " ".join(str(value) for key, value in context.invocation_metadata() if key == "mark").encode()


async def marks_down(request: bytes, context: Any) -> Any:
    """Stream them."""
    yield await marks(request, context)


async def marks_up(requests: Any, context: Any) -> bytes:
    """Take everything, and reply with them."""
    async for _ in requests:
        pass
    return await marks(b"", context)


async def marks_both(requests: Any, context: Any) -> Any:
    """Take everything, and stream them."""
    yield await marks_up(requests, context)


MARKS = {
    "Marks": unary(marks),
    "Down": grpc.unary_stream_rpc_method_handler(marks_down),
    "Up": grpc.stream_unary_rpc_method_handler(marks_up),
    "Both": grpc.stream_stream_rpc_method_handler(marks_both),
}


class MarkUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(marked(client_call_details, self.mark), request)


class MarkDown(grpc.aio.UnaryStreamClientInterceptor):
    """Leaves a mark."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(marked(client_call_details, "down"), request)


class MarkUp(grpc.aio.StreamUnaryClientInterceptor):
    """Leaves a mark."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(marked(client_call_details, "up"), request_iterator)


class MarkBoth(grpc.aio.StreamStreamClientInterceptor):
    """Leaves a mark."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(marked(client_call_details, "both"), request_iterator)


@case(managers=True)
async def client_interceptors_of_each_kind(lab: Lab) -> Seen:
    served = await lab.serve(MARKS)
    interceptors = (MarkUnary("outer"), MarkDown(), MarkUp(), MarkBoth(), MarkUnary("inner"))
    channel = lab.connect(served.target, interceptors=interceptors)
    return {
        "unary": await method(channel, "Marks")(b""),
        "down": await drained(method(channel, "Down", "unary_stream")(b"")),
        "up": await method(channel, "Up", "stream_unary")(iter([b"a"])),
        "both": await drained(method(channel, "Both", "stream_stream")(iter([b"a"]))),
    }


class Instead(grpc.aio.UnaryUnaryClientInterceptor):
    """Does another thing than the call, as the request says."""

    def __init__(self) -> None:
        self.calls = 0

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if request == b"reply":
            return b"of the interceptor's own"
        if request == b"raise":
            raise ValueError("the interceptor's mistake")
        if request == b"refuse":
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.PERMISSION_DENIED, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused here"
            )
        if request == b"again":
            call = await continuation(client_call_details, request)
            self.calls += 1
            if await call.code() is not grpc.StatusCode.OK:
                call = await continuation(client_call_details, request)
                self.calls += 1
            return call
        if request == b"change":
            return await continuation(client_call_details, b"changed")
        return await continuation(client_call_details, request)


@case()
async def a_client_interceptor_in_place_of_the_call(lab: Lab) -> Seen:
    tries = []

    async def flaky(request: bytes, context: Any) -> bytes:
        tries.append(request)
        if request == b"again" and len(tries) < 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return request

    interceptor = Instead()
    served = await lab.serve({"Flaky": unary(flaky)})
    call = method(lab.connect(served.target, interceptors=(interceptor,)), "Flaky")
    again = call(b"again")
    seen: Seen = {"again": await again, "tries": interceptor.calls}
    own: Any = call(b"reply")
    seen["reply"] = await own
    seen["of the reply"] = await ended(own)
    seen["metadata of the reply"] = [await own.initial_metadata(), await own.trailing_metadata()]
    refused = call(b"refuse")
    return {
        **seen,
        "refused": await outcome(refused),
        "change": await call(b"change"),
    }


@case(since=(1, 85))
async def a_client_interceptor_that_raises(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    call = method(lab.connect(served.target, interceptors=(Instead(),)), "Echo")
    return {"raised": str(await outcome(call(b"raise"))).split(":")[0], "next": await outcome(call(b"x"))}


@case()
async def debug_text_of_an_interceptors_reply(lab: Lab) -> Seen:
    served = await lab.serve(ALL_KINDS)
    call: Any = method(lab.connect(served.target, interceptors=(Instead(),)), "Echo")(b"reply")
    return {"reply": await call, "debug": await call.debug_error_string()}


@case()
async def what_a_client_interceptor_sees(lab: Lab) -> Seen:
    seen: Seen = {}

    class Looks(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            details = client_call_details
            if not str(details.method).endswith("Echo") and not str(details.method, "ascii").endswith("Echo"):
                return await continuation(details, request)
            seen["method"] = details.method
            seen["timeout"] = details.timeout is not None and 50 < details.timeout <= 60
            seen["metadata"] = pairs(details.metadata)
            seen["metadata type"] = type(details.metadata).__name__
            seen["wait_for_ready"] = details.wait_for_ready
            seen["request"] = request
            call = await continuation(details, request)
            seen["reply"] = await call
            seen["code"] = (await call.code()).name
            return call

    served = await lab.serve(ALL_KINDS)
    channel = lab.connect(served.target, interceptors=(Looks(),))
    await method(channel, "Echo")(b"x", timeout=60, metadata=(("a", "1"),), wait_for_ready=True)
    return seen


class Log(grpc.aio.ServerInterceptor):
    """Writes down what it sees."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        metadata = [pair for pair in pairs(handler_call_details.invocation_metadata) or () if pair[0] == "a"]
        self.log.append((self.name, handler_call_details.method, metadata))
        return await continuation(handler_call_details)


@case(managers=True)
async def server_interceptors_see_each_call_once(lab: Lab) -> Seen:
    log: list[Any] = []
    channel = await lab.channel(ALL_KINDS, interceptors=[Log("outer", log), Log("inner", log)])
    replies = [await method(channel, "Echo")(b"x", metadata=(("a", str(number)),)) for number in range(2)]
    down = await drained(method(channel, "Count", "unary_stream")(b"1"))
    return {"log": log, "replies": replies, "down": down}


class WantsToken(grpc.aio.ServerInterceptor):
    """Lets in who shows the token."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if ("token", "open") in [(key, value) for key, value in handler_call_details.invocation_metadata]:
            return await continuation(handler_call_details)

        async def refuse(request: Any, context: Any) -> Any:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        return unary(refuse)


@case(managers=True)
async def a_server_interceptor_that_wants_a_token(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS, interceptors=[WantsToken()]), "Echo")
    return {"with": await outcome(call(b"x", metadata=(("token", "open"),))), "without": await outcome(call(b"x"))}


class Serves(grpc.aio.ServerInterceptor):
    """Serves calls in the handler's place."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        if name == "Raise":
            raise ValueError("the interceptor's mistake")
        if name == "Nothing":
            return None
        handler = await continuation(handler_call_details)
        if name != "Wrapped":
            return handler
        inner = handler.unary_unary

        async def wrapped(request: bytes, context: Any) -> bytes:
            reply: bytes = await inner(request, context)
            return b"<" + reply + b">"

        return unary(wrapped)


@case()
async def a_server_interceptor_in_place_of_the_handler(lab: Lab) -> Seen:
    handlers = {name: unary(echo) for name in ("Wrapped", "Raise", "Nothing", "Plain")}
    channel = await lab.channel(handlers, interceptors=[Serves()])
    return {name: await outcome(method(channel, name)(b"x")) for name in handlers}


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


class Sets(grpc.aio.ServerInterceptor):
    """Sets a context variable for the calls that ask for it."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        for key, value in handler_call_details.invocation_metadata:
            if key == "set":
                VARIABLE.set(f"{VARIABLE.get()}+{value}")
        return await continuation(handler_call_details)


async def tell(request: bytes, context: Any) -> bytes:
    """Reply with the variable, and change it."""
    value = VARIABLE.get()
    VARIABLE.set("left behind")
    return value.encode()


@case(managers=True)
async def context_variables_on_the_server(lab: Lab) -> Seen:
    call = method(await lab.channel({"Tell": unary(tell)}, interceptors=[Sets()]), "Tell")
    return {
        "set by the interceptor": await call(b"", metadata=(("set", "1"),)),
        "the next call": await call(b""),
        "and again": await call(b"", metadata=(("set", "2"),)),
    }


@case(managers=True)
async def context_variables_without_interceptors(lab: Lab) -> Seen:
    VARIABLE.set("of whoever started the server")
    call = method(await lab.channel({"Tell": unary(tell)}), "Tell")
    first = await call(b"")
    VARIABLE.set("changed later")
    return {"first": first, "second": await call(b"")}


@case()
async def context_variables_on_the_client(lab: Lab) -> Seen:
    seen = []

    class Reads(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(VARIABLE.get())
            return await continuation(client_call_details, request)

    served = await lab.serve(ALL_KINDS)
    channel = lab.connect(served.target, interceptors=(Reads(),))
    for name in ("first", "second"):
        VARIABLE.set(name)
        await method(channel, "Echo")(b"")
    return {"seen": seen}
