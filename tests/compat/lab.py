"""Where one case is played: servers and channels of the kinds that a mix names, and how what happens is written down.

A case is one function, which uses what every `grpc.aio` has and returns what it saw, as plain values by name. Played
with gRPC's own client and server it is the oracle; played with ours it must see the same, or `differences.yaml` says
what it sees instead, and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
import grpc.aio

import rpc_async
from tests.harness import PATIENCE

SERVICE: Final = "compat.Compat"
HANGS: Final = "it hangs"
GRPC: Final = tuple(int(part) for part in grpc.__version__.split(".")[:2])
PATIENCE_OF_A_CASE: Final = 10.0
"""Seconds until a case hangs."""

Seen = dict[str, Any]
Client = Literal["theirs", "native", "auto"]
ServerKind = Literal["theirs", "ours", "manager"]


@dataclass(frozen=True)
class Mix:
    """Whose client and whose server."""

    client: Client
    server: ServerKind

    def __str__(self) -> str:
        return f"{self.client}-{self.server}"


ORACLE: Final = Mix("theirs", "theirs")
MIXES: Final = tuple(
    mix
    for client in ("theirs", "native", "auto")
    for server in ("theirs", "ours", "manager")
    if (mix := Mix(client, server)) != ORACLE
)


@dataclass
class Served:
    """A server that runs."""

    server: grpc.aio.Server
    port: int
    target: str


@dataclass
class Lab:
    """Makes what a case needs, and clears it away."""

    mix: Mix
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def serve(
        self,
        handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        *,
        max_calls: int | None = None,
        credentials: grpc.ServerCredentials | None = None,
        register: Callable[[grpc.aio.Server], None] | None = None,
        address: str = "127.0.0.1:0",
        **options: Any,
    ) -> Served:
        """Start a server with these methods of `SERVICE`."""
        server = self.server(max_calls=max_calls, **options)
        if self.mix.server == "manager":
            handlers = {name: managed(handler) for name, handler in handlers.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, dict(handlers))])
        if register is not None:
            register(server)
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        await server.start()
        self.stack.push_async_callback(server.stop, None)
        return Served(server, port, f"{address.rpartition(':')[0]}:{port}")

    def server(self, *, max_calls: int | None = None, **options: Any) -> grpc.aio.Server:
        """Make a server."""
        if self.mix.server == "theirs":
            return grpc.aio.server(maximum_concurrent_rpcs=max_calls, **options)
        if max_calls is not None:
            options["max_calls"] = max_calls
        return rpc_async.server(**options)

    def connect(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.Channel:
        """Make a channel."""
        channel: grpc.aio.Channel
        if self.mix.client != "theirs":
            channel = rpc_async.connect(
                target,
                transport=self.mix.client,
                credentials=credentials,
                options=options,
                interceptors=interceptors,
                compression=compression,
            )
        elif credentials is None:
            channel = grpc.aio.insecure_channel(target, options, compression, interceptors)
        else:
            channel = grpc.aio.secure_channel(target, credentials, options, compression, interceptors)
        self.stack.push_async_callback(channel.close)
        return channel

    async def channel(
        self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]], **options: Any
    ) -> grpc.aio.Channel:
        """Start a server and connect to it."""
        return self.connect((await self.serve(handlers, **options)).target)


# -- cases ----------------------------------------------------------------------------------------------------

Body = Callable[[Lab], Awaitable[Seen]]


@dataclass(frozen=True)
class Case:
    """One case."""

    name: str
    body: Body
    managers: bool
    """Whether its handlers do only what manager routines can do too."""
    since: tuple[int, int]
    """The gRPC with which it can be played: with earlier ones gRPC's own client or server errs, warns or hangs."""

    def __str__(self) -> str:
        return self.name

    def plays(self, mix: Mix) -> bool:
        """Tell whether it is played in a mix, with the gRPC that is here."""
        return (self.managers or mix.server != "manager") and self.since <= GRPC


CASES: Final[dict[str, Case]] = {}


def case(*, managers: bool = False, since: tuple[int, int] = (1, 76)) -> Callable[[Body], Body]:
    """Register a case, by its function's name."""

    def register(body: Body) -> Body:
        name: str = body.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, body, managers, since)
        return body

    return register


async def play(one: Case, mix: Mix) -> Seen:
    """Play a case in a mix. Returns what it saw."""
    lab = Lab(mix)
    try:
        async with asyncio.timeout(PATIENCE_OF_A_CASE):
            return {key: shown(value) for key, value in (await one.body(lab)).items()}
    except TimeoutError:
        return {"the case": HANGS}
    finally:
        await asyncio.wait_for(lab.stack.aclose(), PATIENCE)


# -- handlers -------------------------------------------------------------------------------------------------


