"""Connections that are cut at random moments, under load."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import rpc_async
from benchmarks.children import Children
from rpc_async import CallCancelled, CallFailed, DeadlineExceeded, ServerUnavailable
from rpc_async.demo.v1 import demo_pb2_grpc
from rpc_async.testing import CuttingProxy
from tests.soak.counts import PATIENCE, Budget, Counts
from tests.soak.servers import ServerProcess, start_server
from tests.soak.work import Caller, Mode

__all__ = ["cuts", "settle_down"]

WORKERS = 40
"""On each of the two channels that have sessions."""
NATIVE_WORKERS = 8
QUICK = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
)
"""Have gRPC connect again soon, so that there is something to cut."""
MEAN_PAUSE = 0.03
"""Seconds between two cuts."""
MISERY = 0.1
"""Seconds that a stall, or a time without any connection, lasts at the most; far less than linger."""


async def cuts(counts: Counts, budget: Budget) -> None:
    """Cut at random, while calls of every kind go on: the server in another process.

    A call is executed at most once and settles exactly once, and none of a session is lost.
    """
    rng = random.Random(budget.seed)
    async with Children() as children:
        server = await start_server(children, "--linger", "10")
        caller = Caller(counts)
        async with CuttingProxy(server.target) as proxy:
            async with (
                rpc_async.connect(proxy.target, transport="session") as causal,
                rpc_async.connect(proxy.target, transport="session", causal=False) as other,
                rpc_async.connect(proxy.target, transport="native", options=QUICK) as native,
            ):
                over = asyncio.Event()
                methods = [demo_pb2_grpc.DemoStub(channel).Echo for channel in (causal, other)] * WORKERS
                work = [_work(caller, method, random.Random(rng.random()), over) for method in methods]
                echo = demo_pb2_grpc.DemoStub(native).Echo
                work += [_native_work(caller, echo, random.Random(rng.random()), over) for _ in range(NATIVE_WORKERS)]
                workers = [asyncio.create_task(one) for one in work]
                await _cut(proxy, rng, budget, counts)
                over.set()
                _, pending = await asyncio.wait(workers, timeout=2 * PATIENCE)
                for worker in pending:
                    counts.blame("hung", f"{worker}")
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=bool(pending))
        await settle_down(server, counts)
        await caller.audit(await server.executed())


async def _cut(proxy: CuttingProxy, rng: random.Random, budget: Budget, counts: Counts) -> None:
    """Make trouble of every kind, until it is enough."""
    while budget.more(proxy.cuts):
        await asyncio.sleep(rng.expovariate(1 / MEAN_PAUSE))
        kind = rng.random()
        if kind < 0.1:
            proxy.stall(rng.choice(("both", "to_server", "to_client")))
            await asyncio.sleep(rng.uniform(0, MISERY))
            if rng.random() < 0.5:
                proxy.cut()  # what the stall held back is lost
            proxy.resume()
        elif kind < 0.2:
            proxy.refusing = True
            proxy.cut()
            await asyncio.sleep(rng.uniform(0, MISERY))
            proxy.refusing = False
        elif kind < 0.3:
            proxy.cut()
            await asyncio.sleep(rng.uniform(0, 0.005))  # while it connects again
            proxy.cut()
        else:
            proxy.cut()
        counts.cuts = proxy.cuts


async def _work(caller: Caller, method: Any, rng: random.Random, over: asyncio.Event) -> None:
    while not over.is_set():
        await _call(caller, method, rng)


async def _native_work(caller: Caller, method: Any, rng: random.Random, over: asyncio.Event) -> None:
    """Make calls of which each is lost with its connection, and says so."""
    while not over.is_set():
        order = caller.order(rng.choice((Mode.TASK, Mode.THREAD, Mode.WAIT)), 20, rng.choice((0, 100_000)))
        call = caller.begin(method, order, rng.choice((0, 100_000)), wait_for_ready=True)
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0, 0.03))
            call.cancel()
        await caller.outcome(call, CallFailed, CallCancelled)


async def _call(caller: Caller, method: Any, rng: random.Random) -> None:
    kind, size = rng.random(), rng.random()
    padding = 0 if size < 0.9 else rng.randrange(60_000) if size < 0.98 else rng.randrange(600_000)
    reply = 0 if rng.random() < 0.9 else rng.randrange(200_000)
    if kind < 0.5:
        order = caller.order(rng.choice((Mode.TASK, Mode.THREAD)), size=reply)
        await caller.outcome(caller.begin(method, order, padding, wait_for_ready=True))
    elif kind < 0.65:  # it is not willing to wait for a connection
        order = caller.order(Mode.TASK, size=reply)
        await caller.outcome(caller.begin(method, order, padding), ServerUnavailable)
    elif kind < 0.8:
        call = caller.begin(method, caller.order(Mode.WAIT, 50, reply), padding, wait_for_ready=True)
        await asyncio.sleep(rng.uniform(0, 0.03))
        call.request_cancel()
        await caller.outcome(call)
    elif kind < 0.9:
        call = caller.begin(method, caller.order(Mode.WAIT, 20, reply), padding, wait_for_ready=True)
        await asyncio.sleep(rng.uniform(0, 0.03))
        call.cancel()
        await caller.outcome(call, CallCancelled)
    else:
        order = caller.order(Mode.WAIT, 20, reply)
        call = caller.begin(method, order, padding, wait_for_ready=True, timeout=rng.uniform(0.001, 0.05))
        await caller.outcome(call, DeadlineExceeded)


async def settle_down(server: ServerProcess, counts: Counts) -> dict[str, int]:
    """Wait until the server keeps nothing of calls and sessions that are over."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        seen = await server.look()
        left = {name: seen[name] for name in ("running", "listed", "sessions", "cut") if seen[name]}
        if not left:
            break
        if asyncio.get_running_loop().time() > end:
            counts.blame("wrong", f"the server still keeps {left}")
            break
        await asyncio.sleep(0.02)
    counts.resumed += seen["resumed"]
    return seen
