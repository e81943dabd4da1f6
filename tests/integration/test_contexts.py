"""Every method of gRPC's contexts, called by handlers on gRPC's own server and on ours, by both wires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from tests.harness import PATIENCE


class Failure(grpc.Status):
    """A status to abort with."""

    code = grpc.StatusCode.NOT_FOUND
    details = "gone"
    trailing_metadata = (("x-trailing", "1"),)


def without_id(metadata: Any) -> list[tuple[str, Any]]:
    """Return metadata without what each call has of its own."""
    return [(key, value) for key, value in metadata if key != "rpc-async-call-id"]


async def done_twice(context: Any) -> Any:
    """An abort is the end, though its exception is caught."""
    before = context.done()
    with pytest.raises(grpc.aio.AbortError):
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
    return before, context.done()


BOTH: dict[str, Callable[[Any], Any]] = {
    "abort": lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("x-trailing", "1"),)),
    "auth_context": lambda context: dict(context.auth_context()),
    "disable_next_message_compression": lambda context: context.disable_next_message_compression(),
    "invocation_metadata": lambda context: (
        type(context.invocation_metadata()),
        without_id(context.invocation_metadata()),
        next((one.key, one.value) for one in context.invocation_metadata()),
    ),
    "peer": lambda context: context.peer().rpartition(":")[0],
    "peer_identities": lambda context: context.peer_identities(),
    "peer_identity_key": lambda context: context.peer_identity_key(),
    "send_initial_metadata": lambda context: context.send_initial_metadata((("x-initial", "1"), ("x-bin", b"\x01"))),
    "set_code": lambda context: context.set_code(grpc.StatusCode.NOT_FOUND),
    "set_compression": lambda context: context.set_compression(grpc.Compression.Gzip),
    "set_details": lambda context: context.set_details("details"),
    "set_trailing_metadata": lambda context: context.set_trailing_metadata((("x-trailing", "1"), ("x-bin", b"\x01"))),
    "time_remaining": lambda context: 0 < context.time_remaining() < PATIENCE + 1,  # gRPC rounds it up
}
"""What each method is called with, and what is kept of what it returns."""
ON_THE_LOOP: dict[str, Callable[[Any], Any]] = {
    **BOTH,
    "abort_with_status": lambda context: context.abort_with_status(Failure()),
    "add_done_callback": lambda context: context.add_done_callback(lambda _: None),
    "cancelled": lambda context: (
        context.cancelled(),
        context.set_code(grpc.StatusCode.CANCELLED),
        context.cancelled(),
    ),
    "code": lambda context: (context.code(), context.set_code(5), context.code(), context.set_code(0)),
    "details": lambda context: (context.details(), context.set_details("d"), context.details()),
    "done": done_twice,
    "read": lambda context: context.read(),
    "trailing_metadata": lambda context: (
        context.trailing_metadata(),
        context.set_trailing_metadata([("a", "b")]),
        context.trailing_metadata(),
    ),
    "write": lambda context: context.write(b"written, and lost with the abort"),
}
IN_A_THREAD: dict[str, Callable[[Any], Any]] = {
    **BOTH,
    "add_callback": lambda context: context.add_callback(lambda: None),
}
BEYOND = {"abort_with_status", "cancel", "code", "details", "is_active", "trailing_metadata"}
"""What `grpc.ServicerContext` declares, and grpc.aio's context for threads does not have. By a session it is there."""


def on_the_loop(name: str) -> Any:
    """Make a handler that calls a method, and replies with what that returned."""

    async def handler(request: bytes, context: Any) -> bytes:
        returned = ON_THE_LOOP[name](context)
        if asyncio.iscoroutine(returned):
            returned = await returned
        if name == "write":
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return repr(returned).encode()

    return handler


def in_a_thread(name: str) -> Any:
    """The same for the context that handlers in threads get."""
    return lambda request, context: repr(IN_A_THREAD[name](context)).encode()


def names_of(context: Any) -> set[str]:
    """Return the public methods of a context."""
    return {name for name in dir(context) if not name.startswith("_") and callable(getattr(context, name))}


async def observe(server: Any, connect: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, set[str]]]:
    """Call all methods, and return what their clients saw; and which methods there are."""
    there: dict[str, set[str]] = {}

    async def look(request: bytes, context: Any) -> bytes:
        there["loop"] = names_of(context)
        return b""

    def look_in_thread(request: bytes, context: Any) -> bytes:
        there["thread"] = names_of(context)
        return b""

    handlers: dict[str, Any] = {
        **{f"loop-{name}": on_the_loop(name) for name in ON_THE_LOOP},
        **{f"thread-{name}": in_a_thread(name) for name in IN_A_THREAD},
        "look": look,
        "look-in-thread": look_in_thread,
    }
    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in handlers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    seen: dict[str, Any] = {}
    async with connect(f"127.0.0.1:{port}") as channel:
        for name in handlers:
            call = channel.unary_unary(f"/t.T/{name}")(
                b"q", timeout=PATIENCE, metadata=(("m", "1"), ("m-bin", b"\xff"))
            )
            code, details = await call.code(), await call.details()
            if code is grpc.StatusCode.OK:
                details = ""  # some versions of gRPC have a text for what went well, which a session does not carry
            reply = await call if code is grpc.StatusCode.OK else None
            metadata = tuple(await call.initial_metadata()), tuple(await call.trailing_metadata())
            seen[name] = (code.name, details, reply, *metadata)
    await server.stop(None)
    return seen, there


def test_every_method_is_in_the_tables() -> None:
    declared = names_of(grpc.aio.ServicerContext) | {"done", "abort_with_status"}  # which not every version declares
    assert declared == set(ON_THE_LOOP)
    assert set(IN_A_THREAD) < names_of(grpc.ServicerContext) <= set(IN_A_THREAD) | BEYOND


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_every_method_does_what_it_does_on_grpcs_own_server(transport: Any) -> None:
    plain, theirs = await observe(grpc.aio.server(), grpc.aio.insecure_channel)
    ours, there = await observe(rpc_async.server(), lambda target: rpc_async.connect(target, transport=transport))
    assert {name: ours[name] for name in plain} == plain
    assert theirs == {"loop": set(ON_THE_LOOP), "thread": set(IN_A_THREAD)}
    if transport == "native":
        assert there == theirs
    else:
        assert (there["loop"] >= theirs["loop"], there["thread"]) == (True, theirs["thread"] | BEYOND)
