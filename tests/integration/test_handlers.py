"""What gRPC does with ordinary handlers, on both wires: their kinds, their contexts, what they return and raise."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import rpc_async
from rpc_async import RpcStatus, begin
from tests.harness import PATIENCE, Seen, outcome, until

NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Own(BaseException):
    """What is no Exception."""


class TextlessError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Later:
    """An awaitable that nobody awaits."""

    def __await__(self) -> Any:
        raise AssertionError("never awaited")


class Called:
    """A callable that is no coroutine function, and returns an awaitable: gRPC runs it in a thread."""

    def __call__(self, request: bytes, context: Any) -> Later:
        return Later()


async def echo(request: bytes, context: Any) -> bytes:
    """An ordinary handler."""
    return request


async def generator(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Not for a unary reply."""
    yield request


def sync_echo(request: bytes, context: Any) -> bytes:
    """One that runs in a thread."""
    return request


def doing(what: Callable[[Any], Any], reply: Any = b"") -> Any:
    """Make a handler that does something with its context, and returns something."""

    async def handler(request: bytes, context: Any) -> Any:
        done = what(context)
        if asyncio.iscoroutine(done):
            await done
        return reply

    return handler


def sync_doing(what: Callable[[Any], Any], reply: Any = b"") -> Any:
    """The same in a thread."""

    def handler(request: bytes, context: Any) -> Any:
        what(context)
        return reply

    return handler


def raising(error: BaseException) -> Any:
    """Make a handler that raises."""

    async def handler(request: bytes, context: Any) -> Any:
        raise error

    return handler


async def suppress(aborting: Any) -> None:
    """Abort, and go on all the same."""
    with pytest.raises(grpc.aio.AbortError):
        await aborting


async def abort_twice(context: Any) -> None:
    """The first one counts."""
    await suppress(context.abort(NOT_FOUND, "first"))
    await context.abort(grpc.StatusCode.DATA_LOSS, "second")


async def abort_and_set(context: Any) -> None:
    """What is set later does not count."""
    await suppress(context.abort(NOT_FOUND, "first"))
    context.set_code(grpc.StatusCode.DATA_LOSS)
    context.set_details("later")
    context.set_trailing_metadata((("x-later", "1"),))


async def abort_and_raise(context: Any) -> None:
    """What is raised later does not count."""
    await suppress(context.abort(NOT_FOUND, "first"))
    raise ValueError("later")


async def abort_and_introduce(context: Any) -> None:
    """Initial metadata come too late."""
    await suppress(context.abort(NOT_FOUND, "first"))
    await context.send_initial_metadata((("x-initial", "1"),))


async def introduce_twice(context: Any) -> None:
    """Initial metadata are sent once."""
    await context.send_initial_metadata((("x-initial", "1"),))
    await context.send_initial_metadata((("x-initial", "2"),))


async def compress_late(context: Any) -> None:
    """The compression goes with the initial metadata."""
    await context.send_initial_metadata(())
    context.set_compression(grpc.Compression.Gzip)


def aborting(code: Any) -> Callable[[Any], Any]:
    """Abort with a code."""
    return lambda context: context.abort(code, "d")


def setting(code: Any) -> Callable[[Any], Any]:
    """Set a code."""
    return lambda context: context.set_code(code)


def set_before_abort(context: Any) -> Any:
    """What was set is sent, where the abort says nothing else."""
    context.set_trailing_metadata([("x-trailing", "1")])
    context.set_details("set before")
    return context.abort(NOT_FOUND)


def set_before_raising(context: Any) -> None:
    """The code and the trailing metadata count, the text does not."""
    context.set_code(NOT_FOUND)
    context.set_details("set before")
    context.set_trailing_metadata((("x-trailing", "1"),))
    raise ValueError("v")


async def write_and_abort(context: Any) -> None:
    """What was written is of no use any more."""
    await context.write(b"w")
    await context.abort(NOT_FOUND, "gone")


def sync_abort_twice(context: Any) -> None:
    """The first one counts."""
    with pytest.raises(grpc.aio.AbortError):
        context.abort(5, "first")
    context.abort(6, "second")


