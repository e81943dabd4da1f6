"""Who is measured: the clients, their servers, and how many calls each keeps in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

import rpc_async
from benchmarks.children import Children
from benchmarks.load import PAYLOAD, NoAnswer, Sample, keep_collected, keep_in_flight
from benchmarks.peers import golang
from benchmarks.servers import GIVE_METHOD, STREAM_METHOD, TAKE_METHOD, TOKEN, UNLIMITED
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

__all__ = [
    "GO",
    "MIB",
    "NATIVE",
    "NATIVE_INLINE",
    "NATIVE_THREAD",
    "RAW",
    "RAW_THREAD",
    "RAW_TOKEN",
    "SESSION",
    "SESSION_INLINE",
    "SESSION_QUEUE",
    "SESSION_THREAD",
    "SESSION_TOKEN",
    "STREAM",
    "WARM_UP",
    "Case",
    "Client",
    "Measure",
    "large_client",
    "local_client",
    "open_channel",
    "open_clients",
    "queue_client",
    "remote_client",
    "start_servers",
    "stream_client",
]

MIB = 1 << 20

WARM_UP = 0.2
"""Seconds of load on a new connection before it is measured."""

Measure = Callable[[int, float], Awaitable[Sample]]
"""Keeps a number of calls in flight for a number of seconds."""


@dataclass(frozen=True, slots=True)
class Client:
    """One way to make a call, and the server that answers it."""

    name: str
    wire: str
    """"raw", "stream", "native" or "session" for a channel of this process; "go" or "peer" for a program of its own."""
    server: str
    """A kind of `benchmarks.servers`, or "go"."""
    causal: bool = True
    queue: bool = False
    """Ends are collected from a completion queue, in place of being awaited."""
    up: int = 0
    """Bytes of a large request, in place of the echo's."""
    down: int = 0
    """Bytes of a large reply."""
    token: bool = False
    """Calls bring a token, which an interceptor of the server's looks for."""

    @property
    def most_in_flight(self) -> int:
        """How many calls make sense at once: one message at a time on a bare stream, and few large ones."""
        return 1 if self.wire == "stream" else 2 if self.up or self.down else 10_000


RAW = Client("raw grpc.aio", "raw", "raw")
STREAM = Client("raw grpc.aio, bare stream", "stream", "raw")
"""The limit of one call in flight: one message there and one back, on a stream that is open."""
RAW_THREAD = Client("raw grpc.aio, thread", "raw", "raw-thread")
RAW_TOKEN = Client("raw grpc.aio, token checked", "raw", "raw-token", token=True)
NATIVE = Client("native, async def manager", "native", "manager")
NATIVE_INLINE = Client("native, inline manager", "native", "inline")
NATIVE_THREAD = Client("native, thread", "native", "thread")
SESSION = Client("session, async def manager", "session", "manager")
SESSION_INLINE = Client("session, inline manager", "session", "inline")
SESSION_THREAD = Client("session, thread", "session", "thread")
SESSION_TOKEN = Client("session, inline, token checked", "session", "token", token=True)
SESSION_QUEUE = Client("session, completion by queue", "session", "manager", queue=True)
GO = Client("grpc-go", "go", "go")


@dataclass(frozen=True, slots=True)
class Case:
    """One client with one number of calls in flight."""

    client: Client
    in_flight: int

    def __str__(self) -> str:
        return f"{self.client.name}, {self.in_flight:,} in flight"


def open_channel(client: Client, target: str) -> grpc.aio.Channel:
    """Make the channel that the client calls on."""
    if client.wire in ("raw", "stream"):
        return grpc.aio.insecure_channel(target, options=UNLIMITED)
    return rpc_async.connect(
        target, transport="session" if client.wire == "session" else "native", causal=client.causal
    )


