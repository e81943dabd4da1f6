"""Connections that go silent: processes that are stopped, a network that carries nothing."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
from typing import Any, cast

import grpc

import rpc_async
from benchmarks.children import Children
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.soak.clients import load, start_client
from tests.soak.counts import PATIENCE, Budget, Counts, comes
from tests.soak.cuts import settle_down
from tests.soak.servers import ServerProcess, start_server
from tests.soak.work import Caller

__all__ = ["silence", "stopped_client", "stopped_server"]

KEEPALIVE = 0.1
"""Seconds; gRPC makes a second of it."""
QUICK_KEEPALIVE = ("--option", "grpc.keepalive_time_ms=100", "--option", "grpc.http2.ping_timeout_ms=300")
UNNOTICED = 0.3
"""Seconds that a stop lasts at the most which is over before keepalive notices."""
SOME = 50
"""Calls that must end before the next fault."""


async def silence(counts: Counts, budget: Budget) -> None:
    """Stop servers and clients with SIGSTOP, and the network, and let them go on: calls go on where they were."""
    rng = random.Random(budget.seed)
    rounds = 0
    while budget.more(rounds):
        await asyncio.gather(
            stopped_server(counts, random.Random(rng.random())), stopped_client(counts, random.Random(rng.random()))
        )
        rounds += 1


async def stopped_server(counts: Counts, rng: random.Random) -> None:
    """Stop a server, and the network, shorter and longer than keepalive takes to notice."""
    async with Children() as children:
        server = await start_server(children, "--linger", "20")
        async with CuttingProxy(server.target) as proxy:
            caller, over = Caller(counts), asyncio.Event()
            async with rpc_async.connect(proxy.target, transport="session", keepalive=KEEPALIVE) as channel:
                echo = demo_pb2_grpc.DemoStub(channel).Echo
                loading = asyncio.create_task(load(caller, echo, rng, over))
                for what in rng.sample(("server", "to_server", "to_client", "both"), 4):
                    for noticed in (False, True):
                        await _some_more(counts, "before a silence")
                        _stop(server, proxy, what)
                        counts.cuts += 1
                        if noticed:
                            await _noticed(counts, channel, what)
                        else:
                            await asyncio.sleep(rng.uniform(0, UNNOTICED))
                        _go_on(server, proxy)
                await _some_more(counts, "after all silences")
                over.set()
                await loading
        await settle_down(server, counts)
        await caller.audit(await server.executed())


def _stop(server: ServerProcess, proxy: CuttingProxy, what: str) -> None:
    if what == "server":
        server.signal(signal.SIGSTOP)
    else:
        proxy.stall(cast("Any", what))


def _go_on(server: ServerProcess, proxy: CuttingProxy) -> None:
    server.signal(signal.SIGCONT)
    proxy.resume()


async def _some_more(counts: Counts, when: str) -> None:
    enough = counts.replies + SOME
    if not await comes(lambda: counts.replies >= enough):
        counts.blame("hung", f"no calls end {when}")


async def _noticed(counts: Counts, channel: Any, what: str) -> None:
    """Wait until the client has given the connection up."""
    if not await comes(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY):
        counts.blame("hung", f"a silence of {what} is not noticed")


async def stopped_client(counts: Counts, rng: random.Random) -> None:
    """Stop a client until the server has noticed."""
    async with Children() as children:
        server = await start_server(children, "--linger", "20", *QUICK_KEEPALIVE)
        client = await start_client(children, "load", server.target, "--seed", str(rng.randrange(1 << 30)))
        await _looks(counts, server, lambda seen, then: seen["executed"] > SOME)
        for _ in range(2):
            client.signal(signal.SIGSTOP)
            counts.cuts += 1
            await _looks(counts, server, lambda seen, then: seen["cut"])
            client.signal(signal.SIGCONT)
            await _looks(counts, server, lambda seen, then: seen["executed"] > then["executed"] + SOME)
        await client.ask("over")
        with tempfile.NamedTemporaryFile() as file:
            file.write((await server.executed()).counts)
            file.flush()
            counts.add(await client.ask(file.name))
        await settle_down(server, counts)


async def _looks(counts: Counts, server: ServerProcess, condition: Any) -> None:
    """Wait until a server looks so."""
    then = seen = await server.look()
    end = asyncio.get_running_loop().time() + PATIENCE
    while not condition(seen, then):
        if asyncio.get_running_loop().time() > end:
            counts.blame("hung", f"the server never came on from {seen}")
            return
        await asyncio.sleep(0.02)
        seen = await server.look()
