"""Large requests and replies among small ones, over sessions that are cut at random."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any, Final

import rpc_async
from benchmarks.children import Children
from rpc_async import CallCancelled
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.soak.counts import Budget, Counts
from tests.soak.cuts import settle_down
from tests.soak.servers import start_server
from tests.soak.work import Caller, Mode

__all__ = ["MOST", "large", "size"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
MOST: Final = 63 * MIB
"""Bytes of the largest message: a session takes 64 MiB, with all that is around it."""
HEAVY: Final = 4 * MIB
"""Bytes: of messages that are larger only some are on their way at once, so that they leave room for others to wait."""
HEAVY_AT_ONCE: Final = 3
WORKERS: Final = 12
"""On each of the channels."""
MEAN_PAUSE: Final = 0.1
"""Seconds between two cuts."""


def size(rng: random.Random) -> int:
    """Return the bytes of a message: most are small, one in ten goes in pieces, and one in a thousand is huge."""
    kind = rng.random()
    if kind < 0.9:
        return rng.choice((0, 100, rng.randrange(2 * KIB)))
    if kind < 0.99:
        return int(60 * KIB * (1024 / 60) ** rng.random())  # to 1 MiB, all orders of magnitude alike
    if kind < 0.999:
        return int(MIB * 16 ** rng.random())
    return rng.randrange(16 * MIB, MOST)


async def large(counts: Counts, budget: Budget) -> None:
    """Make calls of all sizes, up, down and both, causal and not, while connections are cut.

    The server is in another process. Each call settles with its reply, but for those that the client aborts in the
    middle; none is executed twice.
    """
    rng = random.Random(budget.seed)
    async with Children() as children, AsyncExitStack() as stack:
        server = await start_server(children, "--linger", "20")
        caller = Caller(counts)
        cut_off = await stack.enter_async_context(CuttingProxy(server.target))
        heavy = asyncio.Semaphore(HEAVY_AT_ONCE)
        work = []
        for target, causal in ((cut_off.target, True), (cut_off.target, False), (server.target, True)):
            channel = rpc_async.connect(target, transport="session", causal=causal, linger=20.0)
            echo = demo_pb2_grpc.DemoStub(await stack.enter_async_context(channel)).Echo
            work += [_work(caller, echo, random.Random(rng.random()), heavy, budget) for _ in range(WORKERS)]
        workers = [asyncio.create_task(one) for one in work]
        cutter = asyncio.create_task(_cut(cut_off, rng, counts))
        await asyncio.gather(*workers)
        cutter.cancel()
        await asyncio.wait((cutter,))
        await stack.aclose()
        await settle_down(server, counts)
        await caller.audit(await server.executed())


async def _cut(proxy: CuttingProxy, rng: random.Random, counts: Counts) -> None:
    while True:
        await asyncio.sleep(rng.expovariate(1 / MEAN_PAUSE))
        proxy.cut()
        counts.cuts = proxy.cuts


async def _work(caller: Caller, echo: Any, rng: random.Random, heavy: asyncio.Semaphore, budget: Budget) -> None:
    counts = caller.counts
    while budget.more(counts.calls):
        up, down = size(rng), size(rng)
        if max(up, down) > HEAVY:
            async with heavy:
                await _call(caller, echo, rng, up, down)
        else:
            await _call(caller, echo, rng, up, down)
        counts.more["in pieces, up"] += up > 64 * KIB
        counts.more["in pieces, down"] += down > 64 * KIB


async def _call(caller: Caller, echo: Any, rng: random.Random, up: int, down: int) -> None:
    order = caller.order(rng.choice((Mode.TASK, Mode.THREAD)), size=down)
    call = caller.begin(echo, order, up, wait_for_ready=True)
    if rng.random() < 0.03:
        await asyncio.sleep(rng.expovariate(100))
        call.cancel()
        await caller.outcome(call, CallCancelled)
    else:
        await caller.outcome(call)