async def read_reply(request: bytes, context: Any) -> bytes:
    """There is nothing more to read."""
    return repr([await context.read(), await context.read()]).encode()


async def look(request: bytes, context: Any) -> bytes:
    """Look at everything, change it, and look again."""
    seen = [context.code(), context.details(), context.trailing_metadata(), context.done(), context.cancelled()]
    seen += [context.peer_identities(), context.peer_identity_key(), sorted(context.auth_context()), context.peer()[:5]]
    context.set_code(5)
    context.set_details("text")
    context.set_trailing_metadata([("x-trailing", "1")])
    seen += [context.code(), context.details(), context.trailing_metadata(), context.cancelled()]
    context.set_code(grpc.StatusCode.CANCELLED)
    seen += [context.code(), context.cancelled()]
    context.set_code(grpc.StatusCode.OK)
    seen += [context.disable_next_message_compression(), context.set_compression(grpc.Compression.Gzip)]
    seen += [[tuple(pair) for pair in context.invocation_metadata() if pair.key != "rpc-async-call-id"]]
    return repr(seen).encode()


def sync_look(request: bytes, context: Any) -> bytes:
    """The same from a thread."""
    seen: list[Any] = [context.peer_identities(), context.peer_identity_key(), sorted(context.auth_context())]
    seen += [context.peer()[:5], context.time_remaining(), context.add_callback(lambda: None)]
    seen += [context.disable_next_message_compression(), context.set_compression(grpc.Compression.Gzip)]
    seen += [[tuple(pair) for pair in context.invocation_metadata() if pair.key != "rpc-async-call-id"]]
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", "1"),))
    return repr(seen).encode()


