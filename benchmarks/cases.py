"""Who is measured: the clients, their servers, and how many calls each keeps in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc.aio

import rpc_async
from benchmarks.children import Children
from benchmarks.load import PAYLOAD, Sample, keep_collected, keep_in_flight
from benchmarks.peers import golang
from benchmarks.servers import UNLIMITED
from rpc_async.demo.v1 import demo_pb2, demo_pb2_grpc

__all__ = [
    "GO",
    "NATIVE",
    "NATIVE_INLINE",
    "NATIVE_THREAD",
    "RAW",
    "RAW_THREAD",
    "SESSION",
    "SESSION_INLINE",
    "SESSION_QUEUE",
    "SESSION_THREAD",
    "WARM_UP",
    "Case",
    "Client",
    "Measure",
    "local_client",
    "open_channel",
    "open_clients",
    "queue_client",
    "remote_client",
    "start_servers",
]

WARM_UP = 0.2
"""Seconds of load on a new connection before it is measured."""

Measure = Callable[[int, float], Awaitable[Sample]]
"""Keeps a number of calls in flight for a number of seconds."""


@dataclass(frozen=True, slots=True)
class Client:
    """One way to make a call, and the server that answers it."""

    name: str
    wire: str
    """"raw", "native" or "session" for a channel of this process; "go" or "peer" for a program of its own."""
    server: str
    """A kind of `benchmarks.servers`, or "go"."""
    causal: bool = True
    queue: bool = False
    """Ends are collected from a completion queue, in place of being awaited."""


RAW = Client("raw grpc.aio", "raw", "raw")
RAW_THREAD = Client("raw grpc.aio, thread", "raw", "raw-thread")
NATIVE = Client("native, async def manager", "native", "manager")
NATIVE_INLINE = Client("native, inline manager", "native", "inline")
NATIVE_THREAD = Client("native, thread", "native", "thread")
SESSION = Client("session, async def manager", "session", "manager")
SESSION_INLINE = Client("session, inline manager", "session", "inline")
SESSION_THREAD = Client("session, thread", "session", "thread")
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
    if client.wire == "raw":
        return grpc.aio.insecure_channel(target, options=UNLIMITED)
    return rpc_async.connect(
        target, transport="session" if client.wire == "session" else "native", causal=client.causal
    )


@asynccontextmanager
async def open_clients(clients: Iterable[Client]) -> AsyncIterator[dict[Client, Measure]]:
    """Start the clients' servers, connect, and warm up. Without the Go client where Go is not here."""
    wanted = list(dict.fromkeys(clients))
    async with Children() as children, AsyncExitStack() as channels:
        targets = await start_servers(children, (client for client in wanted if client is not GO))
        opened: dict[Client, Measure] = {}
        for client in wanted:
            if client is not GO:
                channel = await channels.enter_async_context(open_channel(client, targets[client.server]))
                opened[client] = queue_client(channel) if client.queue else local_client(channel)
            elif (program := golang.program()) is not None:
                opened[client] = await remote_client(children, str(program))
        for measure in opened.values():
            await measure(100, WARM_UP)
        yield opened


async def start_servers(children: Children, clients: Iterable[Client]) -> dict[str, str]:
    """Start the servers that the clients need, each once, and return their targets by kind."""
    kinds = dict.fromkeys(client.server for client in clients)
    servers = {kind: await children.python("benchmarks.servers", kind) for kind in kinds}
    return {kind: f"127.0.0.1:{int(await server.line())}" for kind, server in servers.items()}


def local_client(channel: grpc.aio.Channel) -> Measure:
    """Return the measure of echo on a channel of this process."""
    echo = demo_pb2_grpc.DemoStub(channel).Echo
    request = demo_pb2.EchoRequest

    def call() -> Awaitable[object]:
        return echo(request(payload=PAYLOAD))

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


async def remote_client(children: Children, *command: str) -> Measure:
    """Start a program's server and its client, which is asked by lines, and return the client's measure."""
    server = await children.start(*command, "server")
    client = await children.start(*command, "client", f"127.0.0.1:{int(await server.line())}")

    async def measure(in_flight: int, seconds: float) -> Sample:
        return Sample(**await client.ask(f"{in_flight} {seconds}"))

    return measure
