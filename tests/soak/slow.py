"""Sides that do not read: what the other has to send must not fill its memory."""

from __future__ import annotations

import asyncio
import signal

from benchmarks.children import Children
from rpc_async import RpcStatus
from tests.soak.clients import start_client
from tests.soak.counts import PATIENCE, Budget, Counts
from tests.soak.servers import ServerProcess, start_server

__all__ = ["slow", "slow_client", "slow_server"]

MIB = 1 << 20
FULL = 16 * MIB
"""Bytes that the server keeps for a client that does not read, in place of 256 MiB; a quarter more, and it is ended."""
REPLY = 64 * 1024
"""Bytes of each reply, and of each request."""
FEW, MANY = 200, 2000
"""Calls whose replies the server has room for, and of which it has room for a tenth."""
SLACK = 24 * MIB
"""Bytes that a process may take beside what is counted: gRPC's buffers, and what the allocator does not give back."""


async def slow(counts: Counts, budget: Budget) -> None:
    """Stop the side that should read, while the other has much to send."""
    rounds = 0
    while budget.more(rounds):
        for calls in (FEW, MANY):
            await slow_client(counts, calls)
        await slow_server(counts)
        rounds += 1


def _most(counts: Counts, what: str, grown: int) -> None:
    counts.more[what] = max(counts.more[what], grown // MIB)


async def slow_client(counts: Counts, calls: int) -> None:
    """A client that does not read costs its server no more than the bound; what is within it, it gets later."""
    async with Children() as children:
        server = await start_server(children, "--full", str(FULL))
        client = await start_client(children, "park", server.target, "--calls", str(calls))
        await _parked(counts, server, calls)
        counts.calls += calls
        before = (await server.look())["resident"]
        client.signal(signal.SIGSTOP)
        counts.cuts += 1
        await server.finish(REPLY)
        grown = (await server.look())["peak"] - before
        _most(counts, "MiB in the server, client stopped", grown)
        counts.check(grown < FULL + FULL // 4 + SLACK, f"the server grew by {grown} bytes for a client that is stopped")
        client.signal(signal.SIGCONT)
        outcomes = {int(status): number for status, number in (await client.ask()).items()}
        counts.replies += outcomes.pop(RpcStatus.OK, 0)
        if calls == MANY:
            counts.failed += outcomes.pop(RpcStatus.CALL_FAILED, 0)
        counts.check(not outcomes, f"the calls of a client that did not read ended with {outcomes}")


async def _parked(counts: Counts, server: ServerProcess, calls: int) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while (await server.look())["parked"] < calls:
        if asyncio.get_running_loop().time() > end:
            counts.blame("hung", f"{calls} calls never arrived")
            return


async def slow_server(counts: Counts) -> None:
    """A server that does not read costs its client what the client itself has to send, once; nothing is lost."""
    async with Children() as children:
        server = await start_server(children)
        client = await start_client(children, "flood", server.target, "--calls", str(MANY), "--padding", str(REPLY))
        before = await client.ask()
        served = (await server.look())["resident"]
        server.signal(signal.SIGSTOP)
        counts.cuts += 1
        grown = await client.ask("flood") - before
        _most(counts, "MiB in the client, server stopped", grown)
        counts.check(grown < MANY * REPLY + SLACK, f"the client grew by {grown} bytes for {MANY * REPLY}")
        server.signal(signal.SIGCONT)
        counts.add(await client.ask())
        grown = (await server.look())["peak"] - served
        _most(counts, "MiB in the server that read it", grown)
        counts.check(grown < 2 * SLACK, f"the server grew by {grown} bytes while it read")