def unary(behaviour: Any, **functions: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler: one request, one reply."""
    return grpc.unary_unary_rpc_method_handler(behaviour, **functions)


def downward(behaviour: Any, **functions: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler: one request, many replies."""
    return grpc.unary_stream_rpc_method_handler(behaviour, **functions)


def upward(behaviour: Any, **functions: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler: many requests, one reply."""
    return grpc.stream_unary_rpc_method_handler(behaviour, **functions)


def both_ways(behaviour: Any, **functions: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler: many requests, many replies."""
    return grpc.stream_stream_rpc_method_handler(behaviour, **functions)


async def echo(request: bytes, context: Any) -> bytes:
    """Send the request back."""
    return request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Send as many replies as the request says."""
    for number in range(int(request)):
        yield b"%d" % number


async def joined(requests: AsyncIterator[bytes], context: Any) -> bytes:
    """Reply with all requests."""
    return b" ".join([request async for request in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Send each request back."""
    async for request in requests:
        yield request


ALL_KINDS: Final[dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
    "Echo": unary(echo),
    "Count": downward(count),
    "Join": upward(joined),
    "Chat": both_ways(chat),
}


def method(channel: grpc.aio.Channel, name: str, kind: str = "unary_unary", **functions: Any) -> Any:
    """Make a method of a channel."""
    return getattr(channel, kind)(f"/{SERVICE}/{name}", **functions)


def managed(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a manager routine of a handler, which does the same."""
    made: Any = handler
    behaviour = made.unary_unary or made.unary_stream or made.stream_unary or made.stream_stream
    functions = {"request_deserializer": made.request_deserializer, "response_serializer": made.response_serializer}
    if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
        raise AssertionError(f"{behaviour} runs in a thread: no manager routine is made of it")

    class Servicer:
        @rpc_async.manager
        async def unary_unary(self, request: Any, call: rpc_async.ServerCall[Any]) -> None:
            call.complete(await behaviour(request, call))

        @rpc_async.manager
        async def unary_stream(self, request: Any, call: rpc_async.ServerPushCall[Any]) -> None:
            async for reply in behaviour(request, call):
                await call.write(reply)
            call.complete()

        @rpc_async.manager
        async def stream_unary(self, call: rpc_async.ServerPullCall[Any, Any]) -> None:
            call.complete(await behaviour(aiter(call), call))

        @rpc_async.manager
        async def stream_stream(self, call: rpc_async.ServerPushPullCall[Any, Any]) -> None:
            async for reply in behaviour(aiter(call), call):
                await call.write(reply)
            call.complete()

    servicer = Servicer()
    if made.request_streaming:
        return (
            both_ways(servicer.stream_stream, **functions)
            if made.response_streaming
            else upward(servicer.stream_unary, **functions)
        )
    return (
        downward(servicer.unary_stream, **functions)
        if made.response_streaming
        else unary(servicer.unary_unary, **functions)
    )


# -- writing down ---------------------------------------------------------------------------------------------

_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (grpc.aio.AioRpcError, "AioRpcError"),
    (grpc.RpcError, "RpcError"),
    (grpc.aio.UsageError, "UsageError"),
    (grpc.aio.InternalError, "InternalError"),
    (grpc.aio.AbortError, "AbortError"),
    (asyncio.CancelledError, "CancelledError"),
    (asyncio.InvalidStateError, "InvalidStateError"),
    (TimeoutError, "TimeoutError"),
    (TypeError, "TypeError"),
    (ValueError, "ValueError"),
    (RuntimeError, "RuntimeError"),
)
"""What users of grpc.aio catch."""


def shown(value: Any) -> Any:
    """Return what was seen as plain data, which `differences.yaml` can hold: bytes as Python writes them."""
    if isinstance(value, bytes):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return value


def plain(text: str | None) -> str | None:
    """Return a text without what is another in each run: ports, and by which of two ways gRPC notices a deadline."""
    if text is None:
        return None
    return re.sub(r"(:|%3A)\d{2,5}\b", ":PORT", re.sub(r"^Stream removed \((.*)\)$", r"\1", text))


def raised(error: BaseException) -> str:
    """Write an exception down: as what it can be caught, and what gRPC says of the call."""
    kinds = [name for kind, name in _KINDS if isinstance(error, kind)]
    if isinstance(error, grpc.aio.AioRpcError):
        kinds = ["AioRpcError"]
        return f"AioRpcError {error.code().name}: {plain(error.details())}"
    return " ".join(kinds) or type(error).__name__


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """Wait for something. Returns what it gives, or what it raises, written down."""
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return raised(error)
    except Exception as error:
        return raised(error)


async def attempt(action: Callable[[], Any]) -> Any:
    """Do something that may raise, and wait for what it gives if that can be awaited."""
    try:
        given = action()
    except Exception as error:
        return raised(error)
    return await outcome(given) if isinstance(given, Awaitable) else given


async def ended(call: Any) -> Seen:
    """Wait for a call's end and write it down."""
    return {
        "code": (await call.code()).name,
        "details": plain(await call.details()),
        "done": call.done(),
        "cancelled": call.cancelled(),
    }


async def drained(call: Any) -> Any:
    """Return what a call streams out, to its end, or what it raises after so many."""
    replies: list[Any] = []

    async def drain() -> None:
        async for reply in call:
            replies.append(reply)  # noqa: PERF401 - those that came before a failure are kept

    failure = await outcome(drain())
    return replies if failure is None else (replies, failure)


def pairs(metadata: Iterable[Any] | None) -> list[tuple[str, str | bytes]] | None:
    """Return metadata as pairs, without gRPC's own and without what this library adds to a call's."""
    if metadata is None:
        return None
    return [(key, value) for key, value in metadata if key not in ("user-agent", "rpc-async-call-id")]