@asynccontextmanager
async def open_clients(
    clients: Iterable[Client], failed: dict[Client, str] | None = None
) -> AsyncIterator[dict[Client, Measure]]:
    """Start the clients' servers, connect, and warm up. Without the Go client where Go is not here.

    Raises:
        NoAnswer: A client's calls failed, or did not end; but where `failed` is given, it is told of them.
    """
    wanted = list(dict.fromkeys(clients))
    async with Children() as children, AsyncExitStack() as channels:
        targets = await start_servers(children, (client for client in wanted if client is not GO))
        opened: dict[Client, Measure] = {}
        for client in wanted:
            if client is not GO:
                channel = await channels.enter_async_context(open_channel(client, targets[client.server]))
                opened[client] = _measure_of(client, channel)
            elif (program := golang.program()) is not None:
                opened[client] = await remote_client(children, str(program))
        for client, measure in opened.items():
            try:
                await measure(min(100, client.most_in_flight), WARM_UP)
            except NoAnswer as failure:
                if failed is None:
                    raise
                failed[client] = str(failure)
        yield opened


def _measure_of(client: Client, channel: grpc.aio.Channel) -> Measure:
    if client.wire == "stream":
        return stream_client(channel)
    if client.up or client.down:
        return large_client(channel, client.up, client.down)
    return queue_client(channel) if client.queue else local_client(channel, TOKEN if client.token else None)


async def start_servers(children: Children, clients: Iterable[Client]) -> dict[str, str]:
    """Start the servers that the clients need, each once, and return their targets by kind."""
    kinds = dict.fromkeys(client.server for client in clients)
    servers = {kind: await children.python("benchmarks.servers", kind) for kind in kinds}
    return {kind: f"127.0.0.1:{int(await server.line())}" for kind, server in servers.items()}


def local_client(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] | None = None) -> Measure:
    """Return the measure of echo on a channel of this process."""
    echo = demo_pb2_grpc.DemoStub(channel).Echo
    request = demo_pb2.EchoRequest

    def call() -> Awaitable[object]:
        return echo(request(payload=PAYLOAD), metadata=metadata)

    async def measure(in_flight: int, seconds: float) -> Sample:
        return await keep_in_flight(call, in_flight, seconds)

    return measure


def queue_client(channel: grpc.aio.Channel) -> Measure:
    """Return the measure of echo on a channel of this process, with one completion queue for all calls."""
    echo = demo_pb2_grpc.DemoStub(channel).Echo
    request = demo_pb2.EchoRequest

    async def measure(in_flight: int, seconds: float) -> Sample:
        with rpc_async.CompletionQueue() as queue:

            def begin(key: float) -> object:
                return rpc_async.begin(echo, request(payload=PAYLOAD), notify=queue, key=key)

            async def collect() -> list[float]:
                ended = await queue.aget_many()
                for completion in ended:
                    completion.call.complete()
                return [completion.key for completion in ended]

            return await keep_collected(begin, collect, in_flight, seconds)

    return measure


def stream_client(channel: grpc.aio.Channel) -> Measure:
    """Return the measure of one message there and one back on a bare bidirectional stream of gRPC's."""
    open_stream: Any = channel.stream_stream(STREAM_METHOD)

    async def measure(in_flight: int, seconds: float) -> Sample:
        assert in_flight == 1, "a stream has one order"
        stream = open_stream()

        async def call() -> None:
            await stream.write(PAYLOAD)
            await stream.read()

        try:
            await call()
            return await keep_in_flight(call, in_flight, seconds)
        finally:
            stream.cancel()

    return measure


def large_client(channel: grpc.aio.Channel, up: int, down: int) -> Measure:
    """Return the measure of calls with requests of `up` bytes, or with replies of `down` bytes."""
    method: Any = channel.unary_unary(TAKE_METHOD if up else GIVE_METHOD)
    request = bytes(up) if up else str(down).encode()

    async def call() -> None:
        assert len(await method(request)) == down

    async def measure(in_flight: int, seconds: float) -> Sample:
        return await keep_in_flight(call, in_flight, seconds)

    return measure


async def remote_client(children: Children, *command: str) -> Measure:
    """Start a program's server and its client, which is asked by lines, and return the client's measure."""
    server = await children.start(*command, "server")
    client = await children.start(*command, "client", f"127.0.0.1:{int(await server.line())}")

    async def measure(in_flight: int, seconds: float) -> Sample:
        return Sample(**await client.ask(f"{in_flight} {seconds}"))

    return measure