SAME: dict[str, Any] = {
    "echo": echo,
    "sync": sync_echo,
    "partial": functools.partial(echo),
    "returns-an-awaitable": Called(),
    "returns-an-awaitable-too": lambda request, context: Later(),
    "generates": generator,
    # what is returned
    "none": doing(lambda _: None, None),
    "int": doing(lambda _: None, 42),
    "text": doing(lambda _: None, "\u00e9"),
    "bytearray": doing(lambda _: None, bytearray(b"x")),
    "memoryview": doing(lambda _: None, memoryview(b"x")),
    "sync-int": sync_doing(lambda _: None, 42),
    # abort
    "abort": doing(lambda context: context.abort(NOT_FOUND, "gone", (("x-trailing", "1"),))),
    **{f"abort-{code}": doing(aborting(code)) for code in (5, 16, 99, -1, True)},
    "abort-float": doing(lambda context: context.abort(5.0, "d")),
    "abort-name": doing(lambda context: context.abort("NOT_FOUND", "d")),
    "abort-none": doing(lambda context: context.abort(None, "d")),
    "abort-details-int": doing(lambda context: context.abort(NOT_FOUND, 5)),
    "abort-details-bytes": doing(lambda context: context.abort(NOT_FOUND, b"5")),
    "abort-details-none": doing(lambda context: context.abort(NOT_FOUND, None)),
    "abort-metadata-list": doing(lambda context: context.abort(NOT_FOUND, "d", [("a", "b")])),
    "abort-metadata-dict": doing(lambda context: context.abort(NOT_FOUND, "d", {"a": "b"})),
    "abort-set-before": doing(set_before_abort),
    "abort-twice": doing(abort_twice),
    "abort-and-return": doing(lambda context: suppress(context.abort(NOT_FOUND, "first"))),
    "abort-and-set": doing(abort_and_set),
    "abort-and-raise": doing(abort_and_raise),
    "abort-and-introduce": doing(abort_and_introduce),
    "sync-abort": sync_doing(lambda context: context.abort(5, "gone")),
    "sync-abort-twice": sync_doing(sync_abort_twice),
    # set
    **{f"set-{code}": doing(setting(code), b"r") for code in (0, 5, 99, None, "x")},
    "sync-set-5": sync_doing(lambda context: context.set_code(5)),
    "set-details": doing(lambda context: context.set_details("unseen"), b"r"),
    "set-details-int": doing(lambda context: context.set_details(5)),
    "set-details-none": doing(lambda context: context.set_details(None)),
    "trailing-list": doing(lambda context: context.set_trailing_metadata([("a", "b")])),
    "trailing-object": doing(lambda context: context.set_trailing_metadata(grpc.aio.Metadata(("a", "b")))),
    "trailing-bytes": doing(lambda context: context.set_trailing_metadata((("a", b"b"),))),
    "trailing-none": doing(lambda context: context.set_trailing_metadata(None)),
    "trailing-dict": doing(lambda context: context.set_trailing_metadata({"a": "b"})),
    "trailing-lists": doing(lambda context: context.set_trailing_metadata([["a", "b"]])),
    "abort-metadata-none": doing(lambda context: context.abort(NOT_FOUND, "d", None)),
    "abort-metadata-int": doing(lambda context: context.abort(NOT_FOUND, "d", (("a", 5),))),
    "initial": doing(lambda context: context.send_initial_metadata((("x-initial", "1"),))),
    "initial-list": doing(lambda context: context.send_initial_metadata([("x-initial", "1")])),
    "initial-none": doing(lambda context: context.send_initial_metadata(None)),
    "initial-twice": doing(introduce_twice),
    # raise
    "raise": raising(ValueError("v")),
    "raise-text": raising(ValueError("\u00e9\n\U0001f600")),
    "raise-set-before": doing(set_before_raising),
    "raise-abort": raising(grpc.aio.AbortError("own")),
    "raise-usage": raising(grpc.aio.UsageError("own")),
    "raise-rpc": raising(grpc.RpcError("own")),
    "sync-raise": sync_doing(lambda _: 1 // 0),
    # look
    "look": look,
    "sync-look": sync_look,
    "read": read_reply,
    "write-and-abort": doing(write_and_abort),
}
"""Handlers with which gRPC's own server, and ours on both wires, do the very same."""

SAME_KIND: dict[str, Any] = {
    "initial-int": doing(lambda context: context.send_initial_metadata((("x-initial", 1),))),
    "compress-late": doing(compress_late),
}
"""Handlers whose mistakes are called by the same name, in other words."""

UNSENDABLE: dict[str, Any] = {
    "abort-metadata-key": doing(lambda context: context.abort(NOT_FOUND, "d", (("Upper", "b"),))),
    "trailing-key": doing(lambda context: context.set_trailing_metadata((("Upper", "b"),))),
    "trailing-newline": doing(lambda context: context.set_trailing_metadata((("a", "b\nc"),))),
    "trailing-no-ascii": doing(lambda context: context.set_trailing_metadata((("a", "\u00e9"),))),
    "trailing-no-text": doing(lambda context: context.set_trailing_metadata((("a", b"\xff"),))),
    "initial-key": doing(lambda context: context.send_initial_metadata((("Upper", "1"),))),
}
"""Handlers with metadata that cannot be sent: gRPC says so, or leaves the client waiting for ever."""

ANSWERED: dict[str, Any] = {
    "raise-cancelled": raising(asyncio.CancelledError()),
    "raise-base": raising(Own("own")),
    "raise-exit": raising(GeneratorExit()),
    "raise-textless": raising(TextlessError()),
    "raise-surrogate": raising(ValueError("\udcff")),
    "sync-raise-base": sync_doing(lambda _: (_ for _ in ()).throw(Own("own"))),
}
"""Handlers that leave the client of gRPC's own server waiting for ever."""


def registered(handlers: dict[str, Any]) -> grpc.GenericRpcHandler:
    """Register handlers of unary methods."""
    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}
    return grpc.method_handlers_generic_handler("t.T", methods)


