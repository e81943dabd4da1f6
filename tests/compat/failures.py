"""How handlers fail, and what their clients see."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.compat.lab import Lab, Seen, case, downward, drained, ended, method, outcome, pairs, unary, upward

CODES: Final = grpc.StatusCode


@case(managers=True)
async def abort_with_each_code(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(CODES[request.decode()], "because")
        return b""

    call = method(await lab.channel({"Fail": unary(fail)}), "Fail")
    return {code.name: await outcome(call(code.name.encode())) for code in CODES if code is not CODES.OK}


@case()
async def abort_with_a_number(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(5, "a number")
        return b""

    async def set_number(request: bytes, context: Any) -> bytes:
        context.set_code(5)
        context.set_details("a number")
        return b""

    channel = await lab.channel({"Fail": unary(fail), "Set": unary(set_number)})
    return {"abort": await outcome(method(channel, "Fail")(b"")), "set": await outcome(method(channel, "Set")(b""))}


@case()
async def abort_twice(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        try:
            await context.abort(CODES.NOT_FOUND, "first")
        finally:
            await context.abort(CODES.INTERNAL, "second")
        return b""

    return {"awaited": await outcome(method(await lab.channel({"Fail": unary(fail)}), "Fail")(b""))}


@case()
async def abort_swallowed(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        with contextlib.suppress(grpc.aio.AbortError):
            await context.abort(CODES.NOT_FOUND, "swallowed")
        return b"after"

    async def fail_other(request: bytes, context: Any) -> bytes:
        try:
            await context.abort(CODES.NOT_FOUND, "then raised")
        except grpc.aio.AbortError:
            raise ValueError("another") from None
        return b""

    channel = await lab.channel({"Fail": unary(fail), "Other": unary(fail_other)})
    return {
        "returned": await outcome(method(channel, "Fail")(b"")),
        "raised": await outcome(method(channel, "Other")(b"")),
    }


class _Status(grpc.Status):
    code = CODES.DATA_LOSS
    details = "a status"
    trailing_metadata = (("key", "value"),)


@case()
async def abort_with_a_status(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort_with_status(_Status())
        return b""

    channel = await lab.channel({"Fail": unary(fail)})
    call = method(channel, "Fail")(b"")
    return {
        "awaited": await outcome(call),
        "trailing": ("key", "value") in (pairs(await call.trailing_metadata()) or ()),
    }


@case()
async def code_and_details_set_and_returned(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        context.set_code(CODES.RESOURCE_EXHAUSTED)
        context.set_details("none left")
        return b"reply"

    async def only_details(request: bytes, context: Any) -> bytes:
        context.set_details("a text")
        return b"reply"

    async def read_back(request: bytes, context: Any) -> bytes:
        before = context.code(), context.details()
        context.set_code(CODES.NOT_FOUND)
        context.set_details("x")
        after = context.code(), context.details(), context.trailing_metadata()
        context.set_code(CODES.OK)
        return repr((before, after)).encode()

    channel = await lab.channel({"Fail": unary(fail), "Details": unary(only_details), "Back": unary(read_back)})
    return {
        "code": await outcome(method(channel, "Fail")(b"")),
        "details alone": await outcome(method(channel, "Details")(b"")),
        "read back": await outcome(method(channel, "Back")(b"")),
    }


@case()
async def a_handler_that_raises(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        raise ValueError("a mistake")

    async def fail_with_code(request: bytes, context: Any) -> bytes:
        context.set_code(CODES.DATA_LOSS)
        context.set_details("a text")
        raise ValueError("a mistake")

    async def fail_down(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        raise ValueError("a mistake")

    async def fail_up(requests: Any, context: Any) -> bytes:
        raise KeyError("a mistake")

    channel = await lab.channel(
        {"Fail": unary(fail), "Code": unary(fail_with_code), "Down": downward(fail_down), "Up": upward(fail_up)}
    )
    return {
        "unary": await outcome(method(channel, "Fail")(b"")),
        "with a code": await outcome(method(channel, "Code")(b"")),
        "down": await drained(method(channel, "Down", "unary_stream")(b"")),
        "up": await outcome(method(channel, "Up", "stream_unary")(iter([b"a"]))),
    }


@case(managers=True)
async def an_exception_out_of_a_handler(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        raise ValueError("a mistake")

    return {"failed": await outcome(method(await lab.channel({"Fail": unary(fail)}), "Fail")(b""))}


@case(managers=True)
async def a_failure_after_replies(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await context.abort(CODES.NOT_FOUND, "no second")

    call = method(await lab.channel({"Fail": downward(fail)}), "Fail", "unary_stream")(b"")
    return {"drained": await drained(call), **await ended(call)}


@case()
async def status_details(lab: Lab) -> Seen:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.DebugInfo(detail="all of it"))
    rich = status_pb2.Status(code=5, message="rich", details=[detail])

    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND, "rich", (("grpc-status-details-bin", rich.SerializeToString()),))
        return b""

    call = method(await lab.channel({"Fail": unary(fail)}), "Fail")(b"")
    failed = await outcome(call)
    carried = [value for key, value in await call.trailing_metadata() if key == "grpc-status-details-bin"]
    read = [status_pb2.Status.FromString(cast("bytes", value)) for value in carried]
    return {
        "awaited": failed,
        "details": [[one.type_url for one in status.details] for status in read],
        "same": read == [rich],
    }


@case()
async def an_error_as_an_object(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND, "not here", (("key", "value"),))
        return b""

    try:
        await method(await lab.channel({"Fail": unary(fail)}), "Fail")(b"")
    except grpc.aio.AioRpcError as error:
        again = pickle.loads(pickle.dumps(error))
        copied = copy.copy(error)
        return {
            "is": [isinstance(error, kind) for kind in (grpc.RpcError, grpc.aio.AioRpcError, Exception)],
            "pickled": (again.code().name, again.details()),
            "copied": (copied.code().name, copied.details()),
            "debug": isinstance(error.debug_error_string(), str),
            "in str": "not here" in str(error),
            "in repr": "not here" in repr(error),
        }
    return {"failed": False}


@case()
async def what_a_handle_says_of_a_failure(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND, "not here")
        return b""

    channel = await lab.channel({"Fail": unary(fail)})
    call: Any = method(channel, "Fail")(b"")
    await outcome(call)
    debug = await call.debug_error_string()
    return {**await ended(call), "debug": type(debug).__name__, "again": await outcome(call)}


@case()
async def debug_text_of_a_reply(lab: Lab) -> Seen:
    async def fine(request: bytes, context: Any) -> bytes:
        return b"fine"

    call: Any = method(await lab.channel({"Fine": unary(fine)}), "Fine")(b"")
    await call
    return {"debug": await call.debug_error_string(), "details": await call.details()}


@case()
async def texts_of_every_kind(lab: Lab) -> Seen:
    texts = ["", "ünïcödé ✓", "100 % of it", "two\nlines\ttab", " spaces around ", "x" * 2000]

    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND, texts[int(request)])
        return b""

    call = method(await lab.channel({"Fail": unary(fail)}), "Fail")
    return {text[:20]: await outcome(call(b"%d" % number)) for number, text in enumerate(texts)}


@case()
async def details_that_are_no_text(lab: Lab) -> Seen:
    async def none(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND, None)
        return b""

    async def code_only(request: bytes, context: Any) -> bytes:
        await context.abort(CODES.NOT_FOUND)
        return b""

    channel = await lab.channel({"None": unary(none), "Only": unary(code_only)})
    return {name: str(await outcome(method(channel, name)(b"")))[:60] for name in ("None", "Only")}


@case()
async def codes_that_are_none(lab: Lab) -> Seen:
    codes: list[Any] = [999, "NOT_FOUND", None]

    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(codes[int(request)], "a text")
        return b""

    async def set_code(request: bytes, context: Any) -> bytes:
        context.set_code(codes[int(request)])
        return b"reply"

    channel = await lab.channel({"Fail": unary(fail), "Set": unary(set_code)})
    seen = {}
    for number, code in enumerate(codes):
        for name in ("Fail", "Set"):
            seen[f"{name} {code}"] = str(await outcome(method(channel, name)(b"%d" % number, timeout=2)))
    return seen


@case()
async def a_lookup_that_raises(lab: Lab) -> Seen:
    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            if handler_call_details.method == "/other.Service/Any":
                raise ValueError("a mistake")
            return None

    served = await lab.serve({}, register=lambda server: server.add_generic_rpc_handlers([Handlers()]))
    other: Any = lab.connect(served.target).unary_unary("/other.Service/Any")
    return {"failed": await outcome(other(b"", timeout=2))}
