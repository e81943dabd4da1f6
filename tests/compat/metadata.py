"""Metadata, there and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import grpc.aio

from tests.compat.lab import (
    ALL_KINDS,
    Lab,
    Seen,
    attempt,
    case,
    downward,
    drained,
    method,
    outcome,
    pairs,
    unary,
)


async def show(request: bytes, context: Any) -> bytes:
    """Reply with the metadata that came with the call."""
    return repr(sorted(pairs(context.invocation_metadata()) or (), key=lambda pair: pair[0])).encode()


@case(managers=True)
async def metadata_from_the_client(lab: Lab) -> Seen:
    call = method(await lab.channel({"Show": unary(show)}), "Show")
    return {
        "tuple": await call(b"", metadata=(("a", "1"), ("b", "2"))),
        "list": await call(b"", metadata=[("a", "1")]),
        "Metadata": await call(b"", metadata=grpc.aio.Metadata(("a", "1"), ("a", "2"))),
        "binary": await call(b"", metadata=(("a-bin", b"\x00\xff"),)),
        "empty value": await call(b"", metadata=(("a", ""),)),
        "none": await call(b"", metadata=()),
        "spaces": await call(b"", metadata=(("a", "x y"),)),
    }


@case()
async def metadata_that_is_none(lab: Lab) -> Seen:
    call = method(await lab.channel({"Show": unary(show)}), "Show")
    wrong: dict[str, Any] = {
        "upper case": (("Key", "value"),),
        "a number": (("key", 1),),
        "bytes for a text key": (("key", b"\xff"),),
        "a dict": {"key": "value"},
        "not pairs": ("key", "value"),
        "three": (("key", "value", "more"),),
        "a line end": (("key", "a\nb"),),
    }
    return {name: await attempt(partial(call, b"", metadata=metadata)) for name, metadata in wrong.items()}


@case()
async def keys_that_the_library_adds(lab: Lab) -> Seen:
    async def keys(request: bytes, context: Any) -> bytes:
        return b" ".join(
            sorted(key.encode() for key, _ in context.invocation_metadata() if key.startswith("rpc-async"))
        )

    call = method(await lab.channel({"Keys": unary(keys)}), "Keys")(b"")
    return {
        "seen by the server": await call,
        "initial": [key for key, _ in await call.initial_metadata() if key.startswith("rpc-async")],
        "trailing": [key for key, _ in await call.trailing_metadata() if key.startswith("rpc-async")],
    }


@case()
async def user_agent(lab: Lab) -> Seen:
    async def agent(request: bytes, context: Any) -> bytes:
        return b" ".join(value.encode() for key, value in context.invocation_metadata() if key == "user-agent")

    channel = await lab.channel({"Agent": unary(agent)})
    first: bytes = await method(channel, "Agent")(b"")
    return {"starts": first.split(b"/")[0]}


async def _both(request: bytes, context: Any) -> bytes:
    await context.send_initial_metadata((("early", "1"), ("early-bin", b"\x01")))
    context.set_trailing_metadata((("late", "2"), ("late", "3")))
    return request


async def _both_down(request: bytes, context: Any) -> Any:
    await context.send_initial_metadata((("early", "1"),))
    yield request
    context.set_trailing_metadata((("late", "2"),))


@case()
async def metadata_from_the_server(lab: Lab) -> Seen:
    channel = await lab.channel({"Both": unary(_both), "Down": downward(_both_down)})
    call = method(channel, "Both")(b"x")
    first = pairs(await call.initial_metadata())
    down = method(channel, "Down", "unary_stream")(b"x")
    return {
        "asked at once": first,
        "reply": await call,
        "initial": pairs(await call.initial_metadata()),
        "trailing": pairs(await call.trailing_metadata()),
        "type": type(await call.trailing_metadata()).__name__,
        "stream initial": pairs(await down.initial_metadata()),
        "stream": await drained(down),
        "stream trailing": pairs(await down.trailing_metadata()),
    }


@case(managers=True)
async def trailing_metadata_from_the_server(lab: Lab) -> Seen:
    async def trail(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("late", "2"), ("late-bin", b"\x00")))
        return request

    call = method(await lab.channel({"Trail": unary(trail)}), "Trail")(b"x")
    await call
    return {"trailing": pairs(await call.trailing_metadata())}


@case(managers=True)
async def trailing_metadata_set_twice(lab: Lab) -> Seen:
    async def trail(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("late", "1"),))
        context.set_trailing_metadata((("later", "2"),))
        return request

    call = method(await lab.channel({"Trail": unary(trail)}), "Trail")(b"x")
    await call
    return {"trailing": pairs(await call.trailing_metadata())}


@case()
async def initial_metadata_sent_twice(lab: Lab) -> Seen:
    async def twice(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("early", "1"),))
        return repr(await outcome(context.send_initial_metadata((("early", "2"),)))).encode()

    call = method(await lab.channel({"Twice": unary(twice)}), "Twice")(b"x")
    return {"second": await call, "initial": pairs(await call.initial_metadata())}


@case()
async def metadata_on_a_failure(lab: Lab) -> Seen:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("early", "1"),))
        context.set_trailing_metadata((("before", "2"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here", (("on-abort", "3"),))
        return b""

    call = method(await lab.channel({"Fail": unary(fail)}), "Fail")(b"x")
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return {
            "code": error.code().name,
            "details": error.details(),
            "initial": pairs(error.initial_metadata()),
            "trailing": _without_own(error.trailing_metadata()),
            "of the call": _without_own(await call.trailing_metadata()),
        }
    return {"failed": False}


def _without_own(metadata: Any) -> Any:
    return [pair for pair in pairs(metadata) or () if pair[0] != "grpc-status-details-bin"]


@case(since=(1, 85))
async def metadata_out_of_a_handler_that_is_none(lab: Lab) -> Seen:
    async def wrong(request: bytes, context: Any) -> bytes:
        kind = request.decode()
        metadata: Any = {"dict": {"key": "value"}, "upper": (("Key", "value"),), "number": (("key", 1),)}[kind]
        context.set_trailing_metadata(metadata)
        return b"done"

    async def wrong_abort(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here", trailing_metadata={"key": "value"})
        return b"done"

    channel = await lab.channel({"Wrong": unary(wrong), "Abort": unary(wrong_abort)})
    seen = {kind: await outcome(method(channel, "Wrong")(kind.encode())) for kind in ("dict", "upper", "number")}
    seen["abort"] = await outcome(method(channel, "Abort")(b""))
    return {kind: str(failed).partition(" type")[0] for kind, failed in seen.items()}  # the rest is in words of its own


@case()
async def an_empty_channel_of_metadata(lab: Lab) -> Seen:
    call = method(await lab.channel(ALL_KINDS), "Echo")(b"x")
    await call
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return {"initial": list(pairs(initial) or ()), "types": [type(initial).__name__, type(trailing).__name__]}


@case()
async def text_for_a_binary_key(lab: Lab) -> Seen:
    call = method(await lab.channel({"Show": unary(show)}), "Show")
    return {"seen": await attempt(lambda: call(b"", metadata=(("a-bin", "text"),)))}


@case()
async def keys_that_are_grpcs_own(lab: Lab) -> Seen:
    call = method(await lab.channel({"Show": unary(show)}), "Show")
    keys = ("grpc-mine", "content-type", "user-agent", "te", ":authority", "grpc-timeout")
    return {key: str(await attempt(partial(call, b"", metadata=((key, "value"),)))) for key in keys}


@case(managers=True)
async def many_pairs(lab: Lab) -> Seen:
    call = method(await lab.channel({"Show": unary(show)}), "Show")
    return {"seen": await call(b"", metadata=[(f"key-{number}", "v" * 40) for number in range(60)])}


@case(managers=True)
async def how_a_handler_reads_metadata(lab: Lab) -> Seen:
    async def read(request: bytes, context: Any) -> bytes:
        metadata = context.invocation_metadata()
        one = next(pair for pair in metadata if pair[0] == "key")
        key, value = one
        return repr((type(metadata).__name__, one.key, one.value, key, value, dict(metadata)["key"])).encode()

    return {
        "read": await outcome(method(await lab.channel({"Read": unary(read)}), "Read")(b"", metadata=(("key", "v"),)))
    }


@case()
async def how_a_client_reads_metadata(lab: Lab) -> Seen:
    async def trail(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("key", "1"), ("key", "2"), ("other-bin", b"\x00")))
        return b""

    call = method(await lab.channel({"Trail": unary(trail)}), "Trail")(b"")
    await call
    metadata = await call.trailing_metadata()
    return {
        "first": metadata["key"],
        "all": metadata.get_all("key"),
        "in": ["key" in metadata, "none" in metadata],
        "bytes": metadata["other-bin"],
        "none": metadata.get("none"),
    }