async def observe(server: Any, connect: Callable[[str], Any], handlers: dict[str, Any]) -> dict[str, Any]:
    """Call each handler, and tell all that its client sees."""
    server.add_generic_rpc_handlers((registered(handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    seen: dict[str, Any] = {}
    async with connect(f"127.0.0.1:{port}") as channel:

        async def one(name: str) -> None:
            call = channel.unary_unary(f"/t.T/{name}")(b"q", metadata=(("x-m", "1"), ("x-b-bin", b"\xff")))
            async with asyncio.timeout(PATIENCE):
                code, text = await call.code(), await call.details()
                if code is grpc.StatusCode.OK:
                    text = ""  # some versions of gRPC have a text for what went well, which a session does not carry
                reply = await call if code is grpc.StatusCode.OK else None
                initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
            seen[name] = (code.name, text, reply, tuple(initial), tuple(trailing))

        await asyncio.gather(*(one(name) for name in (*handlers, "missing")))
    await server.stop(None)
    return seen


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """What gRPC's own client sees of gRPC's own server."""
    return asyncio.run(observe_plain())


async def observe_plain() -> dict[str, Any]:
    return await observe(grpc.aio.server(), grpc.aio.insecure_channel, {**SAME, **SAME_KIND})


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_handlers_do_what_they_do_on_grpcs_own_server(plain: dict[str, Any], transport: Any) -> None:
    ours = await observe(
        rpc_async.server(),
        lambda target: rpc_async.connect(target, transport=transport),
        {**SAME, **SAME_KIND},
    )
    assert {name: ours[name] for name in (*SAME, "missing")} == {name: plain[name] for name in (*SAME, "missing")}
    for name in SAME_KIND:  # up to the name of what was raised
        assert _kind(ours[name]) == _kind(plain[name]), name


def _kind(seen: Any) -> Any:
    code, text, *rest = seen
    return code, text.partition(":")[0], *rest


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_handlers_that_grpc_gives_no_answer_for_are_answered(transport: Any) -> None:
    server = rpc_async.server()
    seen = await observe(server, lambda target: rpc_async.connect(target, transport=transport), ANSWERED)
    for name in ANSWERED:
        code, text, *_ = seen[name]
        assert code == "UNKNOWN", name
        assert text.startswith(("Unexpected <class", "the handler raised CancelledError")), name


async def test_metadata_that_cannot_be_sent_are_told_of() -> None:
    seen = await observe(rpc_async.server(), lambda target: rpc_async.connect(target, transport="session"), UNSENDABLE)
    told = {name: seen[name] for name in UNSENDABLE}
    assert told == dict.fromkeys(UNSENDABLE, ("INTERNAL", "Invalid metadata", None, (), ()))


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_a_call_that_a_handler_broke_is_told_from_the_next(transport: Any) -> None:
    server = rpc_async.server()
    server.add_generic_rpc_handlers((registered({**ANSWERED, "echo": echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
        for name in ANSWERED:
            bad = begin(channel.unary_unary(f"/t.T/{name}"), b"")
            good = begin(channel.unary_unary("/t.T/echo"), b"x")
            error = await outcome(bad)
            assert (error.status, error.executed) == (RpcStatus.CALL_FAILED, True)
            assert await outcome(good) == b"x"
        await until(lambda: not server.running_calls)
    await server.stop(None)


async def writes(request: Any, context: Any) -> None:
    """A handler that writes."""
    await context.write(b"written " + request)


def sync_generates(request: Any, context: Any) -> Iterator[bytes]:
    """One that generates in a thread."""
    yield b"generated " + request


async def collects(requests: AsyncIterator[bytes], context: Any) -> bytes:
    """One that reads."""
    return b"collected " + b"".join([message async for message in requests])


def sync_collects(requests: Iterator[bytes], context: Any) -> bytes:
    """One that reads in a thread."""
    return b"collected " + b"".join(requests)


async def reads_and_writes(requests: AsyncIterator[bytes], context: Any) -> None:
    """One that does both."""
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(b"read " + message)


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_a_unary_call_may_meet_a_handler_of_any_kind(transport: Any) -> None:
    """As an interceptor that refuses calls of whatever method has one handler for all."""
    methods: dict[str, Any] = {
        "Generates": grpc.unary_stream_rpc_method_handler(generator),
        "SyncGenerates": grpc.unary_stream_rpc_method_handler(sync_generates),
        "Writes": grpc.unary_stream_rpc_method_handler(writes),
        "Collects": grpc.stream_unary_rpc_method_handler(collects),
        "SyncCollects": grpc.stream_unary_rpc_method_handler(sync_collects),
        "Both": grpc.stream_stream_rpc_method_handler(reads_and_writes),
        "Aborts": grpc.stream_stream_rpc_method_handler(doing(lambda context: context.abort(5, "gone"))),
    }
    server = rpc_async.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
        seen = {name: await outcome(begin(channel.unary_unary(f"/t.T/{name}"), b"x")) for name in methods}
    await server.stop(None)
    assert (seen.pop("Aborts").code(), seen) == (
        NOT_FOUND,
        {
            "Generates": b"x",
            "SyncGenerates": b"generated x",
            "Writes": b"written x",
            "Collects": b"collected x",
            "SyncCollects": b"collected x",
            "Both": b"read x",
        },
    )


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_done_callbacks_are_called_whatever_became_of_the_call(transport: Any) -> None:
    seen: Seen[str] = Seen()
    waiting: Seen[None] = Seen()
    called: list[str] = []

    async def handler(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda given: called.append(f"{given is context} {given.done()}"))
        context.add_done_callback(lambda _: seen.set("called"))
        if request == b"wait":
            waiting.set(None)
            await asyncio.Event().wait()
        return request

    server = rpc_async.server()
    server.add_generic_rpc_handlers((registered({"Done": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
        assert await begin(channel.unary_unary("/t.T/Done"), b"x") == b"x"
        assert await seen.get() == "called"
        seen = Seen()
        call = begin(channel.unary_unary("/t.T/Done"), b"wait")
        await waiting.get()
        call.cancel()
        assert await seen.get() == "called"
    await server.stop(None)
    assert called == ["True True", "True False"]


class Deciding(grpc.GenericRpcHandler):
    """Serves a method as the metadata of each call say."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != "/t.T/Decided":
            return None
        metadata: Any = handler_call_details.invocation_metadata
        who = {one.key: one.value for one in metadata}["x-who"]
        if who == "nobody":
            return None
        if who == "manager":
            return grpc.unary_unary_rpc_method_handler(self.managed)
        return grpc.unary_unary_rpc_method_handler(doing(lambda _: None, who))

    @rpc_async.manager(inline=True)
    def managed(self, request: bytes, call: Any) -> None:
        call.complete(b"managed")


class Tabled:
    """Serves it for those whom the one before does not."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    @rpc_async.manager(inline=True)
    def decided(self, request: bytes, call: Any) -> None:
        call.complete(self._name)


@pytest.mark.parametrize("transport", ["native", "session"])
@pytest.mark.parametrize("deciding", [False, True])
async def test_a_generic_handler_is_asked_for_each_call_and_the_first_that_answers_serves(
    transport: Any, deciding: bool
) -> None:
    server = rpc_async.server()
    if deciding:
        server.add_generic_rpc_handlers((Deciding(),))
    for name in (b"first", b"second"):
        handlers: dict[str, Any] = {"Decided": grpc.unary_unary_rpc_method_handler(Tabled(name).decided)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
        if name == b"second":  # as newer generated code does, and older does not
            server.add_registered_method_handlers("t.T", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
        method = channel.unary_unary("/t.T/Decided")
        for _ in range(2):
            for who in ("ann", "nobody", "manager", "bob"):
                reply = await begin(method, b"", metadata=(("x-who", who),))
                asked = {"nobody": b"first", "manager": b"managed"}.get(who, who.encode())
                assert reply == (asked if deciding else b"first")
    await server.stop(None)


@pytest.mark.parametrize("transport", ["native", "session"])
async def test_a_second_abort_raises_another_error_than_the_first(transport: Any) -> None:
    raised: list[type[BaseException]] = []

    async def handler(request: bytes, context: Any) -> None:
        for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS):
            try:
                await context.abort(code, "gone")
            except grpc.aio.BaseError as error:
                raised.append(type(error))
        try:
            await context.write(b"too late")
        except grpc.aio.BaseError as error:
            raised.append(type(error))

    server = rpc_async.server()
    server.add_generic_rpc_handlers((registered({"Twice": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_async.connect(f"127.0.0.1:{port}", transport=transport) as channel:
        assert (await outcome(begin(channel.unary_unary("/t.T/Twice"), b""))).code() is NOT_FOUND
        await until(lambda: len(raised) == 3)
    await server.stop(None)
    assert raised == [grpc.aio.AbortError, grpc.aio.UsageError, grpc.aio.AbortError]
